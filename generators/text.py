"""Texts that stand for an object: a name and its settings."""

from __future__ import annotations


def split(spec: str) -> tuple[str, dict[str, str]]:
    """Return the name and the settings of NAME:KEY=VALUE,...; ValueError if it is not of this form, or says a
    setting twice."""
    name, _, tail = spec.partition(":")
    settings: dict[str, str] = {}
    for item in filter(None, tail.split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError(f"{item!r} in {spec!r} is not of the form key=value")
        if key in settings:
            raise ValueError(f"{key!r} comes twice in {spec!r}; say each setting once")
        settings[key] = value
    return name, settings
