"""Ranks: processes that draw and learn from one batch together, each a share of its rows.

Row i of rank r is row r * (rows of a rank) + i of the batch, so that its seed, and with it its image, is the
same for any number of ranks. Where no process group is joined, one rank has all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """Which of some ranks this process is.

    Attributes:
        rank: 0..count-1.
        count: of the ranks.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> Ranks:
        """Return this process's place in the process group; the only rank where there is none."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    def share(self, rows: int, group: int = 1) -> int:
        """Return how many of a batch's rows are a rank's.

        Args:
            group: rows in a row that belong together.

        Raises:
            ValueError: they can't be shared equally.
        """
        if rows % (self.count * group):
            groups = f" in groups of {group}" if group > 1 else ""
            raise ValueError(
                f"{rows} rows{groups} can't be shared by {self.count} ranks equally; give a multiple of "
                f"{self.count * group}"
            )
        return rows // self.count

    def first_seed(self, seed: int, rows: int, group: int = 1) -> int:
        """Return what to seed this rank's rows with, of a batch that is seeded with `seed`.

        Args:
            rows: of a rank.
            group: rows in a row that share a seed.
        """
        return seed + self.rank * rows // group

    def part(self, rows: int, unit: int) -> slice:
        """Return which of some rows are this rank's, whole units but for the last.

        Raises:
            ValueError: there are too few for every rank to have some.
        """
        size = -(-rows // (self.count * unit)) * unit if self.count > 1 else rows
        if rows <= size * (self.count - 1):
            raise ValueError(
                f"{rows} images can't be shared by {self.count} ranks, {unit} or more each; give at least "
                f"{self.count * unit}"
            )
        return slice(self.rank * size, (self.rank + 1) * size)

    def repeated(self, own: Tensor) -> Tensor:
        """Return rows of as many as all ranks have, of which this rank's are its own; the others say nothing.

        So each can draw random numbers for all, which are then the same for any number of ranks.
        """
        return own.repeat(self.count, *[1] * (own.ndim - 1))

    def own(self, rows: Tensor) -> Tensor:
        """Return this rank's of the rows of all."""
        return rows.chunk(self.count)[self.rank]

    def gather(self, share: Tensor, dim: int = 0) -> Tensor:
        """Return the shares of all ranks, of one shape, joined in their order."""
        if self.count == 1:
            return share
        parts = [torch.empty_like(share, memory_format=torch.contiguous_format) for _ in range(self.count)]
        dist.all_gather(parts, share.contiguous())
        return torch.cat(parts, dim)

    def all(self, value: Value) -> list[Value]:
        """Return what all ranks have, in their order; tensors have to be on the host."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def firsts(self, value: Value) -> Value:
        """Return what rank 0 has."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def means(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the means of metrics over the ranks."""
        found = self.all(dict(metrics))
        return {name: float(np.mean([one[name] for one in found])) for name in metrics}
