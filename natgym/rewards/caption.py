"""A reward for drawing what a caption says, read out of the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generators.conditions import Condition
from natgym.metrics.scenes import SceneReader, log_probability
from natgym.task import Task


class CaptionReward:
    """Log-probability, per cell and in nats, of the likeliest scene that the caption allows.

    It asks for the caption alone, not for variety or realism.

    Args:
        reader: a `SceneReader`, other than the one that judges tables.
    """

    def __init__(self, reader: Any) -> None:
        self.reader = reader

    @classmethod
    def from_task(cls, task: Task) -> CaptionReward:
        """Read with the task's reward extractor; ValueError if it reads no scenes."""
        if not isinstance(task.reward_extractor, SceneReader):
            raise ValueError(
                f"reward 'caption' needs a reader of scenes, and the reward extractor of {task} is a "
                f"{type(task.reward_extractor).__name__}; it is for the task shapes"
            )
        return cls(task.reward_extractor)

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        return log_probability(condition.names, self.reader(images_BCHW)[1])
