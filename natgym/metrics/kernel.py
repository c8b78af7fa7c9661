"""Kernel distance of two feature sets, the unbiased squared MMD of KID (Bińkowski et al. 2018)."""

import torch
from torch import Tensor

from natgym.metrics.frechet import as_float64


def kernel_distance(
    features_Nd: Tensor, reference_Md: Tensor, *, within: float | None = None, block: int = 1024
) -> float:
    """Return the U-statistic of the squared MMD under the kernel (x.y / d + 1)^3, over all pairs.

    Being unbiased, it scatters around 0 for equal distributions and may be slightly negative. Both sets are
    float tensors on one device; the arithmetic is float64, on ``block`` x ``block`` pairs at a time.
    KID proper takes FID Inception features and averages this over random subsets; all pairs have the same
    expectation and need no random draw. ``within`` is ``mean_within`` of the reference, for whoever compares
    with the same one again and again. Reference: Bińkowski et al. 2018, "Demystifying MMD GANs".

    Raises ValueError for fewer than 2 samples in a set, different widths or non-finite values.
    """
    features_Nd = as_float64(features_Nd, features_Nd.shape[-1])
    reference_Md = as_float64(reference_Md, features_Nd.shape[1])
    fewest = min(len(features_Nd), len(reference_Md))
    if fewest < 2:
        raise ValueError(f"{fewest} samples are too few, each set needs at least 2: pass more features")
    cross = _kernel_sum(features_Nd, reference_Md, block) / (len(features_Nd) * len(reference_Md))
    within = mean_within(reference_Md, block=block) if within is None else within
    return mean_within(features_Nd, block=block) + within - 2 * cross


def mean_within(points_Nd: Tensor, *, block: int = 1024) -> float:
    """Return the mean kernel over the N (N - 1) ordered pairs of different points, in float64."""
    points_Nd = as_float64(points_Nd, points_Nd.shape[-1])
    count, width = points_Nd.shape
    diagonal = _kernel(points_Nd.square().sum(dim=1), width).sum().item()
    return (_kernel_sum(points_Nd, points_Nd, block) - diagonal) / (count * (count - 1))


def _kernel_sum(left_Nd: Tensor, right_Md: Tensor, block: int) -> float:
    """Return the sum of the kernel over all N M pairs."""
    width = left_Nd.shape[1]
    sums = [
        _kernel(rows @ columns.T, width).sum()
        for rows in torch.split(left_Nd, block)
        for columns in torch.split(right_Md, block)
    ]
    return torch.stack(sums).sum().item()


def _kernel(dots: Tensor, width: int) -> Tensor:
    return (dots / width + 1).pow(3)
