"""How many rows a network meets at once, so that a device never holds what it needs for a whole batch.

A row is an image. What a pass holds of one at its peak is estimated by the sizes of its tensors;
`experiments/benchmark.py --plan` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from generators.contract import Generator

ROOM = 2**32  # bytes that the activations of one part may take
MOST = 256  # rows of a part on a CPU, whose caches larger tensors leave
# Floats held at the peak of a pass, without gradients.
OF_A_CHANNEL = 20  # of a token, in a transformer with MLPs of four times its width
OF_A_CODE = 8  # of a token, in guidance and drawing
OF_A_PIXEL = 300  # and color, in the decoder of a VQGAN


def decoding_rows(generator: Generator, device: torch.device | str) -> int:
    """Return how many rows are decoded at once by default."""
    most = MOST if str(device).startswith("cpu") else math.inf
    floats = generator.num_tokens * (OF_A_CHANNEL * generator.width + OF_A_CODE * generator.codebook_size)
    return int(min(most, _held(floats)))


def image_rows(image_shape: Sequence[int]) -> int:
    """Return how many images (C, H, W) a convolutional network makes or judges at once."""
    return _held(OF_A_PIXEL * math.prod(image_shape))


def cut(num_rows: int, size: int) -> Iterator[slice]:
    """Yield the parts of a batch: `size` rows in a row each, and what is left."""
    return (slice(first, min(first + size, num_rows)) for first in range(0, num_rows, size))


def _held(floats: int) -> int:
    return max(1, ROOM // (4 * floats))
