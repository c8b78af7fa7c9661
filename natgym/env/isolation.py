"""Building and playing whatever torch's global state is, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, TypeVar

import gymnasium
import torch

Method = TypeVar("Method", bound=Callable[..., Any])


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

    A process in which torch has used several threads can't be forked: its children wait for threads that
    they don't have. Gymnasium's `AsyncVectorEnv` forks after it has made an environment.
    """
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
    """Let a method of an environment run in the networks' own precision, whatever autocast it is called in.

    Raises:
        ClosedEnvironmentError: the environment is closed.
    """

    @wraps(method)
    def run(env: Any, *args: Any, **kwargs: Any) -> Any:
        if env.closed:
            raise gymnasium.error.ClosedEnvironmentError("this environment is closed; make a new one")
        with own_precision():
            return method(env, *args, **kwargs)

    return run  # type: ignore[return-value]
