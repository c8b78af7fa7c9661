"""What generated pictures are compared with: features of real pictures, or published statistics of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from generators.checkpoints import tensors_hash
from generators.data import Part
from natgym.metrics import Moments, MomentsAccumulator
from natgym.metrics.dino import DINOv2
from natgym.metrics.inception import Inception

CHUNK = 1000  # pictures judged at once


class Extractor(Protocol):
    """Features of pictures in [0, 1], (B, d), and logits (B, K) of some classes, if it has any."""

    meaning: str
    """What a Frechet distance in these features is."""

    @property
    def num_features(self) -> int: ...

    def __call__(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor | None]: ...


def load_extractor(kind: str, weights: Path | str | None, device: torch.device | str = "cpu") -> Any:
    """Return a foreign feature extractor, a module.

    Args:
        kind: "inception", "dinov2" or "dinov2-small", "-base", "-large".
        weights: local file.

    Raises:
        ValueError: there is no such extractor, or its weights are not there.
    """
    family, _, size = kind.partition("-")
    if kind != "inception" and family != "dinov2":
        raise ValueError(f"extractor {kind!r} is not one of classifier, inception, dinov2")
    if weights is None:
        raise ValueError(f"extractor {kind} needs its --weights: a local file, nothing is fetched")
    if kind == "inception":
        return Inception.load(weights).to(device)
    return DINOv2.load(weights, size or "base").to(device)


@dataclass(frozen=True, eq=False)
class Reference:
    """Real pictures as an extractor sees them.

    Attributes:
        moments: of the features; a count of 0 where a file does not say how many pictures they are of.
        name: a hash of pictures or statistics, for the protocol.
        features_Nd: None for statistics from a file, which then allow a Frechet distance only.
    """

    moments: Moments
    name: str
    features_Nd: Tensor | None = None

    @classmethod
    def of(cls, part: Part, extractor: Extractor, *, quantise: bool = True) -> Reference:
        """Judge the pictures of a part."""
        features_Nd, _ = extract(extractor, part.images_NCHW, quantise)
        accumulator = MomentsAccumulator(extractor.num_features)
        accumulator.update(features_Nd)
        return cls(accumulator.compute(), tensors_hash({"images": part.images_NCHW}), features_Nd)

    @classmethod
    def load(cls, path: Path | str, extractor: Extractor) -> Reference:
        """Read ADM's statistics, `mu` and `sigma` of an .npz; ValueError if they are not there or don't fit.

        The 10,000 pictures that ADM's file also holds are not the reference of the distance.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {
                    name: torch.from_numpy(np.asarray(file[name], np.float64)) for name in ("mu", "sigma")
                }
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{path} holds no statistics ({error}); expected an .npz with mu and sigma"
            ) from None
        width = extractor.num_features
        if found["mu"].shape != (width,) or found["sigma"].shape != (width, width):
            raise ValueError(
                f"{path} holds statistics of {len(found['mu'])} features, the extractor gives {width}; "
                "use those of the same network"
            )
        return cls(Moments(0, found["mu"], found["sigma"]), tensors_hash(found))


def eight_bits(images_NCHW: Tensor) -> Tensor:
    """Return the pictures as they are after saving without loss: rounded to multiples of 1 / 255."""
    return (images_NCHW.clamp(0, 1) * 255).round() / 255


@torch.no_grad()
def extract(extractor: Extractor, images_NCHW: Tensor, quantise: bool = True) -> tuple[Tensor, Tensor | None]:
    """Return features (N, d) and logits (N, K) of pictures, rounded to 8 bits or as they are, in chunks."""
    outputs = [extractor(eight_bits(chunk) if quantise else chunk) for chunk in images_NCHW.split(CHUNK)]
    logits = [logits for _, logits in outputs if logits is not None]
    return torch.cat([features for features, _ in outputs]), torch.cat(logits) if logits else None
