"""Nested config dataclasses, whose settings are named by a path or by its last words, if unique."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")
Path = tuple[str, ...]


def defaults(config_class: type) -> dict[str, Any]:
    """Return the default of each field; MISSING where there is none."""
    return {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(config_class)
    }


def groups(config_class: type) -> dict[str, type]:
    """Return the fields that are configs themselves, and their classes."""
    found = defaults(config_class).items()
    return {name: type(default) for name, default in found if dataclasses.is_dataclass(default)}


def places(config_class: type) -> list[Path]:
    """Return the paths of all settings, groups included."""
    found: list[Path] = []
    inner = groups(config_class)
    for field in dataclasses.fields(config_class):
        found.append((field.name,))
        below = places(inner[field.name]) if field.name in inner else []
        found += [(field.name, *path) for path in below]
    return found


def place(config_class: type, name: str) -> Path:
    """Return the path of a setting.

    Args:
        name: a path, "env.steps"; one below a group, "steps"; or its last words, "adversarial.channels".

    Raises:
        ValueError: there is no such setting, or several.
    """
    words, known = tuple(name.replace("-", "_").split(".")), places(config_class)
    below = [(group, *words) for group in groups(config_class)]
    if words in known:
        return words
    for found in ([path for path in below if path in known], [p for p in known if p[-len(words) :] == words]):
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(map(".".join, found))
            raise ValueError(f"setting {name!r} of {config_class.__name__} may be {several}; say which")
    known_names = ", ".join(".".join(path) for path in known)
    raise ValueError(f"{config_class.__name__} has no setting {name!r}; it has {known_names}")


def setting(config: Any, name: str) -> Any:
    """Return the value of a setting, named as `place` takes it."""
    for word in place(type(config), name):
        config = getattr(config, word)
    return config


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a config with some settings changed.

    Args:
        changes: values by the names that `place` takes; a mapping stands for settings below its name.

    Raises:
        ValueError: a name is not known, or the config refuses a value.
    """
    tree: dict[str, Any] = {}
    for name, value in changes.items():
        *above, last = place(type(config), name)
        branch = tree
        for word in above:
            branch = branch.setdefault(word, {})
        old = branch.get(last)
        branch[last] = {**old, **value} if isinstance(old, dict) and isinstance(value, Mapping) else value
    return _replaced(config, tree)


def grouped(config_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings from a file with each in its group, where an older one had it elsewhere.

    What is not known at all stays, for whoever builds the config to refuse.
    """
    own = {field.name for field in dataclasses.fields(config_class)}
    found = {name: value for name, value in values.items() if name in own}
    for name in values.keys() - own:
        try:
            *above, last = place(config_class, name)
        except ValueError:
            above, last = [], name
        branch = found
        for word in above:
            branch = branch.setdefault(word, {})
        branch[last] = values[name]
    return found


def _replaced(config: Any, tree: Mapping[str, Any]) -> Any:
    values = {}
    for name, value in tree.items():
        present = getattr(config, name)
        if dataclasses.is_dataclass(present) and isinstance(value, Mapping):
            value = changed(present, value)
        elif isinstance(present, tuple) and isinstance(value, list):
            value = tuple(value)
        values[name] = value
    return dataclasses.replace(config, **values)
