"""Pairs of image and text with the categories of some or all: image folders with metadata.csv, and digits.

A row of metadata.csv (the image-folder convention of Hugging Face's datasets library) names an image, a text
and a category. Any of the three may be empty: a sample without image or text is judged by what it has, one
without category is unlabelled for good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generators.checkpoints import tensors_hash
from generators.folders import table_paths
from generators.images import ArrayPixels, Pixels
from generators.pixels import ImageFiles
from generators.tables import find_table, read_table
from natgym.discovery.config import DIGITS, PairsConfig


@dataclass(frozen=True, eq=False)
class Pairs:
    """N samples.

    Attributes:
        names: what to call them: file names or row numbers.
        texts: "" where there is none.
        has_image_N: whether a sample has an image.
        pixels: of those that have one, in their order, uint8.
        labels_N: categories 0..K-1, -1 where unknown.
        class_names: of the K categories.
        white: the pixel value that becomes 1.
        mirrored: whether an image means the same seen in a mirror.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    has_image_N: np.ndarray
    pixels: Pixels
    labels_N: np.ndarray
    class_names: tuple[str, ...]
    white: int = 255
    mirrored: bool = True

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_text_N(self) -> np.ndarray:
        """Whether a sample has a text."""
        return np.array([bool(text) for text in self.texts])

    @cached_property
    def _place_N(self) -> np.ndarray:
        return self.has_image_N.cumsum() - 1

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Return where the images of rows that have one stand among `pixels`."""
        return self._place_N[rows]

    def images(self, rows: np.ndarray) -> Tensor:
        """Return images (B, C, H, W) in [0, 1] of rows that have one; ValueError if one can't be read."""
        return self.pixels[torch.from_numpy(self.places(rows))].float() / self.white


class PairImages:
    """The images of the samples that have one, by their place among these (`generators.images.ImageRows`)."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.rows = np.flatnonzero(pairs.has_image_N)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places_B: Tensor) -> Tensor:
        """Return images (B, C, H, W) in [0, 1]; ValueError if one can't be read."""
        return self.pairs.images(self.rows[places_B.numpy()])

    def load(self) -> Tensor:
        """Return all of them."""
        return self.pairs.images(self.rows)


