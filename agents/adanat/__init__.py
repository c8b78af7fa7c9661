"""AdaNAT: decoding policies learned by PPO."""

from natgym._lazy import lazily

_HOMES = {
    "AdaNATConfig": "agents.adanat.config",
    "AdaNATTrainer": "agents.adanat.trainer",
    "EnvConfig": "agents.adanat.config",
    "TrainingConfig": "agents.adanat.config",
    "preset": "agents.adanat.presets",
    "train": "agents.adanat.trainer",
}
__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazily(__name__, _HOMES)
