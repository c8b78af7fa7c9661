"""A training as a Ray Tune trial, whose search space is made of the config's own settings.

Importing this imports Ray: call `agents.distributed.cluster.quiet` before, if its banners are unwanted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # read when Ray is imported: paths mean what they meant
from ray import tune  # noqa: E402

from agents.adanat import folders
from agents.adanat.config import STOPPED, TrainingConfig
from agents.adanat.log import TrainingLog
from agents.adanat.trainer import AdaNATTrainer
from natgym.runs import read_metrics

FILES = ("metrics.csv", "alarms.csv", "checkpoint.pt")  # that a training goes on from


class AdaNATTrainable(tune.Trainable):
    """One training; a step is an update, and reports its metrics.

    The trial's config holds settings of a `TrainingConfig`, each named by its path or, where these are
    unique, by its last words, and perhaps nested: {"learning_rate": tune.loguniform(1e-4, 1e-2), "steps": 2,
    "adversarial": {"channels": tune.choice([8, 16])}}. The rest is `base`.

    Checkpoints, logs and the policy are in the trial's folder, which Tune keeps beside its results under
    `tune.RunConfig(sync_config=tune.SyncConfig(sync_artifacts=True))`. With `trainings`, config["trial"] is
    the number of one of them, which says config and folder; what stands in that folder is what a resumed
    trial goes on from, and Tune's own state is not needed. `log` names the logs of `agents.loggers`.
    """

    def setup(
        self,
        config: dict[str, Any],
        base: TrainingConfig | None = None,
        trainings: list[tuple[TrainingConfig, Path]] | None = None,
        log: Sequence[str] = (),
    ) -> None:
        """Build the trainer, and go on with what its folder holds."""
        torch.set_num_threads(1)  # as everywhere: sums in one order, whatever Ray's default
        if trainings is None:
            self.trainer, folder = AdaNATTrainer.of((base or TrainingConfig()).but(config)), Path(self.logdir)
            # taken, not claimed: a scheduler may change a trial's settings
            self.run = folders.take(folder, self.trainer.manifest)
        else:
            training, folder = trainings[config["trial"]]
            self.trainer = AdaNATTrainer.of(training)
            self.run = folders.claim(folder, self.trainer.manifest)
        self.log = TrainingLog(log, folder)
        self.stopped = (folder / STOPPED).exists()
        if not self.stopped:
            self._go_on()

    def step(self) -> dict[str, Any]:
        """Take one update, the last of which saves the policy; of an ended training tell its last metrics."""
        if self.trainer.ended or self.stopped:
            if self.trainer.ended:  # perhaps it was killed before it saved its policy
                self.trainer.export(self.run.folder)
            last = read_metrics(self.run.folder / "metrics.csv")[-1]
            return {**{name: float(value) for name, value in last.items()}, "done": True}
        metrics = self.trainer.update()
        self.run.write(metrics, self.trainer.monitor.alarms, self.trainer.state_dict())
        self.log.on_update(self.trainer, metrics)
        if self.trainer.ended:
            self.trainer.export(self.run.folder)
        return {**metrics, "done": self.trainer.ended}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Copy the last checkpoint, and the logs up to it, to where Tune wants one."""
        for name in FILES:
            shutil.copy(self.run.folder / name, checkpoint_dir)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint, which may be another trial's."""
        for name in FILES:
            shutil.copy(Path(checkpoint) / name, self.run.folder)
        self.log.close()
        self._go_on()

    def cleanup(self) -> None:
        """End the log, also of a trial that a scheduler stopped."""
        self.log.close()

    def _go_on(self) -> None:
        self.run.restore(self.trainer, self.trainer.env.device, self.trainer.config.updates)
        self.run.open_logs(self.trainer.done)
