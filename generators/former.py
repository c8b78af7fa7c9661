"""What is called otherwise since: read here, wherever settings or descriptions come from JSON."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

# Settings that have come since, by one that stood beside them: what held before there were any.
_ADDED: dict[str, dict[str, Any]] = {
    "evaluate_every": {"finalists": 1},
    "images_per_evaluation": {"race": 1, "split": "select"},
    "asha_rung": {"step_only": False},
}


def settings(values: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """Return settings under today's names.

    Args:
        values: as they stand in a file.
        fields: names that the settings have today.
    """
    today = dict(values)
    # One config for environment and trainer, whose rewards looked through the network that judged.
    flat = {"env", "adanat"} <= set(fields) and not {"env", "adanat"} & set(today)
    if flat:
        today["extractor"] = today.get("extractor") or "score"
    if ("rules" in fields or flat) and "rules" not in today and "min_reveal" in today:
        today["rules"] = _rules(today.pop("min_reveal"))
    if "split" in fields and "split" not in today and "part" in today:
        today["split"] = today.pop("part")
    for beside, before in _ADDED.items():
        if beside in today:
            today = {name: value for name, value in before.items() if name in fields or flat} | today
    return today


def description(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved module's description with the rules in its config, which stood in its metadata."""
    metadata = dict(content.get("metadata", {}))
    if "min_reveal" not in metadata:
        return dict(content)
    rules = {"rules": _rules(metadata.pop("min_reveal"))}
    return {**content, "config": rules | content["config"], "metadata": metadata}


def manifest(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return a protocol under today's names, without the rules, which now stand in each row."""
    today = {name: value for name, value in protocol.items() if name != "min_reveal"}
    if "part" in today and "split" not in today:
        today["split"] = today.pop("part")
    return today


def _rules(min_reveal: int) -> str:
    return "confidence" if min_reveal == 1 else f"confidence,min_reveal={min_reveal}"


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` for names of before, which warn; for one release.

    Args:
        names: {name of before: today's}, with the module before a colon if it is another.
    """

    def look_up(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        elsewhere, _, today = names[name].rpartition(":")
        home = importlib.import_module(elsewhere or module)
        warnings.warn(f"{module}.{name} is now {home.__name__}.{today}", DeprecationWarning, stacklevel=2)
        return getattr(home, today)

    return look_up
