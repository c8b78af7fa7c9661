"""What a command line of run folders is about: the generator of the first one."""

from __future__ import annotations

from pathlib import Path

from agents.adanat.trainings import read_training
from generators.files import read_json


def trained_on(run: Path) -> str | None:
    """Return the generator that a run folder was made with, if it says so: its own one, if that learned."""
    if (run / "generator" / "config.json").is_file():
        return str(run / "generator")
    if not (run / "config.json").is_file():
        return None
    settings = read_json(run / "config.json")
    if not {"train", "task", "env"} & set(settings):
        return None
    if "optimizer" in settings and "train" not in settings:  # a run of autonat_search.py
        return settings.get("generator") or settings.get("task")
    env = read_training(run).env
    return env.generator or env.task
