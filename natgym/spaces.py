"""Spaces of any size, and the map from actions to decoding parameters (AdaNAT, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional as F

from generators.schedules import DecodeParams, Schedule

ACTION_BOUND = 10.0
Preset = Literal["default", "paper", "paper-no-residual"]


class BatchedBox(spaces.Box):
    """n stacked copies of a box whose bounds are views; Gymnasium's `batch_space` copies them (gigabytes)."""

    def __init__(self, single: spaces.Box, n: int, seed: int | None = None) -> None:
        shape = (n, *single.shape)
        self.dtype, self._shape = single.dtype, shape
        for name in ("low", "high", "bounded_below", "bounded_above"):
            setattr(self, name, np.broadcast_to(getattr(single, name), shape))
        self.low_repr, self.high_repr = str(single.low.min()), str(single.high.max())
        spaces.Space.__init__(self, shape, self.dtype, seed)


def batched(space: spaces.Dict, n: int) -> spaces.Dict:
    """Return the space of n stacked observations."""
    return spaces.Dict({key: BatchedBox(box, n) for key, box in space.items() if isinstance(box, spaces.Box)})


def observation_space(
    grid: tuple[int, int], width: int, steps: int, dtype: Literal["float32", "float16"] = "float32"
) -> spaces.Dict:
    """Return what one agent sees: token features, which tokens are masked, and the step."""
    num_tokens = grid[0] * grid[1]
    return spaces.Dict(
        {
            "features": spaces.Box(-np.inf, np.inf, (num_tokens, width), np.dtype(dtype).type),
            "masked": spaces.Box(0, 1, (num_tokens,), np.uint8),
            "step": spaces.Box(0, steps, (1,), np.float32),
        }
    )


def action_space() -> spaces.Box:
    """Return the four pre-activation numbers; the bounds are never met in practice."""
    return spaces.Box(-ACTION_BOUND, ACTION_BOUND, (4,), np.float32)


class Activation:
    """A monotone map from the reals to a parameter's range, and its inverse."""

    def __init__(self, forward: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor]) -> None:
        self.forward, self.inverse = forward, inverse


SIGMOID = Activation(torch.sigmoid, torch.logit)
EXPONENTIAL = Activation(torch.exp, torch.log)
# log(exp(w) - 1), in the form that does not overflow.
SOFTPLUS = Activation(F.softplus, lambda w: w + torch.log(-torch.expm1(-w)))

_EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class ActionMap:
    """Turn actions into decoding parameters around a schedule; zero action is exactly that schedule.

    parameter = activation(activation^-1(schedule) + scale * action), per step and per parameter.

    Attributes:
        schedule: what zero action plays.
        activations: of mask ratio, re-mask temperature, sampling temperature, guidance scale.
        scale: of one unit of action, before the activation.
        floor: schedule values below it are lifted to it before the inverse, so that a non-zero action can
            leave zero.
        residual: False drops the schedule: AdaNAT's ImageNet policies, whose zero action means 0.5 and ln 2.
    """

    schedule: Schedule
    activations: tuple[Activation, Activation, Activation, Activation]
    scale: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    floor: float = _EPSILON
    residual: bool = True

    @classmethod
    def preset(cls, name: Preset, schedule: Schedule) -> ActionMap:
        """Build a named map.

        "default" multiplies the temperatures and balances the units, so that one unit of action is a change
        of similar weight in each parameter; "paper" is AdaNAT's sigmoid and three softplus, on the official
        units, with the schedule as residual (CC3M, AdaGen) or, "paper-no-residual", without (ImageNet).
        """
        if name == "default":
            activations = (SIGMOID, EXPONENTIAL, EXPONENTIAL, SOFTPLUS)
            return cls(schedule, activations, scale=(0.5, 1.0, 0.25, 1.0), floor=1e-2)
        if name not in get_args(Preset):
            raise ValueError(f"action preset {name!r} is not one of {', '.join(get_args(Preset))}")
        return cls(schedule, (SIGMOID, SOFTPLUS, SOFTPLUS, SOFTPLUS), residual=name == "paper")

    def __call__(self, action_B4: Tensor, step: int) -> DecodeParams:
        """Return the decoding parameters, on the host in float64, of actions (B, 4) at `step`.

        Raises:
            ValueError: the shape is not (B, 4), a value is not finite or the step is not one of the
                schedule's.
        """
        if action_B4.ndim != 2 or action_B4.shape[1] != 4:
            raise ValueError(f"actions have shape {tuple(action_B4.shape)}; expected (rows, 4)")
        if not 0 <= step < self.schedule.steps:
            raise ValueError(f"step {step} is not one of the schedule's {self.schedule.steps}")
        row_4, action_B4 = self.schedule.table_T4[step], action_B4.cpu().double()
        columns = []
        for column, activation in enumerate(self.activations):
            anchor = row_4[column].clamp(self.floor, 1 - _EPSILON if activation is SIGMOID else None)
            start = activation.inverse(anchor) if self.residual else torch.zeros((), dtype=torch.float64)
            moved_B = activation.forward(start + self.scale[column] * action_B4[:, column])
            # Exact where the action is zero: no rounding may turn floor(L m) over, nor a floor switch
            # guidance on.
            columns.append(
                torch.where(action_B4[:, column] == 0, row_4[column], moved_B) if self.residual else moved_B
            )
        return DecodeParams.from_table(torch.stack(columns, dim=-1))
