"""Chosen tokens of a batch laid end to end, so that layers work on them alone and only attention pads them.

Shapes: N chosen tokens of a batch, M the most in a row.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Packing:
    """The chosen tokens of a batch, any number in each row, as the rows of one tensor without padding.

    That tensor is (N, 1, D); if all rows have equally many, it is (B, M, D), which needs neither copies of
    what is common to a row nor padding.
    """

    def __init__(self, chosen_BL: Tensor, counts_B: list[int]) -> None:
        B, L = chosen_BL.shape
        self.counts_B = counts_B
        self.size = sum(counts_B)
        self.longest = max(counts_B)
        self.ragged = min(counts_B) < self.longest
        self.index_N = torch.nonzero_static(chosen_BL.flatten(), size=self.size)[:, 0]
        self._length, self._padded = L, (B, self.longest)
        self._packed = (self.size, 1) if self.ragged else (B, self.longest)
        if self.ragged:
            self._row_N = self.index_N.div(L, rounding_mode="floor")
            rank_N = (chosen_BL.cumsum(1) - 1).flatten()[self.index_N]
            self._slot_N = self._row_N * self.longest + rank_N

    @classmethod
    def of(cls, *chosen_BL: Tensor, counts: Tensor | None = None) -> list[Packing]:
        """Pack several choices.

        Args:
            counts: (choices, B), their sizes on the host, which has to know them; without, they are copied
                there.
        """
        if counts is None:
            counts = torch.stack([chosen.sum(1) for chosen in chosen_BL])
        return [cls(chosen, counts_B) for chosen, counts_B in zip(chosen_BL, counts.tolist(), strict=True)]

    def pack(self, x_BLD: Tensor) -> Tensor:
        """Return the chosen tokens."""
        return x_BLD.flatten(0, 1)[self.index_N].unflatten(0, self._packed)

    def unpack(self, x: Tensor, into_BLD: Tensor) -> Tensor:
        """Return `into_BLD` with the chosen tokens replaced by packed ones."""
        flat = into_BLD.flatten(0, 1).index_copy(0, self.index_N, x.flatten(0, 1).to(into_BLD.dtype))
        return flat.view(into_BLD.shape)

    def spread(self, x_BD: Tensor) -> Tensor:
        """Return what is common to the tokens of a row in a shape that broadcasts against packed tokens."""
        return (x_BD[self._row_N] if self.ragged else x_BD)[:, None]

    def pad(self, x: Tensor) -> Tensor:
        """Return packed tokens as (B, M, D), zero behind the end of each row."""
        if not self.ragged:
            return x
        flat = x.new_zeros(self._padded[0] * self._padded[1], x.shape[-1])
        return flat.index_copy(0, self._slot_N, x.flatten(0, 1)).unflatten(0, self._padded)

    def unpad(self, x_BMD: Tensor) -> Tensor:
        """Return packed tokens from (B, M, D), the inverse of `pad`."""
        return x_BMD.flatten(0, 1)[self._slot_N][:, None] if self.ragged else x_BMD

    @property
    def places_BM(self) -> Tensor:
        """Where in its row each token stands that `pad` puts; 0 where it puts none."""
        places = self.index_N % self._length
        if not self.ragged:
            return places.view(self._padded)
        flat = places.new_zeros(self._padded[0] * self._padded[1])
        return flat.index_copy(0, self._slot_N, places).view(self._padded)

    @property
    def real_BM(self) -> Tensor:
        """True where `pad` puts a token."""
        real = torch.full(self._padded, not self.ragged, device=self.index_N.device)
        return real.flatten().index_fill(0, self._slot_N, True).view(self._padded) if self.ragged else real
