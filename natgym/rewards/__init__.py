"""Rewards: what judges a finished picture."""

from natgym.rewards.adversarial import AdversarialConfig, AdversarialReward
from natgym.rewards.base import ClassifierReward, LearningReward, Reward, make_reward

__all__ = [
    "AdversarialConfig",
    "AdversarialReward",
    "ClassifierReward",
    "LearningReward",
    "Reward",
    "make_reward",
]
