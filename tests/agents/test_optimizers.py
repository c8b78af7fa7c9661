"""The minimisers: published updates by hand, the bottom of a noisy bowl, and no hidden state."""

from collections.abc import Callable

import numpy as np
import pytest

from agents.autonat.optimizers import (
    CMA,
    SPSA,
    TPE,
    CoordinateSearch,
    FiniteDifferences,
    Gradient,
    Grid,
    Optimizer,
    RandomSearch,
)

D = 6
GOAL = np.array([1.5, -1.0, 0.5, 2.0, 0.0, -0.5])
MAKERS: dict[str, Callable[[int], Optimizer]] = {
    "random": lambda seed: RandomSearch(np.zeros(D), step=0.5, seed=seed),
    "gradient": lambda seed: Gradient(np.zeros(D)),
    "spsa": lambda seed: SPSA(np.zeros(D), seed=seed),
    "coordinate": lambda seed: CoordinateSearch(np.zeros(D), seed=seed),
    "cma": lambda seed: CMA(np.zeros(D), seed=seed),
    "tpe": lambda seed: TPE(np.zeros(D), reach=2.5, seed=seed),
}


def bowl(points_nd: np.ndarray) -> np.ndarray:
    return ((points_nd - GOAL) ** 2).sum(1)


def minimise(optimizer: Optimizer, evaluations: int, noise: float = 0.0) -> np.ndarray:
    """Spend a number of evaluations; noise is common to a generation and has a part of each point's own."""
    rng, spent = np.random.default_rng(0), 0
    while spent < evaluations:
        values = bowl(optimizer.ask()) + noise * (10 * rng.normal() + rng.normal(size=len(optimizer.ask())))
        spent += len(values)
        optimizer.tell(values)
    return optimizer.center


@pytest.mark.parametrize("name", MAKERS)
def test_the_bottom_of_a_noisy_bowl_is_found(name: str) -> None:
    """From 7.75 above it; common noise ten times as large does not matter to those that compare."""
    noisy = 0.1 if name in ("gradient", "spsa", "coordinate", "cma") else 0.0
    found = minimise(MAKERS[name](0), 400, noisy)
    assert bowl(found[None])[0] < (2.0 if name == "tpe" else 0.5)


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_asked_follows_from_seed_and_answers(name: str) -> None:
    """Told the same, a second one asks the same, and asking twice changes nothing."""
    one, other, another = MAKERS[name](3), MAKERS[name](3), MAKERS[name](4)
    for _ in range(12):
        points = one.ask()
        assert np.array_equal(points, other.ask()) and np.array_equal(points, one.ask())
        one.tell(bowl(points))
        other.tell(bowl(points))
        another.tell(bowl(another.ask()))
    if name != "gradient":  # which draws nothing
        assert not np.array_equal(one.ask(), another.ask())


def test_finite_differences_are_autonat_s() -> None:
    """Forward differences one coordinate at a time, momentum, rates of their own, then the bounds."""
    step, rate = np.full(D, 0.1), np.linspace(0.01, 0.5, D)
    low, high = np.full(D, -0.6), np.full(D, 1.2)
    optimizer = FiniteDifferences(np.zeros(D), step=step, rate=rate, low=low, high=high, momentum=0.5)
    point, velocity = [0.0] * D, [0.0] * D
    for _ in range(4):
        asked = optimizer.ask()
        assert len(asked) == D + 1 and np.allclose(asked[0], point)
        here, moved = float(bowl(np.array([point]))[0]), list(point)
        for at in range(D):
            ahead = [value + (0.1 if at == other else 0) for other, value in enumerate(point)]
            assert np.allclose(asked[1 + at], ahead)
            slope = (float(bowl(np.array([ahead]))[0]) - here) / 0.1
            velocity[at] = 0.5 * velocity[at] + slope
            moved[at] = min(max(point[at] - rate[at] * velocity[at], -0.6), 1.2)
        optimizer.tell(bowl(asked))
        point = moved
        assert np.allclose(optimizer.center, point)
    assert not optimizer.common_noise and optimizer.center.max() == 1.2


def test_spsa_estimates_the_gradient() -> None:
    """The mean of many simultaneous perturbations is the gradient of the bowl, which is linear."""
    optimizer = SPSA(np.zeros(D), pairs=4000, seed=1, step=0.1, momentum=0.0, rate=1.0)
    optimizer.tell(bowl(optimizer.ask()))
    direction = GOAL / np.linalg.norm(GOAL)
    assert np.allclose(optimizer.center, direction, atol=0.06)


def test_the_steps_of_gradient_shorten() -> None:
    optimizer, lengths = Gradient(np.zeros(2), rate=1.0, momentum=0.0, halfway=2.0), []
    for _ in range(5):
        before = optimizer.center
        points = optimizer.ask()
        optimizer.tell(points @ np.array([3.0, 4.0]))
        lengths.append(float(np.linalg.norm(optimizer.center - before)))
    assert lengths == pytest.approx([(1 + n / 2) ** -0.5 for n in range(5)])


def test_coordinates_are_visited_in_rounds_and_steps_halved() -> None:
    optimizer, moved = CoordinateSearch(GOAL.copy(), step=0.8, seed=0), []
    for _ in range(2 * D):
        points = optimizer.ask()
        assert np.allclose(points[1] - points[0], points[0] - points[2])
        moved.append(
            (int(np.abs(points[1] - points[0]).argmax()), float(np.abs(points[1] - points[0]).max()))
        )
        optimizer.tell(bowl(points))
    assert sorted(moved[:D]) == [(at, pytest.approx(0.8)) for at in range(D)]
    assert sorted(moved[D:]) == [(at, pytest.approx(0.4)) for at in range(D)], "at the bottom none moves"


def test_a_grid_is_one_generation() -> None:
    points = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    optimizer = Grid(points)
    assert np.array_equal(optimizer.ask(), points)
    optimizer.tell(np.array([3.0, 1.0, 2.0]))
    assert len(optimizer.ask()) == 0 and optimizer.center.tolist() == [3.0, 4.0]
