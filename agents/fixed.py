"""Former home of `natgym.policies`, for one release."""

import warnings
from typing import Any

from natgym import policies


def __getattr__(name: str) -> Any:
    found = getattr(policies, name)
    warnings.warn(f"agents.fixed.{name} is now natgym.policies.{name}", DeprecationWarning, stacklevel=2)
    return found
