"""The splits of `shapes`: scenes with their captions, drawn when they are asked for."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import torch
from torch import Tensor

from generators.config import SplitName
from generators.noise import derive_seed
from generators.shapes.captions import Asked, HeldOut, asks, fits, wording
from generators.shapes.scenes import COLORS, FORMS, NOTHING, SIDE, Scenes, draw

SIZES: dict[SplitName, int] = {"train": 40_000, "select": 5_000, "report": 10_000}
_PLACES = 3


class ScenePixels:
    """Scenes as uint8 images (B, 3, 24, 24), drawn row by row."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes

    def __getitem__(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(draw(self.scenes[rows.cpu().numpy()]))

    def fingerprint(self) -> str:
        """Name the scenes and how they are drawn."""
        digest = hashlib.sha256(draw(self.scenes[np.arange(min(16, len(self.scenes)))]).tobytes())
        for field in ("cell_NK", "form_NK", "color_NK", "seed_N"):
            digest.update(getattr(self.scenes, field).tobytes())
        return digest.hexdigest()[:12]


@cache
def scenes_of(split: SplitName) -> tuple[Scenes, tuple[str, ...]]:
    """Return the scenes of a split and their captions: nothing that is held out is in any of them."""
    rng = np.random.default_rng(derive_seed("shapes", split))
    return sampled(SIZES[split], rng)


def sampled(
    number: int, rng: np.random.Generator, held_out: HeldOut | None = None
) -> tuple[Scenes, tuple[str, ...]]:
    """Return scenes with captions: of nothing that is held out, or each of what is."""
    source = asks(rng, held_out)
    asked = [next(source) for _ in range(number)]
    captions = tuple(wording(one, rng, held_out) for one in asked)
    return place(asked, rng), captions


def place(asked: list[Asked], rng: np.random.Generator) -> Scenes:
    """Return scenes that hold what is asked for, each thing in a cell of its own."""
    shape = len(asked), _PLACES
    cell_NK, form_NK, color_NK = np.full(shape, NOTHING), np.zeros(shape, int), np.zeros(shape, int)
    colors = [*COLORS]
    for row, one in enumerate(asked):
        number = len(one.things)
        cells = tuple(rng.permutation(SIDE * SIDE)[:number].tolist())
        while not fits(one, cells):
            cells = tuple(rng.permutation(SIDE * SIDE)[:number].tolist())
        cell_NK[row, :number] = cells
        form_NK[row, :number] = [FORMS.index(thing.form) for thing in one.things]
        color_NK[row, :number] = [colors.index(thing.color) for thing in one.things]
    return Scenes(cell_NK, form_NK, color_NK, rng.integers(2**63, size=len(asked)))
