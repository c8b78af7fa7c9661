"""What an agent sees of an image in progress: all features, pooled ones, or the tokens they came from.

Memory of one rollout buffer, for T = 8 steps of 1,024 rows with 256 tokens of width 768 in float16:

| kind | per row and step | rollout | what is stored |
|---|---|---|---|
| features | 384 KiB | 3 GiB | the features of every token |
| pooled | 96 KiB | 0.75 GiB | their means over 2 x 2 tokens |
| tokens | 1 KiB | 8 MiB | token ids; `agents.sb3` computes the features again for each minibatch |
| statistics | 385.5 KiB | 3 GiB | the features, and of each token's distribution the STATISTICS |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from einops import rearrange
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional as F

from generators.contract import Generator
from generators.decoding import DecodeState
from generators.noise import Purpose, hash_uniform
from generators.reveal import Proposal, counts, entropies
from generators.rules import DecodeRules
from generators.schedules import Schedule
from natgym.names.prices import Price, Range
from natgym.names.spaces import FeatureType, Kind
from natgym.spaces import ACTION_BOUND, action_space

Observation = dict[str, Tensor]
STATISTICS = ("confidence", "margin", "entropy")
"""Of the conditional, un-tempered distribution of a token: the likeliest code's log-probability, its lead in
probability before the second, and the entropy in nats."""


def observe(state: DecodeState, mask_id: int) -> Observation:
    """Return all features, the tokens, where they are masked, and the step; nothing is copied without need.

    The features have the generator's precision. After the last step none exist; they are one zero.
    """
    B = len(state.ids_BL)
    device = state.ids_BL.device
    prediction = state.prediction
    nothing = torch.zeros((), device=device)
    return {
        "features": nothing if prediction is None else prediction.features_BLD,
        "logits": nothing if prediction is None else prediction.logits_BLV,
        "tokens": state.ids_BL,
        "unknown": state.unknown_B,
        "masked": (state.ids_BL == mask_id).to(torch.uint8),
        "step": torch.full((B, 1), float(state.step), dtype=torch.float32, device=device),
    }


def reveal_counts(seen: Observation, schedule: Schedule, rules: DecodeRules) -> Tensor:
    """Return how many tokens the step reveals of each row, (B, 1) float32: by a schedule's mask ratios, or by
    rules that count by themselves, were each token drawn as its likeliest code.

    Args:
        seen: `masked`, `step`, one of all rows, and `unknown` (B,), tokens that were masked at the start; for
            rules that count by themselves `logits`, too.
    """
    masked_B, unknown_B = seen["masked"].sum(1).long().cpu(), seen["unknown"].cpu()
    step = int(seen["step"][0, 0])
    left_B = torch.zeros_like(masked_B)
    if step + 1 < schedule.steps and counts(rules.reveal):
        _, wanted_B = as_likeliest(rules, statistics(seen["logits"]), seen["masked"].bool())
        left_B = rules.allowed_counts(wanted_B.cpu(), masked_B, unknown_B)
    elif step + 1 < schedule.steps:
        ratio_B = schedule.params(step, len(masked_B)).mask_ratio
        left_B = rules.mask_counts(ratio_B, masked_B, unknown_B)
    return (masked_B - left_B)[:, None].to(seen["step"])


def as_likeliest(rules: DecodeRules, statistics_BL3: Tensor, masked_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores (B, L) of rules that count by themselves, and how many tokens they would leave masked
    (B,), were each drawn as its likeliest code."""
    log_probs_BL, _, entropy_BL = statistics_BL3.float().unbind(-1)
    nothing = statistics_BL3.new_zeros(0)
    seen = Proposal(nothing, nothing, log_probs_BL, masked_BL, entropy_BL)
    return rules.reveal(seen, nothing, None, 0)  # type: ignore[arg-type, return-value]


def priced(price: Price, row_seeds_B: Tensor) -> Tensor:
    """Return what a pass costs of each row, (B, 1) float32: a number, or of a range what is drawn by the
    row's seed, evenly on a logarithmic scale."""
    if not isinstance(price, tuple):
        return torch.full((len(row_seeds_B), 1), price, device=row_seeds_B.device)
    lowest, highest = price
    uniform_B1 = hash_uniform(row_seeds_B, 0, 1, Purpose.PRICE)
    return (lowest * (highest / lowest) ** uniform_B1.double()).float().clamp(lowest, highest)


def statistics(logits_BLV: Tensor) -> Tensor:
    """Return the STATISTICS of tokens, (B, L, 3)."""
    log_probs_BLV = logits_BLV.float().log_softmax(-1)
    first_BL2 = log_probs_BLV.topk(2).values
    lead_BL = first_BL2[..., 0].exp() - first_BL2[..., 1].exp()
    return torch.stack([first_BL2[..., 0], lead_BL, entropies(log_probs_BLV)], dim=-1)


