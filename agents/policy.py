"""Former home of `agents.adanat.network` and `agents.adanat.actor`, for one release."""

import warnings
from typing import Any

from agents.adanat import actor, network


def __getattr__(name: str) -> Any:
    home = network if hasattr(network, name) else actor
    found = getattr(home, name)
    warnings.warn(f"agents.policy.{name} is now {home.__name__}.{name}", DeprecationWarning, stacklevel=2)
    return found
