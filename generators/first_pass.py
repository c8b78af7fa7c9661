"""The pass on all-masked tokens, kept between episodes: it depends on weights and condition alone.

With it T = 8 guided steps take 14 passes instead of 15.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.contract import Cache, Generator, Prediction
from generators.room import cut, decoding_rows

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class FirstPass:
    """Predict all-masked tokens, each condition once for the same weights; safe to share among threads.

    Nothing is kept of a generator in training mode, whose dropout draws anew. With nothing visible there is
    nothing to reuse yet, so that one row's cache stands for every row.

    Args:
        generator: read by every call; changed weights are noticed, however they were changed.
        max_bytes: of logits and features kept; conditions not asked for the longest are forgotten.
    """

    def __init__(self, generator: Generator, max_bytes: int = 2**28) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes {max_bytes}: a first pass needs room; leave it out to keep nothing")
        self.generator = generator
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, tuple[Tensor, Tensor]] = OrderedDict()
        self._cache: Cache | None = None
        self._weights: Any = None
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Take to another process what it is of, not what it keeps."""
        return {"generator": self.generator, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        FirstPass.__init__(self, **state)

    @property
    def bytes(self) -> int:
        """Memory of what is kept."""
        return sum(tensor.nbytes for entry in self._kept.values() for tensor in entry)

    @torch.no_grad()
    def __call__(self, condition: Condition) -> Prediction:
        """Return the pass on all-masked tokens; costs two copies to the host, of keys and sums."""
        if getattr(self.generator, "training", False):
            return self._predict(condition)
        with self._lock:
            if (weights := fingerprint(self.generator)) != self._weights:
                self._kept.clear()
                self._weights = weights
            keys = condition.keys
            rows = {key: row for row, key in reversed(list(enumerate(keys)))}  # the first row of each key
            if missing := [row for key, row in rows.items() if key not in self._kept]:
                fresh = self._predict(condition[missing])
                for row, *entry in zip(missing, fresh.logits_BLV, fresh.features_BLD, strict=True):
                    self._kept[keys[row]] = entry[0].clone(), entry[1].clone()
                self._cache = fresh.cache and fresh.cache[torch.zeros(1, dtype=torch.long)]
            for key in rows:
                self._kept.move_to_end(key)
            logits, features = zip(*(self._kept[key] for key in rows), strict=True)
            # Only now: what this call needs may be more than there is room for.
            while self.bytes > self.max_bytes:
                self._kept.popitem(last=False)
        places = {key: place for place, key in enumerate(rows)}
        index_B = torch.tensor([places[key] for key in keys])
        cache = self._cache and self._cache[torch.zeros_like(index_B)]
        at = index_B.to(logits[0].device, non_blocking=True)
        return Prediction(torch.stack(logits)[at], torch.stack(features)[at], cache)

    def _predict(self, condition: Condition) -> Prediction:
        """Predict in parts; the cache of any row is that of all."""
        generator, device = self.generator, condition.device
        parts = []
        for rows in cut(len(condition), decoding_rows(generator, device)):
            part = condition[rows]
            ids_BL = torch.full((len(part), generator.num_tokens), generator.mask_id, device=device)
            parts.append(generator(ids_BL, part))
        if len(parts) == 1:
            return parts[0]
        logits_BLV = torch.cat([part.logits_BLV for part in parts])
        features_BLD = torch.cat([part.features_BLD for part in parts])
        cache = parts[0].cache and parts[0].cache[torch.zeros(len(condition), dtype=torch.long)]
        return Prediction(logits_BLV, features_BLD, cache)


def fingerprint(generator: Generator) -> Any:
    """Return a value that changes with the weights: their places, dtypes, version counters, and bit sums.

    The version counters miss what is written through `.data`, as an average often is swapped in; the sums of
    the weights' bits as integers, exact modulo 2^64, don't.
    """
    weights = list(generator.parameters())
    described = [(weight.data_ptr(), weight.dtype, weight._version) for weight in weights]
    return described, torch.stack([_sum_of_bits(weight.detach()) for weight in weights]).tolist()


def _sum_of_bits(weight: Tensor) -> Tensor:
    """Return the sum of a tensor's bits, as integers of 64 bits where they fall into these.

    Narrower ones are copied to be summed, which takes three times as long.
    """
    size, flat = weight.element_size(), weight.flatten()
    whole = (flat.numel() * size) % 8 == 0 and (flat.storage_offset() * size) % 8 == 0
    return flat.view(torch.int64 if whole else _BITS[size]).sum(dtype=torch.int64)
