"""Trainings of a run, as Ray Tune jobs, by workers together or in this process, on one bar of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _cli import Places
from _ranks import followed
from tqdm import tqdm

from agents.adanat.config import TrainingConfig
from agents.adanat.log import TrainingLog
from agents.adanat.sweeps import Trial, run_trials
from agents.adanat.trainer import train
from agents.distributed.workers import own_device, run_workers, world_size
from natgym.runs import read_metrics


def train_as_rank(config: TrainingConfig, folder: Path, log: Sequence[str]) -> None:
    """Train with the other workers of a group that is joined."""
    torch.set_num_threads(1)
    own_device(config.env.device)
    train(config, folder, lambda metrics: None, callbacks=[TrainingLog(log, folder)])


def train_trials(
    trials: Sequence[Trial],
    labels: Sequence[str],
    places: Places,
    bar: tqdm,
    *,
    folder: Path,
    rung: int | None = None,
    workers: int = 1,
    log: Sequence[str] = (),
) -> list[dict[str, str]]:
    """Train all, or go on with what was begun; return the last metrics of each.

    Args:
        labels: of the trainings on the bar.
        bar: gets all images of the trainings, those that stopped ones leave included.
        folder: for Ray's own files.
        rung: of ASHA, see `agents.adanat.sweeps.run_trials`.
        workers: processes that train each of them together.
        log: of `agents.loggers`, for each training.
    """
    counted = [0] * len(trials)

    def report(trial: int, metrics: Mapping[str, Any]) -> None:
        images = int(metrics["images_spent"])
        bar.update(images - counted[trial])
        counted[trial] = images
        bar.set_description(labels[trial])
        bar.set_postfix(update=int(metrics["update"]), distance=f"{float(metrics['distance']):.3f}")

    if workers > 1:
        for trial, (config, own) in enumerate(trials):
            training, device = partial(train_as_rank, config, own, log), config.env.device
            with followed(own / "metrics.csv", partial(report, trial)):
                run_workers(training, workers, own, device, places.address)
    elif places.local or world_size() > 1:
        for trial, (config, own) in enumerate(trials):
            train(config, own, partial(report, trial), callbacks=[TrainingLog(log, own)])
    else:
        names = ("cpus_per_trial", "gpus_per_trial", "address")
        where = {name: getattr(places, name) for name in names}
        run_trials(trials, report, folder=folder, rung=rung, log=log, **where)
    # What a resumed run had drawn before, and what stopped trials leave.
    bar.update(sum(config.total_images for config, _ in trials) - sum(counted))
    return [read_metrics(own / "metrics.csv")[-1] for _, own in trials]
