"""What pickle and copy must know: the activations that natgym ships are few, and come back as themselves."""

from __future__ import annotations

import copyreg
from typing import Any

from natgym.spaces import EXPONENTIAL, SIGMOID, SOFTPLUS, Activation

_SHIPPED = {"EXPONENTIAL": EXPONENTIAL, "SIGMOID": SIGMOID, "SOFTPLUS": SOFTPLUS}


def reduce_activation(activation: Activation) -> str | tuple[Any, ...]:
    """Return the global name of a shipped activation; another one is taken apart as any object."""
    for name, shipped in _SHIPPED.items():
        if activation is shipped:
            return name
    return object.__reduce_ex__(activation, 2)


copyreg.pickle(Activation, reduce_activation)  # type: ignore[arg-type]
