"""Bytes of tensors that are alive, and the most that there were at once."""

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages of what operations return, in the thread that enters it."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # whose import takes longer than any test

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                ref = StorageWeakRef(leaf.untyped_storage())
                self._alive[ref.cdata] = ref, leaf.untyped_storage().nbytes()
        if self._sum() > self.most:  # with those that have died since
            self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}
            self.most = max(self.most, self._sum())
        return out

    def _sum(self) -> int:
        return sum(nbytes for _, nbytes in self._alive.values())
