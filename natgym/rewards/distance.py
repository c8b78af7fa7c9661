"""The Frechet distance as reward: one number for a whole group of images, or each image's share of it.

A distance belongs to many images. Given to all of them it is AdaNAT's warning, a reward without credit for
any single one (arXiv 2409.00342, section 3.3); its influence function gives each image its own.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.images import SplitRows
from natgym.metrics import FrechetDistance
from natgym.metrics.extractors import extract
from natgym.metrics.reference import Reference
from natgym.task import Task

GROUP = 64  # images that share a distance


class DistanceReward:
    """Minus the Frechet distance of a group of neighboring images, the same for all of a group.

    Args:
        extractor: of the features.
        real: split that the distance is from.
    """

    needs_batch = True

    def __init__(self, extractor: Any, real: SplitRows) -> None:
        self.extractor = extractor
        self.frechet = FrechetDistance(Reference.of(real, extractor).moments)

    @classmethod
    def from_task(cls, task: Task) -> Self:
        """Compare with the train split, through the task's reward extractor."""
        return cls(task.reward_extractor, task.images("train"))

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        """Return rewards (B,); ValueError for fewer than 2 images."""
        groups = self._features(images_BCHW).tensor_split(max(1, len(images_BCHW) // GROUP))
        return torch.cat([-self._distance(group).expand(len(group)) for group in groups])

    def _distance(self, features_Nd: Tensor) -> Tensor:
        self.frechet.reset()
        self.frechet.update(features_Nd)
        return torch.tensor(self.frechet.compute(), device=features_Nd.device)

    def _features(self, images_BCHW: Tensor) -> Tensor:
        return extract(self.extractor, images_BCHW)[0]


class InfluenceReward(DistanceReward):
    """Minus what each image adds to the Frechet distance of its batch, to first order; of mean 0.

    An image earns by making up for what the others lack, so that variety pays; rewards depend on the whole
    batch, which should be of hundreds.
    """

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        """Return rewards (B,); ValueError for fewer than 2 images."""
        return -self.frechet.influence(self._features(images_BCHW)).float()
