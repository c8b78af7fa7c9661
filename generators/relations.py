"""How two tokens of a grid lie to each other, for a learned bias of the attention.

Relation 0 is that to the condition's tokens, and theirs to all.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch.nn import functional as F

FAR = 6  # rows or columns; tokens that are farther apart count as if they were so far


def relations(name: str, grid: tuple[int, int]) -> tuple[int, Tensor | None]:
    """Return how many relations there are, 0 among them, and which one any two tokens have, (L, L).

    Args:
        name: "offset", how many rows and columns lie between, each up to FAR; or "box=RxC", whether they
            share a row, a column, or a box of R rows and C columns, and whether they are the same token;
            empty for none.
        grid: rows and columns of tokens.

    Raises:
        ValueError: there is no such relation, or the grid can't be cut into such boxes.
    """
    if not name:
        return 0, None
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


def behind(related_LL: Tensor | None, length: int) -> Tensor | None:
    """Return the relations where `length` tokens of a condition stand before the grid's."""
    return None if related_LL is None else F.pad(related_LL, (length, 0, length, 0))


def attention_mask(bias: Tensor | None, reads: Tensor | None) -> Tensor | None:
    """Return what `scaled_dot_product_attention` adds to its logits or leaves out, if anything.

    Args:
        bias: of the logits.
        reads: bool, whether a token reads another.
    """
    if bias is None or reads is None:
        return reads if bias is None else bias
    # Not infinite, whose gradient is none where a token reads no other at all.
    return bias.masked_fill(~reads, torch.finfo(bias.dtype).min)
