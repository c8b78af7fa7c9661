"""AutoNAT (arXiv 2406.05478, section 4): search for the best static strategy. Knows no Ray.

A search asks for one generation of evaluations after another and is told their distances from a split of
the real images, in any order. Every finished evaluation is a line of a plain log, from which an interrupted
search goes on: what it asks is a function of its config and of what it was told. The winner is chosen among
finalists on fresh images and the select split, since the best of many noisy evaluations is mostly the
luckiest.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator, Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agents.autonat import optimizers
from agents.autonat.config import GridConfig as GridConfig
from agents.autonat.config import OptimizerName, SearchConfig
from agents.autonat.optimizers import Optimizer
from agents.autonat.scorer import Evaluation, Measurement
from agents.autonat.strategies import Around, Family, Parameters, Scales, Space
from generators.files import reading
from generators.noise import derive_seed
from generators.schedules import PARAMETERS, Schedule, as_schedule
from natgym.evaluation.statistics import t_quantile
from natgym.runs import MetricsLog, read_metrics


class Generation(NamedTuple):
    """Schedules that are open together.

    Attributes:
        images: that each gets.
        common_noise: whether all see the same noise.
        final: whether they are the finalists.
    """

    schedules: list[Schedule]
    images: int
    common_noise: bool = True
    final: bool = False


Measure = Callable[[Evaluation], Measurement]
Explored = Generator[Generation, list[float], Schedule]
"""Yields generations, is sent their distances, returns a schedule."""

# From a start point, in units of the action map: how far the first steps reach, and a seed.
LOCAL: dict[str, Callable[[np.ndarray, float, int], Optimizer]] = {
    "random": lambda start, reach, seed: optimizers.RandomSearch(start, step=0.7 * reach, seed=seed),
    "spsa": lambda start, reach, seed: optimizers.SPSA(start, step=0.4 * reach, rate=reach, seed=seed),
    "gradient": lambda start, reach, seed: optimizers.Gradient(start, step=0.4 * reach, rate=reach),
    "coordinate": lambda start, reach, seed: optimizers.CoordinateSearch(start, step=reach, seed=seed),
    "cma": lambda start, reach, seed: optimizers.CMA(start, step=0.7 * reach, seed=seed),
    "tpe": lambda start, reach, seed: optimizers.TPE(start, reach=2 * reach, seed=seed),
}
NEAR = 0.5  # the reach around the best of a warm start


def explore(optimizer: OptimizerName, config: SearchConfig, steps: int, seed: int) -> Explored:
    """Search, without a log: the whole process, from the first generation to the winner of the second look.

    Raises:
        ValueError: the budget does not reach for one generation.
    """
    search = _Exploration(optimizer, config)
    if optimizer == "paper":
        plain = Parameters(steps)
        method = optimizers.FiniteDifferences(
            plain.start, step=plain.step, rate=plain.rate, low=plain.low, high=plain.high
        )
        best = yield from search.minimise(method, plain)
    elif optimizer == "grid":
        best = yield from search.race(config.grid, steps)
    else:
        base, reach = as_schedule(config.start, steps), 1.0
        if config.warm == "grid":
            base = yield from search.race(config.coarse, steps)
            reach = NEAR
        elif config.warm == "family":
            family = Family(steps, config.family)
            share = int(config.family_share * config.explored)
            base = yield from search.minimise(LOCAL["cma"](family.start, 1.0, seed), family, share)
            reach = NEAR
        around = Around(base)
        best = yield from search.minimise(LOCAL[optimizer](around.start, reach, seed), around)
        search.stages[0].insert(0, base)

    ranked = [best, *(schedule for stage in search.stages for schedule in stage)]
    finalists = list(_distinct(ranked))[: config.finalists]
    distances = yield Generation(finalists, config.per_finalist, final=True)
    return finalists[int(np.argmin(distances))]


class _Exploration:
    """What the stages of one search share.

    Attributes:
        images: left for exploring.
        each: images of an evaluation.
        stages: what each stage tried, the last stage first, the best schedule first: chunks of a race and
            whole evaluations are of different numbers of images, which their distances rise with.
    """

    def __init__(self, optimizer: OptimizerName, config: SearchConfig) -> None:
        self.optimizer, self.config = optimizer, config
        self.images, self.each = config.explored, config.per_evaluation(optimizer)
        self.stages: list[list[Schedule]] = []

    def minimise(self, method: Optimizer, space: Space, share: int | None = None) -> Explored:
        """Ask and tell a method as long as the images last, or a share of them."""
        each = self.each
        floor = 0 if share is None else self.images - share
        tried: list[tuple[float, Schedule]] = []
        while len(points := method.ask()) and self.images - floor >= len(points) * each:
            schedules = [space.schedule(point) for point in points]
            distances = yield from self._measure(schedules, each, method.common_noise)
            method.tell(distances)
            tried.extend(zip(distances.tolist(), schedules, strict=True))
        if not tried and not self.stages:
            raise self._too_little(len(points) * each)
        self.stages.insert(0, [schedule for _, schedule in sorted(tried, key=lambda pair: pair[0])])
        return space.schedule(method.center)

    def race(self, grid: GridConfig, steps: int) -> Explored:
        """Measure all points of a grid, chunk by chunk, and after each drop those that are shown to lose."""
        space = Scales(steps)
        schedules = [space.schedule(np.array(point)) for point in grid.points]
        chunk = self.each // self.config.race
        distances_NK = np.empty((len(schedules), 0))
        running = np.arange(len(schedules))
        while distances_NK.shape[1] < self.config.race and self.images >= len(running) * chunk:
            distances = yield from self._measure([schedules[at] for at in running], chunk)
            distances_NK = np.column_stack([distances_NK, distances])
            left = not_beaten(distances_NK)
            running, distances_NK = running[left], distances_NK[left]
        if not distances_NK.size:
            raise self._too_little(len(running) * chunk)
        order = distances_NK.mean(1).argsort(kind="stable")
        self.stages.insert(0, [schedules[at] for at in running[order]])
        return self.stages[0][0]

    def _measure(
        self, schedules: list[Schedule], images: int, common_noise: bool = True
    ) -> Generator[Generation, list[float], np.ndarray]:
        distances = yield Generation(schedules, images, common_noise)
        self.images -= len(schedules) * images
        return np.array(distances)

    def _too_little(self, cost: int) -> ValueError:
        return ValueError(
            f"budget {self.config.total}: beside the finalists, {self.optimizer} takes {cost:,} images for "
            "its first generation; raise it or take fewer images per evaluation"
        )


def not_beaten(distances_NK: np.ndarray) -> np.ndarray:
    """Return which candidates may be the best, (N,) bool, by their distances on the same K chunks of noise.

    A candidate is beaten if its mean lies above the smallest one by more than a 97.5 % bound of such a
    difference. Its error is that of a randomized block design: what is left of all distances once the means
    of candidates and of chunks are taken off, so that two chunks already give one to a grid.
    """
    N, K = distances_NK.shape
    if N < 2 or K < 2:
        return np.ones(N, dtype=bool)
    means_N = distances_NK.mean(1)
    residuals_NK = distances_NK - means_N[:, None] - distances_NK.mean(0) + distances_NK.mean()
    freedom = (N - 1) * (K - 1)
    error = np.sqrt(2 / K * np.square(residuals_NK).sum() / freedom)
    return means_N - means_N.min() <= t_quantile(freedom) * error


def _distinct(schedules: Iterable[Schedule]) -> Iterable[Schedule]:
    return {tuple(schedule.table_T4.flatten().tolist()): schedule for schedule in schedules}.values()


def _columns(schedule: Schedule) -> dict[str, float]:
    """Return a schedule as columns of a log."""
    return {
        f"{name}_{step}": value
        for step, values in enumerate(schedule.table_T4.tolist())
        for name, value in zip(PARAMETERS, values, strict=True)
    }


class Search:
    """A search with a log: `finish` what is `open` until there is a `result`.

    Args:
        optimizer: how points are chosen.
        config: hyper-parameters.
        steps: T.
        seed: of points and noise.
        log: a CSV file with a line per finished evaluation; if it exists, the search goes on from it.

    Attributes:
        asked: all evaluations so far, the present generation's last.
        known: what was measured, by the evaluations' numbers.
        result: the winner; None before the end.

    Raises:
        ValueError: the log is of other evaluations than this search asks for.
    """

    def __init__(
        self, optimizer: OptimizerName, config: SearchConfig, steps: int, seed: int, log: Path
    ) -> None:
        self.seed, self.split = seed, config.split
        self.asked: list[Evaluation] = []
        self.result: Schedule | None = None
        self._explored = explore(optimizer, config, steps, seed)
        first = next(self._explored)
        self._path = log
        with reading(log, "a search"):
            self._logged = {int(row["evaluation"]): row for row in read_metrics(log)}
            self.known = {
                number: Measurement(float(row["distance"]), float(row["error"]))
                for number, row in self._logged.items()
            }
            if not all(map(math.isfinite, chain(*self.known.values()))):
                raise ValueError("a distance is not finite")
            self._enter(first)
            self._log = MetricsLog(log, "evaluation", sys.maxsize)
            self._proceed()

    @property
    def spent(self) -> int:
        """Images of all finished evaluations."""
        return sum(evaluation.images for evaluation in self.asked if evaluation.number in self.known)

    def open(self) -> list[Evaluation]:
        """Return the evaluations of the present generation that are not finished."""
        present = self.asked[self._begun :]  # those of the generations before are finished
        return [evaluation for evaluation in present if evaluation.number not in self.known]

    def finish(self, evaluation: Evaluation, measured: Measurement) -> None:
        """Write down what was measured, and go on to the next generation if it was the last of this one."""
        assert evaluation.number not in self.known
        row = {"evaluation": evaluation.number, "generation": evaluation.generation}
        self._log.append(
            row | {"images": evaluation.images, **measured._asdict()} | _columns(evaluation.schedule)
        )
        self.known[evaluation.number] = measured
        self._proceed()

    def run(
        self, measure: Measure, report: Callable[[Evaluation, Measurement], object] = lambda *done: None
    ) -> Schedule:
        """Measure one evaluation after the other until there is a result.

        Args:
            report: called after each finished evaluation.
        """
        while self.result is None:
            for evaluation in self.open():
                self.finish(evaluation, measured := measure(evaluation))
                report(evaluation, measured)
        return self.result

    def _enter(self, generation: Generation) -> None:
        number = self.asked[-1].generation + 1 if self.asked else 0
        self._begun = len(self.asked)
        for point, schedule in enumerate(generation.schedules):
            common = () if generation.common_noise else (point,)
            seed = derive_seed(self.seed, "search", number, *common)
            evaluation = Evaluation(
                number=len(self.asked),
                generation=number,
                schedule=schedule,
                images=generation.images,
                seed=seed,
                balanced=generation.common_noise,
                split="select" if generation.final else self.split,
            )
            self._refuse_another(evaluation)
            self.asked.append(evaluation)

    def _refuse_another(self, evaluation: Evaluation) -> None:
        """Raise ValueError if the log says that something else was measured under this number.

        Another version of natgym may ask for other schedules after the same answers.
        """
        row = self._logged.get(evaluation.number, {})
        asked = {"images": evaluation.images, **_columns(evaluation.schedule)}
        # Rows of before a parameter was registered don't have it; roundings may be another processor's.
        pairs = [(float(row[name]), value) for name, value in asked.items() if name in row]
        if not all(math.isclose(*pair, rel_tol=1e-6, abs_tol=1e-9) for pair in pairs):
            raise ValueError(
                f"{self._path} holds another schedule as evaluation {evaluation.number} than this search "
                "asks for; begin it anew in another folder"
            )

    def _proceed(self) -> None:
        while self.result is None and not self.open():
            present = self.asked[self._begun :]
            try:
                self._enter(self._explored.send([self.known[one.number].distance for one in present]))
            except StopIteration as stop:
                self.result = stop.value
