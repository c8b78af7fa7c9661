"""Where features of images come from: what an extractor is, foreign ones by name, and images in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from generators.images import ImageRows, batches, eight_bits
from generators.room import image_rows
from natgym.metrics.clip import CLIP, CLIPImages
from natgym.metrics.dino import DINOv2
from natgym.metrics.inception import Inception

CHUNK = 1000  # images judged at once
BEYOND = 0.5  # of [0, 1], which decoders without a clamp overshoot
Seen = tuple[Tensor, Tensor | None]
"""Features (N, d) and logits (N, K) of images."""


class Extractor(Protocol):
    """Features of images in [0, 1], (B, d), and logits (B, K) of some classes, if it has any."""

    meaning: str
    """What a Frechet distance in these features is."""

    @property
    def num_features(self) -> int: ...

    def __call__(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor | None]: ...


def load_extractor(kind: str, weights: Path | str | None, device: torch.device | str = "cpu") -> Any:
    """Return a foreign feature extractor, a module.

    Args:
        kind: "inception", "clip", "dinov2" or "dinov2-small", "-base", "-large".
        weights: local file; of CLIP a local folder, as transformers has it.

    Raises:
        ValueError: there is no such extractor, or its weights are not there.
    """
    family, _, size = kind.partition("-")
    if kind not in ("inception", "clip") and family != "dinov2":
        raise ValueError(f"extractor {kind!r} is not one of classifier, inception, clip, dinov2")
    if weights is None:
        raise ValueError(f"extractor {kind} needs its --weights: a local file, nothing is fetched")
    if kind == "inception":
        return Inception.load(weights).to(device)
    if kind == "clip":
        if not Path(weights).is_dir():  # a name would be fetched
            raise ValueError(f"extractor clip: {weights} is no folder; give a local one, nothing is fetched")
        return CLIPImages(CLIP(str(weights), device))
    return DINOv2.load(weights, size or "base").to(device)


@torch.no_grad()
def extract(
    extractor: Extractor,
    images: ImageRows,
    quantise: bool = True,
    *,
    chunk: int = CHUNK,
    device: torch.device | str | None = None,
) -> Seen:
    """Return features (N, d) and logits (N, K) of images, in chunks.

    Args:
        images: N of them, in memory or read when asked for.
        quantise: round them to 8 bits first.
        chunk: images looked at at once.
        device: of the extractor; None where the images are on it.

    Raises:
        ValueError: a pixel is not finite, or far beyond [0, 1].
    """
    return joined(
        [
            look(extractor, images_BCHW, quantise, first=number * chunk)
            for number, (_, images_BCHW) in enumerate(batches(images, chunk, device))
        ]
    )


@torch.no_grad()
def look(extractor: Extractor, images_BCHW: Tensor, quantise: bool = True, *, first: int = 0) -> Seen:
    """Return features and logits of one chunk of images, whose first is number `first`; see `extract`."""
    if not bool(torch.isfinite(images_BCHW).all()):  # rounding would hide it
        raise ValueError(f"of {_named(first, images_BCHW)} some have pixels that are not finite")
    low, high = (float(end) for end in images_BCHW.aminmax())
    if low < -BEYOND or high > 1 + BEYOND:  # so would clamping
        which = _named(first, images_BCHW)
        raise ValueError(f"pixels of {which} go from {low:.4g} to {high:.4g}; they have to lie in [0, 1]")
    parts = images_BCHW.split(image_rows(images_BCHW.shape[1:]))
    return joined([extractor(eight_bits(part) if quantise else part) for part in parts])


def _named(first: int, images_BCHW: Tensor) -> str:
    return f"images {first} to {first + len(images_BCHW) - 1}"


def joined(parts: Sequence[Seen]) -> Seen:
    """Join features and logits of chunks."""
    logits = [logits for _, logits in parts if logits is not None]
    return torch.cat([features for features, _ in parts]), torch.cat(logits) if logits else None
