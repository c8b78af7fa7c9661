"""What generated images are compared with: features of real images, or published statistics of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generators.checkpoints import tensors_hash
from generators.data import Split
from natgym.metrics import Moments, MomentsAccumulator
from natgym.metrics.extractors import Extractor, extract


@dataclass(frozen=True, eq=False)
class Reference:
    """Real images as an extractor sees them.

    Attributes:
        moments: of the features; a count of 0 where a file does not say how many images they are of.
        name: a hash of images or statistics, for the protocol.
        features_Nd: None for statistics from a file, which then allow a Frechet distance only.
    """

    moments: Moments
    name: str
    features_Nd: Tensor | None = None

    @classmethod
    def of(cls, part: Split, extractor: Extractor, *, quantise: bool = True) -> Reference:
        """Take the moments of a part's images, as an extractor sees them."""
        features_Nd, _ = extract(extractor, part.images_NCHW, quantise)
        accumulator = MomentsAccumulator(extractor.num_features)
        accumulator.update(features_Nd)
        return cls(accumulator.compute(), tensors_hash({"images": part.images_NCHW}), features_Nd)

    @classmethod
    def load(cls, path: Path | str, extractor: Extractor) -> Reference:
        """Read ADM's statistics, `mu` and `sigma` of an .npz; ValueError if they are not there or don't fit.

        The 10,000 images that ADM's file also holds are not the reference of the distance.
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
