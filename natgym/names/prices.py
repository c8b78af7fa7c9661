"""What a forward pass costs, read without torch: a number, or a range from which each image has a price of
its own, which is then shown."""

from __future__ import annotations

import math
from numbers import Real

Range = tuple[float, float]
Price = float | Range


def checked(price: Price) -> Price:
    """Return a price, a list of a file as the tuple that it was.

    Raises:
        ValueError: it is no finite number from 0 on, and no range of two, 0 < lowest < highest.
    """
    if isinstance(price, list | tuple):
        price = tuple(price)  # type: ignore[assignment]
        numbers = all(isinstance(one, Real) for one in price)
        if not numbers or len(price) != 2 or not 0 < price[0] < price[1] < math.inf:
            shown = " ".join(map(str, price))
            raise ValueError(f"price {shown}: a range is of two numbers, 0 < lowest < highest")
    elif not 0 <= price < math.inf:
        raise ValueError(f"price {price}: it must be a number from 0 on, or a range of two above 0")
    return price


def mean(price: Price) -> float:
    """Return the mean price of images whose prices are drawn, evenly on a logarithmic scale."""
    if not isinstance(price, tuple):
        return price
    return (price[1] - price[0]) / math.log(price[1] / price[0])


def text(price: Price) -> str:
    """Return how a price is read."""
    return f"{price[0]:g} to {price[1]:g}" if isinstance(price, tuple) else f"{price:g}"


def inside(price: float, seen: Price | None) -> float:
    """Return a price at which to play what learned prices of a range.

    Raises:
        ValueError: it learned none, or others.
    """
    if not isinstance(seen, tuple):
        raise ValueError(f"price {price:g}: this policy does not see prices; train one with --price .01 .1")
    if not seen[0] <= price <= seen[1]:
        raise ValueError(f"price {price:g}: this policy learned prices from {text(seen)}")
    return price
