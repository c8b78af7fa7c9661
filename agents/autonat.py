"""AutoNAT (arXiv 2406.05478): search for one static schedule. Knows no Ray.

For now the smallest useful search: a grid over three scales of the reference schedule. Every finished
evaluation is a line of a plain log, from which an interrupted search goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from generators.schedules import Schedule, reference
from natgym.runs import MetricsLog, read_metrics

Evaluate = Callable[[Schedule, int, int], float]
"""(schedule, images, noise seed) -> distance from the select part."""


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """A grid over scales of the reference schedule, and the second look at its best points."""

    remask: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    """Factors of the re-mask temperature 1 - r."""
    sampling: tuple[float, ...] = (0.8, 0.9, 1.0)
    """Sampling temperatures."""
    guidance: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    """Factors of the guidance ramp k / T."""
    images: int = 1000
    """Pictures per grid point, all on the same noise."""
    finalists: int = 5
    """Points evaluated again; the choice is made on the second look alone."""
    final_images: int = 2000
    """Pictures per finalist, on fresh noise."""

    def __post_init__(self) -> None:
        counts = (len(self.remask), len(self.sampling), len(self.guidance))
        if min(*counts, self.images, self.finalists, self.final_images) < 1:
            raise ValueError("a grid needs at least one value of each scale, one image and one finalist")
        if min(self.sampling) <= 0 or min(*self.remask, *self.guidance) < 0:
            raise ValueError("a grid's sampling temperatures must be positive, its other scales at least 0")

    @property
    def points(self) -> list[tuple[float, float, float]]:
        """All grid points, in the order of evaluation."""
        return list(product(self.remask, self.sampling, self.guidance))

    @property
    def total_images(self) -> int:
        """Pictures that the whole search spends."""
        return len(self.points) * self.images + min(self.finalists, len(self.points)) * self.final_images


def grid_search(
    config: GridConfig, steps: int, evaluate: Evaluate, log_path: Path
) -> Iterator[tuple[int, Schedule]]:
    """Yield the images of each evaluation and the best schedule so far; the last one yielded is the result.

    Evaluations found in `log_path` are not repeated.
    """
    known = {int(row["evaluation"]): float(row["distance"]) for row in read_metrics(log_path)}
    log = MetricsLog(log_path, "evaluation", len(known))
    schedules = [
        reference(steps, remask=remask, sampling=sampling, guidance=guidance, name="static-search")
        for remask, sampling, guidance in config.points
    ]

    def distance(evaluation: int, point: int, images: int, stage: int) -> float:
        if evaluation not in known:
            known[evaluation] = evaluate(schedules[point], images, stage)
            scales = dict(zip(("remask", "sampling", "guidance"), config.points[point], strict=True))
            log.append({"evaluation": evaluation, "images": images, "distance": known[evaluation]} | scales)
        return known[evaluation]

    scores: list[float] = []
    for point in range(len(schedules)):
        scores.append(distance(point, point, config.images, 0))
        yield config.images, schedules[scores.index(min(scores))]
    finalists = sorted(range(len(scores)), key=scores.__getitem__)[: config.finalists]
    seconds: list[float] = []
    for rank, point in enumerate(finalists):
        seconds.append(distance(len(schedules) + rank, point, config.final_images, 1))
        yield config.final_images, schedules[finalists[seconds.index(min(seconds))]]
