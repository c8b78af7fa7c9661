"""Rewards that look at each image through the task's reward extractor and need no training of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.images import ImageRows
from natgym.metrics.extractors import extract
from natgym.metrics.puzzles import PuzzleReader
from natgym.metrics.scenes import SceneReader
from natgym.rewards.caption import CaptionReward
from natgym.rewards.config import FeatureDistanceOptions, options_of
from natgym.rewards.contract import Reward
from natgym.rewards.puzzle import ValidReward
from natgym.task import Task


class ClassifierReward:
    """Log-probability of the condition under a classifier, in nats.

    A policy that maximises it is known to give up variety (AdaNAT, section 4.3); it is the default because it
    is free of state, not because it is good.
    """

    def __init__(self, classifier: Any) -> None:
        self.classifier = classifier

    @classmethod
    def from_task(cls, task: Task) -> Reward:
        """Judge with the task's reward extractor; a caption with one that reads scenes, a puzzle by rules."""
        if isinstance(task.reward_extractor, PuzzleReader):
            return ValidReward(task.reward_extractor)
        if isinstance(task.reward_extractor, SceneReader):
            return CaptionReward(task.reward_extractor)
        if task.has("encoder"):
            raise ValueError(
                f"reward 'classifier': the reward extractor of {task} reads no texts; take mmd, adversarial, "
                "or a reward of your own"
            )
        blank_1CHW = torch.zeros(1, *task.tokenizer.image_shape, device=task.place)
        logits_1K = extract(task.reward_extractor, blank_1CHW, quantise=False)[1]
        classes = task.generator.conditions()[:1].vectors.shape[1]
        if logits_1K is None or logits_1K.shape[1] != classes:
            found = "no logits" if logits_1K is None else f"logits of {logits_1K.shape[1]} classes"
            raise ValueError(
                f"reward 'classifier': the reward extractor of {task} has {found}, the generator {classes} "
                "classes; take mmd, adversarial, or a reward of your own"
            )
        return cls(task.reward_extractor)

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        return (self.classifier(images_BCHW)[1].log_softmax(-1) * condition.vectors).sum(-1)


class FeatureDistanceReward:
    """Minus the distance to the nearest of some real images, in the features of an extractor.

    The distance is Euclidean, in units of the real images' mean distance from their own mean. It asks for
    realism alone, neither for the condition nor for variety.

    Args:
        extractor: of the features.
        real: N real images, of the train split.
    """

    def __init__(self, extractor: Any, real: ImageRows) -> None:
        self.extractor = extractor
        self.real_Nd = self._features(real)
        self.unit = (self.real_Nd - self.real_Nd.mean(0)).norm(dim=-1).mean()

    @classmethod
    def from_task(cls, task: Task, **options: Any) -> FeatureDistanceReward:
        """Compare with the first `real_images` of the train split.

        Args:
            options: fields of `FeatureDistanceOptions`.
        """
        config = options_of(FeatureDistanceOptions, "feature-distance", options)
        train = task.images("train")
        return cls(task.reward_extractor, train.take(torch.arange(min(config.real_images, len(train)))))

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        return -torch.cdist(self._features(images_BCHW), self.real_Nd).amin(-1) / self.unit

    def _features(self, images: ImageRows) -> Tensor:
        return extract(self.extractor, images, quantise=False)[0]
