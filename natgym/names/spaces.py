"""Names of action maps, observations and decoding parameters, and what an action map refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from generators import parameters

Preset = Literal["default", "paper", "paper-no-residual"]
REVEAL: Literal["reveal"] = "reveal"
TOKENS: Literal["tokens"] = "tokens"
Actions = Literal[Preset, "reveal", "tokens"]
Kind = Literal["features", "pooled", "tokens", "statistics"]
FeatureType = Literal["float32", "float16"]
PARAMETERS = tuple(parameters.sealed())


def check_preset(name: str) -> None:
    """Raise ValueError if there is no such action map."""
    if name not in get_args(Actions):
        raise ValueError(f"action preset {name!r} is not one of {', '.join(get_args(Actions))}")


def check_actions(names: Sequence[str], smoothing: float) -> None:
    """Raise ValueError if actions can't set these decoding parameters, or can't be smoothed so."""
    known = [name for name in PARAMETERS if name in names]
    if not known or known != list(names):
        raise ValueError(f"parameters {names} are not one or more of {PARAMETERS}, in this order")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing {smoothing}: it must be in [0, 1); 0 is none")
