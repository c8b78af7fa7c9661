"""Many images behind one surface: floats in memory, or bytes that become floats row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from generators import former
from generators.checkpoints import tensors_hash
from generators.conditions import Condition
from generators.noise import derive_seed

Batch = tuple[Tensor, Condition]
"""Images (B, C, H, W) in [0, 1] and what they are of."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images (N, C, H, W) in [0, 1] with their conditions; the classes' names where they are known."""

    images_NCHW: Tensor
    condition: Condition
    class_names: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> Split:
        """Move to a device."""
        return Split(self.images_NCHW.to(device), self.condition.to(device), self.class_names)

    def take(self, rows: Tensor) -> Split:
        """Return the split of some rows 0..N-1 alone."""
        return Split(self.images_NCHW[rows], self.condition[rows], self.class_names)

    def __len__(self) -> int:
        return len(self.images_NCHW)

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.images_NCHW[rows]


class ImageRows(Protocol):
    """N images in [0, 1] by rows: a tensor (N, C, H, W), `Pictures`, or a `Split`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor) -> Tensor: ...


class SplitRows(ImageRows, Protocol):
    """A split by rows: in memory, a `Split`, or read when asked for, `Pictures`."""

    @property
    def condition(self) -> Condition: ...

    def take(self, rows: Tensor) -> Self: ...


class Pixels(Protocol):
    """Where uint8 images come from: memory or files."""

    def __getitem__(self, rows: Tensor) -> Tensor: ...

    def fingerprint(self) -> str: ...


class ArrayPixels:
    """Images in memory, uint8 (N, C, H, W)."""

    def __init__(self, pixels_NCHW: Tensor) -> None:
        self.pixels_NCHW = pixels_NCHW

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.pixels_NCHW[rows]

    def fingerprint(self) -> str:
        return tensors_hash({"pixels": self.pixels_NCHW})


@dataclass(frozen=True, eq=False)
class Pictures:
    """A split whose images are turned to floats, or read from files, only when asked for.

    Attributes:
        pixels: of all splits of the task.
        rows_N: which of them are in this one.
        condition: of the N images.
        class_names: where they are known.
        white: the pixel value that becomes 1.
        device: where the images are wanted.
    """

    pixels: Pixels
    rows_N: Tensor
    condition: Condition
    class_names: tuple[str, ...] = ()
    white: int = 255
    device: torch.device = torch.device("cpu")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self[torch.tensor([0])].shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.rows_N)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return images (B, C, H, W) in [0, 1] of some rows 0..N-1."""
        return self.pixels[self.rows_N[rows]].float().div(self.white).to(self.device)

    def to(self, device: torch.device | str) -> Pictures:
        """Return the split with conditions on a device, where images are once they are asked for."""
        return replace(self, condition=self.condition.to(device), device=torch.device(device))

    def take(self, rows: Tensor) -> Pictures:
        """Return the split of some rows 0..N-1 alone."""
        return replace(self, rows_N=self.rows_N[rows], condition=self.condition[rows])

    def load(self) -> Split:
        """Return all images as floats."""
        return Split(self[torch.arange(len(self))], self.condition, self.class_names)

    def fingerprint(self) -> str:
        """Name the images and their order, so that what was made of others is noticed."""
        return f"{self.pixels.fingerprint()}-{tensors_hash({'rows': self.rows_N})}"


class RandomCrops:
    """Squares cut from each of N images at random places; row k N + i is the k-th of image i.

    Args:
        images: (N, C, H, W), larger than the squares.
        size: of the squares, in pixels.
        crops: of each image.
    """

    def __init__(self, images: ImageRows, size: int, crops: int) -> None:
        self.images = images
        self.size = size
        self.crops = crops

    def __len__(self) -> int:
        return self.crops * len(self.images)

    def __getitem__(self, rows: Tensor) -> Tensor:
        whole_BCHW = self.images[rows % len(self.images)]
        return torch.stack(
            [self._cut(whole, row) for whole, row in zip(whole_BCHW, rows.tolist(), strict=True)]
        )

    def _cut(self, image_CHW: Tensor, row: int) -> Tensor:
        """A row is cut where it was cut before, in whatever batch it comes."""
        room = np.array(image_CHW.shape[1:]) - self.size
        top, left = np.random.default_rng(derive_seed("crop", row)).integers(room + 1)
        return image_CHW[:, top : top + self.size, left : left + self.size]


def batches(
    images: ImageRows, size: int, device: torch.device | str | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows (B,) and the images (B, C, H, W) of N images, `size` at a time.

    Args:
        images: in memory, or read when asked for.
        device: where the batches go; None leaves them where they are.
    """
    for rows in torch.arange(len(images)).split(size):
        images_BCHW = images[rows]
        yield rows, images_BCHW if device is None else images_BCHW.to(device)


def labelled(part: SplitRows, size: int) -> Iterator[Batch]:
    """Yield the images of a split with their conditions, `size` at a time."""
    for rows, images_BCHW in batches(part, size):
        yield images_BCHW, part.condition[rows]


def regrouped(stream: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Yield batches of any sizes again, `size` rows at a time, of which the last may have fewer."""
    held: list[Batch] = []
    room = size
    for images_BCHW, condition in stream:
        while len(images_BCHW):
            held.append((images_BCHW[:room], condition[:room]))
            images_BCHW, condition = images_BCHW[room:], condition[room:]
            room -= len(held[-1][0])
            if not room:
                whole, held, room = _joined(held), [], size
                yield whole
    if held:
        yield _joined(held)


def _joined(parts: Sequence[Batch]) -> Batch:
    images, conditions = zip(*parts, strict=True)
    return (torch.cat(images), type(conditions[0]).cat(conditions)) if len(parts) > 1 else parts[0]


def eight_bits(images_NCHW: Tensor) -> Tensor:
    """Return the images as they are after saving without loss: rounded to multiples of 1 / 255."""
    return (images_NCHW.clamp(0, 1) * 255).round() / 255


class EightBits:
    """Images as `eight_bits` returns them, when they are asked for."""

    def __init__(self, images: ImageRows) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> Tensor:
        return eight_bits(self.images[rows])


__getattr__ = former.renamed(__name__, {"Part": "Split", "Images": "ImageRows"})
