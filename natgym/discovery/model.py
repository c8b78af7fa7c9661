"""MM-GCD's network (Su et al. 2024): a branch per modality, each with prototypes, and their fusion.

With one branch it is SimGCD's (Wen et al. 2023). Shapes: `B` samples, `K` prototypes, the first of which are
the old categories, `P` width of a projection. What feeds a branch is its encoder's business: the identity
for frozen features, or a network that learns with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from natgym.discovery.accuracy import match
from natgym.discovery.config import BranchConfig


class Heads(NamedTuple):
    """What a branch says of B samples.

    Attributes:
        cosines_BK: with the prototypes; divided by a temperature they are logits.
        instance_BP: unit projection for the contrast within the modality.
        shared_BP: unit projection for the contrast between modalities.
    """

    cosines_BK: Tensor
    instance_BP: Tensor
    shared_BP: Tensor


class Branch(nn.Module):
    """One modality: encoder, h = Linear(x) + MLP(x), cosine prototypes on h, and two projections.

    Args:
        encoder: raw inputs (B, ...) -> features (B, D).
        features: D.
        num_categories: K.
        config: geometry.
    """

    def __init__(
        self, encoder: nn.Module, features: int, num_categories: int, config: BranchConfig | None = None
    ) -> None:
        super().__init__()
        config = config or BranchConfig()
        hidden = config.hidden
        width = config.width
        self.encoder = encoder
        self.scale = config.scale
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(features, width)
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.instance = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, config.projection)
        )
        self.shared = nn.Linear(width, config.projection)
        self.prototypes_KW = nn.Parameter(torch.randn(num_categories, width))

    def features(self, inputs: Tensor) -> Tensor:
        """Return h, (B, width)."""
        x_BD = self.dropout(self.encoder(inputs) * self.scale)
        return self.linear(x_BD) + self.mlp(x_BD)

    def forward(self, inputs: Tensor) -> Heads:
        h_BW = self.features(inputs)
        cosines_BK = F.normalize(h_BW, dim=-1) @ F.normalize(self.prototypes_KW, dim=-1).T
        return Heads(
            cosines_BK,
            F.normalize(self.instance(h_BW), dim=-1),
            F.normalize(self.shared(h_BW), dim=-1),
        )


def fuse(values: Mapping[str, Tensor], present: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the weighted mean (B, K) over the branches that a sample has.

    Args:
        values: modality -> cosines or probabilities (B, K).
        present: modality -> whether a sample has it (B,); each has at least one.
        weights: modality -> its weight, >= 0. A sample whose modalities all have weight 0 takes their mean.
    """
    # A weight of 0 means "do not listen to it where there is another", so it becomes a very small one.
    share_MB = torch.stack([present[name].float() * max(weights[name], 1e-9) for name in values])
    share_MB = share_MB / share_MB.sum(0)
    return torch.einsum(
        "mb,mbk->bk", share_MB.to(next(iter(values.values())).dtype), torch.stack([*values.values()])
    )


def pair_prototypes(reference_NK: Tensor, other_NK: Tensor, num_old: int) -> np.ndarray:
    """Return which prototype of the second branch means the same as each of the first, (K,).

    The old ones are tied by their labels. Without alignment in output space the new ones have independent
    orders; they are paired by a Hungarian match of the joint soft counts.
    """
    joint_KK = (reference_NK.T.double() @ other_NK.double()).cpu().numpy()
    new = match(joint_KK[num_old:, num_old:])
    return np.concatenate([np.arange(num_old), num_old + new])
