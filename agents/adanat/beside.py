"""The search that stands beside a training: it makes small what the training is measured by."""

from __future__ import annotations

from pathlib import Path

from agents.adanat.config import TrainingConfig
from agents.autonat.config import OptimizerName, SearchConfig
from agents.autonat.scorer import ScheduleScorer
from agents.autonat.search import Search
from natgym.names.prices import mean
from natgym.task import Task


def scorer_beside(config: TrainingConfig, task: Task | None = None, *, threads: int = 1) -> ScheduleScorer:
    """Return what measures schedules by a training's objective and, of a range, by its mean price.

    Args:
        task: in place of the training's, as one whose generator has learned, too.
        threads: batches drawn at once.
    """
    env = config.env
    return ScheduleScorer(
        env.load_task() if task is None else task,
        rules=env.rules,
        objective=config.adanat.objective,
        price=mean(env.price),
        threads=threads,
    )


def search_beside(
    config: TrainingConfig,
    scorer: ScheduleScorer,
    optimizer: OptimizerName,
    search: SearchConfig,
    log: Path,
    *,
    seed: int | None = None,
) -> Search:
    """Return the search of a schedule of as many steps, by the training's seed unless another is given."""
    seed = config.adanat.seed if seed is None else seed
    return Search(optimizer, scorer.suited(search), config.env.steps, seed, log)
