"""How fast policies come near: distance against images and seconds, of trainings and of searches.

Each method yields `Point`s as it goes: what it would play if it ended there, and what it has cost so far.
What a method measures of itself is part of its cost. How good a point is, is measured by whoever asked for
it, on noise that no method has seen, while the method's clock stands still.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agents.adanat.beside import scorer_beside, search_beside
from agents.adanat.config import KINDS, TrainingConfig
from agents.adanat.trainer import AdaNATTrainer
from agents.autonat.config import OptimizerName, SearchConfig
from agents.studies.config import Method
from natgym.policies import FixedPolicy
from natgym.rollouts import Policy

SEARCHES: dict[str, tuple[OptimizerName, bool]] = {
    "grid": ("grid", False),
    "cma": ("cma", False),
    "raced cma": ("cma", True),
}


class Point(NamedTuple):
    """What a method would play, and what it has cost: images drawn, CPU seconds of its process."""

    policy: Policy
    images: int
    seconds: float


def points(
    method: Method, training: TrainingConfig, search: SearchConfig, *, log: Path, every: int = 5000
) -> Iterator[Point]:
    """Yield what a method has come to.

    Args:
        method: a training: the policy wherever it measures itself, and at the end the one that it keeps; or a
            search: the schedule that measured best in the last whole generation, or in the first one so far,
            and at the end the winner of the second look.
        training: of the trainings; a search takes its task, steps, rules, objective, price and seed.
        search: budget and details of the searches; their races are by method.
        log: of a search, a new file.
        every: images between two points of a search.
    """
    clock = time.process_time()
    if method in KINDS:
        steps = _trained(training.but(training.settings_of(method)))
    else:
        optimizer, raced = SEARCHES[method]
        config = search if raced else dataclasses.replace(search, race=1)
        steps = _searched(optimizer, training, config, log, every)
    for policy, images in steps:
        stopped = time.process_time()
        yield Point(policy, images, stopped - clock)
        clock += time.process_time() - stopped


def _trained(config: TrainingConfig) -> Iterator[tuple[Policy, int]]:
    trainer = AdaNATTrainer.of(config)
    while not trainer.ended:
        trainer.update()
        if config.adanat.measures_at(trainer.done):
            policy = trainer.policy() if trainer.ended else trainer.actor()
            yield policy, trainer.images_spent


def _searched(
    optimizer: OptimizerName, training: TrainingConfig, config: SearchConfig, log: Path, every: int
) -> Iterator[tuple[Policy, int]]:
    scorer = scorer_beside(training)
    search = search_beside(training, scorer, optimizer, config, log)
    best, last = search.asked[0].schedule, 0
    while search.result is None:
        generation = search.open()
        nearest = math.inf
        for evaluation in generation:
            measurement = scorer(evaluation)
            search.finish(evaluation, measurement)
            if measurement.distance < nearest:
                nearest, candidate = measurement.distance, evaluation.schedule
            if evaluation.generation == 0 or evaluation is generation[-1]:
                best = candidate
            if search.result is None and search.spent - last >= every:
                last = search.spent
                yield FixedPolicy(best), last
    yield FixedPolicy(search.result), search.spent
