"""How two tokens of a grid lie to each other, for a learned bias of the attention.

Relation 0 is that to the condition's tokens, and theirs to all.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

FAR = 6  # rows or columns; tokens that are farther apart count as if they were so far


def relations(name: str, grid: tuple[int, int]) -> tuple[int, Tensor]:
    """Return how many relations there are, 0 among them, and which one any two tokens have, (L, L).

    Args:
        name: "offset", how many rows and columns lie between, each up to FAR; or "box=RxC", whether they
            share a row, a column, or a box of R rows and C columns, and whether they are the same token.
        grid: rows and columns of tokens.

    Raises:
        ValueError: there is no such relation, or the grid can't be cut into such boxes.
    """
    rows, columns = grid
    row_L = torch.arange(rows).repeat_interleave(columns)
    column_L = torch.arange(columns).repeat(rows)
    if name == "offset":
        down, across = ((place[None] - place[:, None]).clamp(-FAR, FAR) + FAR for place in (row_L, column_L))
        related_LL = down * (2 * FAR + 1) + across
        ways = (2 * FAR + 1) ** 2
    elif box := re.fullmatch(r"box=(\d+)x(\d+)", name):
        high, wide = map(int, box.groups())
        if not high or not wide or rows % high or columns % wide:
            raise ValueError(f"relative {name!r}: {rows} x {columns} tokens can't be cut into such boxes")
        box_L = row_L // high * (columns // wide) + column_L // wide
        shared = [place[:, None] == place for place in (row_L, column_L, box_L, torch.arange(len(row_L)))]
        related_LL = sum(2**power * same.long() for power, same in enumerate(shared))  # type: ignore[assignment]
        ways = 2 ** len(shared)
    else:
        raise ValueError(f"relative {name!r} is not one of offset, box=RxC such as box=2x3")
    return 1 + ways, 1 + related_LL
