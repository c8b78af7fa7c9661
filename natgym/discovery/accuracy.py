"""Clustering accuracy of generalized category discovery (Vaze et al. 2022, the `v2` of their code): one
Hungarian match of clusters and categories over all unlabelled samples, then the shares All, Old and New.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Shares in [0, 1] of samples in the cluster that is matched with their category; NaN over no samples.

    Attributes:
        all, old, new: over all samples, those of old and those of new categories.
        category_C: the category that each cluster is matched with, -1 for a cluster too many.
        counts_CK: samples by cluster and category.
    """

    all: float
    old: float
    new: float
    category_C: np.ndarray
    counts_CK: np.ndarray


def clustering_accuracy(clusters_N: np.ndarray, categories_N: np.ndarray, old_N: np.ndarray) -> Accuracy:
    """Match clusters with categories so that most samples agree, and return the shares that do.

    Args:
        clusters_N: predicted clusters, integers from 0.
        categories_N: true categories, integers from 0.
        old_N: whether a sample's category is an old one.

    Raises:
        ValueError: the lengths differ, or an index is negative.
    """
    if not len(clusters_N) == len(categories_N) == len(old_N):
        lengths = f"{len(clusters_N)}, {len(categories_N)} and {len(old_N)}"
        raise ValueError(f"clusters, categories and old have {lengths} entries; give one each per sample")
    for name, values in (("clusters", clusters_N), ("categories", categories_N)):
        if len(values) and values.min() < 0:
            raise ValueError(f"{name} holds {values.min()}; leave out the samples of unknown category")
    counts_CK = contingency(clusters_N, categories_N)
    category_C = match(counts_CK)
    right_N = category_C[clusters_N] == categories_N
    all_, old, new = (
        float(right_N[rows].mean()) if rows.any() else np.nan
        for rows in (np.ones(len(old_N), dtype=bool), old_N, ~old_N)
    )
    return Accuracy(all=all_, old=old, new=new, category_C=category_C, counts_CK=counts_CK)


def contingency(clusters_N: np.ndarray, categories_N: np.ndarray) -> np.ndarray:
    """Return the number of samples by cluster and category, (C, K)."""
    shape = [int(values.max(initial=-1)) + 1 for values in (clusters_N, categories_N)]
    counts_CK = np.zeros(shape, dtype=np.int64)
    np.add.at(counts_CK, (clusters_N, categories_N), 1)
    return counts_CK


def match(gains_CK: np.ndarray) -> np.ndarray:
    """Return for each row the column of the assignment with the largest sum, -1 for rows without one."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(gains_CK, maximize=True)
    matched_C = np.full(len(gains_CK), -1)
    matched_C[rows] = columns
    return matched_C
