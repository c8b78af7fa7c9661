"""Bytes of the tensors that are alive, on any device, and the most that there were at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Follow the bytes of the tensors that are made while it is on and still alive, and their peak.

    Args:
        counts: which tensors; by default all.
    """

    def __init__(self, counts: Callable[[Tensor], bool] = lambda tensor: True) -> None:
        super().__init__()
        self.counts, self.alive, self.peak = counts, dict[int, int](), 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # whose import takes longer than what is measured

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        there = {tensor.untyped_storage().data_ptr() for tensor in _tensors_in((args, kwargs))}
        for storage in (tensor.untyped_storage() for tensor in _tensors_in(result) if self.counts(tensor)):
            if storage.data_ptr() not in there:  # made by it: neither changed in place nor seen otherwise
                self._follow(storage)
        return result

    @property
    def bytes(self) -> int:
        """Of the tensors that are alive."""
        return sum(self.alive.values())

    def _follow(self, storage: Any) -> None:
        if storage.data_ptr() and storage.data_ptr() not in self.alive:
            self.alive[storage.data_ptr()] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, storage.data_ptr(), None)
            self.peak = max(self.peak, self.bytes)


def _tensors_in(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))
