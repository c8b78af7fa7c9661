"""Agents decide the decoding parameters: searched schedules, learned policies."""

from natgym._lazy import lazily

_HOMES = {
    "AdaNATConfig": "agents.adanat_config",
    "find_policies": "agents.named",
    "load_policy": "agents.named",
    "preset": "agents.adanat_config",
    "train": "agents.adanat",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = lazily(__name__, _HOMES)
