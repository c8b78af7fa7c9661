"""The readers of `shapes`: networks that say what is in each cell of a scene, and judge captions by it.

Two of them, of other weights and widths: one judges tables, one is looked through by rewards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from generators.checkpoints import register
from generators.noise import derive_seed, seeded
from generators.shapes.captions import THINGS, Asked, relation_of
from generators.shapes.scenes import COLORS, FORMS, KINDS, NOTHING, SIDE, Scenes, draw
from generators.training import refuse_divergence, warmup_then_cosine

CELLS = SIDE * SIDE


@dataclass(frozen=True, kw_only=True)
class SceneReaderConfig:
    """Geometry of a reader.

    Attributes:
        channels: of the convolutions, which see one cell at a time.
        features: width d of what is said of a whole scene.
    """

    channels: int = 32
    features: int = 64


@register(SceneReaderConfig)
class SceneReader(nn.Module):
    """Images (B, 3, 24, 24) in [0, 1] -> features (B, d) and logits (B, 9 * kinds) of what cells hold."""

    meaning = "Frechet distance in the features of a reader of scenes; not the Inception FID"

    def __init__(self, config: SceneReaderConfig) -> None:
        super().__init__()
        wide = config.channels
        self.config = config
        self.trunk = nn.Sequential(
            nn.Conv2d(3, wide, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(wide, 2 * wide, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(2 * wide, 2 * wide, 4, 4),
            nn.SiLU(),
        )
        self.kind = nn.Conv2d(2 * wide, KINDS, 1)
        self.scene = nn.Linear(2 * wide * CELLS, config.features)
        self.again = nn.Linear(config.features, CELLS * KINDS)
        self.register_buffer("feature_scale", torch.ones(()))
        self.feature_scale: Tensor

    @property
    def tells(self) -> tuple[str, ...]:
        """What `read` tells, by name."""
        return Read._fields

    @property
    def num_features(self) -> int:
        return self.config.features

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled features, which hold what is needed to tell all cells again, and logits by cell."""
        map_BDhw = self.trunk(images_BCHW)
        features_Bd = self.scene(map_BDhw.flatten(1))
        logits_BCK = self.kind(map_BDhw).flatten(2).transpose(1, 2)
        return features_Bd / self.feature_scale, logits_BCK.flatten(1)

    def read(self, texts: Sequence[str], logits_BN: Tensor) -> dict[str, float]:
        """Return in which share of images each of `Read` is right, of those captions that ask for it."""
        shares = zip(Read._fields, read(texts, logits_BN).T, strict=True)
        return {name: float(right_M.mean()) for name, right_B in shares if len(right_M := _told(right_B))}


class Read(NamedTuple):
    """Of which share of images each is as the caption asks; NaN where no caption asks for it.

    Attributes:
        objects: the forms, each as often as asked, and no other.
        colors: the things, which are forms with their colors.
        counts: how many things there are.
        relations: the first thing stands in the asked relation to the second; of captions with one.
        caption: all of these.
    """

    objects: float
    colors: float
    counts: float
    relations: float
    caption: float


def _told(right_B: np.ndarray) -> np.ndarray:
    return right_B[~np.isnan(right_B)]


def contents(logits_BN: Tensor) -> np.ndarray:
    """Return what each cell holds, (B, 9), as `Scenes.contents_NC`."""
    return logits_BN.unflatten(1, (CELLS, KINDS)).argmax(-1).cpu().numpy()


def is_right(asked: Asked, contents_C: Sequence[int]) -> Read:
    """Return what is right in one scene, 1 or 0, and NaN for a relation that is not asked for."""
    there = {cell: THINGS[kind - 1] for cell, kind in enumerate(contents_C) if kind}
    things = [*there.values()]
    objects = Counter(thing.form for thing in things) == Counter(thing.form for thing in asked.things)
    colors = Counter(things) == Counter(asked.things)
    counts = len(things) == len(asked.things)
    relations = float("nan")
    if asked.relation is not None:
        first, second = ([cell for cell, thing in there.items() if thing == one] for one in asked.things)
        relations = float(any(relation_of(a, b) == asked.relation for a in first for b in second))
    return Read(objects, colors, counts, relations, float(colors and relations != 0))


