"""Rewards: what judges a finished picture."""

from natgym.rewards.adversarial import AdversarialConfig, AdversarialReward
from natgym.rewards.base import (
    NAMED,
    ClassifierReward,
    FeatureDistanceReward,
    LearningReward,
    LearningSum,
    Reward,
    RewardSpec,
    WeightedSum,
    learned_state,
    load_learned_state,
    make_reward,
    reward_weights,
)
from natgym.rewards.distance import DistanceReward, InfluenceReward

__all__ = [
    "NAMED",
    "AdversarialConfig",
    "AdversarialReward",
    "ClassifierReward",
    "DistanceReward",
    "FeatureDistanceReward",
    "InfluenceReward",
    "LearningReward",
    "LearningSum",
    "Reward",
    "RewardSpec",
    "WeightedSum",
    "learned_state",
    "load_learned_state",
    "make_reward",
    "reward_weights",
]
