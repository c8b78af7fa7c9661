"""The number of categories where it is known: by the share of labelled samples, by agreement with labels."""

import numpy as np
import pytest
from clusters import blobs

from natgym.discovery.number import best_agreement, labelled_share, number_by_share


def labelled(labels: np.ndarray, old: int, share: float, seed: int = 0) -> np.ndarray:
    """Return the categories of a share of the old samples, -1 of all others."""
    lucky = np.random.default_rng(seed).random(len(labels)) < share
    return np.where((labels < old) & lucky, labels, -1)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("spread", [0.3, 2.5])
def test_the_share_of_labelled_samples_is_found(share: float, spread: float) -> None:
    """Whether or not the categories lie apart; the truth is counted from labels that the method can't see."""
    features, labels = blobs(12, 200, spread)
    targets = labelled(labels, 7, share)
    truth = (targets >= 0).sum() / (labels < 7).sum()
    assert labelled_share(features, targets) == pytest.approx(truth, abs=0.07)


def test_the_number_follows_from_it() -> None:
    for K, old in ((8, 4), (40, 10), (40, 39)):
        features, labels = blobs(K, 60, 0.5)
        targets = labelled(labels, old, 0.5)
        found = number_by_share(
            len(labels), int((targets >= 0).sum()), old, labelled_share(features, targets)
        )
        assert abs(found - K) <= 0.1 * K
    assert number_by_share(num_samples=240, num_labelled=75, num_old=5, share=0.5) == 8
    assert number_by_share(num_samples=90, num_labelled=75, num_old=5, share=0.3) == 5, (
        "there are the old ones"
    )


def test_a_few_samples_are_two_neighborhoods() -> None:
    assert 0 < labelled_share(np.arange(6.0)[:, None], np.array([0, 1, 0, -1, -1, -1])) < 1


def test_the_agreement_with_old_labels_is_best_at_the_number() -> None:
    features, labels = blobs(8, 30, 0.6)
    targets = np.where((labels < 5) & (np.arange(240) % 2 == 0), labels, -1)
    seen: list[int] = []
    found, agreement = best_agreement(features, targets, range(5, 16), progress=seen.append)
    assert found == 8 and agreement[8] == 1 and agreement[5] < 1 and agreement[15] < 1
    assert seen == list(range(5, 16))
