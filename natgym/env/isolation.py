"""Building networks whatever torch's global state is, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
        with torch.inference_mode(False):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
