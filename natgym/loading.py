"""Former names; a task holds these networks now."""

import warnings
from typing import Any

from natgym.task import Task


def load_generator(spec: Any, device: Any = "cpu") -> tuple[Any, str | None]:
    """Return a task's generator and its name; a live generator as it is."""
    warnings.warn("load_generator is now Task.load(name).generator", DeprecationWarning, stacklevel=2)
    if hasattr(spec, "mask_id"):
        return spec, None
    task = Task.load(spec, device=device)
    return task.generator, task.name


def load_companion(spec: Any, kind: str, task: str | None, device: Any = "cpu") -> Any:
    """Return a task's tokenizer or classifier; a live one as it is."""
    warnings.warn(f"load_companion is now Task.load(name).{kind}", DeprecationWarning, stacklevel=2)
    kind = {"classifier": "score_extractor"}.get(kind, kind)
    return getattr(Task.load(task or "digits", device=device, **{kind: spec}), kind)
