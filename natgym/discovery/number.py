"""How many categories there are, where nobody knows.

Told by how many samples of the old ones are labelled, or by how well clusters agree with the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from scipy.special import xlogy

from natgym.discovery.accuracy import clustering_accuracy

SIZE = 20  # samples of a neighborhood, few enough to be of one category
MOST = 1000  # neighborhoods: their k-means costs as many distances to each sample
QUARTILE = 0.75  # neighborhoods on a border have new samples beside the old ones, and so a smaller share


def labelled_share(features_ND: np.ndarray, targets_N: np.ndarray, *, seed: int = 0) -> float:
    """Return which share of the old categories' samples is labelled, as neighborhoods tell it.

    Among samples of new categories none is labelled, among those of old ones the share that is asked for,
    whatever the category: the label frequency of learning from positive and unlabelled samples (Elkan & Noto
    2008). k-means cuts all samples into neighborhoods; how many are labelled in each is binomial, and which
    shares there are is a mixture over a grid, fitted by expectation-maximization. Of the shares at which
    labelled samples live the third quartile is returned.

    Args:
        features_ND: of all samples.
        targets_N: old category of a labelled sample, -1 for an unlabelled one.
    """
    from sklearn.cluster import KMeans

    number = min(max(2, len(features_ND) // SIZE), MOST)
    members_N = KMeans(number, n_init=1, random_state=seed).fit_predict(features_ND)
    size_C = np.bincount(members_N, minlength=number)
    labelled_C = np.bincount(members_N[targets_N >= 0], minlength=number)
    share_P = np.linspace(0.01, 0.99, 99)
    log_CP = xlogy(labelled_C[:, None], share_P) + xlogy((size_C - labelled_C)[:, None], 1 - share_P)
    likelihood_CP = np.exp(log_CP - log_CP.max(1, keepdims=True))
    weight_P = np.full(len(share_P), 1 / len(share_P))
    for _ in range(300):
        posterior_CP = likelihood_CP * weight_P
        posterior_CP /= posterior_CP.sum(1, keepdims=True)
        weight_P = size_C @ posterior_CP / len(features_ND)
    labelled_P = (weight_P * share_P).cumsum()
    return float(share_P[np.searchsorted(labelled_P, QUARTILE * labelled_P[-1])])


def number_by_share(num_samples: int, num_labelled: int, num_old: int, share: float) -> int:
    """Return the number of categories if new ones are as large as old ones are in the mean.

    Args:
        share: of the old categories' samples that is labelled.
    """
    samples_each = num_labelled / share / num_old
    return max(num_old, round(num_samples / samples_each))


def best_agreement(
    features_ND: np.ndarray,
    targets_N: np.ndarray,
    candidates: Iterable[int],
    *,
    restarts: int = 3,
    seed: int = 0,
    progress: Callable[[int], object] = lambda candidate: None,
) -> tuple[int, dict[int, float]]:
    """Return the K whose clusters of all samples agree best with the labels, and the agreement of each K.

    Plain k-means of labelled and unlabelled samples together knows no label; with too few clusters categories
    are merged, with too many split, and both cost agreement. The agreement is the clustering accuracy on
    the labelled samples (Vaze et al. 2022, section 3.3), here for every candidate instead of by Brent's
    search, since it is noisy; of equal candidates the smallest wins.
    """
    from sklearn.cluster import KMeans

    labelled_N = targets_N >= 0
    scores: dict[int, float] = {}
    for number in candidates:
        clusters_N = KMeans(number, n_init=restarts, random_state=seed).fit_predict(features_ND)
        old_L = np.ones(labelled_N.sum(), dtype=bool)
        scores[number] = clustering_accuracy(clusters_N[labelled_N], targets_N[labelled_N], old_L).all
        progress(number)
    return max(scores, key=lambda number: (scores[number], -number)), scores
