"""Building modules whose weights come from a file: nothing is drawn and no memory is taken for them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _Undrawn(TorchFunctionMode):
    """Leaves out what `torch.nn.init` does; on the meta device that imports torch's compiler, for seconds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == torch.nn.init.__name__:
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


@contextmanager
def without_weights() -> Iterator[None]:
    """Build modules on the meta device, their weights undrawn: `load_state_dict(assign=True)` brings them."""
    with torch.device("meta"), _Undrawn():
        yield