class SomePixels:
    """Some rows of other pixels (`generators.images.Pixels`)."""

    def __init__(self, pixels: Pixels, rows: np.ndarray) -> None:
        self.pixels = pixels
        self.rows = torch.from_numpy(rows)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return uint8 pixels (B, C, H, W)."""
        return self.pixels[self.rows[rows]]

    def fingerprint(self) -> str:
        """Return what tells these pixels from others."""
        return f"{self.pixels.fingerprint()}-{tensors_hash({'rows': self.rows})}"


def load_pairs(config: PairsConfig) -> Pairs:
    """Return the pairs; ValueError naming the row if something is missing or there are not two categories."""
    pairs = described_digits() if config.data == DIGITS else _read_pairs(config)
    return hidden(pairs, images=config.hide_images, texts=config.hide_texts)


def hidden(pairs: Pairs, *, images: float = 0.0, texts: float = 0.0) -> Pairs:
    """Return the pairs without the images of a share of all samples, and without the texts of another.

    Which ones follows from their number alone: the more are hidden, the same and others. Nobody loses both.

    Raises:
        ValueError: fewer samples have both than are to lose one.
    """
    both = np.random.default_rng(0).permutation(np.flatnonzero(pairs.has_image_N & pairs.has_text_N))
    no_image, no_text = (round(share * len(pairs)) for share in (images, texts))
    if no_image + no_text > len(both):
        raise ValueError(
            f"hide_images {images}, hide_texts {texts}: {len(both)} of {len(pairs)} samples have both"
        )
    without = {int(row) for row in both[len(both) - no_text :]}
    texts_left = tuple("" if row in without else text for row, text in enumerate(pairs.texts))
    if not no_image:
        return replace(pairs, texts=texts_left)  # the very images, whose features may be cached
    has_image_N = pairs.has_image_N.copy()
    has_image_N[both[:no_image]] = False
    pixels = SomePixels(pairs.pixels, pairs.places(np.flatnonzero(has_image_N)))
    return replace(pairs, texts=texts_left, has_image_N=has_image_N, pixels=pixels)


def _read_pairs(config: PairsConfig) -> Pairs:
    if (file := find_table(Path(config.data))) is None:
        raise ValueError(f"{config.data!r} is neither {DIGITS} nor a folder with metadata.csv")
    rows = _rows(file, config)
    labels = [row[config.label_column] for row in rows]
    counts = Counter(label for label in labels if label)
    # A row without label stays: small categories are left out, unlabelled samples are discovered.
    rows = [
        row
        for row, label in zip(rows, labels, strict=True)
        if not label or counts[label] >= config.min_members
    ]
    class_names = tuple(sorted(name for name, count in counts.items() if count >= config.min_members))
    if len(class_names) < 2:
        raise ValueError(
            f"{file}: {len(class_names)} categories in column {config.label_column!r} with at least "
            f"{config.min_members} samples; discovery needs two"
        )
    return _folder_pairs(file, rows, class_names, config)


def _rows(file: Path, config: PairsConfig) -> list[dict[str, str]]:
    excluded = [rule.partition("=")[::2] for rule in config.exclude]
    columns = ["file_name", config.text_column, config.label_column, *(column for column, _ in excluded)]
    rows, _ = read_table(file, *columns)
    return [row for row in rows if not any(row[column] == value for column, value in excluded)]


def _folder_pairs(
    table: Path, rows: list[dict[str, str]], class_names: tuple[str, ...], config: PairsConfig
) -> Pairs:
    files = [row["file_name"] for row in rows]
    texts = tuple(row[config.text_column] for row in rows)
    paths = table_paths(table, [name for name in files if name])
    if empty := sum(not name and not text for name, text in zip(files, texts, strict=True)):
        raise ValueError(f"{table.parent}: {empty} samples have neither image nor text; leave them out")
    index_of = {name: index for index, name in enumerate(class_names)}
    return Pairs(
        tuple(name or f"row {row}" for row, name in enumerate(files)),
        texts,
        np.array([bool(name) for name in files]),
        ImageFiles(paths, config.size),
        np.array([index_of.get(row[config.label_column], -1) for row in rows]),
        class_names,
    )


# What a person might say of a written digit. Most phrases fit several digits: one alone decides little.
_PHRASES: dict[str, str] = {
    "one closed loop": "069",
    "two closed loops": "8",
    "no closed loop": "12357",
    "a straight vertical stroke": "149",
    "a straight stroke along the top": "57",
    "a straight stroke along the bottom": "12",
    "a horizontal bar in the middle": "4",
    "open on the left": "2379",
    "open on the right": "2456",
    "round all over": "0368",
    "sharp corners": "1457",
    "the same upside down": "018",
    "the same in a mirror": "08",
    "a curve at the top": "02389",
    "a curve at the bottom": "03568",
    "a single stroke of the pen": "012367",
    "drawn with two strokes": "4578",
    "a diagonal stroke": "2479",
    "thin and upright": "17",
    "a tail that hangs down": "79",
    "a head that rises up": "46",
}


def described_digits(phrases: int = 2) -> Pairs:
    """Return scikit-learn's 1,797 real digits with texts made for them.

    The images are real; **the texts are not**: each is `phrases` random statements among those that fit the
    digit, so they are as informative as they were made to be. They show that everything runs and what a
    result looks like; nothing about the method can be concluded from them.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(0)
    fitting = {str(d): [phrase for phrase, fits in _PHRASES.items() if str(d) in fits] for d in range(10)}
    texts = [", ".join(rng.choice(fitting[str(digit)], phrases, replace=False)) for digit in digits.target]
    pixels = ArrayPixels(torch.from_numpy(digits.images).byte()[:, None])
    return Pairs(
        tuple(f"digit {row}" for row in range(len(texts))),
        tuple(texts),
        np.ones(len(texts), dtype=bool),
        pixels,
        digits.target.astype(np.int64),
        tuple("0123456789"),
        white=16,
        mirrored=False,
    )


def examples(names: Sequence[str], limit: int = 5) -> str:
    """Return a few of many names as text, and how many there are beside."""
    few = ", ".join(names[:limit])
    return f"{few} and {len(names) - limit} more" if len(names) > limit else few
