"""Does a policy adapt? What it would do without knowing the sample: controls made of the policy itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.adanat_config import SEARCHED, AdaNATConfig
from generators.noise import derive_seed
from generators.schedules import PARAMETERS, DecodeParams, Schedule
from natgym.observations import Observation
from natgym.rollouts import Decision, Rollout
from natgym.runs import Run, read_config, read_metrics


def mean_schedule(drawn: Rollout) -> Schedule:
    """Return what a policy played on average: one schedule for all samples, means over the rollout's."""
    means_T4 = drawn.frame.groupby("step")[list(PARAMETERS)].mean().to_numpy(copy=True)
    return Schedule(torch.from_numpy(means_T4), "mean")


@dataclass(frozen=True)
class Trained:
    """A finished training of adanat_ppo.py.

    Attributes:
        config: with the schedule it started from as a file or a family's name.
        folder: holds policy/.
        searched: pictures that were spent on that schedule.
    """

    config: AdaNATConfig
    folder: Path
    searched: int

    @property
    def spent(self) -> int:
        """Pictures of search and training."""
        return self.searched + int(read_metrics(self.folder / "metrics.csv")[-1]["images_spent"])


def trained(run: Path) -> list[Trained]:
    """Return the trainings of a run folder, all trials of a sweep.

    Raises:
        ValueError: it is no run of adanat_ppo.py, or not finished.
    """
    config = read_config(Run.open(run).folder / "config.json", AdaNATConfig, "train")
    trials = sorted((run / "trials").glob("*/config.json"))
    configs = {path.parent: read_config(path, AdaNATConfig) for path in trials} or {run: config}
    found, searched = [], 0
    if config.schedule == SEARCHED:
        searched = sum(int(row["images"]) for row in read_metrics(run / "search.csv"))
        start = str((run / f"{SEARCHED}.json").resolve())
        configs = {folder: dataclasses.replace(own, schedule=start) for folder, own in configs.items()}
    for folder, own in configs.items():
        if not (folder / "policy" / "model.safetensors").is_file():
            raise ValueError(f"{folder} holds no policy; finish it with adanat_ppo.py --resume {run}")
        found.append(Trained(own, folder, searched))
    return found


@dataclass(frozen=True)
class Shuffled:
    """A learned policy in which every row decides by the features of another row of its batch.

    Attributes:
        policy: has `steps` and `decide`.
        within_class: the other row has the same condition, so that only what is known beyond it is lost; else
            it is any row.
        seed: of who gets whose; anew at each step.
    """

    policy: Any
    within_class: bool
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.policy.steps

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        return self.decide(observation, step).params

    def decide(self, observation: Observation, step: int) -> Decision:
        """Decide by others' features; the action played before stays the row's own.

        Raises:
            ValueError: a condition has a single row in the batch, which leaves nothing to shuffle.
        """
        values = observation["condition"].cpu()
        groups_B = torch.zeros(len(values), dtype=torch.long)
        if self.within_class:
            groups_B = values.unique(dim=0, return_inverse=True)[1]
        source_B = others(groups_B, derive_seed(self.seed, "shuffle", step)).to(
            observation["features"].device
        )
        taken = {name: observation[name][source_B] for name in ("features", "masked", "tokens")}
        return self.policy.decide(observation | taken, step)


def others(groups_B: Tensor, seed: int) -> Tensor:
    """Return a permutation (B,) that gives every row another row of its group, at random.

    Raises:
        ValueError: a group has a single row.
    """
    source_B, random = torch.arange(len(groups_B)), torch.Generator().manual_seed(seed % 2**63)
    for group in groups_B.unique():
        rows = (groups_B == group).nonzero()[:, 0]
        if len(rows) == 1:
            raise ValueError(
                f"a condition has a single row in a batch of {len(groups_B)}, so that its features can't be "
                "shuffled within it; give fewer conditions"
            )
        rows = rows[torch.randperm(len(rows), generator=random)]
        source_B[rows] = rows.roll(1)
    return source_B
