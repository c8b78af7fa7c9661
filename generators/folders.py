"""Image folders as public loaders lay them out: class subfolders, with or without train and test above them,
or a metadata.csv (the image-folder convention of Hugging Face's datasets library).

A folder is named by one string, `PATH` or `PATH#COLUMN,size=N`: the label column of metadata.csv, and the
side of the squares that all images are resized and centre-cropped to.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

LABEL_COLUMNS = ("label", "class", "group")  # the first that metadata.csv has, unless one is named
TEST_FOLDERS = ("test", "val")
LONGEST_FIELD = 2**30  # characters


@dataclass(frozen=True)
class FolderSpec:
    """What a task's string says of a folder.

    Attributes:
        path: of the folder.
        column: of metadata.csv; None for the first of LABEL_COLUMNS.
        size: side of the images in pixels; None if they all have one size already.
    """

    path: Path
    column: str | None = None
    size: int | None = None

    @classmethod
    def parse(cls, task: str) -> FolderSpec:
        """Read `PATH`, `PATH#COLUMN`, `PATH#size=N` or `PATH#COLUMN,size=N`; ValueError if it is none."""
        path, _, options = task.partition("#")
        column = None
        size = None
        for option in filter(None, options.split(",")):
            name, equals, value = option.partition("=")
            if not equals:
                column = name
            elif name == "size" and value.isdecimal() and int(value):
                size = int(value)
            else:
                raise ValueError(
                    f"{task}: {option!r} is neither a column nor size=N; write PATH#COLUMN,size=N"
                )
        return cls(Path(path), column, size)


@dataclass(frozen=True)
class Listing:
    """Images of a folder and their classes.

    Attributes:
        paths: of N files.
        labels: of N images, indices into `class_names`.
        class_names: sorted.
        tested: where the folder has a test split of its own, whether each image is in it.
    """

    paths: list[Path]
    labels: np.ndarray
    class_names: tuple[str, ...]
    tested: np.ndarray | None = None


def list_folder(spec: FolderSpec) -> Listing:
    """Find the images and their classes; ValueError if the folder has none of the layouts."""
    path = spec.path
    if (path / "metadata.csv").is_file():
        return _by_metadata(path, spec.column)
    if spec.column is not None:
        raise ValueError(
            f"{path} has no metadata.csv, so {spec.column!r} can't be its column; drop #{spec.column}"
        )
    test = next((name for name in TEST_FOLDERS if (path / name).is_dir()), None)
    if (path / "train").is_dir() and test is not None:
        return _by_parts(path / "train", path / test)
    if any(child.is_dir() for child in path.iterdir()):
        return _by_class(path)
    raise ValueError(f"{path} has neither metadata.csv nor train and test folders nor class folders; add one")


def _by_class(path: Path) -> Listing:
    from torchvision.datasets import ImageFolder

    try:
        images = ImageFolder(str(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: {error}") from None
    paths = [Path(file) for file, _ in images.samples]
    return Listing(paths, np.array(images.targets), tuple(images.classes))


def _by_parts(train: Path, test: Path) -> Listing:
    fit, judged = _by_class(train), _by_class(test)
    if fit.class_names != judged.class_names:
        odd = sorted(set(fit.class_names) ^ set(judged.class_names))
        raise ValueError(f"{train} and {test} differ in the classes {', '.join(odd)}; they need the same")
    tested = np.arange(len(fit.paths) + len(judged.paths)) >= len(fit.paths)
    labels = np.concatenate([fit.labels, judged.labels])
    return Listing(fit.paths + judged.paths, labels, fit.class_names, tested)


def _by_metadata(path: Path, column: str | None) -> Listing:
    rows, columns = read_metadata(path / "metadata.csv", "file_name")
    chosen = column or next((name for name in LABEL_COLUMNS if name in columns), None)
    if chosen not in columns:
        lack = f"no column {column!r}" if column else f"none of the columns {', '.join(LABEL_COLUMNS)}"
        raise ValueError(
            f"{path}/metadata.csv has {lack}; name one of {', '.join(columns)} as in {path}#COLUMN"
        )
    names = tuple(sorted({row[chosen] for row in rows}))
    number = {name: index for index, name in enumerate(names)}
    return Listing(
        [path / row["file_name"] for row in rows], np.array([number[row[chosen]] for row in rows]), names
    )


def read_metadata(file: Path, *needed: str) -> tuple[list[dict[str, str]], list[str]]:
    """Return the rows of a metadata.csv, column -> text, and its columns.

    Args:
        file: UTF-8, with or without the byte order mark that spreadsheets write.
        needed: columns that it must have.

    Raises:
        ValueError: a column is missing, or a row has another number of fields than the first line.
    """
    limit = csv.field_size_limit(LONGEST_FIELD)  # the csv module's own limit is less than a long article
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            rows = list(reader)
            columns = list(reader.fieldnames or [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no table of comma-separated values in UTF-8: {error}") from None
    finally:
        csv.field_size_limit(limit)
    if missing := [column for column in needed if column not in columns]:
        raise ValueError(f"{file} has no column {', '.join(missing)}; it has {', '.join(columns)}")
    for number, row in enumerate(rows, start=2):
        # DictReader fills up short rows with None, and puts what is too much under the key None.
        if None in row.values() or None in row:
            raise ValueError(f"{file}, row {number}: it has not {len(columns)} fields as the first line")
    return rows, columns


class ImageFiles:
    """Files read when asked for, as uint8 (N, C, H, W); the first one says whether they are grey or RGB.

    Args:
        paths: of the files.
        size: side of the squares to resize and crop to; None keeps the size, which must then be one.
    """

    def __init__(self, paths: Sequence[Path], size: int | None) -> None:
        self.paths = paths
        self.size = size

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        with Image.open(self.paths[0]) as first:
            channels = 1 if first.mode in ("1", "L", "LA", "I;16") else 3
            width, height = (self.size, self.size) if self.size is not None else first.size
        return channels, height, width

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(thread_name_prefix="images")

    def __getitem__(self, rows: Tensor) -> Tensor:
        return torch.stack(list(self._pool.map(self._read, (self.paths[row] for row in rows.tolist()))))

    def fingerprint(self) -> str:
        """Name the files' contents by their names, sizes and times, without reading them."""
        stats = ((str(path), path.stat()) for path in self.paths)
        described = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats] + [self.size])
        return hashlib.sha256(described.encode()).hexdigest()[:12]

    def _read(self, path: Path) -> Tensor:
        channels, height, width = self.image_shape
        with Image.open(path) as file:
            image = _opaque(file).convert("L" if channels == 1 else "RGB")
        if self.size is not None:
            image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.BICUBIC)
        if image.size != (width, height):
            sizes = f"{image.width} x {image.height} pixels, {self.paths[0].name} {width} x {height}"
            raise ValueError(f"{path} has {sizes}: name one size, as in PATH#size={min(width, height)}")
        return rearrange(torch.from_numpy(np.array(image)), "h w ... -> (...) h w")


def _opaque(image: Image.Image) -> Image.Image:
    """Put an image with transparent parts on white."""
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
