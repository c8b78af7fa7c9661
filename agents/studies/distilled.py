"""What a policy's episodes leave of it: a schedule for all images, and one for each class, both the means of
what was played."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from agents.autonat.class_table import ClassTable
from generators.schedules import PARAMETERS, Schedule
from natgym.env.episodes import Episodes


def static(episodes: Episodes) -> Schedule:
    """Return the schedule of each step's mean decoding parameters.

    Raises:
        ValueError: the policy chose tokens, which no schedule does.
    """
    return Schedule(_mean(episodes, np.ones(len(episodes), bool)), "distilled")


def by_class(episodes: Episodes, classes: Sequence[str]) -> ClassTable:
    """Return the table of the means over the images of each class.

    Args:
        classes: names of all, in their order.

    Raises:
        ValueError: there are no images of a class, or the policy chose tokens.
    """
    kinds_N = episodes.frame["kind"].to_numpy()[:: episodes.steps]
    if missing := [name for name in classes if not (kinds_N == name).any()]:
        raise ValueError(f"no episode is of {missing[0]!r}; a table by class needs images of each")
    tables = tuple(Schedule(_mean(episodes, kinds_N == name), name) for name in classes)
    return ClassTable(tables, tuple(range(len(tables))))


def _mean(episodes: Episodes, rows_N: np.ndarray) -> torch.Tensor:
    if episodes.frame["chosen"].notna().any():
        raise ValueError("these episodes' policy chose tokens, which no schedule does; nothing is distilled")
    columns = [episodes.stacked(name)[rows_N].mean(0) for name in PARAMETERS]
    return torch.from_numpy(np.stack(columns, -1))
