"""The Inception score against its formula in plain loops, a recorded official value, and its two ends."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from natgym.metrics.score import inception_score


def by_loops(logits: np.ndarray, splits: int) -> float:
    """exp of the mean divergence from the split's own mean, split by split, image by image."""
    N, scores = len(logits), []
    p = [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in logits.tolist()]
    for i in range(splits):
        part = p[i * N // splits : (i + 1) * N // splits]
        marginal = [sum(column) / len(part) for column in zip(*part, strict=True)]
        divergences = [sum(a * math.log(a / b) for a, b in zip(row, marginal, strict=True)) for row in part]
        scores.append(math.exp(sum(divergences) / len(part)))
    return sum(scores) / splits


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_it_matches_the_loops(splits: int) -> None:
    logits = 2 * torch.randn(47, 6, generator=torch.Generator().manual_seed(0))
    expected = by_loops(logits.double().numpy(), splits)
    assert inception_score(logits, splits=splits, seed=None) == pytest.approx(expected, rel=1e-12)
    order = np.random.RandomState(2020).permutation(47)
    assert inception_score(logits, splits=splits) == pytest.approx(
        by_loops(logits.double().numpy()[order], splits), rel=1e-12
    )


@pytest.mark.golden
def test_official_values(golden: Any) -> None:
    tensors, _ = golden("fid")
    found = {
        "is_10splits_shuffled": inception_score(tensors["in.logits"]),
        "is_10splits_noshuffle": inception_score(tensors["in.logits"], seed=None),
        "is_1split": inception_score(tensors["in.logits"], splits=1),
    }
    for name, value in found.items():
        assert value == pytest.approx(tensors[f"out.{name}"].item(), rel=1e-9), name


def test_its_ends() -> None:
    """All images alike give 1; every class once, without a doubt, gives their number."""
    assert inception_score(torch.zeros(20, 5)) == pytest.approx(1)
    assert inception_score(1e4 * torch.eye(8).repeat(10, 1), splits=1) == pytest.approx(8)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="9 images are too few for 10 splits"):
        inception_score(torch.zeros(9, 3))
    with pytest.raises(ValueError, match="NaN or infinite"):
        inception_score(torch.full((20, 3), torch.nan))
