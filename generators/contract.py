"""The generator contract: what decoding, environment and training ask of NAT, ENAT and any other network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from generators.conditions import Condition


class Cache(Protocol):
    """What a generator may reuse, a record per row: each row tells by itself what has been computed of it.

    `rows` are indices on the host. A pass with nothing visible leaves the same record for every row.
    """

    def __getitem__(self, rows: Tensor) -> Cache: ...

    def put(self, rows: Tensor, other: Any) -> Cache:
        """Return a copy with `rows` replaced by those of `other`."""
        ...

    def forget(self, tokens_BL: Tensor) -> Cache:
        """Return a copy without what was computed of these tokens (bool), which are masked again."""
        ...


class Prediction(NamedTuple):
    """What one pass of a generator returns.

    Attributes:
        logits_BLV: over the codes only; the mask token has no column.
        features_BLD: of every token after the final norm, no condition tokens (what AdaNAT's policy sees).
        cache: what the generator may reuse in a later pass over the same rows; None if it reuses nothing.
    """

    logits_BLV: Tensor
    features_BLD: Tensor
    cache: Cache | None = None


class Generator(Protocol):
    """A masked-token generator. Row i of a prediction never depends on row j.

    One that reuses has `reuses = True` and takes a fourth argument, `masked_B`: how many tokens of each row
    are masked, on the host, so that sizes need no copy from the device; without it, it counts them itself.
    """

    codebook_size: int
    mask_id: int
    num_tokens: int
    grid: tuple[int, int]
    width: int

    def __call__(self, ids_BL: Tensor, condition: Condition, cache: Any = None) -> Prediction:
        """Predict every token of `ids_BL` (values 0..codebook_size, the last of which is the mask)."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights; the first one's device is where ids and conditions have to be."""
        ...

    def conditions(self) -> Condition:
        """Every condition the generator was trained on, if they can be listed; ValueError if not."""
        ...
