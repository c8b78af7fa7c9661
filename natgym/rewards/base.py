"""The reward contract, and the reward that needs no training: the task's classifier."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from generators.conditions import Condition
from natgym.loading import load_companion
from natgym.metrics.classifier import Classifier


class Reward(Protocol):
    """Judge finished pictures: images (B, C, H, W) in [0, 1] and their conditions -> rewards (B,)."""

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor: ...


@runtime_checkable
class LearningReward(Protocol):
    """A reward that is trained in turn with the policy."""

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor: ...

    def update(
        self, real_BCHW: Tensor, real_condition: Condition, fake_BCHW: Tensor, fake_condition: Condition
    ) -> dict[str, float]:
        """Take one training step on real against generated pictures; return its metrics."""
        ...


class ClassifierReward:
    """Log-probability of the condition under the task's classifier, in nats.

    A policy that maximises it is known to give up variety (AdaNAT, section 4.3); it is the default because it
    is free of state, not because it is good.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        return (self.classifier(images_BCHW)[1].log_softmax(-1) * condition.vectors).sum(-1)


def make_reward(spec: Any, task: str | None, device: torch.device | str = "cpu") -> Reward:
    """Return a live reward as it is, or build one by name ("classifier")."""
    if not isinstance(spec, str):
        return spec
    if spec != "classifier":
        raise ValueError(
            f"reward {spec!r} is not one of classifier; a live reward object may be passed instead"
        )
    if task is None:
        raise ValueError(
            "reward 'classifier' belongs to a task; a generator without one needs a live reward object"
        )
    return ClassifierReward(load_companion(None, "classifier", task, device))
