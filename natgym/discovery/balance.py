"""How much each modality is worth: weights of the branches that need no label of a new category.

natgym's rule, not the paper's. A modality is as reliable as k-means in it, which knows only their number,
finds the *old* categories again among the labelled samples: that is the very thing the new categories will
ask of it, tried where the answer is known. docs/discovery.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from natgym.discovery.methods import Balance
from natgym.discovery.modality import Modality, clean_features


def reliability(features_ND: np.ndarray, targets_N: np.ndarray, *, seed: int = 0) -> float:
    """Return how well k-means of the labelled samples agrees with their categories, in [0, 1].

    The agreement is the adjusted mutual information: 0 by chance, 1 if the clusters are the categories.

    Args:
        features_ND: of all samples; only labelled ones are looked at.
        targets_N: old category 0..O-1 of a labelled sample, -1 of an unlabelled one.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score

    labelled_N = targets_N >= 0
    categories = np.unique(targets_N[labelled_N])
    if len(categories) < 2:
        raise ValueError("one old category says nothing about a modality's reliability; choose mm-gcd")
    clusters_L = KMeans(len(categories), n_init=10, random_state=seed).fit_predict(features_ND[labelled_N])
    # Adjusted for chance, the agreement of random clusters is 0 on average and may be a little less.
    return max(0.0, float(adjusted_mutual_info_score(targets_N[labelled_N], clusters_L)))


def branch_weights(
    modalities: Mapping[str, Modality], targets_N: np.ndarray, balance: Balance, *, seed: int = 0
) -> dict[str, float]:
    """Return the weight of each modality in teacher and fusion; they sum to 1.

    Args:
        modalities: name -> samples; frozen features, unless the weights are equal.
        targets_N: old category of a labelled sample, -1 of an unlabelled one.
        balance: "equal", or "reliability": in proportion to it.
    """
    if balance == "equal" or len(modalities) == 1:
        return dict.fromkeys(modalities, 1 / len(modalities))
    reliabilities = {
        name: reliability(clean_features(m), np.where(m.present_N.cpu().numpy(), targets_N, -1), seed=seed)
        for name, m in modalities.items()
    }
    if not (total := sum(reliabilities.values())):
        return dict.fromkeys(modalities, 1 / len(modalities))
    return {name: value / total for name, value in reliabilities.items()}
