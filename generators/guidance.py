"""Guidance: logits away from the unconditional ones, and how its strength is kept in bounds.

Rescaling (Lin et al. 2024, arXiv 2305.08891, section 3.4) and adaptive projected guidance (Sadat et al. 2024,
arXiv 2410.02416, without its momentum) were made for what diffusion models predict of an image, with norms
and deviations of the whole of it. Here they act on the logits of each token, over its codes, less their mean:
a constant added to all logits of a token means nothing. What guidance does along the conditional logits is
then a temperature, and so is rescaling.

Shapes: B images, L tokens, V codes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from generators.rules import DecodeRules


def guide(conditional_BLV: Tensor, free_BLV: Tensor, scale_B11: Tensor, rules: DecodeRules) -> Tensor:
    """Return l_c + w (l_c - l_u), normalized as rules say; those of a scale of 0 are the conditional ones.

    Args:
        conditional_BLV, free_BLV: logits, float32; without a condition the latter. A code that is forbidden,
            -inf, stays so and counts in no mean and no length; one that only the latter forbid is not guided.
        scale_B11: w, at least 0; the papers' scale is 1 + w.
        rules: of which `guidance_rescale`, `guidance_parallel` and `guidance_norm` are read.
    """
    difference_BLV = (conditional_BLV - free_BLV).nan_to_num_(0, 0, 0)  # of codes that are forbidden
    if rules.guidance_parallel != 1 or rules.guidance_norm < math.inf:
        difference_BLV = project(
            difference_BLV, conditional_BLV, rules.guidance_parallel, rules.guidance_norm
        )
    guided_BLV = difference_BLV.mul_(scale_B11).add_(conditional_BLV)  # new memory costs more than the sums
    if rules.guidance_rescale:
        guided_BLV = guided_BLV * rescaling(guided_BLV, conditional_BLV, rules.guidance_rescale)
        guided_BLV.masked_fill_(conditional_BLV.isneginf(), -math.inf)  # also times 0
    return guided_BLV


def project(difference_BLV: Tensor, conditional_BLV: Tensor, parallel: float, norm: float) -> Tensor:
    """Return differences of norm at most `norm`, of which `parallel` times the part along the conditional
    logits is left; both without their mean over codes."""
    forbidden_BLV = conditional_BLV.isneginf()
    difference_BLV, along_BLV = (centered(x, forbidden_BLV) for x in (difference_BLV, conditional_BLV))
    if norm < math.inf:
        difference_BLV = difference_BLV * (norm / length(difference_BLV).clamp_min(_TINY)).clamp_max(1)
    square_BL1 = along_BLV.square().sum(-1, keepdim=True)
    share_BL1 = (difference_BLV * along_BLV).sum(-1, keepdim=True) / square_BL1.clamp_min(_TINY)
    return difference_BLV - (1 - parallel) * share_BL1 * along_BLV


def rescaling(guided_BLV: Tensor, conditional_BLV: Tensor, share: float) -> Tensor:
    """Return by what guided logits are to be multiplied, (B, L, 1): share std(l_c) / std(l_g) + 1 - share."""
    forbidden_BLV = conditional_BLV.isneginf()
    wanted_BL1, found_BL1 = (length(centered(x, forbidden_BLV)) for x in (conditional_BLV, guided_BLV))
    ratio_BL1 = (wanted_BL1 / found_BL1).nan_to_num(1.0, posinf=1.0)  # where all codes are alike
    return 1 + share * (ratio_BL1 - 1)  # in this form exactly 1 where nothing was guided


_TINY = torch.finfo(torch.float32).tiny  # where all codes are alike


def centered(logits_BLV: Tensor, forbidden_BLV: Tensor) -> Tensor:
    """Return logits less their mean over the codes that are not forbidden, and 0 of those that are."""
    sum_BL1 = logits_BLV.masked_fill(forbidden_BLV, 0).sum(-1, keepdim=True)
    mean_BL1 = sum_BL1 / (~forbidden_BLV).sum(-1, keepdim=True)
    return (logits_BLV - mean_BL1).masked_fill_(forbidden_BLV, 0)


def length(vectors_BLV: Tensor) -> Tensor:
    """Return norms, (B, L, 1)."""
    return torch.linalg.vector_norm(vectors_BLV, dim=-1, keepdim=True)
