"""Tokens of a language model as images, so that texts are drawn, kept and judged as all else is.

A token is a pixel, whose color is its number in base 256; images of 8 bits are read back without loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from generators.checkpoints import register
from generators.checks import at_least
from generators.others.library import library

MOST = 256**3  # tokens that colors tell apart


@dataclass(frozen=True, kw_only=True)
class WordsConfig:
    """A vocabulary, and how many of its tokens are an image.

    Attributes:
        codebook_size: V, of the language model, whose last tokens may have no text.
        grid: rows and columns of tokens; a text is read row by row.
        vocabulary: what says text for tokens and tokens for text, as the library `tokenizers` writes it.
    """

    codebook_size: int
    grid: tuple[int, int]
    vocabulary: str

    def __post_init__(self) -> None:
        at_least(1, self, "codebook_size")
        if self.codebook_size > MOST:
            raise ValueError(f"codebook_size {self.codebook_size}: colors tell {MOST:,} tokens apart")


@register(WordsConfig)
class Words(nn.Module):
    """A program: images (3, rows, columns) of tokens, and the texts that they say."""

    weightless = True

    def __init__(self, config: WordsConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size = config.codebook_size
        self.grid = config.grid
        self.image_shape = 3, *config.grid

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Return the tokens; one that is none, as of colors that were changed, is the nearest's number."""
        bytes_B3L = (255 * images_BCHW).round().long().flatten(2)
        weights_31 = bytes_B3L.new_tensor([65536, 256, 1])[:, None]
        return (bytes_B3L * weights_31).sum(1).clamp(0, self.codebook_size - 1)

    def decode(self, ids_BL: Tensor) -> Tensor:
        bytes_B3L = torch.stack([ids_BL >> 16, ids_BL >> 8 & 255, ids_BL & 255], dim=1)
        return rearrange(bytes_B3L, "b c (h w) -> b c h w", h=self.grid[0]).float() / 255

    def texts(self, images_BCHW: Tensor) -> list[str]:
        """Return what images say, without what only marks beginnings and ends."""
        return self.read(self.encode(images_BCHW))

    def read(self, ids_BL: Tensor) -> list[str]:
        """Return what tokens say."""
        return [self._words.decode(ids, skip_special_tokens=True) for ids in ids_BL.tolist()]

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text, without any that mark its beginning and end."""
        return self._words.encode(text, add_special_tokens=False).ids

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts, each of which leaves something to be drawn.

        Raises:
            ValueError: one has as many tokens as an image, or none.
        """
        length = self.grid[0] * self.grid[1]
        found = [self.ids(text) for text in texts]
        for text, ids in zip(texts, found, strict=True):
            if not 0 < len(ids) < length:
                raise ValueError(f"prompt {text!r} has {len(ids)} tokens; give 1 to {length - 1}")
        return found

    @cached_property
    def _words(self) -> Any:
        try:
            found = library("tokenizers").Tokenizer.from_str(self.config.vocabulary)
        except Exception as error:  # the library raises its own kind
            raise ValueError(f"the vocabulary can't be read: {error}") from None
        found.no_padding()
        found.no_truncation()
        return found
