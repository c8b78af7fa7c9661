"""Rewards: what judges a finished image."""

from natgym.rewards.adversarial import AdversarialConfig, AdversarialReward
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
from natgym.rewards.distance import DistanceReward, InfluenceReward
from natgym.rewards.features import ClassifierReward, FeatureDistanceReward
from natgym.rewards.named import NAMED, RewardOptions, RewardSpec, make_reward, names_of, register_reward
from natgym.rewards.sums import LearningSum, WeightedSum, parts_of, reward_weights
from natgym.rewards.witness import WitnessConfig, WitnessReward

__all__ = [
    "NAMED",
    "AdversarialConfig",
    "AdversarialReward",
    "ClassifierReward",
    "DistanceReward",
    "FeatureDistanceReward",
    "Images",
    "InfluenceReward",
    "LearningReward",
    "LearningSum",
    "Reward",
    "RewardOptions",
    "RewardSpec",
    "WeightedSum",
    "WitnessConfig",
    "WitnessReward",
    "learned_state",
    "learns_from",
    "load_learned_state",
    "make_reward",
    "names_of",
    "needs_batch",
    "parts_of",
    "register_reward",
    "reset",
    "reward_weights",
]