def read(texts: Sequence[str], logits_BN: Tensor) -> np.ndarray:
    """Return what is right in each image, (B, 5), the columns of `Read`; NaN where a text is no caption."""
    nothing = [float("nan")] * len(Read._fields)
    asked = map(Asked.parse, texts)
    rows = [
        nothing if one is None else is_right(one, cells)
        for one, cells in zip(asked, contents(logits_BN).tolist(), strict=True)
    ]
    return np.array(rows, dtype=float).reshape(len(texts), len(Read._fields))


def log_probability(texts: Sequence[str], logits_BN: Tensor) -> Tensor:
    """Return, for each image, the log-probability of the likeliest scene that its caption allows, divided by
    the number of cells, (B,): near 0 for a scene that is right beyond doubt.

    Raises:
        ValueError: a text is no caption.
    """
    log_BCK = logits_BN.unflatten(1, (CELLS, KINDS)).log_softmax(-1)
    empty_B = log_BCK[..., 0].sum(1)
    more_BCK = log_BCK - log_BCK[..., :1]  # than an empty cell
    best = []
    for text, more_CK in zip(texts, more_BCK, strict=True):
        asked = Asked.parse(text)
        if asked is None:
            raise ValueError(
                f"{text!r} is no caption that can be judged, such as 'a red disc left of a cross'"
            )
        kinds = [thing.kind for thing in asked.things]
        places_AT = _places(len(kinds), asked.relation).to(more_CK.device)
        best.append(more_CK[:, kinds][places_AT, range(len(kinds))].sum(1).max())
    return (empty_B + torch.stack(best)) / CELLS


@cache
def _places(things: int, relation: str | None) -> Tensor:
    """Return all ways to put things into cells of their own, (A, things), the first two as related."""
    ways = [
        cells
        for cells in permutations(range(CELLS), things)
        if relation is None or relation_of(*cells[:2]) == relation
    ]
    return torch.tensor(ways)


def fit_reader(
    config: SceneReaderConfig,
    *,
    updates: int = 1000,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[float], object] = lambda loss: None,
) -> SceneReader:
    """Train a reader on batches of 128 scenes of up to four things, whatever they are, under noise of 0.1.

    Args:
        config: its geometry.
        updates: optimizer steps; the learning rate falls to 0 on a cosine.
        seed: of weights, scenes and noise.
        device: where it trains, and stays.
        progress: called with the loss after each update.
    """
    rng = np.random.default_rng(derive_seed(seed, "scenes to read"))
    with seeded(seed, device):
        reader = SceneReader(config).to(device).train()
        optimizer = torch.optim.AdamW(reader.parameters(), 3e-3, weight_decay=0.01)
        for update in range(updates):
            rate = warmup_then_cosine(update, 3e-3, 50, updates)
            optimizer.param_groups[0]["lr"] = rate
            scenes = any_scenes(128, rng)
            clean = torch.from_numpy(draw(scenes)).float().div(255)
            images_BCHW = (clean + 0.1 * torch.randn_like(clean)).to(device)
            held_BC = torch.from_numpy(scenes.contents_NC).to(device)
            features_Bd, logits_BN = reader(images_BCHW)
            again_BN = reader.again(features_Bd.relu())
            loss = _cross_entropy(logits_BN, held_BC) + _cross_entropy(again_BN, held_BC)
            optimizer.zero_grad()
            loss.backward()
            refuse_divergence(update + 1, loss.detach(), reader, rate)
            optimizer.step()
            progress(loss.item())
    reader.eval().requires_grad_(False)
    images_BCHW = torch.from_numpy(draw(any_scenes(2000, rng))).float().div(255).to(device)
    reader.feature_scale.copy_(reader(images_BCHW)[0].var(0).mean().sqrt())
    return reader


def _cross_entropy(logits_BN: Tensor, held_BC: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits_BN.reshape(-1, KINDS), held_BC.flatten())


def any_scenes(number: int, rng: np.random.Generator, most: int = 4) -> Scenes:
    """Return scenes of 0 to `most` things of any kind, held out or not, anywhere."""
    shape = number, most
    cell_NK = np.argsort(rng.random((number, CELLS)), axis=1)[:, :most]
    cell_NK[np.arange(most) >= rng.integers(most + 1, size=number)[:, None]] = NOTHING
    form_NK, color_NK = (rng.integers(len(names), size=shape) for names in (FORMS, COLORS))
    return Scenes(cell_NK, form_NK, color_NK, rng.integers(2**63, size=number))
