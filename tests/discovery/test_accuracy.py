"""Accuracy against all permutations, and what it does with clusters too few or too many."""

from itertools import permutations

import numpy as np
import pytest

from natgym.discovery.accuracy import clustering_accuracy, contingency, match


def by_permutations(
    clusters: np.ndarray, categories: np.ndarray, old: np.ndarray, K: int
) -> tuple[float, ...]:
    """The best renaming of the clusters over all samples, then the shares under this one renaming."""
    best = max(permutations(range(K)), key=lambda renamed: (np.array(renamed)[clusters] == categories).sum())
    right = np.array(best)[clusters] == categories
    return right.mean(), right[old].mean(), right[~old].mean()


@pytest.mark.parametrize("seed", range(5))
def test_one_match_over_all_samples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    categories = rng.integers(5, size=200)
    clusters = np.where(rng.random(200) < 0.6, rng.permutation(5)[categories], rng.integers(5, size=200))
    old = categories < 2
    found = clustering_accuracy(clusters, categories, old)
    assert (found.all, found.old, found.new) == pytest.approx(by_permutations(clusters, categories, old, 5))


def test_old_and_new_share_one_match() -> None:
    """Matching Old by itself would give it 1: the cluster goes to the new category, which is larger."""
    categories = np.array([0] * 3 + [1] * 5)
    found = clustering_accuracy(np.zeros(8, dtype=int), categories, categories == 0)
    assert (found.all, found.old, found.new) == (5 / 8, 0.0, 1.0)


def test_clusters_may_be_more_or_fewer_than_categories() -> None:
    categories = np.array([0, 0, 0, 1, 1, 1])
    old = categories == 0
    split = clustering_accuracy(np.array([2, 2, 0, 3, 3, 3]), categories, old)
    assert split.all == pytest.approx(5 / 6) and sorted(split.category_C.tolist()) == [-1, -1, 0, 1]
    merged = clustering_accuracy(np.zeros(6, dtype=int), categories, old)
    assert merged.all == 0.5 and merged.counts_CK.tolist() == [[3, 3]]


def test_shares_over_nobody_are_nan() -> None:
    found = clustering_accuracy(np.array([0, 1]), np.array([1, 0]), np.array([True, True]))
    assert found.all == found.old == 1 and np.isnan(found.new)
    nobody = np.zeros(0, dtype=int)
    assert np.isnan(clustering_accuracy(nobody, nobody, nobody.astype(bool)).all)


def test_bad_input_is_told() -> None:
    with pytest.raises(ValueError, match="one each per sample"):
        clustering_accuracy(np.zeros(3, int), np.zeros(2, int), np.zeros(3, bool))
    with pytest.raises(ValueError, match="categories holds -1"):
        clustering_accuracy(np.zeros(2, int), np.array([0, -1]), np.zeros(2, bool))


def test_contingency_counts_and_match_maximises() -> None:
    counts = contingency(np.array([0, 0, 2]), np.array([1, 1, 0]))
    assert counts.tolist() == [[0, 2], [0, 0], [1, 0]]
    assert match(np.array([[1.0, 3.0], [2.0, 9.0]])).tolist() == [0, 1]
