"""Values of JSON as the types of a config's fields want them: lists become tuples, texts paths."""

from __future__ import annotations

import reprlib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_PLAIN = {float: (int, float), int: (int,), str: (str,)}  # bool is an int to Python, and never meant


def typed(config_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values of a config's fields, by their types; what has a type of its own stays.

    Raises:
        ValueError: a value is none of its field's type; it is named.
    """
    try:
        hints = get_type_hints(config_class)
    except NameError:  # a type that is imported for type checkers alone
        return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    found = {}
    for name, value in values.items():
        try:
            found[name] = _as(hints.get(name, Any), value)
        except TypeError:
            plain = get_origin(hint := hints[name]) is None and hasattr(hint, "__name__")
            wanted = hint.__name__ if plain else str(hint).replace("typing.", "")
            shown = reprlib.repr(value)
            raise ValueError(f"{config_class.__name__}: {name} {shown} is not {wanted}") from None
    return found


def _as(hint: Any, value: Any) -> Any:
    """Return a value as a type wants it; TypeError if it can't be."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _first(arguments, value)
    if origin is Literal:
        if (type(value), value) in ((type(one), one) for one in arguments):
            return value
        raise TypeError
    if origin is tuple and isinstance(value, list | tuple):
        return _elements(arguments, value)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint in _PLAIN and (isinstance(value, bool) or not isinstance(value, _PLAIN[hint])):
        raise TypeError
    if (hint is bool or hint is type(None)) and not isinstance(value, hint):
        raise TypeError
    if origin is tuple or hint is Path:
        raise TypeError
    return tuple(value) if isinstance(value, list) else value


def _first(hints: tuple[Any, ...], value: Any) -> Any:
    for hint in hints:
        try:
            return _as(hint, value)
        except TypeError:
            continue
    raise TypeError


def _elements(hints: tuple[Any, ...], values: list[Any] | tuple[Any, ...]) -> tuple[Any, ...]:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return tuple(_as(hints[0], value) for value in values)
    if len(hints) != len(values):
        raise TypeError
    return tuple(_as(hint, value) for hint, value in zip(hints, values, strict=True))
