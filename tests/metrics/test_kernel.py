"""The kernel distance against a double loop over all pairs, and its unbiasedness."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from natgym.metrics import kernel_distance


def draw(count: int, width: int, seed: int, *, offset: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) + offset


def brute_force(features: list[list[float]], reference: list[list[float]]) -> float:
    """The U-statistic, one pair at a time."""

    def kernel(x: list[float], y: list[float]) -> float:
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def within(points: list[list[float]]) -> float:
        pairs = [kernel(x, y) for i, x in enumerate(points) for j, y in enumerate(points) if i != j]
        return sum(pairs) / len(pairs)

    cross = [kernel(x, y) for x in features for y in reference]
    return within(features) + within(reference) - 2 * sum(cross) / len(cross)


@pytest.mark.parametrize(("count", "reference_count", "width"), [(2, 2, 1), (9, 14, 5), (21, 6, 3)])
def test_matches_the_double_loop(count: int, reference_count: int, width: int) -> None:
    features, reference = draw(count, width, seed=0), draw(reference_count, width, seed=1, offset=0.4)
    expected = brute_force(features.tolist(), reference.tolist())
    assert kernel_distance(features, reference) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("block", [1, 4, 9, 1024])
def test_blocks_do_not_change_the_result(block: int) -> None:
    features, reference = draw(9, 4, seed=2), draw(13, 4, seed=3, offset=0.5)
    expected = brute_force(features.tolist(), reference.tolist())
    assert kernel_distance(features, reference, block=block) == pytest.approx(expected, rel=1e-10)


def test_low_precision_features_are_computed_in_float64() -> None:
    features, reference = draw(8, 4, seed=4).half().requires_grad_(), draw(8, 4, seed=5, offset=1.0).half()
    expected = brute_force(features.tolist(), reference.tolist())
    assert kernel_distance(features, reference) == pytest.approx(expected, rel=1e-10)


def test_unbiased_where_the_biased_estimate_is_not() -> None:
    sets = [(draw(8, 4, seed=2 * i), draw(6, 4, seed=2 * i + 1)) for i in range(400)]
    values = np.array([kernel_distance(*pair) for pair in sets])
    error = scipy.stats.sem(values)
    assert abs(values.mean()) < scipy.stats.t.ppf(0.995, len(values) - 1) * error
    assert values.min() < 0
    # The power of the check: keeping i = j would add (E k(x, x) - E k(x, x')) (1/8 + 1/6), which is > 1 here.
    assert error < 0.1


def test_different_distributions_are_far_apart() -> None:
    assert kernel_distance(draw(100, 4, seed=6), draw(100, 4, seed=7, offset=1.0)) > 1


def test_bad_sets_are_refused() -> None:
    good = draw(5, 3, seed=8)
    for pair in ((good[:1], good), (good, good[:1])):
        with pytest.raises(ValueError, match="1 samples are too few.*at least 2"):
            kernel_distance(*pair)
    with pytest.raises(ValueError, match=r"shape \(2,\).*must be \(3,\)"):
        kernel_distance(good, good[:, :2])
    with pytest.raises(ValueError, match="15 feature values are NaN"):
        kernel_distance(good, good * float("nan"))
