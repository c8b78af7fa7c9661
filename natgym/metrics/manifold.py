"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)."""

import numpy as np
import torch
from torch import Tensor

from generators.noise import derive_seed
from natgym.metrics.frechet import as_float64

NEIGHBORS = 5  # that a ball reaches to
MOST = 10_000  # points of a set that tables take; all pairs of 50,000 would cost 25 times as much


def drawn(points_Nd: Tensor, most: int = MOST) -> Tensor:
    """Return at most `most` points of a set, the same random ones each time, in their order."""
    if len(points_Nd) <= most:
        return points_Nd
    rows = np.random.default_rng(derive_seed("neighborhoods")).permutation(len(points_Nd))[:most]
    return points_Nd[torch.from_numpy(np.sort(rows)).to(points_Nd.device)]


def precision_recall_density_coverage(
    features_Nd: Tensor,
    reference_Md: Tensor,
    *,
    neighbors: int = NEIGHBORS,
    radii_M: Tensor | None = None,
    block: int = 1024,
) -> dict[str, float]:
    """Compare generated features (N, d) with real ones (M, d) through their nearest-neighbor balls.

    The ball of a point is closed and reaches to its ``neighbors``-th nearest other point of the same set.

    - ``precision`` in [0, 1]: share of generated points inside the ball of a real one.
    - ``recall`` in [0, 1]: share of real points inside the ball of a generated one.
    - ``density`` in [0, M / neighbors], 1 expected for equal distributions: real balls around a generated
      point, on average, over ``neighbors``.
    - ``coverage`` in [0, 1]: share of real points whose ball holds a generated one.

    Both sets are float tensors on one device; distances are float64, ``block`` rows of them at a time. The
    papers differ in ``neighbors``: 3 for precision and recall, 5 for density and coverage. ``radii_M`` are
    ``ball_radii`` of the reference, for whoever compares with the same one again and again. References:
    Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models"; Naeem et
    al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models".

    Raises ValueError for a set of ``neighbors`` points or fewer, different widths or non-finite values.
    """
    features_Nd = as_float64(features_Nd, features_Nd.shape[-1])
    reference_Md = as_float64(reference_Md, features_Nd.shape[1])
    most = min(len(features_Nd), len(reference_Md)) - 1
    if not 1 <= neighbors <= most:
        raise ValueError(f"neighbors={neighbors} must lie in 1..{most} for these sets: pass more points")
    radii = (
        ball_radii(features_Nd, neighbors, block=block),
        ball_radii(reference_Md, neighbors, block=block) if radii_M is None else radii_M,
    )
    held_N, holding_M, recalled_M = _memberships(features_Nd, reference_Md, *radii, block)
    return {
        "precision": _mean(held_N > 0),
        "recall": _mean(recalled_M),
        "density": _mean(held_N) / neighbors,
        "coverage": _mean(holding_M),
    }


def _memberships(
    features_Nd: Tensor, reference_Md: Tensor, radii_N: Tensor, radii_M: Tensor, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the real balls around each generated point (N,), and for each real point (M,) whether its ball
    holds a generated point and whether it lies in the ball of one."""
    held = []
    holding_M = torch.zeros_like(radii_M, dtype=torch.bool)
    recalled_M = torch.zeros_like(holding_M)
    for rows, radii_B in zip(torch.split(features_Nd, block), torch.split(radii_N, block), strict=True):
        distances_BM = _distances(rows, reference_Md)
        in_real_BM = distances_BM <= radii_M
        held.append(in_real_BM.sum(dim=1))
        holding_M |= in_real_BM.any(dim=0)
        recalled_M |= (distances_BM <= radii_B[:, None]).any(dim=0)
    return torch.cat(held), holding_M, recalled_M


def ball_radii(points_Nd: Tensor, neighbors: int = NEIGHBORS, *, block: int = 1024) -> Tensor:
    """Return the distance (N,), float64, of each point to its ``neighbors``-th nearest other point."""
    points_Nd = as_float64(points_Nd, points_Nd.shape[-1])
    # One further than asked for: every point is its own nearest, at an exact 0.
    nearest = [_distances(rows, points_Nd).kthvalue(neighbors + 1) for rows in torch.split(points_Nd, block)]
    return torch.cat([distances.values for distances in nearest])


def _distances(left_Bd: Tensor, right_Md: Tensor) -> Tensor:
    # The matrix-product route is faster but cancels: near duplicates would leave the balls they belong to.
    return torch.cdist(left_Bd, right_Md, compute_mode="donot_use_mm_for_euclid_dist")


def _mean(values: Tensor) -> float:
    return values.to(torch.float64).mean().item()
