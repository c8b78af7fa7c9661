"""Kernel distances of two feature sets: the unbiased squared MMD of KID (Bińkowski et al. 2018), and CMMD
(Jayasumana et al. 2024)."""

from collections.abc import Callable

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
    cross = _mean(_cubic, features_Nd, reference_Md, block)
    within = mean_within(reference_Md, block=block) if within is None else within
    return mean_within(features_Nd, block=block) + within - 2 * cross


def mean_within(points_Nd: Tensor, *, block: int = 1024) -> float:
    """Return the mean kernel over the N (N - 1) ordered pairs of different points, in float64."""
    points_Nd = as_float64(points_Nd, points_Nd.shape[-1])
    count, width = points_Nd.shape
    diagonal = (points_Nd.square().sum(dim=1) / width + 1).pow(3).sum().item()
    return (count**2 * _mean(_cubic, points_Nd, points_Nd, block) - diagonal) / (count * (count - 1))


def cmmd(
    vectors_Nd: Tensor, reference_Md: Tensor, *, within: float | None = None, block: int = 1024
) -> float:
    """Return CMMD, 1000 times the squared MMD of CLIP's image vectors under exp(-|x - y|^2 / 200).

    The V-statistic over all pairs, a point with itself among them, as the published code has it: it is
    0 for equal sets and positive else, and falls with more images. The arithmetic is float64. ``within`` is
    ``mean_gaussian`` of the reference, for whoever compares with the same one again and again. Reference:
    Jayasumana et al. 2024, "Rethinking FID" (arXiv 2401.09603), section 4.

    Raises ValueError for vectors that are not of length 1, different widths or non-finite values.
    """
    vectors_Nd = _unit(vectors_Nd, vectors_Nd.shape[-1])
    reference_Md = _unit(reference_Md, vectors_Nd.shape[1])
    within = mean_gaussian(reference_Md, block=block) if within is None else within
    cross = _mean(_gaussian, vectors_Nd, reference_Md, block)
    return SCALE * (mean_gaussian(vectors_Nd, block=block) + within - 2 * cross)


def mean_gaussian(vectors_Nd: Tensor, *, block: int = 1024) -> float:
    """Return the mean of CMMD's kernel over all N^2 ordered pairs of vectors of length 1, in float64."""
    vectors_Nd = _unit(vectors_Nd, vectors_Nd.shape[-1])
    return _mean(_gaussian, vectors_Nd, vectors_Nd, block)


SIGMA, SCALE = 10, 1000  # CMMD's, which are part of its name


def _unit(vectors_Nd: Tensor, width: int) -> Tensor:
    vectors_Nd = as_float64(vectors_Nd, width)
    if len(vectors_Nd) and (off := (vectors_Nd.norm(dim=1) - 1).abs().max().item()) > 1e-3:
        raise ValueError(f"a vector's length is off 1 by {off:.3g}; CMMD is of CLIP's vectors of length 1")
    return vectors_Nd


def _mean(kernel: Callable[[Tensor, Tensor], Tensor], left_Nd: Tensor, right_Md: Tensor, block: int) -> float:
    """Return the mean of a kernel over all N M pairs."""
    sums = [
        kernel(rows, columns).sum()
        for rows in torch.split(left_Nd, block)
        for columns in torch.split(right_Md, block)
    ]
    return torch.stack(sums).sum().item() / (len(left_Nd) * len(right_Md))


def _cubic(left_Nd: Tensor, right_Md: Tensor) -> Tensor:
    return (left_Nd @ right_Md.T / left_Nd.shape[1] + 1).pow(3)


def _gaussian(left_Nd: Tensor, right_Md: Tensor) -> Tensor:
    squares_NM = left_Nd.square().sum(1)[:, None] + right_Md.square().sum(1) - 2 * left_Nd @ right_Md.T
    return (squares_NM / (-2 * SIGMA**2)).exp()
