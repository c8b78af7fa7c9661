"""What is in a scene, and how it is drawn: up to three things on a grid of 3 x 3 cells.

Shapes: N scenes, K = 3 places for things, of which those without one hold `NOTHING`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

FORMS = ("disc", "square", "triangle", "cross")
COLORS = {
    "red": (0.90, 0.15, 0.15),
    "green": (0.15, 0.75, 0.20),
    "blue": (0.20, 0.35, 0.95),
    "yellow": (0.95, 0.85, 0.15),
    "white": (0.95, 0.95, 0.95),
}
SIDE = 3  # cells
CELL = 8  # pixels
NOTHING = -1
_FINER = 4  # samples along a pixel, for smooth edges
_GREY = 0.12  # of the background


@dataclass(frozen=True, eq=False)
class Scenes:
    """What N scenes hold, and all that chance has to say of how they look.

    Attributes:
        cell_NK: where each thing is, row by row; NOTHING where there is none.
        form_NK, color_NK: of each, indices into FORMS and COLORS.
        seed_N: of the way that a scene looks, uint64.
    """

    cell_NK: np.ndarray
    form_NK: np.ndarray
    color_NK: np.ndarray
    seed_N: np.ndarray

    def __len__(self) -> int:
        return len(self.cell_NK)

    def __getitem__(self, rows: np.ndarray) -> Scenes:
        return Scenes(self.cell_NK[rows], self.form_NK[rows], self.color_NK[rows], self.seed_N[rows])

    @property
    def contents_NC(self) -> np.ndarray:
        """What is in each of the cells: 0 for nothing, else `kind_of` it."""
        contents_NC = np.zeros((len(self), SIDE * SIDE), dtype=np.int64)
        row_M, place_M = np.nonzero(self.cell_NK != NOTHING)
        kinds_M = kind_of(self.form_NK[row_M, place_M], self.color_NK[row_M, place_M])
        contents_NC[row_M, self.cell_NK[row_M, place_M]] = kinds_M
        return contents_NC


KINDS = 1 + len(FORMS) * len(COLORS)
"""Number of things that a cell may hold, nothing included."""


def kind_of(form: Any, color: Any) -> Any:
    """Return the number, from 1, of what has a form and a color, which are indices, or arrays of them."""
    return 1 + form * len(COLORS) + color


def draw(scenes: Scenes) -> np.ndarray:
    """Return the scenes as images (N, 3, H, W), uint8; a thing never leaves its cell.

    Places, sizes and shades are functions of a scene's own seed, so that a scene looks the same in whatever
    batch it is drawn.
    """
    chance_NKJ = _chances(scenes)
    shift_NK2 = 0.4 * (2 * chance_NKJ[..., :2] - 1)
    radius_NK = 2.9 + 0.5 * chance_NKJ[..., 2]
    shade_NK3 = 0.03 * (2 * chance_NKJ[..., 3:6] - 1)
    color_NK3 = np.array([*COLORS.values()])[scenes.color_NK] + shade_NK3
    side = SIDE * CELL
    images_NHWC = np.full((len(scenes), side, side, 3), _GREY)
    for place in range(scenes.cell_NK.shape[1]):
        here_M = np.flatnonzero(scenes.cell_NK[:, place] != NOTHING)
        cover_MPP = _coverage(
            scenes.form_NK[here_M, place], radius_NK[here_M, place], shift_NK2[here_M, place]
        )
        row_M, column_M = np.divmod(scenes.cell_NK[here_M, place], SIDE)
        y_MP = (row_M * CELL)[:, None] + np.arange(CELL)
        x_MP = (column_M * CELL)[:, None] + np.arange(CELL)
        at = here_M[:, None, None], y_MP[:, :, None], x_MP[:, None, :]
        cover_MPP1 = cover_MPP[..., None]
        painted = color_NK3[here_M, place][:, None, None]
        images_NHWC[at] = images_NHWC[at] * (1 - cover_MPP1) + painted * cover_MPP1
    assert images_NHWC.shape[1:] == (side, side, 3)
    return (images_NHWC.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 3, 1, 2)


def _chances(scenes: Scenes) -> np.ndarray:
    """Return uniform numbers of each scene, (N, K, J)."""
    shape = scenes.cell_NK.shape[1], 6
    drawn = [np.random.Generator(np.random.PCG64(seed)).random(shape) for seed in scenes.seed_N]
    return np.stack(drawn) if drawn else np.zeros((0, *shape))


def _coverage(form_M: np.ndarray, radius_M: np.ndarray, shift_M2: np.ndarray) -> np.ndarray:
    """Return how much of each pixel of a cell a form covers, (M, P, P)."""
    at = (np.arange(CELL * _FINER) + 0.5) / _FINER - CELL / 2
    x = at[None, None, :] - shift_M2[:, 0, None, None]
    y = at[None, :, None] - shift_M2[:, 1, None, None]
    r = radius_M[:, None, None]
    long, short = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    inside = np.select(
        [form_M[:, None, None] == form for form in range(len(FORMS))],
        [
            x**2 + y**2 <= r**2,
            long <= 0.85 * r,
            (abs(x) <= 0.6 * (y + r)) & (y <= 0.8 * r),
            (long <= r) & (short <= 0.36 * r),
        ],
    )
    return inside.reshape(len(form_M), CELL, _FINER, CELL, _FINER).mean((2, 4))
