"""Images with captions in tar files, as webdataset writes them (CC3M's form): `KEY.jpg` beside `KEY.txt`, or
beside `KEY.json` with a field `caption`; a key may have folders before it.

A member is named as if its shard were a folder, SHARD.tar/KEY.jpg, and read in place: a shard's index is
kept, its images are not.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from generators.files import reading


class Place(NamedTuple):
    """Where a member's bytes are in its shard."""

    offset: int
    size: int


def shards(folder: Path) -> list[Path]:
    """Return the tar files of a folder, in order."""
    return sorted(path for path in folder.glob("*.tar") if path.is_file())


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, or of a member of a shard; ValueError if the shard has it no more."""
    if (shard := _shard_of(path)) is None:
        return path.read_bytes()
    place = _index(shard, shard.stat().st_mtime_ns).get(_name(path, shard))
    if place is None:
        raise ValueError(f"{path} is not there any more; bring it back")
    with open(shard, "rb") as file:
        file.seek(place.offset)
        return file.read(place.size)


def source(path: Path) -> Path | io.BytesIO:
    """Return what a file is opened by: its path, or the content of a member of a shard."""
    return path if _shard_of(path) is None else io.BytesIO(read_bytes(path))


def is_there(path: Path) -> bool:
    """Tell whether there is such a file, or such a member."""
    if (shard := _shard_of(path)) is None:
        return path.is_file()
    return _name(path, shard) in _index(shard, shard.stat().st_mtime_ns)


def stamp(path: Path) -> tuple[int, int]:
    """Return size and time of a file; of a member, the shard's time."""
    if (shard := _shard_of(path)) is None:
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns
    time = shard.stat().st_mtime_ns
    return _index(shard, time)[_name(path, shard)].size, time


def read_shards(folder: Path, endings: Collection[str]) -> tuple[dict[Path, str], Counter[str]]:
    """Return the caption of each image, and what is left out: a reason, and of how many members it is.

    Args:
        endings: of images, in small letters, with their dots.

    Raises:
        ValueError: a file is no tar.
    """
    captions: dict[Path, str] = {}
    left_out: Counter[str] = Counter()
    for shard in shards(folder):
        parts: dict[str, dict[str, str]] = defaultdict(dict)
        for name in _index(shard, shard.stat().st_mtime_ns):
            above, slash, last = name.rpartition("/")
            key, dot, ending = last.partition(".")  # folders may have dots
            parts[above + slash + key][dot + ending.lower()] = name
        for of_key in parts.values():
            image = next((name for ending, name in of_key.items() if ending in endings), None)
            text = _caption(shard, of_key)
            if image is None or not text:
                left_out["keys of shards without " + ("caption" if image else "image")] += 1
            else:
                captions[shard / image] = text
    return captions, left_out


def _caption(shard: Path, of_key: dict[str, str]) -> str:
    if (name := of_key.get(".txt")) is not None:
        return read_bytes(shard / name).decode("utf-8", "replace").strip()
    if (name := of_key.get(".json")) is not None:
        with reading(shard / name, "a caption"):
            told = json.loads(read_bytes(shard / name))
        return str(told.get("caption") or "").strip() if isinstance(told, dict) else ""
    return ""


def _shard_of(path: Path) -> Path | None:
    """Return the shard that a path leads into; None for a plain file."""
    if ".tar" not in str(path):
        return None
    return next((folder for folder in path.parents if folder.suffix == ".tar" and folder.is_file()), None)


def _name(path: Path, shard: Path) -> str:
    return path.relative_to(shard).as_posix()


def _member(name: str) -> str:
    """Return a member's name as a path in its shard: KEY.jpg also of ./KEY.jpg, as `tar cf SHARD.tar .` has
    it, and of /KEY.jpg, which else would be a file elsewhere."""
    return PurePosixPath(name.lstrip("/")).as_posix()


@lru_cache(maxsize=4096)
def _index(shard: Path, time: int) -> dict[str, Place]:
    """Return the places of a shard's members, by name; read anew if its time is another."""
    try:
        with tarfile.open(shard, "r:") as file:
            index = {_member(one.name): Place(one.offset_data, one.size) for one in file if one.isfile()}
            at = file.offset  # behind the last member that could be read
    except tarfile.TarError as error:
        raise ValueError(f"{shard} is no tar file that can be read in place: {error}; unpack it") from None
    with open(shard, "rb") as data:
        data.seek(at)
        if data.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError(
                f"{shard} has no end mark where its members end: it is cut or damaged; get it anew"
            )
    return index
