"""Trainings of a run, as Ray Tune jobs or in this process, on one progress bar counted in images."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from _cli import Places
from tqdm import tqdm

from agents.adanat.sweeps import Trial, run_trials
from agents.adanat.trainer import train
from natgym.runs import read_metrics


def train_trials(
    trials: Sequence[Trial],
    labels: Sequence[str],
    places: Places,
    bar: tqdm,
    *,
    folder: Path,
    rung: int | None = None,
) -> list[dict[str, str]]:
    """Train all, or go on with what was begun; return the last metrics of each.

    Args:
        labels: of the trainings on the bar.
        bar: gets all images of the trainings, those that stopped ones leave included.
        folder: for Ray's own files.
        rung: of ASHA, see `agents.distributed.jobs.run_trials`.
    """
    counted = [0] * len(trials)

    def report(trial: int, metrics: dict[str, float]) -> None:
        images = int(metrics["images_spent"])
        bar.update(images - counted[trial])
        counted[trial] = images
        bar.set_description(labels[trial])
        bar.set_postfix(update=int(metrics["update"]), distance=f"{metrics['distance']:.3f}")

    if places.local:
        for trial, (config, own) in enumerate(trials):
            train(config, own, partial(report, trial))
    else:
        names = ("cpus_per_trial", "gpus_per_trial", "address")
        where = {name: getattr(places, name) for name in names}
        run_trials(trials, report, folder=folder, rung=rung, **where)
    # What a resumed run had drawn before, and what stopped trials leave.
    bar.update(sum(config.total_images for config, _ in trials) - sum(counted))
    return [read_metrics(own / "metrics.csv")[-1] for _, own in trials]
