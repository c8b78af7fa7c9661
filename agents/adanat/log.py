"""A training's updates, and samples of its policy, for the programs of `agents.loggers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from agents.distributed.ranks import Ranks
from agents.loggers import RunLog
from natgym.figures.policies import samples_figure
from natgym.rollouts import balanced, rollout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agents.adanat.trainer import AdaNATTrainer

SHOWN = 10  # conditions, each with as many images


class TrainingLog(RunLog):
    """A callback of `AdaNATTrainer` that logs each update, and samples of the policy where it is measured.

    They are drawn for the log alone: no number of the training depends on them or counts them. Of several
    ranks the first logs.
    """

    def on_update(self, trainer: AdaNATTrainer, metrics: Mapping[str, float]) -> None:
        """Log an update, and end the log after the last."""
        if Ranks.here().rank or not self.names:
            return
        shown = trainer.config.measures_at(trainer.done)
        self.write(trainer.done, metrics, _samples(trainer) if shown else None)
        if trainer.ended:
            self.close()


def _samples(trainer: AdaNATTrainer) -> Figure:
    """Draw the first conditions of a task by the mean action, on the same noise each time."""
    env = trainer.env
    pool = env.task.examples(SHOWN)
    rows, seed = balanced(pool, SHOWN * len(pool)), trainer.config.seed_of("samples")
    drawn = rollout(trainer.actor(), env.generator, env.tokenizer, rows, seed=seed)
    title = f"update {trainer.done:,}"
    return samples_figure({title: drawn.images_NCHW.cpu()}, pool.names, "mean action; unselected")
