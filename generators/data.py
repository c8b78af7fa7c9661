"""Tasks and their splits: each has three fixed parts that never mix.

*train* fits tokenizer, generator, classifier and discriminator; *select* serves search, early stopping and
choosing among runs; nothing but the tables touches *report*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from generators.checkpoints import PRETRAINED
from generators.conditions import Condition, Labels

PartName = Literal["train", "select", "report"]


@dataclass(frozen=True, eq=False)
class Part:
    """Images (N, C, H, W) in [0, 1] with their conditions."""

    images_NCHW: Tensor
    condition: Condition

    def to(self, device: torch.device | str) -> Part:
        """Move to a device."""
        return Part(self.images_NCHW.to(device), self.condition.to(device))

    def __len__(self) -> int:
        return len(self.images_NCHW)


def load_part(task: str, part: PartName) -> Part:
    """Return one part of a task's data; ValueError for a name that is not known."""
    if task not in TASKS:
        raise ValueError(f"task {task!r} is not one of {', '.join(TASKS)}")
    if part not in get_args(PartName):
        raise ValueError(f"part {part!r} is not one of {', '.join(get_args(PartName))}")
    return TASKS[task](part)


def pretrained_folder(task: str, kind: str) -> Path:
    """Return the folder of a shipped tokenizer, generator or classifier; ValueError if there is none."""
    folder = PRETRAINED / task / kind
    if not folder.is_dir():
        shipped = sorted(
            str(path.parent.relative_to(PRETRAINED)) for path in PRETRAINED.glob("*/*/config.json")
        )
        raise ValueError(f"no {kind} is shipped for task {task!r}; shipped are {', '.join(shipped)}")
    return folder


def _digits(part: PartName) -> Part:
    """scikit-learn's 1,797 real digits of 8x8 pixels, cut by class: 1,197 train, 200 select, 400 report."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = stratified_parts(digits.target, train=1197, select=200, report=400)[part]
    images = torch.from_numpy(digits.images[rows]).float().div(16)[:, None]
    return Part(images, Labels(torch.from_numpy(digits.target[rows]).long(), 10))


def stratified_parts(labels_N: np.ndarray, train: int, select: int, report: int) -> dict[str, np.ndarray]:
    """Cut indices into disjoint parts of the given sizes, each with the classes' shares; the cut is fixed."""
    from sklearn.model_selection import train_test_split

    everything = np.arange(len(labels_N))
    fit, held_out = train_test_split(everything, train_size=train, stratify=labels_N, random_state=0)
    chosen, judged = train_test_split(
        held_out, train_size=select, test_size=report, stratify=labels_N[held_out], random_state=0
    )
    return {"train": fit, "select": chosen, "report": judged}


TASKS: dict[str, Callable[[PartName], Part]] = {"digits": _digits}
