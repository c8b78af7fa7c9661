"""Nested config dataclasses, whose settings are named by a path or by its last words, if unique."""

from __future__ import annotations

import dataclasses
import difflib
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
    every = defaults(config_class).items()
    return {name: type(default) for name, default in every if dataclasses.is_dataclass(default)}


def places(config_class: type) -> list[Path]:
    """Return the paths of all settings, groups included."""
    paths: list[Path] = []
    inner = groups(config_class)
    for field in dataclasses.fields(config_class):
        paths.append((field.name,))
        below = places(inner[field.name]) if field.name in inner else []
        paths += [(field.name, *path) for path in below]
    return paths


def place(config_class: type, name: str) -> Path:
    """Return the path of a setting.

    Args:
        name: a path, "env.steps"; one below a group, "steps"; or its last words, "adversarial.channels".

    Raises:
        ValueError: there is no such setting, or several.
    """
    words = tuple(name.replace("-", "_").split("."))
    known = places(config_class)
    below = [(group, *words) for group in groups(config_class)]
    if words in known:
        return words
    for candidates in (
        [path for path in below if path in known],
        [p for p in known if p[-len(words) :] == words],
    ):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            several = ", ".join(map(".".join, candidates))
            raise ValueError(f"setting {name!r} of {config_class.__name__} may be {several}; say which")
    known_names = [".".join(path) for path in known]
    near = difflib.get_close_matches(name, [*known_names, *(path[-1] for path in known)], n=3)
    meant = (
        f"perhaps {' or '.join(near)}" if near else f"it has {', '.join(groups(config_class) or known_names)}"
    )
    raise ValueError(f"{config_class.__name__} has no setting {name!r}; {meant}")


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
    flat = flattened(type(config), changes)
    for path in flat:
        if any(path[:length] in flat for length in range(1, len(path))):
            raise ValueError(f"setting {'.'.join(path)} is changed with all of its group at once; use either")
    return _replaced(config, flat)


def flattened(config_class: type, changes: Mapping[str, Any]) -> dict[Path, Any]:
    """Return changes by whole paths, what mappings stand for included.

    Raises:
        ValueError: a name is not known, or two stand for one setting.
    """
    flat: dict[Path, Any] = {}
    for name, value in changes.items():
        path = place(config_class, name)
        inner = config_class
        for word in path:
            inner = groups(inner).get(word, object)
        new = {path: value}
        if isinstance(value, Mapping) and dataclasses.is_dataclass(inner):
            new = {(*path, *below): one for below, one in flattened(inner, value).items()}
        if twice := flat.keys() & new.keys():
            raise ValueError(f"setting {'.'.join(twice.pop())} is given twice; give it once")
        flat |= new
    return flat


def grouped(config_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings from a file with each in its group, where an older one had it elsewhere.

    What is not known at all stays, for whoever builds the config to refuse.
    """
    top = {field.name for field in dataclasses.fields(config_class)}
    nested = {name: value for name, value in values.items() if name in top}
    for name in values.keys() - top:
        try:
            *above, last = place(config_class, name)
        except ValueError:
            above = []
            last = name
        branch = nested
        for word in above:
            branch = branch.setdefault(word, {})
        branch[last] = values[name]
    return nested


def _replaced(config: Any, flat: Mapping[Path, Any]) -> Any:
    """Return a config with the settings at some paths replaced, all of a group at once."""
    values: dict[str, Any] = {}
    for name in dict.fromkeys(path[0] for path in flat):
        present = getattr(config, name)
        below = {path[1:]: value for path, value in flat.items() if path[0] == name}
        value = below[()] if () in below else _replaced(present, below)
        values[name] = tuple(value) if isinstance(present, tuple) and isinstance(value, list) else value
    return dataclasses.replace(config, **values)
