"""What the passes of a batch of images cost: all the same, or each image by a price of its own, which is
shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from natgym.names.prices import Price, checked
from natgym.observations import Observation, priced


class Prices:
    """The prices of the rows of an episode.

    Args:
        price: of all rows; or a range, from which each row draws its own by its seed.
    """

    def __init__(self, price: Price) -> None:
        self.price = checked(price)
        self.drawn_B1: Tensor | None = None

    def draw(self, row_seeds_B: Tensor, asked: Any = None) -> None:
        """Begin an episode.

        Args:
            asked: in place of what is drawn, one number or one for each row.

        Raises:
            ValueError: what is asked for is not in the range, or there is none.
        """
        if not isinstance(self.price, tuple):
            if asked is not None:
                raise ValueError(
                    f"option 'price': all rows have {self.price:g}; give a range, price=(.01, .1)"
                )
            return
        self.drawn_B1 = priced(self.price, row_seeds_B)
        if asked is None:
            return
        try:
            asked_B = torch.as_tensor(np.asarray(asked, dtype=np.float32)).expand(len(row_seeds_B))
        except (TypeError, ValueError, RuntimeError):
            rows = len(row_seeds_B)
            raise ValueError(f"option 'price': give a number, or one for each of {rows} rows") from None
        lowest, highest = self.price
        if not bool(((asked_B >= np.float32(lowest)) & (asked_B <= np.float32(highest))).all()):
            raise ValueError(f"option 'price': {asked} is not between {lowest:g} and {highest:g}")
        self.drawn_B1 = asked_B[:, None].to(self.drawn_B1, copy=True)

    @property
    def shown(self) -> Observation:
        """What is shown of them: `price`, (B, 1), where it is a range; a copy."""
        return {} if self.drawn_B1 is None else {"price": self.drawn_B1.clone()}

    def cost(self, nfe_B: Tensor) -> np.ndarray:
        """Return what the passes of each row cost, (B,)."""
        if not isinstance(self.price, tuple):
            return self.price * nfe_B.numpy()
        assert self.drawn_B1 is not None, "an episode has begun"
        return self.drawn_B1[:, 0].double().cpu().numpy() * nfe_B.numpy()
