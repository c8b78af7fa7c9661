"""What all figures share: colors, plain axes, a note under the panels, tiled images."""

from __future__ import annotations

from typing import Any

import numpy as np
from einops import rearrange
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, ScalarFormatter
from torch import Tensor

from generators.schedules import TABLE
from natgym.env.rendering import as_rgb, to_uint8

# Okabe and Ito's palette (2008), which people of all kinds of color vision tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")
COLOR_MAP = "cividis"
FAINT = "#bbbbbb"  # what stands beside the subject
SMALL, NORMAL = 7, 9  # points; legible where a figure is printed at column width


def panels(figure: Figure, rows: int, columns: int) -> list[Axes]:
    """Return the axes of a grid of panels, row by row."""
    return list(np.atleast_1d(figure.subplots(rows, columns)).flat)


def plain(axis: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Name an axis and leave out what carries no information."""
    axis.set_title(title, fontsize=NORMAL)
    axis.set_xlabel(x, fontsize=SMALL + 1)
    axis.set_ylabel(y, fontsize=SMALL + 1)
    axis.tick_params(labelsize=SMALL)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.5)


def picture(axis: Axes, pixels: Any, title: str = "") -> None:
    """Show an image without ticks or frame."""
    axis.imshow(pixels, interpolation="nearest")
    axis.set_title(title, fontsize=SMALL)
    bare(axis)


def color_of(index: int, number: int) -> Any:
    """Return the color of one of many categories: the palette's, a longer one's where it is too short."""
    if number <= len(COLORS):
        return COLORS[index]
    return colormaps["tab10"](index) if number <= 10 else colormaps["turbo"](index / (number - 1))


def literal(figure: Figure) -> None:
    """Draw texts as they are, and no formula between a name's dollars; numbers on axes keep their powers, and
    decoding parameters their symbols."""
    symbols = {parameter.label for parameter in TABLE.values()}
    numbers = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_formatter(), ScalarFormatter | LogFormatter):
            numbers |= {*axis.get_ticklabels(), *axis.get_ticklabels(minor=True), axis.get_offset_text()}
    for text in figure.findobj(Text):
        if text not in numbers and text.get_text() not in symbols:
            text.set_parse_math(False)


def bare(axis: Axes) -> None:
    """Leave out ticks and frame."""
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)


def show_image(axis: Axes, image_CHW: Tensor) -> None:
    """Show one image in [0, 1], grey or RGB, without ticks or frame."""
    picture(axis, to_uint8(as_rgb(image_CHW[None]))[0])


def annotate(figure: Figure, note: str) -> Figure:
    """Write what the reader must know under the panels."""
    figure.text(0.5, 0.0, note, ha="center", va="top", fontsize=SMALL, color="#555555")
    literal(figure)
    return figure


def finish(figure: Figure, note: str) -> Figure:
    """Set the panels tight and write what the reader must know under them."""
    annotate(figure, note)
    figure.tight_layout()
    return figure


def tiled(pictures_NCHW: Tensor, columns: int) -> np.ndarray:
    """Return one image (R * H, C * W, 3) uint8, a dark line between neighbors."""
    padded = np.pad(to_uint8(as_rgb(pictures_NCHW)), ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=90)
    return rearrange(padded, "(r k) h w c -> (r h) (k w) c", k=columns)
