"""What is found in a folder of images: files, classes, texts, splits, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Images of a folder, each file once, and their classes.

    Attributes:
        paths: of N files.
        labels: of N images, indices into `class_names`.
        class_names: sorted; names that are numbers, by number.
        own_split: where the folder has splits of its own, the one of each image.
        left_out: what is no part of this: a reason, and of how many files or rows it is.
        captions: the texts of each image, where they are asked for.
    """

    paths: list[Path]
    labels: np.ndarray
    class_names: tuple[str, ...]
    own_split: np.ndarray | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    captions: list[tuple[str, ...]] | None = None


@dataclass
class Found:
    """Files and the names of their classes, as they are found."""

    paths: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)  # as a table's column has them
    left_out: Counter[str] = field(default_factory=Counter)
    captions: list[tuple[str, ...]] = field(default_factory=list)


def joined(found: Sequence[Found], own_split: np.ndarray | None = None) -> Listing:
    """Return one listing of several finds; the splits are those of all images, where there are any."""
    if own_split is not None and "report" not in own_split:  # of two splits the other one judges
        own_split = np.where(own_split == "select", "report", own_split)
    return listing_of(
        [path for one in found for path in one.paths],
        [name for one in found for name in one.names],
        own_split,
        sum((one.left_out for one in found), Counter[str]()),
        [texts for one in found for texts in one.captions] or None,
    )


def listing_of(
    paths: Sequence[Path],
    labels: Sequence[str],
    own_split: np.ndarray | None = None,
    left_out: Counter[str] | None = None,
    captions: list[tuple[str, ...]] | None = None,
) -> Listing:
    """Return a listing of files and the names of their classes; ValueError if a name is no text."""
    if odd := [path for path in paths if "\udc80" <= max(str(path), default="") <= "\udfff"]:
        raise ValueError(f"{str(odd[0])!r} has a name that is not in UTF-8; rename it")
    class_names = tuple(sorted(set(labels), key=_by_number if all(map(str.isdecimal, labels)) else None))
    number = {name: index for index, name in enumerate(class_names)}
    return Listing(
        paths=list(paths),
        labels=np.array([number[name] for name in labels]),
        class_names=class_names,
        own_split=own_split,
        left_out=+(left_out or Counter()),
        captions=captions,
    )


def _by_number(name: str) -> tuple[int, str]:
    return int(name), name
