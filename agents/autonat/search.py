"""AutoNAT (arXiv 2406.05478, section 4): search for the best static strategy. Knows no Ray.

A search asks for one generation of evaluations after another and is told their distances from the select
part, in any order. Every finished evaluation is a line of a plain log, from which an interrupted search goes
on: what it asks is a function of its config and of what it was told. The winner is chosen among finalists on
fresh images, since the best of many noisy evaluations is mostly the luckiest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agents.autonat import optimizers
from agents.autonat.config import GridConfig as GridConfig
from agents.autonat.config import OptimizerName, SearchConfig
from agents.autonat.optimizers import Optimizer
from agents.autonat.scorer import Evaluation, Measurement
from agents.autonat.strategies import Around, Family, Parameters, Scales, Space
from generators.noise import derive_seed
from generators.schedules import PARAMETERS, Schedule, as_schedule
from natgym.runs import MetricsLog, read_metrics


class Generation(NamedTuple):
    """Schedules that are open together: how many images each gets, and whether all see the same noise."""

    schedules: list[Schedule]
    images: int
    common_noise: bool = True


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
}
NEAR = 0.5  # the reach around the best of a warm start


def explore(optimizer: OptimizerName, config: SearchConfig, steps: int, seed: int) -> Explored:
    """Search, without a log: the whole process, from the first generation to the winner of the second look.

    Raises:
        ValueError: the budget does not reach for one generation.
    """
    tried: list[tuple[float, Schedule]] = []
    each = config.images_per_evaluation

    def minimise(method: Optimizer, space: Space, images: int) -> Explored:
        while len(points := method.ask()) and images >= (cost := len(points) * each):
            schedules = [space.schedule(point) for point in points]
            distances = yield Generation(schedules, each, method.common_noise)
            method.tell(np.array(distances))
            tried.extend(zip(distances, schedules, strict=True))
            images -= cost
        if not tried:
            raise ValueError(
                f"budget {config.budget}: beside the finalists, {optimizer} takes {cost:,} images for its "
                "first generation; raise it or take fewer images per evaluation"
            )
        return space.schedule(method.center)

    if optimizer == "paper":
        plain = Parameters(steps)
        method: Optimizer = optimizers.FiniteDifferences(
            plain.start, step=plain.step, rate=plain.rate, low=plain.low, high=plain.high
        )
        center = yield from minimise(method, plain, config.explored)
    elif optimizer == "grid":
        method = optimizers.Grid(np.array(config.grid.points))
        center = yield from minimise(method, Scales(steps), config.explored)
    else:
        base, reach = as_schedule(config.start, steps), 1.0
        if config.warm == "grid":
            method, reach = optimizers.Grid(np.array(config.coarse.points)), NEAR
            base = yield from minimise(method, Scales(steps), config.explored)
        elif config.warm == "family":
            family, share = Family(steps, config.family), int(config.family_share * config.explored)
            method, reach = LOCAL["cma"](family.start, 1.0, seed), NEAR
            base = yield from minimise(method, family, share)
        around, left = Around(base), config.explored - len(tried) * each
        center = yield from minimise(LOCAL[optimizer](around.start, reach, seed), around, left)

    ranked = [center, *(schedule for _, schedule in sorted(tried, key=lambda pair: pair[0]))]
    finalists = list(_distinct(ranked))[: config.finalists]
    distances = yield Generation(finalists, config.final_images)
    return finalists[int(np.argmin(distances))]


def _distinct(schedules: Iterable[Schedule]) -> Iterable[Schedule]:
    return {tuple(schedule.table_T4.flatten().tolist()): schedule for schedule in schedules}.values()


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
    """

    def __init__(
        self, optimizer: OptimizerName, config: SearchConfig, steps: int, seed: int, log: Path
    ) -> None:
        self.seed, self.asked = seed, list[Evaluation]()
        self.known = {
            int(row["evaluation"]): Measurement(float(row["distance"]), float(row["error"]))
            for row in read_metrics(log)
        }
        self.result: Schedule | None = None
        self._explored = explore(optimizer, config, steps, seed)
        self._enter(next(self._explored))
        self._log = MetricsLog(log, "evaluation", sys.maxsize)
        self._proceed()

    @property
    def spent(self) -> int:
        """Images of all finished evaluations."""
        return sum(evaluation.images for evaluation in self.asked if evaluation.number in self.known)

    def open(self) -> list[Evaluation]:
        """Return the evaluations of the present generation that are not finished."""
        return [evaluation for evaluation in self.asked if evaluation.number not in self.known]

    def finish(self, evaluation: Evaluation, measured: Measurement) -> None:
        """Write down what was measured, and go on to the next generation if it was the last of this one."""
        assert evaluation.number not in self.known
        row = {"evaluation": evaluation.number, "generation": evaluation.generation}
        row |= {"images": evaluation.images, **measured._asdict()}
        for step, values in enumerate(evaluation.schedule.table_T4.tolist()):
            row |= {f"{name}_{step}": value for name, value in zip(PARAMETERS, values, strict=True)}
        self._log.append(row)
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
        for point, schedule in enumerate(generation.schedules):
            common = () if generation.common_noise else (point,)
            seed = derive_seed(self.seed, "search", number, *common)
            count, images = len(self.asked), generation.images
            self.asked.append(Evaluation(count, number, schedule, images, seed, generation.common_noise))

    def _proceed(self) -> None:
        while self.result is None and not self.open():
            last = self.asked[-1].generation
            numbers = [evaluation.number for evaluation in self.asked if evaluation.generation == last]
            try:
                self._enter(self._explored.send([self.known[number].distance for number in numbers]))
            except StopIteration as stop:
                self.result = stop.value
