"""Rewards: what judges a finished picture."""

from natgym.rewards.adversarial import AdversarialConfig, AdversarialReward
from natgym.rewards.base import (
    ClassifierReward,
    FeatureDistanceReward,
    LearningReward,
    LearningSum,
    Reward,
    RewardSpec,
    WeightedSum,
    make_reward,
)

__all__ = [
    "AdversarialConfig",
    "AdversarialReward",
    "ClassifierReward",
    "FeatureDistanceReward",
    "LearningReward",
    "LearningSum",
    "Reward",
    "RewardSpec",
    "WeightedSum",
    "make_reward",
]
