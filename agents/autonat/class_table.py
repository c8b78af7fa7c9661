"""A schedule per condition: a table of schedules, and which class plays which.

A candidate schedule is drawn once for every class and its moments are kept by class. The distance of any
assignment then follows from sums of moments, so that coordinate descent over thousands of assignments draws
no further image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agents.autonat.config import ClassTableConfig
from agents.autonat.strategies import Around
from generators.files import read_json, reading, write_atomic
from generators.noise import derive_seed
from generators.schedules import DecodeParams, Schedule
from natgym.env.vector import Observation
from natgym.metrics import FrechetDistance, Moments, MomentsAccumulator


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Play schedule `assignment[c]` for class c.

    Attributes:
        schedules: of one number of steps.
        assignment: an index into them for each class.
    """

    schedules: tuple[Schedule, ...]
    assignment: tuple[int, ...]

    @property
    def steps(self) -> int:
        return self.schedules[0].steps

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        rows_C4 = torch.stack([self.schedules[chosen].table_T4[step] for chosen in self.assignment])
        return DecodeParams(*rows_C4[observation["condition"].cpu()].unbind(-1))

    def shuffled(self, seed: int) -> ClassTable:
        """Return the same schedules handed out to other classes: the control."""
        order = np.random.default_rng(derive_seed(seed, "shuffle")).permutation(len(self.assignment))
        return ClassTable(self.schedules, tuple(self.assignment[at] for at in order))

    def save(self, path: Path | str) -> None:
        """Write JSON: the schedules' tables and the assignment."""
        tables = [schedule.table_T4.tolist() for schedule in self.schedules]
        write_atomic(path, json.dumps({"assignment": self.assignment, "tables": tables}) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> ClassTable:
        """Read what `save` wrote; ValueError that names the file if it is something else."""
        content = read_json(path)
        with reading(path):
            tables = [torch.tensor(table, dtype=torch.float64) for table in content["tables"]]
            assignment = tuple(int(chosen) for chosen in content["assignment"])
            if not all(0 <= chosen < len(tables) for chosen in assignment):
                raise ValueError(f"its classes play schedules beyond the {len(tables)} that it has")
            return cls(tuple(map(Schedule, tables)), assignment)


def candidates(base: Schedule, config: ClassTableConfig, seed: int) -> list[Schedule]:
    """Return the static schedule and others around it."""
    around, rng = Around(base), np.random.default_rng(derive_seed(seed, "candidates"))
    moves = rng.normal(scale=config.reach, size=(config.candidates - 1, len(around.start)))
    return [base, *(around.schedule(move) for move in moves)]


def class_moments(features_Nd: Tensor, classes_N: Tensor, num_classes: int) -> list[MomentsAccumulator]:
    """Return the moments of features (N, d) by class (N,)."""
    accumulators = []
    for label in range(num_classes):
        accumulators.append(MomentsAccumulator(features_Nd.shape[1]))
        accumulators[-1].update(features_Nd[classes_N == label])
    return accumulators


def assign(
    moments: Sequence[Sequence[MomentsAccumulator]], frechet: FrechetDistance, seed: int
) -> tuple[int, ...]:
    """Choose a candidate for each class: coordinate descent on the distance of all classes together.

    Args:
        moments: by candidate and class.
        frechet: of the real images.
        seed: of the order in which classes are visited.

    Returns:
        The chosen candidates; changing no single class's would lower the distance.
    """
    num_classes = len(moments[0])
    chosen, best = [0] * num_classes, frechet.between(_pooled(moments, [0] * num_classes))
    rng, moved = np.random.default_rng(derive_seed(seed, "classes")), True
    while moved:
        moved = False
        for label in rng.permutation(num_classes).tolist():
            for candidate in range(len(moments)):
                trial = [*chosen[:label], candidate, *chosen[label + 1 :]]
                if (distance := frechet.between(_pooled(moments, trial))) < best:
                    chosen, best, moved = trial, distance, True
    return tuple(chosen)


def _pooled(moments: Sequence[Sequence[MomentsAccumulator]], assignment: Sequence[int]) -> Moments:
    pooled = MomentsAccumulator(moments[0][0].width)
    for label, candidate in enumerate(assignment):
        pooled.merge(moments[candidate][label])
    return pooled.compute()


def search_table(
    base: Schedule,
    config: ClassTableConfig,
    features: Callable[[Schedule, int], tuple[Tensor, Tensor]],
    frechet: FrechetDistance,
    *,
    num_classes: int,
    seed: int,
    progress: Callable[[int], object] = lambda images: None,
) -> ClassTable:
    """Search a schedule for every class around a static one.

    Args:
        base: the static schedule.
        features: (schedule, images) -> features (N, d) and classes (N,) of images: the classes in turn,
            the same noise for every schedule.
        frechet: distance from the real images.
        progress: called with the images of each finished candidate.
    """
    tried, images = candidates(base, config, seed), config.images_per_class * num_classes
    moments = []
    for schedule in tried:
        moments.append(class_moments(*features(schedule, images), num_classes))
        progress(images)
    chosen = assign(moments, frechet, seed)
    used = sorted(set(chosen))
    return ClassTable(tuple(tried[at] for at in used), tuple(used.index(at) for at in chosen))
