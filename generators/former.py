"""What files of before call otherwise: read here, wherever settings or descriptions come from JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def settings(values: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """Return settings under today's names.

    Args:
        values: as they stand in a file.
        fields: names that the settings have today.
    """
    found = dict(values)
    # One config for environment and trainer, whose rewards looked through the network that judged.
    flat = {"env", "adanat"} <= set(fields) and not {"env", "adanat"} & set(found)
    if flat:
        found["extractor"] = found.get("extractor") or "score"
    if ("rules" in fields or flat) and "rules" not in found and "min_reveal" in found:
        found["rules"] = _rules(found.pop("min_reveal"))
    return found


def description(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved module's description with the rules in its config, which stood in its metadata."""
    metadata = dict(content.get("metadata", {}))
    if "min_reveal" not in metadata:
        return dict(content)
    rules = {"rules": _rules(metadata.pop("min_reveal"))}
    return {**content, "config": rules | content["config"], "metadata": metadata}


def manifest(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return a protocol without the rules, which now stand in each row."""
    return {name: value for name, value in protocol.items() if name != "min_reveal"}


def _rules(min_reveal: int) -> str:
    return "confidence" if min_reveal == 1 else f"confidence,min_reveal={min_reveal}"
