"""Finished trainings, as the run folders of adanat_ppo.py hold them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agents.adanat.config import SEARCHED, STEP_ONLY, STOPPED, TrainingConfig
from generators.files import read_json, reading
from natgym.runs import read_config, read_metrics


@dataclass(frozen=True)
class Training:
    """A finished training of adanat_ppo.py.

    Attributes:
        config: with the schedule it started from as a file or a family's name.
        folder: holds policy/.
        searched: images that were spent on that schedule.
        step_only: the folder of the same training of a policy that sees the step alone, if there is one.
    """

    config: TrainingConfig
    folder: Path
    searched: int
    step_only: Path | None

    @property
    def spent(self) -> int:
        """Images of search and training."""
        return self.searched + int(read_metrics(self.folder / "metrics.csv")[-1]["images_spent"])


def read_training(run: Path) -> TrainingConfig:
    """Return the config of a training: of a run of adanat_ppo.py, or of one of its trials.

    Raises:
        ValueError: there is none.
    """
    path = run / "config.json"
    with reading(path):
        whole = "train" in read_json(path)
    return read_config(path, TrainingConfig, "train" if whole else None)


class Kept(NamedTuple):
    """Which of a training's policies was kept.

    Attributes:
        update: after which it was the policy.
        distance: from the select split, on the noise of the finalists.
        finalists: how many were compared there.
    """

    update: int
    distance: float
    finalists: int


def kept_policy(folder: Path) -> Kept | None:
    """Return which policy a training's folder holds; None where none was chosen by a measurement."""
    path = folder / "policy" / "config.json"
    with reading(path):
        metadata = read_json(path)["metadata"]
        if not metadata.get("finalists"):
            return None
        return Kept(metadata["update"], metadata["finalists"][0]["distance"], len(metadata["finalists"]))


def finished_trainings(run: Path) -> list[Training]:
    """Return the trainings of a run folder, all trials of a sweep but those that ASHA stopped.

    Raises:
        ValueError: it is no run of adanat_ppo.py, or not finished, or its generator learned, too.
    """
    if not (run / "config.json").is_file():
        raise ValueError(f"{run} is not a run folder: it has no config.json; give one of adanat_ppo.py")
    config = read_training(run)
    if config.adanat.cotraining.updates:
        raise ValueError(f"{run}: the generator learned, too; give a training on a frozen one, as in frozen/")
    trials = sorted(path.parent for path in (run / "trials").glob("*/config.json"))
    configs = {folder: read_training(folder) for folder in trials} or {run: config}
    found, searched = [], 0
    if config.env.schedule == SEARCHED:
        searched = sum(int(row["images"]) for row in read_metrics(run / "search.csv"))
        start = str((run / f"{SEARCHED}.json").resolve())
        configs = {folder: own.but(schedule=start) for folder, own in configs.items()}
    for folder, own in configs.items():
        if not (folder / "policy" / "model.safetensors").is_file():
            if (folder / STOPPED).is_file():
                continue
            raise ValueError(f"{folder} holds no policy; finish it with adanat_ppo.py --resume {run}")
        control = run / STEP_ONLY if folder == run else run / STEP_ONLY / folder.name
        step_only = control if (control / "policy").is_dir() else None
        found.append(Training(own, folder, searched, step_only))
    return found