def with_statistics(seen: Observation) -> Tensor:
    """Return the features that `observe` has seen with the STATISTICS of each token behind, (B, L, D + 3)."""
    features = seen["features"]
    return torch.cat([features, statistics(seen["logits"]).to(features)], dim=-1)


def pooled_grid(grid: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns that `pool` leaves of a grid."""
    return (grid[0] + 1) // 2, (grid[1] + 1) // 2


def pool(features_BLD: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return means over 2 x 2 tokens, (B, L', D), L' of `pooled_grid`; odd edges average what is there."""
    maps_BDhw = rearrange(features_BLD, "b (h w) d -> b d h w", h=grid[0])
    pooled_BDhw = F.avg_pool2d(maps_BDhw, 2, ceil_mode=True, count_include_pad=False)
    return rearrange(pooled_BDhw, "b d h w -> b (h w) d").contiguous()


@dataclass(frozen=True)
class Observer:
    """Turn decoding states into what the environment shows: tensors of the caller's own, each copied once.

    Attributes:
        grid, width, mask_id: of the generator.
        kind, dtype: of the features.
        num_smoothed: actions of which `previous_action` is shown; 0 for none.
        prices: range of the `price` that is shown; None for none. It is no part of a state: whoever draws it
            shows it.
    """

    grid: tuple[int, int]
    width: int
    mask_id: int
    kind: Kind = "features"
    dtype: FeatureType = "float32"
    num_smoothed: int = 0
    prices: Range | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("kind", Kind), ("dtype", FeatureType)):
            if (value := getattr(self, name)) not in get_args(allowed):
                shown = "observation" if name == "kind" else name
                raise ValueError(f"{shown} {value!r} is not one of {', '.join(get_args(allowed))}")

    @classmethod
    def of(cls, generator: Generator, **options: Any) -> Observer:
        """Observe states of this generator."""
        rows, columns = generator.grid  # a list, perhaps, as read from JSON
        return cls((rows, columns), generator.width, generator.mask_id, **options)

    @property
    def features_grid(self) -> tuple[int, int]:
        """Rows and columns of the features."""
        return pooled_grid(self.grid) if self.kind == "pooled" else self.grid

    @property
    def features_width(self) -> int:
        """Numbers of each token."""
        return self.width + len(STATISTICS) * (self.kind == "statistics")

    def space(self, steps: int) -> spaces.Dict:
        """Return what one agent sees."""
        rows, columns = self.features_grid
        num_tokens = self.grid[0] * self.grid[1]
        shape = rows * columns, self.features_width
        boxes: dict[str, spaces.Space[Any]] = {
            "features": spaces.Box(-np.inf, np.inf, shape, np.dtype(self.dtype).type),
            "masked": spaces.Box(0, 1, (num_tokens,), np.uint8),
            "step": spaces.Box(0, steps, (1,), np.float32),
        }
        if self.kind == "tokens":
            boxes["tokens"] = spaces.Box(0, self.mask_id, (num_tokens,), np.int32)
        if self.num_smoothed:
            boxes["previous_action"] = action_space((ACTION_BOUND,) * self.num_smoothed)
        if self.prices is not None:
            boxes["price"] = spaces.Box(*self.prices, (1,), np.float32)
        return spaces.Dict(boxes)

    def __call__(self, state: DecodeState, previous_action: Tensor) -> Observation:
        """Show a state; after the last step the features are zeros.

        Args:
            previous_action: (B, k), of use if actions are smoothed.
        """
        return self.show(observe(state, self.mask_id), previous_action)

    def show(self, seen: Observation, previous_action: Tensor) -> Observation:
        """Show what `observe` has seen, which is also what a policy gets from `natgym.rollouts`."""
        features = seen["features"]
        dtype = getattr(torch, self.dtype)
        if features.ndim == 0:
            rows, columns = self.features_grid
            B = len(seen["step"])
            shape = B, rows * columns, self.features_width
            features = torch.zeros(shape, dtype=dtype, device=features.device)
        elif self.kind == "pooled":
            features = pool(features, self.grid).to(dtype)
        elif self.kind == "statistics":
            features = with_statistics(seen).to(dtype)
        else:
            features = features.to(dtype, copy=True)
        shown = {"features": features, "masked": seen["masked"], "step": seen["step"]}
        if self.kind == "tokens":
            shown["tokens"] = seen["tokens"].to(torch.int32, copy=True)
        if self.num_smoothed:
            shown["previous_action"] = previous_action.to(features.device, torch.float32, copy=True)
        return shown
