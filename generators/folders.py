"""Image folders as people have them: class subfolders, with or without splits above them; a table of files
and labels (the image-folder convention of Hugging Face's datasets library); or images without classes.

A folder is named by one string, `PATH` or `PATH#COLUMN,size=N,...`; see `FolderSpec`. Hidden folders and
files, and those that systems and tools leave beside images, are no data.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from generators import former
from generators.coco import caption_files, read_coco
from generators.config import SplitName
from generators.folder_spec import FolderSpec as FolderSpec
from generators.folder_spec import Layout
from generators.listing import Found, joined
from generators.listing import Listing as Listing
from generators.shards import read_shards, shards
from generators.tables import find_table, read_table

LABEL_COLUMNS = ("label", "class", "group")  # the first that a table has, unless one is named
SPLIT_NAMES: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "select"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), "report"),
}
EXTENSIONS = tuple(".jpg .jpeg .jfif .png .bmp .gif .webp .tif .tiff .pgm .ppm .pbm .pnm .jp2 .avif".split())
HELPERS = ("@eadir", "lost+found", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information")
ONE_CLASS = "all"  # of images without classes


def list_folder(spec: FolderSpec) -> Listing:
    """Find the images and their classes.

    Raises:
        ValueError: the folder has none of the layouts, or can be read in two ways; the message says what
            would help.
    """
    path = spec.path
    if spec.caption is not None and (caption_files(path) or shards(path)):
        _refuse_columns(path, spec.column)
        return _by_coco(path) if caption_files(path) else _by_shards(path)
    if (table := find_table(path)) is not None:
        return _by_one_table(table, spec)
    children = [child for child in sorted(path.iterdir()) if child.is_dir() and not _is_helper(child)]
    splits = _splits(path, children, spec.layout)
    if splits:
        found = {split: _one_split(folder, spec) for split, folder in splits.items()}
        _refuse_other_classes({splits[split]: one for split, one in found.items()})
        own = np.repeat(list(found), [len(one.paths) for one in found.values()])
        beside = [child for child in path.iterdir() if child not in splits.values() and not _is_helper(child)]
        return joined([*found.values(), Found(left_out=Counter(map(_beside, beside)))], own)
    _refuse_columns(path, spec.column, spec.caption)
    return joined([_by_folders(path, spec.layout)])


def _refuse_columns(path: Path, *columns: str | None) -> None:
    """Raise ValueError if a column is asked for, of a folder that has no table."""
    if (column := next(filter(None, columns), None)) is not None:
        raise ValueError(f"{path} has no metadata.csv, so {column!r} can't be its column; drop #{column}")


def _by_coco(path: Path) -> Listing:
    everything = read_coco(path)
    images = [one for one in everything if one.texts]
    found = Found([one.path for one in images], [ONE_CLASS] * len(images))
    found.left_out["images without caption"] = len(everything) - len(images)
    found.captions = [one.texts for one in images]
    splits = [SPLIT_NAMES.get(one.split) for one in images]
    if None in splits or len({*splits}) < 2:
        return joined([found])
    return joined([found], np.array(splits))


def _by_shards(path: Path) -> Listing:
    captions, left_out = read_shards(path, EXTENSIONS)
    if not captions:
        raise ValueError(f"{path} has tar files, but no image with a .txt or .json of its key in them")
    found = Found([*captions], [ONE_CLASS] * len(captions), left_out=left_out)
    found.captions = [(text,) for text in captions.values()]
    return joined([found])


def _by_one_table(table: Path, spec: FolderSpec) -> Listing:
    """Read a table at the top; its splits are those of a column `split`, or of the folders that it names."""
    found = _by_table(table, spec)
    splits = [SPLIT_NAMES.get(name.lower()) for name in found.splits]
    if any(splits) and None in splits:
        odd = splits.index(None)
        raise ValueError(
            f"{table}: {found.paths[odd].relative_to(table.parent)} is in split {found.splits[odd]!r}, "
            "others in train, val or test; say one of these in each row"
        )
    if not any(splits) and spec.layout != "classes":
        folders = (path.relative_to(table.parent).parts[0] for path in found.paths)
        splits = [SPLIT_NAMES.get(name.lower()) for name in folders]
    plain = None not in splits and len({*splits}) > 1
    if plain and "train" in splits:
        return joined([found], np.array(splits))
    if plain or spec.layout == "splits":
        raise ValueError(f"{table} has no train images beside another split's; as splits both are needed")
    return joined([found])


def _splits(path: Path, children: Sequence[Path], layout: Layout | None) -> dict[SplitName, Path]:
    """Return the folders of splits, none if subfolders are classes; ValueError if both may be meant."""
    named = [child for child in children if child.name.lower() in SPLIT_NAMES]
    if layout == "classes" or not (named or layout):
        return {}
    others = [child for child in children if child not in named and next(_images(child), None) is not None]
    by_split: dict[SplitName, Path] = {}
    for child in named:
        split = SPLIT_NAMES[child.name.lower()]
        if split in by_split:
            raise ValueError(
                f"{path} holds {by_split[split].name} and {child.name}, which are names of one split; keep "
                f"one, or say that they are classes: {path}#layout=classes"
            )
        by_split[split] = child
    plain = len(by_split) > 1 and "train" in by_split and not others
    if not plain and layout is None:
        beside = f" beside {', '.join(child.name for child in others[:5])}" if others else ""
        alone = f", or one split alone: give {named[0]}" if not others and len(named) == 1 else ""
        raise ValueError(
            f"{path} holds {', '.join(child.name for child in named)}{beside}: splits or classes? Say "
            f"{path}#layout=splits, {path}#layout=classes{alone}"
        )
    if "train" not in by_split or len(by_split) < 2:
        raise ValueError(f"{path} has no train folder beside another split; as splits both are needed")
    return {split: by_split[split] for split in get_args(SplitName) if split in by_split}


def _one_split(folder: Path, spec: FolderSpec) -> Found:
    if (table := find_table(folder)) is not None:
        return _by_table(table, spec)
    _refuse_columns(folder, spec.column, spec.caption)
    return _by_folders(folder, None)


def _refuse_other_classes(found: dict[Path, Found]) -> None:
    (first, one), *others = found.items()
    for folder, other in others:
        if odd := sorted(set(one.names) ^ set(other.names)):
            raise ValueError(
                f"{first} and {folder} differ in the classes {', '.join(odd)}; they need the same"
            )


def _by_folders(path: Path, layout: Layout | None) -> Found:
    folders = (child for child in path.iterdir() if child.is_dir() and not _is_helper(child))
    if any(next(_images(folder), None) for folder in folders):
        return _by_class(path, layout)
    return _without_classes(path)


def _by_class(path: Path, layout: Layout | None) -> Found:
    found, empty, lower = Found(), [], Path()
    for child in sorted(path.iterdir()):
        if _is_helper(child):
            continue
        if child.is_file():
            found.left_out[_beside(child)] += 1
            continue
        before, deep = len(found.paths), True
        for file in _files(child):
            if file.suffix.lower() in EXTENSIONS:
                found.paths.append(file)
                found.names.append(child.name)
                deep &= file.parent != child
            else:
                found.left_out[file.suffix.lower() or "no extension"] += 1
        if len(found.paths) == before:
            empty.append(child.name)
        elif deep:
            lower = child
    if len(set(found.names)) == 1 and lower.name and layout is None:
        raise ValueError(
            f"{path} is one folder too high: its images lie in folders of {lower}; give that one, or "
            f"say {path}#layout=classes"
        )
    for name in empty:
        found.left_out[f"folder {name} without an image"] += 1
    return found


def _without_classes(path: Path) -> Found:
    """Images that lie in the folder itself are of one class."""
    found = Found()
    for file in sorted(path.iterdir()):
        if file.is_dir() or _is_helper(file):
            continue
        if file.suffix.lower() in EXTENSIONS:
            found.paths.append(file)
        else:
            found.left_out[file.suffix.lower() or file.name] += 1
    if not found.paths:
        raise ValueError(
            f"{path} has neither images ({', '.join(EXTENSIONS)}) nor metadata.csv nor folders with images"
        )
    found.names = [ONE_CLASS] * len(found.paths)
    return found


def _by_table(table: Path, spec: FolderSpec) -> Found:
    rows, columns = read_table(table, "file_name")
    chosen = _label_column(table, columns, spec)
    found, label_of, splits = Found(), dict[str, str](), list[str]()
    texts_of: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=1 if table.suffix == ".jsonl" else 2):
        label = ONE_CLASS if chosen is None else row[chosen]
        text = "" if spec.caption is None else row[spec.caption]
        if lack := _lack(row["file_name"], label, spec.caption is None or text):
            found.left_out[f"rows without {lack}"] += 1
            continue
        name = str(Path(row["file_name"]))
        texts_of.setdefault(name, []).append(text)
        if name not in label_of:
            splits.append(row.get("split", ""))
        elif spec.caption is None:
            found.left_out["further rows of one file"] += 1
        if label_of.setdefault(name, label) != label:
            raise ValueError(
                f"{table}, row {number}: {name} is {label!r} here and {label_of[name]!r} before; a file has "
                "one label"
            )
    if not label_of:
        raise ValueError(f"{table} has no row with file_name and {spec.caption or chosen}; fill them in")
    found.paths, found.names, found.splits = table_paths(table, [*label_of]), [*label_of.values()], splits
    if spec.caption is not None:
        found.captions = [tuple(dict.fromkeys(texts)) for texts in texts_of.values()]
    named = {table.parent / row["file_name"] for row in rows}
    if unnamed := len(set(_images(table.parent)) - named):
        found.left_out["images that the table does not name"] += unnamed
    return found


def _label_column(table: Path, columns: Sequence[str], spec: FolderSpec) -> str | None:
    """Return the column of labels; None where images have texts and need none."""
    chosen = spec.column or next((name for name in LABEL_COLUMNS if name in columns), None)
    wanted = [spec.column, spec.caption] if spec.caption else [chosen]
    if missing := [name for name in wanted if name is not None and name not in columns]:
        raise ValueError(f"{table} has no column {missing[0]!r}; name one of {', '.join(columns)}")
    if chosen is None and spec.caption is None:
        lack = f"none of the columns {', '.join(LABEL_COLUMNS)}"
        raise ValueError(
            f"{table} has {lack}; name one of {', '.join(columns)} as in {table.parent}#COLUMN, or "
            f"{table.parent}#caption=COLUMN where it is a text"
        )
    return chosen


def _lack(file: str, label: str, text: str | bool) -> str:
    """Return what a row of a table lacks, if anything."""
    return next(
        (name for name, there in (("file", file), ("label", label), ("caption", text)) if not there), ""
    )


def table_paths(table: Path, names: Sequence[str]) -> list[Path]:
    """Return the files that a table names; ValueError if one is not there, or outside the table's folder."""
    folder = table.parent
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{table} names {name}, which is outside of {folder}; name files in the folder")
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise ValueError(f"{table}: {len(absent)} of {len(names)} images are missing, first {absent[0]}")
    return [folder / name for name in names]


def _beside(path: Path) -> str:
    """Say what is left out beside folders of splits or classes."""
    kind = f"folder {path.name}" if path.is_dir() else path.suffix.lower() or path.name
    return f"{kind} beside the others"


def _is_helper(path: Path) -> bool:
    return path.name.startswith((".", "__")) or path.name.lower() in HELPERS


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder in order; a linked folder once, and never in a circle."""
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _is_helper(Path(name)))
        yield from (Path(root, name) for name in sorted(files) if not _is_helper(Path(name)))


def _images(folder: Path) -> Iterator[Path]:
    return (file for file in _files(folder) if file.suffix.lower() in EXTENSIONS)


__getattr__ = former.renamed(
    __name__,
    {"ImageFiles": "generators.pixels:ImageFiles", "read_metadata": "generators.tables:read_table"},
)
