"""Semi-supervised k-means (Vaze et al. 2022, section 3)."""

from __future__ import annotations

import numpy as np

from generators.noise import derive_seed


def semi_supervised_kmeans(
    features_ND: np.ndarray,
    targets_N: np.ndarray,
    num_categories: int,
    *,
    restarts: int = 10,
    iterations: int = 100,
    seed: int = 0,
) -> np.ndarray:
    """Return clusters (N,) in 0..K-1; a labelled sample stays in the cluster of its category.

    Old centroids start at their class means, new ones by k-means++ on the unlabelled samples; the restart
    with the smallest sum of squared distances wins.

    Args:
        features_ND: of all samples.
        targets_N: old category 0..O-1 of a labelled sample, -1 for an unlabelled one.
        num_categories: K >= O.

    Raises:
        ValueError: there are fewer clusters than old categories, or more than samples.
    """
    num_old = int(targets_N.max(initial=-1)) + 1
    if not max(num_old, 1) <= num_categories <= len(features_ND):
        raise ValueError(
            f"{num_categories} categories for {num_old} old ones and {len(features_ND)} samples; "
            "K must lie between the two"
        )
    runs = []
    for restart in range(restarts):
        rng = np.random.default_rng(derive_seed(seed, restart, "k-means"))
        centroids_KD = _start(features_ND, targets_N, num_old, num_categories, rng)
        runs.append(_iterate(features_ND, targets_N, centroids_KD, iterations))
    return min(runs, key=lambda run: run[0])[1]


def _start(
    features_ND: np.ndarray, targets_N: np.ndarray, num_old: int, K: int, rng: np.random.Generator
) -> np.ndarray:
    chosen = [features_ND[targets_N == category].mean(0) for category in range(num_old)]
    pool_UD = features_ND[targets_N < 0] if (targets_N < 0).any() else features_ND
    if not chosen:
        chosen.append(pool_UD[rng.integers(len(pool_UD))])
    nearest_U = _distances(pool_UD, np.stack(chosen)).min(1)
    while len(chosen) < K:
        total = nearest_U.sum()
        share_U = nearest_U / total if total > 0 else None  # all samples sit on centroids: any will do
        chosen.append(pool_UD[rng.choice(len(pool_UD), p=share_U)])
        nearest_U = np.minimum(nearest_U, _distances(pool_UD, chosen[-1][None])[:, 0])
    return np.stack(chosen)


def _iterate(
    features_ND: np.ndarray, targets_N: np.ndarray, centroids_KD: np.ndarray, iterations: int
) -> tuple[float, np.ndarray]:
    """Return the sum of squared distances and the clusters where they no longer change."""
    clusters_N = np.full(len(features_ND), -1)
    labelled_N = targets_N >= 0
    for _ in range(iterations):
        distances_NK = _distances(features_ND, centroids_KD)
        before_N = clusters_N
        clusters_N = np.where(labelled_N, targets_N, distances_NK.argmin(1))
        if (before_N == clusters_N).all():
            break
        member_KN = (clusters_N == np.arange(len(centroids_KD))[:, None]).astype(features_ND.dtype)
        size_K1 = member_KN.sum(1, keepdims=True)
        # An empty cluster keeps its centroid, and may win samples again.
        centroids_KD = np.where(size_K1 > 0, member_KN @ features_ND / np.maximum(size_K1, 1), centroids_KD)
    return float(np.take_along_axis(distances_NK, clusters_N[:, None], 1).sum()), clusters_N


def _distances(features_ND: np.ndarray, centroids_KD: np.ndarray) -> np.ndarray:
    """Return squared distances (N, K), not below 0."""
    # Expanded, so that no (N, K, D) is formed; the rounding of the difference may be negative.
    squares = (features_ND**2).sum(1)[:, None] - 2 * features_ND @ centroids_KD.T + (centroids_KD**2).sum(1)
    return np.maximum(squares, 0)
