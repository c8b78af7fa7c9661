"""Ask/tell minimisers of a noisy function of a few dozen numbers, a whole generation of points at a time.

`ask` returns the points of the next generation, (n, d); `tell` takes their values in the same order. Between
the two nothing changes, and what is asked is a function of the seed and of all that was told: a search is
rebuilt by telling it again what a log says. `common_noise` says whether the points of a generation are meant
to be compared on the same noise. None of it knows schedules or Ray.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from generators.noise import derive_seed


class Optimizer(ABC):
    """Minimise from a start point (d,)."""

    common_noise = True

    def __init__(self, start: np.ndarray, *, seed: int = 0) -> None:
        self.center = np.asarray(start, dtype=float)  # the answer that the optimizer would give now
        self.seed, self.generation = seed, 0

    @abstractmethod
    def ask(self) -> np.ndarray:
        """Return the points of this generation, (n, d); none if nothing is left to ask."""

    def tell(self, values: np.ndarray) -> None:
        """Take the values (n,) of the points asked, and go on to the next generation."""
        points = self.ask()
        assert len(points) == len(values)
        self._learn(points, np.asarray(values, dtype=float))
        self.generation += 1

    @abstractmethod
    def _learn(self, points: np.ndarray, values: np.ndarray) -> None: ...

    def _random(self) -> np.random.Generator:
        return np.random.default_rng(derive_seed(self.seed, "points", self.generation))


class Grid(Optimizer):
    """All points of a list, in one generation."""

    def __init__(self, points: np.ndarray) -> None:
        super().__init__(points[0])
        self.points = np.asarray(points, dtype=float)

    def ask(self) -> np.ndarray:
        return self.points if self.generation == 0 else self.points[:0]

    def _learn(self, points: np.ndarray, values: np.ndarray) -> None:
        self.center = points[values.argmin()]


class RandomSearch(Optimizer):
    """Gaussian steps around the best point, which stands again in each generation."""

    def __init__(self, start: np.ndarray, *, step: float = 1.0, points: int = 8, seed: int = 0) -> None:
        super().__init__(start, seed=seed)
        self.step, self.points = step, points

    def ask(self) -> np.ndarray:
        moves = self._random().normal(size=(self.points - 1, len(self.center)))
        return np.vstack([self.center, self.center + self.step * moves])

    def _learn(self, points: np.ndarray, values: np.ndarray) -> None:
        self.center = points[values.argmin()]


class FiniteDifferences(Optimizer):
    """AutoNAT's own method (arXiv 2406.05478, code): forward differences, then SGD with momentum.

    A generation is the point itself and one more for each coordinate; all coordinates move together. As
    published, no two points see the same noise.

    Args:
        step: (d,) of the differences.
        rate: (d,) learning rates.
        low, high: (d,) bounds that the point is projected into after each update.
        momentum: of SGD.
    """

    common_noise = False

    def __init__(
        self,
        start: np.ndarray,
        *,
        step: np.ndarray,
        rate: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        momentum: float = 0.5,
    ) -> None:
        super().__init__(start)
        self.step, self.rate, self.low, self.high = step, rate, low, high
        self.momentum, self.velocity = momentum, np.zeros(len(self.center))

    def ask(self) -> np.ndarray:
        return np.vstack([self.center, self.center + np.diag(self.step)])

    def _learn(self, points: np.ndarray, values: np.ndarray) -> None:
        self.velocity = self.momentum * self.velocity + (values[1:] - values[0]) / self.step
        self.center = np.clip(self.center - self.rate * self.velocity, self.low, self.high)


class Gradient(Optimizer):
    """Finite differences on common noise, and steps of a set length along them.

    The length of a noisy gradient says little, its direction more: the step is `rate` times the direction,
    averaged with momentum, and falls as 1 / sqrt(1 + generation / halfway).
    """

    def __init__(
        self,
        start: np.ndarray,
        *,
        step: float = 0.4,
        rate: float = 1.0,
        momentum: float = 0.5,
        halfway: float = 2.0,
    ) -> None:
        super().__init__(start)
        self.step, self.rate, self.momentum, self.halfway = step, rate, momentum, halfway
        self.velocity = np.zeros(len(self.center))

    def ask(self) -> np.ndarray:
        return np.vstack([self.center, self.center + self.step * np.eye(len(self.center))])

    def _learn(self, points: np.ndarray, values: np.ndarray) -> None:
        self._move(values[1:] - values[0])

    def _move(self, gradient: np.ndarray) -> None:
        direction = gradient / max(float(np.linalg.norm(gradient)), 1e-12)
        self.velocity = self.momentum * self.velocity + (1 - self.momentum) * direction
        fall = (1 + self.generation / self.halfway) ** -0.5
        self.center = self.center - self.rate * fall * self.velocity


class SPSA(Gradient):
    """Simultaneous perturbation (Spall 1992): a gradient from pairs of points, whatever the dimension."""

    def __init__(self, start: np.ndarray, *, pairs: int = 4, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(start, **kwargs)
        self.pairs, self.seed = pairs, seed

    def ask(self) -> np.ndarray:
        moves = self.step * self._signs()
        return np.vstack([self.center + moves, self.center - moves])

    def _learn(self, points: np.ndarray, values: np.ndarray) -> None:
        slopes = values[: self.pairs] - values[self.pairs :]
        self._move((slopes[:, None] * self._signs()).mean(0))

    def _signs(self) -> np.ndarray:
        return self._random().choice([-1.0, 1.0], size=(self.pairs, len(self.center)))


class CoordinateSearch(Optimizer):
    """One coordinate at a time, a step to either side; the best of the three stays.

    The steps are halved whenever a round over all coordinates, in an order drawn anew, has moved none.
    """

    def __init__(self, start: np.ndarray, *, step: float = 1.0, seed: int = 0) -> None:
        super().__init__(start, seed=seed)
        self.steps = np.full(len(self.center), step)
        self.moved = False

    def ask(self) -> np.ndarray:
        move = np.zeros(len(self.center))
        move[self._coordinate()] = self.steps[self._coordinate()]
        return np.vstack([self.center, self.center + move, self.center - move])

    def _learn(self, points: np.ndarray, values: np.ndarray) -> None:
        best = int(values.argmin())
        self.center, self.moved = points[best], self.moved or best > 0
        if (self.generation + 1) % len(self.center) == 0:
            self.steps = self.steps if self.moved else self.steps / 2
            self.moved = False

    def _coordinate(self) -> int:
        round_, at = divmod(self.generation, len(self.center))
        order = np.random.default_rng(derive_seed(self.seed, "round", round_)).permutation(len(self.center))
        return int(order[at])


class CMA(Optimizer):
    """CMA-ES (Hansen 2016) of the `cmaes` package; the centre is the mean of its distribution."""

    def __init__(
        self, start: np.ndarray, *, step: float = 0.7, points: int | None = None, seed: int = 0
    ) -> None:
        import cmaes

        super().__init__(start, seed=seed)
        self.strategy = cmaes.CMA(self.center.copy(), step, seed=seed % 2**32, population_size=points)
        self._open()

    def ask(self) -> np.ndarray:
        return self._points

    def _learn(self, points: np.ndarray, values: np.ndarray) -> None:
        self.strategy.tell(list(zip(points, values.tolist(), strict=True)))
        self.center = self.strategy.mean.copy()
        self._open()

    def _open(self) -> None:
        """Draw the next generation once: its generator has a state."""
        self._points = np.stack([self.strategy.ask() for _ in range(self.strategy.population_size)])


class TPE(Optimizer):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011); the answer is the best point told.

    Args:
        reach: points lie within the start +- this, in each coordinate.
        points: of a generation, which the estimator spreads by a liar that is constant.

    Raises:
        ValueError: optuna is not installed.
    """

    def __init__(self, start: np.ndarray, *, reach: float = 2.0, points: int = 8, seed: int = 0) -> None:
        try:
            import optuna
        except ImportError:
            raise ValueError("optimizer tpe needs optuna: pip install optuna, or take cma") from None
        super().__init__(start, seed=seed)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=True, constant_liar=True)
        self.study = optuna.create_study(sampler=sampler)
        self.ranges: dict[str, Any] = {
            str(at): optuna.distributions.FloatDistribution(value - reach, value + reach)
            for at, value in enumerate(self.center.tolist())
        }
        self.study.enqueue_trial({name: (one.low + one.high) / 2 for name, one in self.ranges.items()})
        self.points, self.best = points, np.inf
        self._open()

    def ask(self) -> np.ndarray:
        return np.array([[trial.params[name] for name in self.ranges] for trial in self._trials])

    def _learn(self, points: np.ndarray, values: np.ndarray) -> None:
        for trial, value in zip(self._trials, values.tolist(), strict=True):
            self.study.tell(trial, value)
        if values.min() < self.best:
            self.best, self.center = float(values.min()), points[values.argmin()]
        self._open()

    def _open(self) -> None:
        """Draw the next generation once: the sampler has a state."""
        self._trials = [self.study.ask(self.ranges) for _ in range(self.points)]
