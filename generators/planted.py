"""A generator with a planted difference between its classes: a known answer for whatever claims to adapt.

The logits of each class are scaled by a factor of its own, as if its part of the network were trained less or
more. Without guidance the sampling temperature that undoes it is that factor, class by class, while one
schedule for all has to compromise.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from generators.checkpoints import register
from generators.conditions import Condition
from generators.contract import Prediction
from generators.nat import NAT, NATConfig


@dataclass(frozen=True, kw_only=True)
class PlantedConfig(NATConfig):
    """Geometry of a NAT, and `factors` of its classes' logits, taken in turn."""

    factors: tuple[float, ...] = (1.0,)


@register(PlantedConfig)
class PlantedNAT(NAT):
    """A NAT whose logits are scaled by class; those of the null class are not."""

    def __init__(self, config: PlantedConfig) -> None:
        super().__init__(config)
        if config.num_classes is None or min(config.factors) <= 0:
            raise ValueError(f"factors {config.factors} must be positive, and of a generator of classes")
        self.factors = [config.factors[c % len(config.factors)] for c in range(config.num_classes)] + [1.0]

    def forward(self, ids_BL: Tensor, condition: Condition, cache: None = None) -> Prediction:
        """Return scaled logits (B, L, V) and the features (B, L, D), which are the plain NAT's."""
        prediction = super().forward(ids_BL, condition, cache)
        factors_B = torch.tensor(self.factors, device=ids_BL.device)[condition.values]
        return prediction._replace(logits_BLV=prediction.logits_BLV * factors_B[:, None, None])


def plant(generator: NAT, *factors: float) -> PlantedNAT:
    """Return a copy of a generator of classes whose logits are scaled by these factors, in turn."""
    config = PlantedConfig(**dataclasses.asdict(generator.config), factors=factors)
    planted = PlantedNAT(config)
    planted.load_state_dict(copy.deepcopy(generator.state_dict()))
    return planted.to(generator.head.bias.device).eval().requires_grad_(False)
