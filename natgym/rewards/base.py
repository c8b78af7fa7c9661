"""The reward contract, the rewards that need no training of their own, and their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.data import Part, load_part
from natgym.loading import load_companion
from natgym.metrics.classifier import Classifier
from natgym.reference import extract
from natgym.rewards.checks import needs_batch
from natgym.rewards.distance import DistanceReward, InfluenceReward


class Reward(Protocol):
    """Judge finished pictures: images (B, C, H, W) in [0, 1] and their conditions -> rewards (B,).

    Row i should depend on picture i alone. A judge that looks at neighbours, as the papers' discriminator
    does with its norm over groups of 8 rows, makes rewards (never pictures) a matter of the batch. One that
    cannot judge a picture alone says so in an attribute `needs_batch`, True; an environment with one row
    refuses it.
    """

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor: ...


@runtime_checkable
class LearningReward(Protocol):
    """A reward that is trained in turn with the policy.

    One with `state_dict` and `load_state_dict` resumes where it was.
    """

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor: ...

    def update(
        self, real_BCHW: Tensor, real_condition: Condition, fake_BCHW: Tensor, fake_condition: Condition
    ) -> dict[str, float]:
        """Take one training step on real against generated pictures; return its metrics."""
        ...


RewardSpec = str | Reward | Mapping[str, float] | Sequence[tuple[str | Reward, float]]


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


class FeatureDistanceReward:
    """Minus the distance to the nearest of some real pictures, in the features of the task's classifier.

    The distance is Euclidean, in units of the real pictures' mean distance from their own mean. It asks for
    realism alone, neither for the condition nor for variety.

    Args:
        classifier: the extractor.
        real_NCHW: the real pictures, of the train part.
    """

    def __init__(self, classifier: Classifier, real_NCHW: Tensor) -> None:
        self.classifier = classifier
        self.real_Nd = self._features(real_NCHW)
        self.unit = (self.real_Nd - self.real_Nd.mean(0)).norm(dim=-1).mean()

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        return -torch.cdist(self._features(images_BCHW), self.real_Nd).amin(-1) / self.unit

    def _features(self, images_NCHW: Tensor) -> Tensor:
        return extract(self.classifier, images_NCHW, quantise=False)[0]


class WeightedSum:
    """A weighted sum of rewards; those that learn, learn together.

    Args:
        parts: rewards and their weights.
    """

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        if not parts:
            raise ValueError("a weighted sum of no rewards; give at least one")
        self.parts = tuple(parts)
        self.needs_batch = any(needs_batch(reward) for reward, _ in self.parts)

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        return torch.stack([weight * reward(images_BCHW, condition) for reward, weight in self.parts]).sum(0)


class LearningSum(WeightedSum):
    """A weighted sum of which at least one part learns."""

    @property
    def _learning(self) -> dict[str, LearningReward]:
        parts = ((str(place), reward) for place, (reward, _) in enumerate(self.parts))
        return {place: reward for place, reward in parts if isinstance(reward, LearningReward)}

    def update(
        self, real_BCHW: Tensor, real_condition: Condition, fake_BCHW: Tensor, fake_condition: Condition
    ) -> dict[str, float]:
        """Train every part that learns; a metric that several report is the last one's."""
        metrics: dict[str, float] = {}
        for reward in self._learning.values():
            metrics |= reward.update(real_BCHW, real_condition, fake_BCHW, fake_condition)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the parts that learn, by their place in the sum."""
        return {place: learned_state(reward) for place, reward in self._learning.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for place, reward in self._learning.items():
            load_learned_state(reward, state[place])


def learned_state(reward: Any) -> dict[str, Any]:
    """Return what a reward has learned; nothing of one that does not learn or keeps it to itself."""
    return reward.state_dict() if hasattr(reward, "state_dict") else {}


def load_learned_state(reward: Any, state: dict[str, Any]) -> None:
    """Let a reward go on where `learned_state` was taken."""
    if hasattr(reward, "load_state_dict"):
        reward.load_state_dict(state)


REAL_PICTURES = 5000  # of the train part, for the feature distance

# Rewards by name: (classifier, real) -> reward; `real()` loads the train part, for those that look at it.
NAMED: dict[str, Callable[[Classifier, Callable[[], Part]], Reward]] = {
    "classifier": lambda classifier, real: ClassifierReward(classifier),
    "feature-distance": lambda classifier, real: FeatureDistanceReward(
        classifier, real().images_NCHW[:REAL_PICTURES]
    ),
    "influence": lambda classifier, real: InfluenceReward(classifier, real()),
    "distance": lambda classifier, real: DistanceReward(classifier, real()),
}


def reward_weights(text: str) -> dict[str, float]:
    """Return {name: weight} of a sum as text, "adversarial=1,influence=0.5"; a name alone weighs 1.

    Raises:
        ValueError: a part is not NAME=NUMBER, or a name comes twice.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        try:
            weight = float(number or 1)
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight) or name in weights:
            raise ValueError(f"{part.strip()!r} in reward {text!r}: give NAME=NUMBER, each name once")
        weights[name] = weight
    return weights


def make_reward(
    spec: Any,
    task: str | None,
    device: torch.device | str = "cpu",
    *,
    classifier: str | Path | Classifier | None = None,
) -> Reward:
    """Return a live reward as it is, build one by name, or the weighted sum of several.

    Args:
        spec: a live reward; a name of NAMED; {name: weight}, also as text, "classifier=1,influence=0.5"; or
            pairs of a name or live reward and a weight.
        task: of the generator, to which a named reward belongs; None for a live generator.
        classifier: what named rewards judge with, live or the folder of a saved one; by default the task's.

    Raises:
        ValueError: the name is unknown, or there is no task.
    """
    if isinstance(spec, str) and "=" in spec:
        spec = reward_weights(spec)
    if isinstance(spec, Mapping):
        spec = tuple(spec.items())
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        parts = [
            (make_reward(part, task, device, classifier=classifier), float(weight)) for part, weight in spec
        ]
        learns = any(isinstance(reward, LearningReward) for reward, _ in parts)
        return LearningSum(parts) if learns else WeightedSum(parts)
    if not isinstance(spec, str):
        return spec
    if spec not in NAMED:
        raise ValueError(
            f"reward {spec!r} is not one of {', '.join(NAMED)}; a live reward object may be passed instead"
        )
    if task is None:
        raise ValueError(
            f"reward {spec!r} belongs to a task; a generator without one needs a live reward object"
        )
    judge = load_companion(classifier, "classifier", task, device)
    return NAMED[spec](judge, lambda: load_part(task, "train").to(device))
