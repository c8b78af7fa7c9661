"""Tokens that are given: an image to go on from, whose other tokens are drawn. In- and outpainting.

They belong to the condition, as what an image is drawn from: whoever draws conditions (environments,
rollouts, searches, tables) draws them, too. What is given never changes and counts as revealed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from generators.checkpoints import tensors_hash
from generators.conditions import Condition, Index
from generators.config import GIVEN as GIVEN
from generators.config import SplitName
from generators.puzzles.data import PUZZLES, hidden_cells

DRAWN = -1  # in place of a token that is to be drawn


@dataclass(frozen=True, eq=False)
class Given(Condition):
    """Conditions, each with the tokens that it gives.

    Attributes:
        condition: of B rows.
        tokens_BL: integer ids, and DRAWN where a token is to be drawn.
    """

    condition: Condition
    tokens_BL: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.tokens_BL.shape)
        if len(shape) != 2 or shape[0] != len(self.condition):
            raise ValueError(
                f"given tokens {shape}: give one row for each of {len(self.condition)} conditions"
            )
        if self.tokens_BL.is_floating_point() or bool((self.tokens_BL < DRAWN).any()):
            raise ValueError(f"given tokens are ids of codes, or {DRAWN} where one is to be drawn")

    @property
    def given_BL(self) -> Tensor:
        return self.tokens_BL

    @property
    def values(self) -> Tensor:
        return self.condition.values

    @property
    def vectors(self) -> Tensor:
        return self.condition.vectors

    @property
    def device(self) -> torch.device:
        return self.condition.device

    @property
    def names(self) -> list[str]:
        return self.condition.names

    @property
    def groups(self) -> list[str]:
        return self.condition.groups

    @property
    def kinds_B(self) -> Tensor:
        return self.condition.kinds_B

    @property
    def geometry(self) -> dict[str, Any]:
        return self.condition.geometry

    @property
    def guides(self) -> bool:
        return self.condition.guides

    @property
    def fingerprint(self) -> str:
        return f"{self.condition.fingerprint}-{tensors_hash({'given': self.tokens_BL})}"

    @property
    def keys(self) -> list[Hashable]:
        return [*zip(self.condition.keys, map(bytes, self.tokens_BL.cpu().numpy()), strict=True)]

    def null(self) -> Given:
        return replace(self, condition=self.condition.null())

    def __getitem__(self, index: Index) -> Given:
        return Given(self.condition[index], self.tokens_BL[index])

    def to(self, device: torch.device | str) -> Given:
        return Given(self.condition.to(device), self.tokens_BL.to(device))

    @classmethod
    def cat(cls, parts: Sequence[Given]) -> Given:
        kind = type(parts[0].condition)
        tokens_BL = torch.cat([part.tokens_BL for part in parts])
        return cls(kind.cat([part.condition for part in parts]), tokens_BL)


def hidden_tokens(data: str, split: SplitName, form: str, grid: tuple[int, int]) -> Tensor:
    """Return which tokens of a split's images are to be drawn, bool (N, L) or, for all alike, (L,).

    Args:
        data: a data set, as `generators.data` reads it.
        form: of puzzles "few" or "unique" (`generators.puzzles.data.hidden_cells`), of all else a region.

    Raises:
        ValueError: there is no such form or region.
    """
    return hidden_cells(data, split, form) if data in PUZZLES else hidden_region(form, grid)


def hidden_region(region: str, grid: tuple[int, int]) -> Tensor:
    """Return which tokens of a grid a region hides, bool (L,).

    Args:
        region: "left", "right", "top", "bottom" hide that half; "center" the middle half of either side, and
            "outside" all but that; "NAME=SHARE" another share of the side, in (0, 1).

    Raises:
        ValueError: there is no such region, or it hides nothing or everything.
    """
    name, _, text = region.partition("=")
    try:
        share = float(text) if text else 0.5
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise ValueError(f"region {region!r}: {text!r} is no share of a side between 0 and 1")
    rows, columns = (_place(side) for side in grid)
    across, down = rows[:, None].expand(*grid), columns[None].expand(*grid)
    middle = (torch.maximum((across - 0.5).abs(), (down - 0.5).abs())) < share / 2
    regions = {
        "top": across < share,
        "bottom": across > 1 - share,
        "left": down < share,
        "right": down > 1 - share,
        "center": middle,
        "outside": ~middle,
    }
    if name not in regions:
        raise ValueError(f"region {region!r} is not one of {', '.join(regions)}, each perhaps with =SHARE")
    hidden_L = regions[name].flatten()
    if not 0 < int(hidden_L.sum()) < len(hidden_L):
        raise ValueError(
            f"region {region!r} hides {int(hidden_L.sum())} of {len(hidden_L)} tokens; take another"
        )
    return hidden_L


def hidden_pixels(mask_HW: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return which tokens of a grid hold any pixel of a mask, bool (L,).

    Raises:
        ValueError: the mask can't be cut into the grid, or there is nothing in it.
    """
    (height, width), (rows, columns) = mask_HW.shape, grid
    if height % rows or width % columns:
        raise ValueError(f"a mask of {height} x {width} pixels can't be cut into {rows} x {columns} tokens")
    cells = mask_HW.reshape(rows, height // rows, columns, width // columns)
    hidden_L = cells.any(3).any(1).flatten()
    if not hidden_L.any():
        raise ValueError("the mask is empty: there is nothing to draw")
    return hidden_L


def give(condition: Condition, ids_BL: Tensor, hidden_L: Tensor) -> Given:
    """Return conditions that give all tokens of some images but the hidden ones.

    Args:
        ids_BL: of the images.
        hidden_L: bool (L,) for all, or (B, L).
    """
    tokens_BL = ids_BL.long().masked_fill(hidden_L.to(ids_BL.device), DRAWN)
    return Given(condition, tokens_BL.to(condition.device))


def _place(side: int) -> Tensor:
    """Return where the middles of a side's cells are, in (0, 1)."""
    return (torch.arange(side) + 0.5) / side
