"""Spaces of any size, and the map from actions to decoding parameters (AdaNAT, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional as F

from generators.schedules import PARAMETERS, DecodeParams, Schedule

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


def action_space(num_parameters: int = len(PARAMETERS)) -> spaces.Box:
    """Return one pre-activation number per parameter; the bounds are never met in practice."""
    return spaces.Box(-ACTION_BOUND, ACTION_BOUND, (num_parameters,), np.float32)


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
        schedule: what zero action plays, and what the parameters follow that no action sets.
        activations: of mask ratio, re-mask temperature, sampling temperature, guidance scale.
        scale: of one unit of action, before the activation.
        floor: schedule values below it are lifted to it before the inverse, so that a non-zero action can
            leave zero.
        residual: False drops the schedule: AdaNAT's ImageNet policies, whose zero action means 0.5 and ln 2.
        parameters: those that the k numbers of an action set, in the order of PARAMETERS.
        smoothing: s in [0, 1); the action played is s * the one played before + (1 - s) * the one given, from
            the second step on (AdaGen; 0.8 there for T = 16). AdaGen smooths after adding the schedule and
            filters that inversely; by linearity it is the same.
    """

    schedule: Schedule
    activations: tuple[Activation, Activation, Activation, Activation]
    scale: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    floor: float = _EPSILON
    residual: bool = True
    parameters: Sequence[str] = PARAMETERS
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        known = [name for name in PARAMETERS if name in self.parameters]
        if not known or known != list(self.parameters):
            raise ValueError(
                f"parameters {self.parameters} are not one or more of {PARAMETERS}, in this order"
            )
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing {self.smoothing}: it must be in [0, 1); 0 is none")

    @classmethod
    def preset(cls, name: Preset, schedule: Schedule, **options: Any) -> ActionMap:
        """Build a named map; `options` are `parameters` and `smoothing`.

        "default" multiplies the temperatures and balances the units, so that one unit of action is a change
        of similar weight in each parameter; "paper" is AdaNAT's sigmoid and three softplus, on the official
        units, with the schedule as residual (CC3M, AdaGen) or, "paper-no-residual", without (ImageNet).
        """
        if name == "default":
            activations = (SIGMOID, EXPONENTIAL, EXPONENTIAL, SOFTPLUS)
            return cls(schedule, activations, scale=(0.5, 1.0, 0.25, 1.0), floor=1e-2, **options)
        if name not in get_args(Preset):
            raise ValueError(f"action preset {name!r} is not one of {', '.join(get_args(Preset))}")
        activations = (SIGMOID, SOFTPLUS, SOFTPLUS, SOFTPLUS)
        return cls(schedule, activations, residual=name == "paper", **options)

    @property
    def columns(self) -> list[int]:
        """Where the parameters that an action sets stand among the four."""
        return [PARAMETERS.index(name) for name in self.parameters]

    def spread(self, action_Bk: Tensor) -> Tensor:
        """Return actions as (B, 4), NaN for the parameters that they don't set."""
        spread_B4 = action_Bk.new_full((len(action_Bk), len(PARAMETERS)), torch.nan)
        spread_B4[:, self.columns] = action_Bk
        return spread_B4

    def smooth(self, action_Bk: Tensor, previous_Bk: Tensor, step: int) -> Tensor:
        """Return the action to play, float32, from the one given and the one played at the step before."""
        if step == 0 or not self.smoothing:
            return action_Bk
        # In double precision, so that a row's bits don't depend on how a device fuses the sum.
        share = self.smoothing
        return (share * previous_Bk.double() + (1 - share) * action_Bk.double()).float()

    def __call__(self, action_Bk: Tensor, step: int) -> DecodeParams:
        """Return the decoding parameters, on the host in float64, of (smoothed) actions (B, k) at `step`.

        Raises:
            ValueError: the shape is not (B, k), a value is not finite or the step is not one of the
                schedule's.
        """
        if action_Bk.ndim != 2 or action_Bk.shape[1] != len(self.parameters):
            raise ValueError(
                f"actions have shape {tuple(action_Bk.shape)}; expected (rows, {len(self.parameters)})"
            )
        if not 0 <= step < self.schedule.steps:
            raise ValueError(f"step {step} is not one of the schedule's {self.schedule.steps}")
        row_4, starts = self.schedule.table_T4[step], self._starts[step]
        table_B4 = row_4.repeat(len(action_Bk), 1)
        for column, action_B in zip(self.columns, action_Bk.cpu().double().unbind(-1), strict=True):
            moved_B = self.activations[column].forward(starts[column] + self.scale[column] * action_B)
            # Exact where the action is zero: no rounding may turn floor(L m) over, nor a floor switch
            # guidance on.
            table_B4[:, column] = (
                torch.where(action_B == 0, row_4[column], moved_B) if self.residual else moved_B
            )
        return DecodeParams.from_table(table_B4)

    @cached_property
    def _starts(self) -> list[list[float]]:
        """What zero action is before the activation, per step and parameter."""
        if not self.residual:
            return [[0.0] * len(PARAMETERS)] * self.schedule.steps
        return [
            [
                self._inverse(value, activation)
                for value, activation in zip(row_4, self.activations, strict=True)
            ]
            for row_4 in self.schedule.table_T4
        ]

    def _inverse(self, value: Tensor, activation: Activation) -> float:
        anchor = value.clamp(self.floor, 1 - _EPSILON if activation is SIGMOID else None)
        return activation.inverse(anchor).item()
