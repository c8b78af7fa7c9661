"""Weighted sums of rewards, themselves rewards, and their text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.noise import derive_seed
from natgym.rewards.checks import judged
from natgym.rewards.config import reward_weights as reward_weights
from natgym.rewards.contract import (
    Images,
    LearningReward,
    Reward,
    learned_state,
    learns_from,
    load_learned_state,
    needs_batch,
    reset,
)


class WeightedSum:
    """A weighted sum of rewards.

    Args:
        parts: rewards and their weights.
    """

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        if not parts:
            raise ValueError("a weighted sum of no rewards; give at least one")
        if wrong := [weight for _, weight in parts if not math.isfinite(weight)]:
            raise ValueError(f"weight {wrong[0]} of a reward: it must be finite")
        self.parts = tuple(parts)
        self.needs_batch = any(needs_batch(reward) for reward, _ in self.parts)

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        return torch.stack(
            [weight * judged(reward, images_BCHW, condition) for reward, weight in self.parts]
        ).sum(0)


class LearningSum(WeightedSum):
    """A weighted sum of which at least one part learns; those that do, learn together.

    Raises:
        ValueError: one part learns from the rollout and another from images drawn for it.
    """

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        super().__init__(parts)
        sources = {learns_from(reward) for reward in self._learning.values()}
        if len(sources) > 1:
            raise ValueError("a sum can't learn from the rollout and from fresh images at once; use either")
        self.learns_from = sources.pop()

    @property
    def _learning(self) -> dict[str, LearningReward]:
        parts = ((str(place), reward) for place, (reward, _) in enumerate(self.parts))
        return {place: reward for place, reward in parts if isinstance(reward, LearningReward)}

    def reset(self, seed: int) -> None:
        """Let every part that learns begin anew; one alone begins as if it were no part."""
        for place, reward in self._learning.items():
            reset(reward, seed if len(self._learning) == 1 else derive_seed(seed, place))

    def update(self, real: Images, fake: Images) -> dict[str, float]:
        """Train every part that learns; return the metrics of all.

        Raises:
            ValueError: two parts report a metric of the same name.
        """
        metrics: dict[str, float] = {}
        for reward in self._learning.values():
            reported = reward.update(real, fake)
            if taken := metrics.keys() & reported.keys():
                raise ValueError(f"metric {taken.pop()!r} is reported by two rewards of a sum; rename one")
            metrics |= reported
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the parts that learn, by their place in the sum."""
        return {place: learned_state(reward) for place, reward in self._learning.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for place, reward in self._learning.items():
            load_learned_state(reward, state[place])


def parts_of(reward: Any) -> list[Any]:
    """Return the rewards of a sum; a single one is its only part."""
    return [part for part, _ in reward.parts] if isinstance(reward, WeightedSum) else [reward]


def weighted_sum(parts: Sequence[tuple[Reward, float]]) -> WeightedSum:
    """Return the sum of rewards with weights, one that learns if any of them does."""
    learns = any(isinstance(reward, LearningReward) for reward, _ in parts)
    return LearningSum(parts) if learns else WeightedSum(parts)
