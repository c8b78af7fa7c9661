"""MS-COCO's captions: `annotations/captions_train2014.json` beside `train2014/`, and the same for `val`, read
by torchvision (extra "coco")."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import NamedTuple


class Captioned(NamedTuple):
    """An image with its texts, and the name of its split, as "train"."""

    path: Path
    texts: tuple[str, ...]
    split: str


def caption_files(folder: Path) -> list[Path]:
    """Return the files of captions of a folder, none if it is not COCO's."""
    return sorted((folder / "annotations").glob("captions_*.json"))


def read_coco(folder: Path) -> list[Captioned]:
    """Return the images of all splits that have a file of captions; one that nobody captioned has no texts.

    Raises:
        ValueError: pycocotools is missing, or an image is.
    """
    try:
        import pycocotools  # noqa: F401
        from torchvision.datasets import CocoCaptions
    except ImportError as error:
        raise ValueError(f"COCO's captions need pycocotools ({error}); pip install '.[coco]'") from None
    found = []
    for file in caption_files(folder):
        name = file.stem.removeprefix("captions_")
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of its index
            data = CocoCaptions(str(folder / name), str(file))
        split = re.sub(r"\d+$", "", name)
        for number in data.ids:
            path = folder / name / data.coco.loadImgs(number)[0]["file_name"]
            told = data.coco.loadAnns(data.coco.getAnnIds(imgIds=number))
            texts = tuple(dict.fromkeys(one["caption"].strip() for one in told))
            found.append(Captioned(path, texts, split))
    if absent := [one.path for one in found if not one.path.is_file()]:
        raise ValueError(f"{folder}: {len(absent)} of {len(found)} images are missing, first {absent[0]}")
    return found
