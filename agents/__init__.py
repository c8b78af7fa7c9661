"""Agents decide the decoding parameters: searched schedules, learned policies."""

from natgym._lazy import lazily

_HOMES = {
    "AdaNATConfig": "agents.adanat.config",
    "AdaNATTrainer": "agents.adanat.trainer",
    "EnvConfig": "agents.adanat.config",
    "TrainingConfig": "agents.adanat.config",
    "TrainingLog": "agents.adanat.log",
    "find_policies": "agents.named",
    "load_policy": "agents.named",
    "preset": "agents.adanat.presets",
    "train": "agents.adanat.trainer",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = lazily(__name__, _HOMES)
