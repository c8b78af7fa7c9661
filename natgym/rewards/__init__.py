"""Rewards: what judges a finished image."""

from natgym._lazy import lazily

_HOMES = {
    "AdversarialConfig": "natgym.rewards.config",
    "AdversarialReward": "natgym.rewards.adversarial",
    "ClassifierReward": "natgym.rewards.features",
    "DistanceReward": "natgym.rewards.distance",
    "FeatureDistanceReward": "natgym.rewards.features",
    "HTTPConfig": "natgym.rewards.config",
    "HTTPReward": "natgym.rewards.server",
    "Images": "natgym.rewards.contract",
    "InfluenceReward": "natgym.rewards.distance",
    "LearningReward": "natgym.rewards.contract",
    "LearningSum": "natgym.rewards.sums",
    "NAMED": "natgym.rewards.named",
    "QuadraticConfig": "natgym.rewards.config",
    "QuadraticReward": "natgym.rewards.quadratic",
    "Reward": "natgym.rewards.contract",
    "RewardOptions": "natgym.rewards.config",
    "RewardSpec": "natgym.rewards.named",
    "WeightedSum": "natgym.rewards.sums",
    "WitnessConfig": "natgym.rewards.config",
    "WitnessReward": "natgym.rewards.witness",
    "learned_state": "natgym.rewards.contract",
    "learns_from": "natgym.rewards.contract",
    "load_learned_state": "natgym.rewards.contract",
    "make_reward": "natgym.rewards.named",
    "names_of": "natgym.rewards.named",
    "needs_batch": "natgym.rewards.contract",
    "parts_of": "natgym.rewards.sums",
    "register_reward": "natgym.rewards.named",
    "reset": "natgym.rewards.contract",
    "reward_weights": "natgym.rewards.config",
}
__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazily(__name__, _HOMES)
