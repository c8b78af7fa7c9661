"""Rewards for solving a puzzle, by its rules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.puzzles.data import PUZZLES
from natgym.metrics.puzzles import PuzzleReader
from natgym.task import Task


class ValidReward:
    """1 for an image in which all rules of the puzzle hold, else 0.

    What is given never changes, so that where the given cells have one answer alone, a valid image is it.

    Args:
        reader: of the puzzle.
    """

    def __init__(self, reader: PuzzleReader) -> None:
        self.reader = reader

    @classmethod
    def from_task(cls, task: Task) -> Any:
        """Judge by the rules of the task's puzzle; ValueError if it has none."""
        if not isinstance(task.reward_extractor, PuzzleReader):
            raise ValueError(
                f"{task} is no puzzle, whose rules might hold; the rewards valid and held are for "
                + ", ".join(PUZZLES)
            )
        return cls(task.reward_extractor)

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        return self._worth(self.reader.holds(self.reader(images_BCHW)[1])).to(images_BCHW.device)

    def _worth(self, holds_BR: Tensor) -> Tensor:
        return holds_BR.all(1).float()


class HeldReward(ValidReward):
    """The share of the puzzle's rules that hold in an image: a slope where valid images are rare."""

    def _worth(self, holds_BR: Tensor) -> Tensor:
        return holds_BR.float().mean(1)
