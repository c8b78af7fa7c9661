"""Precision, recall, density and coverage against loops over all points and balls."""

import math

import pytest
import torch
from torch import Tensor

from natgym.metrics import precision_recall_density_coverage

Points = list[list[float]]


def draw(count: int, width: int, seed: int, *, offset: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) + offset


def lattice(count: int, seed: int) -> Tensor:
    """Points of a 4 x 4 grid: duplicates, and distances that tie with radii."""
    return torch.randint(0, 4, (count, 2), generator=torch.Generator().manual_seed(seed)).double()


def balls(points: Points, neighbors: int) -> list[tuple[list[float], float]]:
    """Center and radius of each point's ball, the point itself left out of its neighbors."""
    others = [[math.dist(x, y) for j, y in enumerate(points) if j != i] for i, x in enumerate(points)]
    return [(x, sorted(distances)[neighbors - 1]) for x, distances in zip(points, others, strict=True)]


def brute_force(features: Points, reference: Points, neighbors: int) -> dict[str, float]:
    def inside(x: list[float], ball: tuple[list[float], float]) -> bool:
        return math.dist(x, ball[0]) <= ball[1]

    real_balls, generated_balls = balls(reference, neighbors), balls(features, neighbors)
    return {
        "precision": sum(any(inside(x, b) for b in real_balls) for x in features) / len(features),
        "recall": sum(any(inside(y, b) for b in generated_balls) for y in reference) / len(reference),
        "density": sum(inside(x, b) for x in features for b in real_balls) / (neighbors * len(features)),
        "coverage": sum(any(inside(x, b) for x in features) for b in real_balls) / len(reference),
    }


@pytest.mark.parametrize("neighbors", [1, 3, 5])
@pytest.mark.parametrize(
    ("features", "reference"),
    [
        (draw(20, 3, seed=0), draw(30, 3, seed=1, offset=0.7)),
        (draw(30, 2, seed=2, offset=2.0), draw(12, 2, seed=3)),
        (draw(6, 5, seed=4), draw(6, 5, seed=5)),
        (lattice(15, seed=6), lattice(25, seed=7)),
    ],
    ids=["shifted", "far", "few", "ties"],
)
def test_matches_the_loops(features: Tensor, reference: Tensor, neighbors: int) -> None:
    result = precision_recall_density_coverage(features, reference, neighbors=neighbors)
    assert result == pytest.approx(brute_force(features.tolist(), reference.tolist(), neighbors), rel=1e-12)


@pytest.mark.parametrize("block", [1, 7, 20, 1024])
def test_blocks_do_not_change_the_result(block: int) -> None:
    features, reference = draw(20, 3, seed=8), draw(30, 3, seed=9, offset=0.7)
    result = precision_recall_density_coverage(features, reference, block=block)
    assert result == pytest.approx(brute_force(features.tolist(), reference.tolist(), 5), rel=1e-12)


def test_identical_sets_are_fully_covered() -> None:
    points = draw(40, 6, seed=10).float()
    result = precision_recall_density_coverage(points, points)
    # Each ball holds its center and its 5 neighbors.
    assert result == pytest.approx({"precision": 1, "recall": 1, "density": 6 / 5, "coverage": 1})


def test_distant_sets_share_nothing() -> None:
    result = precision_recall_density_coverage(draw(20, 4, seed=11), draw(20, 4, seed=12, offset=100.0))
    assert result == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_one_mode_of_two_is_precise_but_recalls_half() -> None:
    near, far = draw(30, 2, seed=13), draw(30, 2, seed=14, offset=100.0)
    result = precision_recall_density_coverage(draw(30, 2, seed=15), torch.cat([near, far]))
    assert result["precision"] > 0.8
    assert result["recall"] <= 0.5 and result["coverage"] <= 0.5


def test_near_duplicates_far_from_the_origin_are_resolved() -> None:
    # Spacing 1e-3 at 1e6: |x|^2 + |y|^2 - 2 x.y has no digit of it left in float64.
    line = 1e6 + 1e-3 * torch.arange(12, dtype=torch.float64)[:, None]
    result = precision_recall_density_coverage(line, line + 2.5e-3, neighbors=1)
    assert result == brute_force(line.tolist(), (line + 2.5e-3).tolist(), 1)


def test_bad_sets_are_refused() -> None:
    good = draw(8, 3, seed=16)
    for pair in ((good[:5], good), (good, good[:5])):
        with pytest.raises(ValueError, match=r"neighbors=5 must lie in 1\.\.4"):
            precision_recall_density_coverage(*pair)
    with pytest.raises(ValueError, match=r"neighbors=0 must lie in 1\.\.7"):
        precision_recall_density_coverage(good, good, neighbors=0)
    with pytest.raises(ValueError, match=r"shape \(2,\).*must be \(3,\)"):
        precision_recall_density_coverage(good, good[:, :2])
    with pytest.raises(ValueError, match="24 feature values are NaN"):
        precision_recall_density_coverage(good * float("nan"), good)
