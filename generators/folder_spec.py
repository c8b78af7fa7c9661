"""A folder of images and how it is read, as one string: `PATH` or `PATH#COLUMN,size=N,...`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote, unquote

from generators.config import ColorMode
from generators.files import place_and_options

COLORS: dict[str, ColorMode] = {"grey": "L", "gray": "L", "rgb": "RGB"}
Layout = Literal["classes", "splits"]


@dataclass(frozen=True)
class FolderSpec:
    """What a task's string says of a folder.

    Attributes:
        path: of the folder.
        column: of its table; None for the first of LABEL_COLUMNS.
        size: side of the squares that all images are resized and center-cropped to, in pixels; None if they
            have one size already.
        mode: "L" or "RGB" for all images, said as grey or rgb; None if their headers decide.
        layout: what subfolders are, where it is not plain; said as layout=classes or layout=splits.
        caption: column of its table with texts, where images are drawn from texts; said as caption=COLUMN.
            Several rows of one file are several texts of one image.
        split: file that the splits are frozen in (`generators.frozen`), said as split=FILE, percent-encoded.
    """

    path: Path
    column: str | None = None
    size: int | None = None
    mode: ColorMode | None = None
    layout: Layout | None = None
    caption: str | None = None
    split: Path | None = None

    @classmethod
    def parse(cls, task: str) -> FolderSpec:
        """Read `PATH` or `PATH#OPTION,...`; ValueError if an option is none of those above."""
        path, options = place_and_options(task)
        found: dict[str, object] = {}
        for option in filter(None, options.split(",")):
            name, equals, value = option.partition("=")
            if (said := name if equals else "mode" if name in COLORS else "column") in found:
                raise ValueError(f"{task}: {option!r} comes after another {said}; say each once")
            if not equals:
                found[said] = COLORS.get(name, name)
            elif name == "size" and value.isdecimal() and int(value):
                found["size"] = int(value)
            elif name == "layout" and value in get_args(Layout):
                found["layout"] = value
            elif name == "split" and value:
                found["split"] = Path(unquote(value))
            elif name == "caption" and value:
                found["caption"] = value
            else:
                raise ValueError(
                    f"{task}: {option!r} is neither a column nor grey, rgb, size=N, caption=COLUMN or "
                    "layout=classes or splits; write PATH#COLUMN,size=N"
                )
        return cls(Path(path), **found)  # type: ignore[arg-type]

    def __str__(self) -> str:
        mode = {"L": "grey", "RGB": "rgb", None: None}[self.mode]
        named = [
            f"{name}={value}" for name in ("size", "layout", "caption") if (value := getattr(self, name))
        ]
        named += [] if self.split is None else [f"split={quote(str(self.split))}"]  # it may have commas
        options = [option for option in (self.column, mode, *named) if option]
        return f"{self.path}#{','.join(options)}" if options else str(self.path)
