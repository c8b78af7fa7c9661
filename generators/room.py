"""How many rows a network meets at once, so that a device never holds what it needs for a whole batch.

A row is an image. What a pass holds of one at its peak is estimated by the sizes of its tensors;
`experiments/benchmark.py --plan` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from generators.contract import Generator
    from generators.tokenizers import Tokenizer

ROOM = 2**32  # bytes that the activations of one part may take
MOST = 256  # rows of a part on a CPU, whose caches larger tensors leave
# Floats held at the peak of a pass, without gradients.
OF_A_CHANNEL = 40  # of a token, in a transformer with MLPs of four times its width
OF_A_CODE = 8  # of a token, in guidance and drawing
OF_A_PIXEL = 230  # and channel, in the decoder of a VQGAN


def decoding_rows(generator: Generator, device: torch.device | str) -> int:
    """Return how many rows are decoded at once by default."""
    floats = generator.num_tokens * (OF_A_CHANNEL * generator.width + OF_A_CODE * generator.codebook_size)
    return _rows(floats, device)


def image_rows(tokenizer: Tokenizer, device: torch.device | str) -> int:
    """Return how many images are drawn of their tokens at once."""
    return _rows(OF_A_PIXEL * math.prod(tokenizer.image_shape), device)


def cut(num_rows: int, size: int) -> Iterator[slice]:
    """Yield the parts of a batch: `size` rows in a row each, and what is left."""
    return (slice(first, min(first + size, num_rows)) for first in range(0, num_rows, size))


def _rows(floats: int, device: torch.device | str) -> int:
    most = MOST if str(device).startswith("cpu") else math.inf
    return int(max(1, min(most, ROOM // (4 * floats))))
