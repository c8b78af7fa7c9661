"""Symbols as pixels: a tokenizer whose codes are digits, so that puzzles are images like all others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from generators.checkpoints import register
from generators.tokenizers import nearest

PATCH = 8  # pixels of a symbol's side
_ROWS = {  # 5 x 7 pixels, a row after the other
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00010 00100 01000 11111",
    "3": "11111 00010 00100 00010 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
}


@cache
def glyphs(symbols: str) -> np.ndarray:
    """Return the patches of some digits, white on black, uint8 (V, PATCH, PATCH)."""
    patches = np.zeros((len(symbols), PATCH, PATCH), dtype=np.uint8)
    for patch, symbol in zip(patches, symbols, strict=True):
        bits = np.array([[*map(int, row)] for row in _ROWS[symbol].split()], dtype=np.uint8)
        patch[:7, 1:6] = 255 * bits
    return patches


@dataclass(frozen=True, kw_only=True)
class GlyphsConfig:
    """Which digits there are, one a code, and how many rows and columns of them."""

    symbols: str
    grid: tuple[int, int]

    def __post_init__(self) -> None:
        if (
            len(set(self.symbols)) < len(self.symbols)
            or not set(self.symbols) <= set(_ROWS)
            or not self.symbols
        ):
            raise ValueError(f"symbols {self.symbols!r}: give digits, each once")


@register(GlyphsConfig)
class Glyphs(nn.Module):
    """A program: each code is a digit of 8 x 8 pixels; an image is read as the nearest ones."""

    def __init__(self, config: GlyphsConfig) -> None:
        super().__init__()
        rows, columns = config.grid
        self.config = config
        self.codebook_size = len(config.symbols)
        self.grid = config.grid
        self.image_shape = 1, rows * PATCH, columns * PATCH
        pixels_VP = torch.from_numpy(glyphs(config.symbols)).flatten(1).float() / 255
        self.register_buffer("pixels_VP", pixels_VP)
        self.pixels_VP: Tensor

    def encode(self, images_BCHW: Tensor) -> Tensor:
        patches = rearrange(images_BCHW, "b 1 (h p) (w q) -> b (h w) (p q)", p=PATCH, q=PATCH)
        return nearest(patches, self.pixels_VP)

    def decode(self, ids_BL: Tensor) -> Tensor:
        rows, columns = self.grid
        patches = self.pixels_VP[ids_BL]
        return rearrange(patches, "b (h w) (p q) -> b 1 (h p) (w q)", h=rows, w=columns, p=PATCH)
