"""Texts that stand for an object: a name and its settings."""

from __future__ import annotations


def split(spec: str) -> tuple[str, dict[str, str]]:
    """Return the name and the settings of NAME:KEY=VALUE,...; ValueError if it is not of this form."""
    name, _, tail = spec.partition(":")
    settings = {}
    for item in filter(None, tail.split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError(f"{item!r} in {spec!r} is not of the form key=value")
        settings[key] = value
    return name, settings
