"""Images of images: grids, and the tokens of an image being revealed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from generators.decoding import DecodeState
from generators.tokenizers import Tokenizer

HIDDEN = (0.35, 0.45, 0.60)  # the color of a masked token
_SMALLEST = 96  # pixels; small images are enlarged by whole factors


def as_rgb(images_BCHW: Tensor) -> Tensor:
    """Return images (B, 3, H, W) from one or three channels in [0, 1]."""
    return images_BCHW.expand(-1, 3, -1, -1) if images_BCHW.shape[1] == 1 else images_BCHW


def to_uint8(images_BCHW: Tensor) -> np.ndarray:
    """Return (B, H, W, C) uint8, rounded half to even."""
    return (
        rearrange((images_BCHW.clamp(0, 1) * 255).round().to(torch.uint8), "b c h w -> b h w c").cpu().numpy()
    )


def reveal(tokenizer: Tokenizer, state: DecodeState, mask_id: int) -> Iterator[np.ndarray]:
    """Yield the image of each row of a state, (H, W, 3) uint8, as `reveal_ids` shows it."""
    return reveal_ids(tokenizer, state.ids_BL, mask_id, state.drawn_BL)


def reveal_ids(
    tokenizer: Tokenizer, ids_BL: Tensor, mask_id: int, drawn_BL: Tensor | None = None
) -> Iterator[np.ndarray]:
    """Yield each row's image (H, W, 3) uint8: revealed tokens decoded, masked ones in one color.

    Args:
        drawn_BL: what stands under the masks, for tokenizers that look at neighbors; by default code 0.
    """
    masked_BL = ids_BL == mask_id
    images = as_rgb(tokenizer.decode(ids_BL.masked_fill(masked_BL, 0) if drawn_BL is None else drawn_BL))
    rows, columns = tokenizer.grid
    tall, wide = images.shape[2] // rows, images.shape[3] // columns
    hidden = repeat(masked_BL, "b (h w) -> b 1 (h p) (w q)", h=rows, p=tall, q=wide)
    images = torch.where(hidden, images.new_tensor(HIDDEN)[:, None, None], images)
    factor = max(1, -(-_SMALLEST // images.shape[2]))
    yield from to_uint8(repeat(images, "b c h w -> b c (h p) (w q)", p=factor, q=factor))
