"""Fréchet distance of two Gaussians (Dowson & Landau 1982), the formula of FID (Heusel et al. 2017).

The number is called FID only when the features come from the FID Inception network; on any other
features it is a Fréchet distance, not comparable with published FIDs. It is biased upwards for small
sample counts, so only values at equal counts may be compared.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """First two moments of a feature set, in float64.

    ``count`` samples, ``mean`` (d,), unbiased (ddof 1) ``covariance`` (d, d).
    """

    count: int
    mean: Tensor
    covariance: Tensor


def as_float64(features_Nd: Tensor, width: int) -> Tensor:
    """Return (N, width) features detached and in float64, on their own device.

    Raises ValueError if the width differs or a value is NaN or infinite.
    """
    _require_width(features_Nd.shape[1:], width)
    features_Nd = features_Nd.detach().to(torch.float64)
    bad = int((~torch.isfinite(features_Nd)).sum())
    if bad:
        raise ValueError(f"{bad} feature values are NaN or infinite, all must be finite: check the extractor")
    return features_Nd


class MomentsAccumulator:
    """Mean and covariance of a stream of (N, width) feature batches, whichever way it is cut.

    The state is float64 and follows the device of the last batch.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._count = 0
        self._mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    def update(self, features_Nd: Tensor) -> None:
        """Add a batch (N, width), N >= 0; ValueError on another width or non-finite values."""
        features_Nd = as_float64(features_Nd, self.width)
        mean = features_Nd.mean(dim=0)
        centered_Nd = features_Nd - mean
        self._absorb(len(features_Nd), mean, centered_Nd.T @ centered_Nd)

    def merge(self, other: "MomentsAccumulator") -> None:
        """Add all samples of ``other``, which stays as it is; ValueError on another width."""
        _require_width(other._mean.shape, self.width)
        self._absorb(other._count, other._mean, other._scatter)

    def compute(self) -> Moments:
        """Return the moments of all samples so far; ValueError for fewer than 2 samples."""
        if self._count < 2:
            raise ValueError(f"{self._count} samples are too few, 2 or more are needed: add features")
        return Moments(self._count, self._mean, self._scatter / (self._count - 1))

    def _absorb(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        # Pairwise update of Chan, Golub & LeVeque (1983): unlike raw sums of squares, it loses no digits
        # when the mean is large against the spread.
        if count == 0:
            return
        total = self._count + count
        shift = mean - self._mean.to(mean.device)
        between = torch.outer(shift, shift) * (self._count * count / total)
        self._scatter = self._scatter.to(mean.device) + scatter + between
        self._mean = self._mean.to(mean.device) + shift * (count / total)
        self._count = total


class FrechetDistance:
    """Squared Fréchet distance |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) to a fixed reference.

    Either ``between`` given moments, or as an accumulator: ``update`` with batches, ``compute``, ``reset``.
    Non-negative up to rounding. References: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update
    Rule Converge to a Local Nash Equilibrium"; Dowson & Landau 1982, "The Fréchet Distance between
    Multivariate Normal Distributions".
    """

    def __init__(self, reference: Moments) -> None:
        self.reference = reference
        self._root = _square_root(reference.covariance)
        self.reset()

    def between(self, moments: Moments) -> float:
        """Return the distance of ``moments`` (any device) to the reference; ValueError on another width."""
        _require_width(moments.mean.shape, len(self.reference.mean))
        mean = moments.mean.to(self.reference.mean)
        covariance = moments.covariance.to(self._root)
        # The eigenvalues of S1 S2 are those of root^T S1 root, which is symmetric: no complex square roots.
        eigenvalues = torch.linalg.eigvalsh(self._root.T @ covariance @ self._root)
        cross = eigenvalues.clamp_min(0).sqrt().sum()
        traces = covariance.trace() + self.reference.covariance.trace()
        return float((mean - self.reference.mean).square().sum() + traces - 2 * cross)

    def influence(self, features_Nd: Tensor) -> Tensor:
        """Return how much each of N generated features (N, d) moves their distance, (N,) float64.

        This is the influence function, the derivative of the distance as the sample's weight grows: it has
        mean 0, sqrt(mean(influence^2) / N) is the distance's standard error, and samples of negative
        influence are those that bring the set closer to the reference. ValueError for fewer than 2 samples.
        """
        accumulator = MomentsAccumulator(len(self.reference.mean))
        accumulator.update(features_Nd)
        moments = accumulator.compute()
        centered_Nd = as_float64(features_Nd, len(moments.mean)) - moments.mean
        root = self._root.to(moments.mean)
        covariance = moments.covariance * ((moments.count - 1) / moments.count)
        values, vectors = torch.linalg.eigh(root.T @ covariance @ root)
        # The derivative of -2 tr (R^T S R)^(1/2); directions that no sample has contribute nothing.
        kept = values > values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
        basis = root @ vectors[:, kept] * values[kept].rsqrt().sqrt()
        shift = moments.mean - self.reference.mean.to(moments.mean)
        projected = (centered_Nd @ basis).square().sum(1)
        second = centered_Nd.square().sum(1) - projected
        return 2 * centered_Nd @ shift + second - second.mean()

    def update(self, features_Nd: Tensor) -> None:
        """Add a batch (N, d); ValueError on another width or non-finite values."""
        self._accumulator.update(features_Nd)

    def compute(self) -> float:
        """Return the distance of all samples since the last reset; ValueError for fewer than 2."""
        return self.between(self._accumulator.compute())

    def reset(self) -> None:
        """Forget the samples, keep the reference."""
        self._accumulator = MomentsAccumulator(len(self.reference.mean))


def _square_root(covariance: Tensor) -> Tensor:
    """Return R (d, rank) with R R^T = covariance, the symmetric square root in its own eigenbasis."""
    values, vectors = torch.linalg.eigh(covariance)
    # Directions of zero variance come out as rounding noise, and a root turns noise of 1e-15 into 3e-8 per
    # direction: identical sets with fewer samples than features would end up at about -1e-4 instead of 0.
    noise = values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    kept = values > noise
    root: Tensor = vectors[:, kept] * values[kept].sqrt()
    return root


def _require_width(shape: torch.Size, width: int) -> None:
    if shape != (width,):
        raise ValueError(f"a feature has shape {tuple(shape)}, it must be ({width},): use the same extractor")
