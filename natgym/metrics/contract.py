"""What a metric of one's own is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from generators.conditions import Condition


class Metric(Protocol):
    """One number of all images of a row and seed, fed in batches.

    A table makes one for each row and evaluation seed, and has a column of them under the name that it was
    given by.
    """

    def update(self, images_BCHW: Tensor, condition: Condition, features_Bd: Tensor) -> None:
        """Take a batch: images in [0, 1] as they are judged, their conditions, the extractor's features."""
        ...

    def compute(self) -> float:
        """Return the metric of all images so far, a finite number."""
        ...


Metrics = Mapping[str, Callable[[], Metric]]
