"""Splits of an image folder, frozen in a file: each image's name, content, class and split.

Nothing that happens to the folder later moves an image from one split to another. Exact copies, by content,
are in none but the first one's; near copies are not looked for.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from generators.checkpoints import write_atomic
from generators.config import SplitName
from generators.folders import FolderSpec, Listing, list_folder
from generators.listing import listing_of
from generators.pixels import content_hash, refuse_unreadable
from generators.shards import read_bytes
from generators.tables import read_table

COLUMNS = ("file", "label", "split", "hash")
CAPTIONS = "captions"  # one more column of a folder with captions: a JSON list
LEFT_OUT = ("copy", "two labels")  # in the column split: exact copies, and those whose copies differ in class
FIRST: tuple[SplitName, ...] = ("report", "select", "train")  # keeps an image that lies in several


def freeze(
    listing: Listing,
    folder: Path,
    cut: Callable[[np.ndarray, np.ndarray | None], dict[SplitName, np.ndarray]],
    progress: Callable[[int], object] = lambda images: None,
) -> list[dict[str, str]]:
    """Return the rows of a file of splits.

    Args:
        listing: of the folder.
        cut: (labels, own splits or None) -> the rows of each split.
        progress: called with 1 after each image that is read.

    Raises:
        ValueError: an image can't be read.
    """
    hashes, bad = list[str](), list[str]()

    def read(path: Path) -> tuple[str, str | None]:
        data = read_bytes(path)
        try:
            refuse_unreadable(path, data)
        except ValueError as error:
            return "", str(error)
        return content_hash(data), None

    with ThreadPoolExecutor() as pool:
        for name, error in pool.map(read, listing.paths):
            hashes.append(name)
            bad += [] if error is None else [error]
            progress(1)
    if bad:
        more = f" ({len(bad) - 1} more can't be read)" if len(bad) > 1 else ""
        raise ValueError(bad[0] + more)
    why = _copies(listing, hashes)
    kept = np.array([row for row in range(len(hashes)) if row not in why], dtype=int)
    own = None if listing.own_split is None else listing.own_split[kept]
    split_of = dict(why)
    for split, rows in cut(listing.labels[kept], own).items():
        split_of |= dict.fromkeys(kept[rows].tolist(), split)
    return [
        {
            "file": os.path.relpath(path, folder),
            "label": listing.class_names[listing.labels[row]],
            "split": split_of[row],
            "hash": hashes[row],
        }
        | ({} if listing.captions is None else {CAPTIONS: json.dumps(listing.captions[row])})
        for row, path in enumerate(listing.paths)
    ]


def _copies(listing: Listing, hashes: Sequence[str]) -> dict[int, str]:
    """Return the rows that belong to no split, and why."""
    by_hash = defaultdict(list)
    for row, name in enumerate(hashes):
        by_hash[name].append(row)
    why: dict[int, str] = {}
    for rows in by_hash.values():
        if len({int(listing.labels[row]) for row in rows}) > 1:
            why |= dict.fromkeys(rows, "two labels")
            continue
        if listing.own_split is not None:
            rows = sorted(rows, key=lambda row: (FIRST.index(listing.own_split[row]), row))  # type: ignore[index]
        why |= dict.fromkeys(rows[1:], "copy")
    return why


def write_splits(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write what `freeze` returned."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, CAPTIONS] if CAPTIONS in rows[0] else COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def read_splits(spec: FolderSpec) -> tuple[Listing, list[str], set[Path]]:
    """Return the images of a folder whose splits are frozen, the hashes of their contents, and what else is
    known of: copies, which are in no split.

    The images themselves need not be there before they are read.

    Raises:
        ValueError: the file is none of splits.
    """
    assert spec.split is not None
    if not spec.split.is_file():
        raise ValueError(f"{spec.split}, where the splits of {spec.path} are frozen, is not there")
    rows, columns = read_table(spec.split, *COLUMNS, strip=False)
    kept = [row for row in rows if row["split"] not in LEFT_OUT]
    paths = [spec.path / row["file"] for row in kept]
    splits = np.array([row["split"] for row in kept])
    captions = [tuple(json.loads(row[CAPTIONS])) for row in kept] if CAPTIONS in columns else None
    listing = listing_of(paths, [row["label"] for row in kept], splits, captions=captions)
    known = {spec.path / row["file"] for row in rows}
    return listing, [row["hash"] for row in kept], known


def changed_since(spec: FolderSpec, listing: Listing, known: set[Path]) -> str | None:
    """Say what is otherwise in a folder than in its frozen splits, which stay as they are; None: nothing."""
    if not spec.path.is_dir():
        return None  # who reads an image will be told
    try:
        found = list_folder(replace(spec, split=None))
    except ValueError as error:
        return f"it can't be read as when the task was made: {error}"
    told = []
    if added := len(set(found.paths) - known):
        told.append(f"{added} images were added since the task was made and are in no split of it")
    today = dict(zip(found.paths, (found.class_names[label] for label in found.labels), strict=True))
    kept = zip(listing.paths, (listing.class_names[label] for label in listing.labels), strict=True)
    if moved := sum(today.get(path, name) != name for path, name in kept):
        told.append(f"{moved} images have another label now, which the task does not take")
    return "; ".join(told) or None
