"""Semi-supervised k-means against a loop."""

import numpy as np
import pytest
from clusters import blobs

from natgym.discovery.kmeans import _iterate, semi_supervised_kmeans


def loop(features: np.ndarray, targets: np.ndarray, centroids: np.ndarray, rounds: int) -> list[int]:
    """Lloyd's algorithm, sample by sample, with the labelled ones kept where they belong."""
    centroids, clusters = centroids.copy(), []
    for _ in range(rounds):
        clusters = [
            int(t)
            if t >= 0
            else min(range(len(centroids)), key=lambda k: float(((x - centroids[k]) ** 2).sum()))
            for x, t in zip(features, targets, strict=True)
        ]
        for k in range(len(centroids)):
            if members := [x for x, c in zip(features, clusters, strict=True) if c == k]:
                centroids[k] = np.mean(members, axis=0)
    return clusters


def test_it_is_lloyds_algorithm_with_the_labelled_kept() -> None:
    features, labels = blobs(4, 15, 2.5)
    targets = np.where((np.arange(60) % 3 == 0) & (labels < 2), labels, -1)
    start = features[[0, 20, 31, 47]]
    _, found = _iterate(features, targets, start, 30)
    assert found.tolist() == loop(features, targets, start, 30)
    assert (found[targets >= 0] == targets[targets >= 0]).all()


def test_an_empty_cluster_keeps_its_place() -> None:
    features, targets = np.array([[0.0], [1.0], [10.0]]), np.full(3, -1)
    _, found = _iterate(features, targets, np.array([[0.5], [100.0], [10.0]]), 10)
    assert found.tolist() == [0, 0, 2]


def test_it_finds_new_blobs_beside_labelled_ones() -> None:
    features, labels = blobs(6, 40, 0.5)
    targets = np.where((labels < 3) & (np.arange(240) % 2 == 0), labels, -1)
    found = semi_supervised_kmeans(features, targets, 6)
    assert (found[labels < 3] == labels[labels < 3]).all(), "old categories keep their numbers"
    for category in (3, 4, 5):
        assert len(set(found[labels == category])) == 1 and found[labels == category][0] >= 3
    assert (found == semi_supervised_kmeans(features, targets, 6)).all()


def test_it_works_with_no_label_and_with_copies() -> None:
    found = semi_supervised_kmeans(np.ones((5, 2)), np.full(5, -1), 3)
    assert set(found) <= {0, 1, 2}


@pytest.mark.parametrize("number", [2, 11])
def test_the_number_of_clusters_has_bounds(number: int) -> None:
    with pytest.raises(ValueError, match=f"{number} categories for 3 old ones and 10 samples"):
        semi_supervised_kmeans(np.ones((10, 2)), np.array([0, 1, 2] + [-1] * 7), number)
