"""Building and playing whatever torch's global state is, and leaving it as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, TypeVar

import gymnasium
import torch

Method = TypeVar("Method", bound=Callable[..., Any])
_IMPORTER = os.getpid()


def leave_threads_behind() -> None:
    """Let torch use one thread in a forked process, which would wait for ever for those of its parent."""
    if os.getpid() != _IMPORTER and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


@contextmanager
def own_precision() -> Iterator[None]:
    """Compute in the precision that networks have, whatever autocast says."""
    with ExitStack() as stack:
        for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def unaffected() -> Iterator[None]:
    """Build things whatever torch's global state, which is put back: in float32, by one thread.

    Gymnasium's `AsyncVectorEnv` forks after it has made an environment; a process in which torch has used one
    thread can be forked with no loss.
    """
    leave_threads_behind()
    threads = torch.get_num_threads()
    dtype = torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), own_precision():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)


def playing(method: Method) -> Method:
    """Let a method of an environment run in the networks' own precision, and in a forked process, too.

    Raises:
        ClosedEnvironmentError: the environment is closed.
    """

    @wraps(method)
    def run(env: Any, *args: Any, **kwargs: Any) -> Any:
        if env.closed:
            raise gymnasium.error.ClosedEnvironmentError("this environment is closed; make a new one")
        leave_threads_behind()
        with own_precision():
            return method(env, *args, **kwargs)

    return run  # type: ignore[return-value]
