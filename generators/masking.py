"""Training masks: how many tokens are hidden, which ones, and the loss on them (AutoNAT, section 3)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from generators.config import MaskLaw as MaskLaw

IGNORE = -1


class RatioLaw(Protocol):
    """Any distribution of mask ratios."""

    def sample(self, num_samples: int, rng: np.random.Generator) -> Tensor:
        """Draw mask ratios (B,), float32, in [0, 1]."""


def mask_tokens(
    ids_BL: Tensor, ratios_B: Tensor, uniform_BL: Tensor, mask_id: int, min_visible: int = 0
) -> tuple[Tensor, Tensor]:
    """Hide round(L ratio) tokens of each row, uniformly random ones; at least one, and not the last
    `min_visible` (ENAT's official code keeps one).

    Returns:
        The ids with masks (B, L), and labels (B, L) that hold the id where hidden and -1 elsewhere.
    """
    L = ids_BL.shape[1]
    # torch rounds half to even, as upstream does; one argsort of uniform noise is a random permutation.
    counts_B = (L * ratios_B).round().clamp(1, L - min_visible).to(ids_BL.device)
    hidden_BL = uniform_BL.argsort(-1) < counts_B[:, None]
    return ids_BL.masked_fill(hidden_BL, mask_id), ids_BL.masked_fill(~hidden_BL, IGNORE)


def hide_within(
    given_BL: Tensor, within_B: Tensor, uniform_BL: Tensor, ratios_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Return noise and ratios for `mask_tokens` that hide of some rows none of the tokens that are given.

    Args:
        given_BL: -1 where a token is not given.
        within_B: which rows; of these a ratio is the share of the other tokens.
    """
    kept_BL = (given_BL >= 0) & within_B[:, None]
    shares_B = (~kept_BL).float().mean(1).to(ratios_B)
    # `mask_tokens` sorts once: what it takes as an order has to be sorted here already.
    order_BL = (uniform_BL + kept_BL).argsort(-1).to(uniform_BL)
    return torch.where(within_B[:, None], order_BL, uniform_BL), ratios_B * shares_B


def hide_more(ids_BL: Tensor, shares_B: Tensor, uniform_BL: Tensor, mask_id: int) -> Tensor:
    """Return the ids with round(visible share) of each row's visible tokens hidden too: an earlier state.

    Those with the smallest uniforms go. ENAT's reuse training draws the shares uniformly.
    """
    visible_BL = ids_BL != mask_id
    counts_B = (visible_BL.sum(-1) * shares_B.to(ids_BL.device)).round()
    rank_BL = uniform_BL.masked_fill(~visible_BL, torch.inf).argsort(-1).argsort(-1)
    return ids_BL.masked_fill(rank_BL < counts_B[:, None], mask_id)


def masked_cross_entropy(logits_BLV: Tensor, labels_BL: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy averaged over all hidden tokens of the batch, in nats."""
    return F.cross_entropy(
        logits_BLV.flatten(0, 1).float(),
        labels_BL.flatten(),
        ignore_index=IGNORE,
        label_smoothing=label_smoothing,
    )
