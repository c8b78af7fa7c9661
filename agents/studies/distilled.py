"""What a policy's episodes leave of it: a schedule for all images, and one for each class, both the means of
what was played."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from agents.autonat.class_table import ClassTable
from generators.schedules import PARAMETERS, Schedule
from natgym.env.episodes import Episodes


def static(episodes: Episodes) -> Schedule:
    """Return the schedule of each step's mean decoding parameters.

    Raises:
        ValueError: the policy chose tokens, which no schedule does.
    """
    return Schedule(mean_table(_deciding(episodes), episodes.steps), "distilled")


def by_class(episodes: Episodes, classes: Sequence[str]) -> ClassTable:
    """Return the table of the means over the images of each class.

    Args:
        classes: names of all, in their order.

    Raises:
        ValueError: there are no images of a class, or the policy chose tokens.
    """
    frame = _deciding(episodes)
    if missing := [name for name in classes if not (frame["kind"] == name).any()]:
        raise ValueError(f"no episode is of {missing[0]!r}; a table by class needs images of each")
    steps = episodes.steps
    tables = tuple(Schedule(mean_table(frame[frame["kind"] == name], steps), name) for name in classes)
    return ClassTable(tables, tuple(range(len(tables))))


def mean_table(frame: pd.DataFrame, steps: int) -> Tensor:
    """Return the mean decoding parameters of each step, (T, K), over the images of which something was masked
    before it: of others nothing was decided. A step without any goes on with those of the step before.

    Args:
        frame: as of a `Rollout`, perhaps without its last steps.
        steps: T of the policy.
    """
    decided = frame[frame["masked_before"] > 0]
    means = decided.groupby("step")[list(PARAMETERS)].mean().reindex(range(steps)).ffill()
    return torch.from_numpy(means.to_numpy(copy=True))


def _deciding(episodes: Episodes) -> pd.DataFrame:
    """Return the frame of episodes with the column `masked_before`; ValueError if tokens were chosen."""
    if episodes.frame["chosen"].notna().any():
        raise ValueError("these episodes' policy chose tokens, which no schedule does; nothing is distilled")
    masked_NTL = episodes.stacked("tokens") == episodes.facts["mask_id"]
    first_N1L = np.ones_like(masked_NTL[:, :1])  # no token of episodes is given
    before_NTL = np.concatenate([first_N1L, masked_NTL[:, :-1]], axis=1)
    return episodes.frame.assign(masked_before=before_NTL.sum(-1).ravel())
