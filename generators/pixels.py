"""Image files as pixels: one color mode and size for all, decided by headers and converted by meaning."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from generators.config import ColorMode
from generators.shards import is_there, read_bytes, source, stamp

GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes
_Result = TypeVar("_Result")


class Header(NamedTuple):
    """What a file says of its image: Pillow's mode, and the size as it is seen."""

    mode: str
    width: int
    height: int

    @property
    def grey(self) -> bool:
        """Whether it has no colors."""
        return self.mode in GREY


def read_header(path: Path) -> Header:
    """Read a file's header; ValueError naming the file if it has none."""

    def header(image: Image.Image) -> Header:
        turned = image.getexif().get(0x0112) in (5, 6, 7, 8)  # EXIF orientations that exchange the sides
        width, height = reversed(image.size) if turned else image.size
        return Header(image.mode, width, height)

    return _opened(path, source(path), header)


class ImageFiles:
    """Files read when asked for, as uint8 (N, C, H, W).

    Args:
        paths: of the files.
        size: (height, width) to resize and crop to, or the side of squares; None keeps the size, which must
            then be one.
        mode: "L" (grey) or "RGB" for all; None is RGB if any of the files is in color.
        hashes: of the files' contents, `content_hash`; a file of another one is refused.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: int | tuple[int, int] | None,
        mode: ColorMode | None = None,
        hashes: Sequence[str] | None = None,
    ) -> None:
        self.paths = paths
        self.size = size
        self.hashes = hashes
        if mode is not None:
            self.mode = mode

    @cached_property
    def headers(self) -> tuple[Header, ...]:
        """Of all files, in their order; read once for each split of the same folder."""
        return _headers(tuple(self.paths), self._stamp)

    @cached_property
    def mode(self) -> ColorMode:
        """Color mode of all images."""
        return "L" if all(header.grey for header in self.headers) else "RGB"

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        channels = 1 if self.mode == "L" else 3
        if self.size is not None:
            height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
            return channels, height, width
        first = read_header(self.paths[0])
        return channels, first.height, first.width

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(thread_name_prefix="images")

    def __getitem__(self, rows: Tensor) -> Tensor:
        _ = self.image_shape  # read here, since the readers wait for it
        return torch.stack(list(self._pool.map(self._read, rows.tolist())))

    def fingerprint(self) -> str:
        """Name the files' contents by their names, sizes and times, without reading them."""
        self.refuse_absent()
        return hashlib.sha256(f"{self._stamp}{self.size}{self.mode}".encode()).hexdigest()[:12]

    @property
    def _stamp(self) -> str:
        """Names, sizes and times of the files, as they are now."""
        return repr([(str(path), *stamp(path)) for path in self.paths if is_there(path)])

    def refuse_absent(self) -> None:
        """Raise ValueError if files are not there."""
        if absent := [path for path in self.paths if not is_there(path)]:
            raise ValueError(
                f"{len(absent)} of {len(self.paths)} images are gone, first {absent[0]}; bring them back, or "
                "make the task anew"
            )

    def refuse_sizes(self) -> None:
        """Raise ValueError if images are of several sizes and none is asked for; reads all headers."""
        if self.size is None:
            for path, header in zip(self.paths, self.headers, strict=True):
                self._refuse_other(path, (header.width, header.height))

    def _refuse_other(self, path: Path, found: tuple[int, int]) -> None:
        """Raise ValueError if a file's image is not as wide and high as all are."""
        _, height, width = self.image_shape
        if found != (width, height):
            sizes = f"{found[0]} x {found[1]} pixels, {self.paths[0].name} {width} x {height}"
            raise ValueError(f"{path} has {sizes}: name one size, as in PATH#size={min(width, height)}")

    def _read(self, row: int) -> Tensor:
        path = self.paths[row]
        if not is_there(path):
            self.refuse_absent()
        data = read_bytes(path)
        if self.hashes is not None and content_hash(data) != self.hashes[row]:
            raise ValueError(
                f"{path} has changed since the task was made; bring it back, or make the task anew"
            )

        def pixels(opened: Image.Image) -> Image.Image:
            image = eight_bit_image(opened).convert(self.mode)
            if self.size is not None:
                _, height, width = self.image_shape
                image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
            return image

        image = _opened(path, io.BytesIO(data), pixels)
        self._refuse_other(path, image.size)
        return rearrange(torch.from_numpy(np.array(image)), "h w ... -> (...) h w")


@lru_cache(maxsize=2)
def _headers(paths: tuple[Path, ...], stamp: str) -> tuple[Header, ...]:
    """Read the headers of files, again only if their stamp is another."""
    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(read_header, paths))


def refuse_unreadable(path: Path, data: bytes) -> None:
    """Raise ValueError naming a file if its content can't be read to the end."""
    _opened(path, io.BytesIO(data), lambda image: eight_bit_image(image).load())


def content_hash(data: bytes) -> str:
    """Name a file's content."""
    return hashlib.sha256(data).hexdigest()[:16]


def eight_bit_image(image: Image.Image) -> Image.Image:
    """Return an image as a viewer shows it, in a mode of 8 bits: upright, and opaque on white.

    16-bit values are a share of 65,535, floats of 1.

    Raises:
        ValueError: it is an animation, or has values beyond these.
    """
    # The further images of a telephone's MPO are previews and depths of the first.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ValueError(f"it has {image.n_frames} frames; save one of them as an image")  # type: ignore[attr-defined]
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F" or upright.mode.startswith("I"):
        return _scaled(upright)
    if not upright.has_transparency_data:
        return upright
    layer = upright.convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return opaque.convert("L") if upright.mode in GREY else opaque.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Return the 8 bits of a 16-bit or float image."""
    values = np.asarray(image).astype(np.float64)
    white = 1.0 if image.mode == "F" else 65_535.0
    low, high = values.min(), values.max()
    if not (np.isfinite(values).all() and low >= 0 and high <= white):
        raise ValueError(f"its values go from {low:g} to {high:g}; they have to lie between 0 and {white:g}")
    return Image.fromarray((values / white * 255).round().astype(np.uint8))


def _opened(path: Path, source: Path | io.BytesIO, use: Callable[[Image.Image], _Result]) -> _Result:
    """Return what is made of an image; ValueError naming its file if anything is wrong with it."""
    try:
        with Image.open(source) as image:
            return use(image)
    except FileNotFoundError:
        raise ValueError(f"{path} is not there any more; bring it back") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large: {error}; make it smaller or remove it") from None
    except Exception as error:  # Pillow's many readers raise what they like
        unknown = isinstance(error, UnidentifiedImageError)  # whose message names a path or a buffer
        said = "its format is not known" if unknown else str(error).partition("\n")[0]
        raise ValueError(f"{path} can't be read as an image: {said}; mend or remove it") from None
