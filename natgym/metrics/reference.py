"""What generated images are compared with: features of real images, or published statistics of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from generators.checkpoints import TensorsHash, tensors_hash
from generators.conditions import Condition
from generators.images import SplitRows, batches
from natgym.metrics.extractors import CHUNK, Extractor, joined, look
from natgym.metrics.frechet import FrechetDistance, Moments, MomentsAccumulator
from natgym.metrics.kernel import mean_gaussian, mean_within
from natgym.metrics.manifold import NEIGHBORS, ball_radii, drawn

WIDEST = 4096  # features that statistics from a file may be of, unless the extractor has more


@dataclass(frozen=True, eq=False)
class Reference:
    """Real images as an extractor sees them; what metrics need of these alone is taken once.

    Attributes:
        moments: of the features; a count of 0 where a file does not say how many images they are of.
        name: a hash of images or statistics, for the protocol.
        features_Nd: None for statistics from a file, which then allow a Frechet distance only.
        condition: of the images; None for statistics from a file.
    """

    moments: Moments
    name: str
    features_Nd: Tensor | None = None
    condition: Condition | None = None

    @classmethod
    def of(cls, part: SplitRows, extractor: Extractor, *, quantise: bool = True) -> Reference:
        """Take the moments of a split's images, as an extractor sees them; warn if they are few.

        Raises:
            ValueError: they are too few for the metrics of neighbors.
        """
        refuse_too_few_real(len(part))
        if len(part) < extractor.num_features:
            warnings.warn(
                f"{len(part)} real images judge in {extractor.num_features} features: their covariance is "
                "singular, and distances are mostly bias; compare them with one another at most",
                stacklevel=2,
            )
        digest, seen = TensorsHash(), []
        digest.begin("images")
        for rows, images_BCHW in batches(part, CHUNK):
            digest.update(images_BCHW)
            seen.append(look(extractor, images_BCHW, quantise, first=int(rows[0])))
        features_Nd, _ = joined(seen)
        accumulator = MomentsAccumulator(extractor.num_features)
        accumulator.update(features_Nd)
        return cls(accumulator.compute(), digest.value, features_Nd, part.condition)

    @classmethod
    def load(cls, path: Path | str, extractor: Extractor) -> Reference:
        """Read ADM's statistics, `mu` and `sigma` of an .npz; ValueError if they are not there or don't fit.

        The 10,000 images that ADM's file also holds are not the reference of the distance.
        """
        try:
            _refuse_bomb(path, extractor.num_features)
            with np.load(path, allow_pickle=False) as file:
                statistics = {name: _real(file[name]) for name in ("mu", "sigma")}
        except Exception as error:  # a broken archive can raise anything
            raise ValueError(
                f"{path} holds no statistics ({error}); expected an .npz with mu and sigma"
            ) from None
        width = extractor.num_features
        if statistics["mu"].shape != (width,) or statistics["sigma"].shape != (width, width):
            raise ValueError(
                f"{path} holds statistics of {len(statistics['mu'])} features, the extractor gives {width}; "
                "use those of the same network"
            )
        if what := _no_covariance(statistics["sigma"]):
            raise ValueError(f"{path}: sigma is no covariance, {what}; get the file anew")
        return cls(Moments(0, statistics["mu"], statistics["sigma"]), tensors_hash(statistics))

    @cached_property
    def frechet(self) -> FrechetDistance:
        """The Frechet distance to these images."""
        return FrechetDistance(self.moments)

    @cached_property
    def kernel_within(self) -> float | None:
        """Mean kernel of the images to each other; None without their features."""
        return None if self.features_Nd is None else mean_within(self.features_Nd)

    @cached_property
    def gaussian_within(self) -> float | None:
        """Mean of CMMD's kernel over all pairs of the images; None without their features, CLIP's vectors."""
        return None if self.features_Nd is None else mean_gaussian(self.features_Nd)

    @cached_property
    def neighborhoods(self) -> tuple[Tensor, Tensor] | None:
        """Features of at most `manifold.MOST` images, and the radius of each one's ball of nearest neighbors
        among these; None without features."""
        if self.features_Nd is None:
            return None
        points_Md = drawn(self.features_Nd)
        return points_Md, ball_radii(points_Md)

    def distance(self, features_Nd: Tensor) -> float:
        """Return the Frechet distance of features (N, d) to these images."""
        accumulator = MomentsAccumulator(len(self.moments.mean))
        accumulator.update(features_Nd)
        return self.frechet.between(accumulator.compute())

    def distance_and_error(self, features_Nd: Tensor) -> tuple[float, float]:
        """Return the Frechet distance and its standard error over draws of as many images."""
        variance = self.frechet.influence(features_Nd).square().mean() / len(features_Nd)
        return self.distance(features_Nd), variance.sqrt().item()


def _real(values: np.ndarray) -> Tensor:
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise ValueError("its values are not all real and finite")
    return torch.from_numpy(np.asarray(values, np.float64))


def _no_covariance(sigma_dd: Tensor) -> str | None:
    """Say why a matrix is no covariance; None if it is one, but for rounding."""
    size = sigma_dd.diagonal().abs().max().item()
    if not torch.allclose(sigma_dd, sigma_dd.T, rtol=0, atol=1e-4 * size):
        return "it is not symmetric"
    if (least := torch.linalg.eigvalsh(sigma_dd)[0].item()) < -1e-3 * size:
        return f"its least eigenvalue is {least:.3g}"
    return None


def refuse_too_few_real(number: int) -> None:
    """Raise ValueError if metrics can't be taken against so many real images."""
    if number <= NEIGHBORS:
        raise ValueError(
            f"{number} real images are too few to judge by: recall and coverage take {NEIGHBORS} neighbors "
            f"of each; give at least {NEIGHBORS + 1}, or more images to cut splits from"
        )


def _refuse_bomb(path: Path | str, width: int) -> None:
    """Raise ValueError if statistics in an archive unpack to more than those of any network are."""
    with ZipFile(path) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
    most = 16 * max(width, WIDEST) ** 2 + 4096  # and a header
    for name in ("mu.npy", "sigma.npy"):
        if sizes.get(name, 0) > most:
            raise ValueError(f"{name} unpacks to {sizes[name]:,} bytes, more than {most:,}")
