"""Training masks: how many tokens are hidden, which ones, and the loss on them (AutoNAT, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -1


class RatioLaw(Protocol):
    """Any distribution of mask ratios."""

    def sample(self, num_samples: int, rng: np.random.Generator) -> Tensor:
        """Draw mask ratios (B,), float32, in [0, 1]."""


@dataclass(frozen=True)
class MaskLaw:
    """The distribution of mask ratios over training samples, in [0, 1].

    Attributes:
        name: "beta" is Beta(a, b), of which AutoNAT's search found a=12, b=3; "gaussian" is a Gaussian of
            mean a and standard deviation b, truncated to [0, 1]; "cosine" is MaskGIT's cos(pi u / 2) and has
            no parameters.
        a: first parameter.
        b: second parameter.
    """

    name: str = "beta"
    a: float = 12.0
    b: float = 3.0

    def __post_init__(self) -> None:
        if self.name not in ("beta", "gaussian", "cosine"):
            raise ValueError(f"mask law {self.name!r} is not one of beta, gaussian, cosine")
        if self.name == "beta" and not min(self.a, self.b) > 0:
            raise ValueError(f"Beta({self.a}, {self.b}) is no distribution; both parameters must be positive")
        if self.name == "gaussian" and not (0 <= self.a <= 1 and self.b > 0):
            raise ValueError(
                f"a Gaussian of mean {self.a} and deviation {self.b}: the mean is a share between 0 and 1, "
                "the deviation positive"
            )

    def sample(self, num_samples: int, rng: np.random.Generator) -> Tensor:
        """Draw mask ratios (B,), float32."""
        if self.name == "beta":
            ratios = rng.beta(self.a, self.b, num_samples)
        elif self.name == "gaussian":
            # By inverse distribution function, between those of 0 and of 1.
            ends = torch.special.ndtr((torch.tensor([0.0, 1.0], dtype=torch.float64) - self.a) / self.b)
            uniform = torch.from_numpy(rng.random(num_samples))
            normal = torch.special.ndtri(ends[0] + (ends[1] - ends[0]) * uniform)
            return (self.a + self.b * normal).clamp(0, 1).float()
        else:
            ratios = np.cos(np.pi / 2 * rng.random(num_samples))
        return torch.from_numpy(ratios).float()


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
