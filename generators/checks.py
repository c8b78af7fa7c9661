"""Checks that settings share."""

from __future__ import annotations

import dataclasses
import math


def at_least(least: int, settings: object, *names: str) -> None:
    """Raise ValueError if a setting is below a number; one that is None is not set.

    Args:
        settings: has the names as attributes.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"{name} {value}: it must be at least {least}")


def finite(settings: object, *names: str) -> None:
    """Raise ValueError if a setting is not a number, infinite or negative."""
    for name in names:
        if not 0 <= (value := getattr(settings, name)) < math.inf:
            raise ValueError(f"{name} {value}: it must be a number from 0 on")


def all_finite(settings: object, above: str = "") -> None:
    """Raise ValueError if a number of a config, or of one in it, is infinite, none, or beyond 64 bits."""
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            all_finite(value, f"{above}{field.name}.")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError(f"{above}{field.name} {one}: it must be a finite number")
            if isinstance(one, int) and not -(2**63) <= one < 2**63:
                raise ValueError(f"{above}{field.name} {one}: it must be a number of 64 bits")


def taken(done: object, total: int) -> int:
    """Return how many steps a checkpoint says were taken; ValueError if it can't be so many of `total`."""
    if not isinstance(done, int) or not 0 <= done <= total:
        raise ValueError(f"the checkpoint says that {done} of {total} steps are taken; it is of another run")
    return done
