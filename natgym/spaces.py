"""Spaces of any size, and the map from actions to decoding parameters (AdaNAT, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from torch import Tensor

from generators.parameters import EXPONENTIAL, SIGMOID, SOFTPLUS, Activation
from generators.schedules import PARAMETERS, TABLE, DecodeParams, Schedule
from natgym.names.spaces import REVEAL, TOKENS, Actions, Preset, check_actions, check_preset

ACTION_BOUND = 10.0
"""Of the paper's presets and of searches; never met in practice."""
__all__ = [
    "EXPONENTIAL",
    "SIGMOID",
    "SOFTPLUS",
    "ActionMap",
    "Actions",
    "Activation",
    "BatchedBox",
    "Map",
    "Preset",
    "TokenMap",
    "action_space",
]


class BatchedBox(spaces.Box):
    """n stacked copies of a box whose bounds are views; Gymnasium's `batch_space` copies them (gigabytes)."""

    def __init__(self, single: spaces.Box, n: int, seed: int | None = None) -> None:
        shape = (n, *single.shape)
        self.dtype = single.dtype
        self._shape = shape
        for name in ("low", "high", "bounded_below", "bounded_above"):
            setattr(self, name, np.broadcast_to(getattr(single, name), shape))
        self.low_repr, self.high_repr = str(single.low.min()), str(single.high.max())
        spaces.Space.__init__(self, shape, self.dtype, seed)


def batched(space: spaces.Dict, n: int) -> spaces.Dict:
    """Return the space of n stacked observations."""
    return spaces.Dict({key: BatchedBox(box, n) for key, box in space.items() if isinstance(box, spaces.Box)})


def batched_actions(space: spaces.Space[Any], n: int) -> spaces.Space[Any]:
    """Return the space of n stacked actions."""
    return BatchedBox(space, n) if isinstance(space, spaces.Box) else batch_space(space, n)


def action_space(bounds: Sequence[float] = (ACTION_BOUND,) * len(PARAMETERS)) -> spaces.Box:
    """Return one pre-activation number per parameter, each within plus and minus its bound."""
    high = np.asarray(bounds, np.float32)
    return spaces.Box(-high, high, dtype=np.float32)


_EPSILON = 1e-6  # a share stays this far from 0 and 1, where the sigmoid has no inverse
ACTIVATIONS = {"sigmoid": SIGMOID, "exponential": EXPONENTIAL, "softplus": SOFTPLUS}


@dataclass(frozen=True, eq=False)
class ActionMap:
    """Turn actions into decoding parameters around a schedule; zero action is exactly that schedule.

    parameter = activation(activation^-1(schedule) + scale * action), per step and per parameter.

    Attributes:
        schedule: what zero action plays, and what the parameters follow that no action sets.
        activations: one for each of PARAMETERS, as the next two.
        scale: of one unit of action, before the activation.
        bounds: an action is clipped to [-bound, bound] before it is played.
        floor: schedule values below it are lifted to it before the inverse, so that a non-zero action can
            leave zero.
        residual: False drops the schedule: AdaNAT's ImageNet policies, whose zero action means 0.5 and ln 2.
        parameters: those that the k numbers of an action set, in the order of PARAMETERS.
        smoothing: s in [0, 1); the action played is s * the one played before + (1 - s) * the one given, from
            the second step on (AdaGen; 0.8 there for T = 16). AdaGen smooths after adding the schedule and
            filters that inversely; by linearity it is the same.
    """

    schedule: Schedule
    activations: tuple[Activation, ...]
    scale: tuple[float, ...] = (1.0,) * len(PARAMETERS)
    bounds: tuple[float, ...] = (ACTION_BOUND,) * len(PARAMETERS)
    floor: float = _EPSILON
    residual: bool = True
    parameters: Sequence[str] = PARAMETERS
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_actions(self.parameters, self.smoothing)
        for name in ("activations", "scale", "bounds"):
            if len(getattr(self, name)) != len(PARAMETERS):
                raise ValueError(f"{len(getattr(self, name))} {name} for the parameters {PARAMETERS}")

    @classmethod
    def preset(cls, name: Preset, schedule: Schedule, **options: Any) -> ActionMap:
        """Build a named map; `options` are `parameters` and `smoothing`.

        Actions of "default" have the bounds of `generators.parameters`, those of the paper's +-10. "default"
        multiplies the temperatures and balances the units, so that one unit of action is a change
        of similar weight in each parameter; "paper" is AdaNAT's sigmoid and three softplus, on the official
        units, with the schedule as residual (CC3M, AdaGen) or, "paper-no-residual", without (ImageNet).
        """
        table = TABLE.values()
        if name == "default":
            activations = tuple(p.activation or p.paper_activation for p in table)
            scale = tuple(p.unit for p in table)
            bounds = tuple(p.bound for p in table)
            return cls(schedule, activations, scale, bounds, floor=1e-2, **options)
        check_preset(name)
        if name not in get_args(Preset):
            raise ValueError(f"actions {name!r} choose tokens; make a TokenMap, or of scores a ScoreMap")
        activations = tuple(p.paper_activation for p in table)
        return cls(schedule, activations, residual=name == "paper", **options)

    @classmethod
    def named(
        cls, name: str, schedule: Schedule, settings: Mapping[str, Any] | None, **options: Any
    ) -> ActionMap:
        """Return the map that `name` and `settings` of another tell, around a schedule; as `preset`."""
        if settings is None:
            return cls.preset(name, schedule, **options)  # type: ignore[arg-type]
        activations = tuple(ACTIVATIONS[activation] for activation in settings["activations"])
        numbers: dict[str, Any] = {key: tuple(settings[key]) for key in ("scale", "bounds")}
        numbers |= {key: settings[key] for key in ("floor", "residual")}
        return cls(schedule, activations, **numbers, **options)

    @property
    def num_smoothed(self) -> int:
        """Actions whose last played values a policy is shown: all if they are smoothed, else none."""
        return len(self.parameters) if self.smoothing else 0

    @property
    def name(self) -> str:
        """Of the preset that it is; "own" if it is none."""
        compared = ("activations", "scale", "bounds", "floor", "residual")
        for name in get_args(Preset):
            other = ActionMap.preset(name, self.schedule)
            if all(getattr(self, key) == getattr(other, key) for key in compared):
                return name
        return "own"

    def settings(self) -> dict[str, Any] | None:
        """Return what makes a map that is no preset, as JSON values; None of a preset.

        Raises:
            ValueError: an activation is not one of ACTIVATIONS, and could not be read again.
        """
        if self.name in get_args(Preset):
            return None
        names = {id(activation): name for name, activation in ACTIVATIONS.items()}
        if any(id(activation) not in names for activation in self.activations):
            raise ValueError(
                f"an action map of other activations than {', '.join(ACTIVATIONS)} can't be saved"
            )
        numbers = {key: getattr(self, key) for key in ("scale", "bounds", "floor", "residual")}
        return numbers | {"activations": [names[id(activation)] for activation in self.activations]}

    @property
    def columns(self) -> list[int]:
        """Where the parameters that an action sets stand among all."""
        return [PARAMETERS.index(name) for name in self.parameters]

    def spread(self, action_Bk: Tensor) -> Tensor:
        """Return actions as (B, K), NaN for the parameters that they don't set."""
        spread_BK = action_Bk.new_full((len(action_Bk), len(PARAMETERS)), torch.nan)
        spread_BK[:, self.columns] = action_Bk
        return spread_BK

    @property
    def action_space(self) -> spaces.Box:
        """The box (k,) that actions are clipped to."""
        return action_space(self._limits)

    def chosen(self, action_Bk: Tensor) -> None:
        """Return None: these actions choose no tokens, a rule does."""

    def clip(self, action_Bk: Tensor) -> Tensor:
        """Return actions (B, k) moved into the box; those inside keep their bits.

        What is not finite stays, for the map to refuse.
        """
        columns = zip(action_Bk.unbind(-1), self._limits, strict=True)
        clipped = torch.stack([action_B.clamp(-limit, limit) for action_B, limit in columns], dim=-1)
        return torch.where(torch.isfinite(action_Bk), clipped, action_Bk)

    def outside(self, action_Bk: Tensor) -> Tensor:
        """Return a bool (B,): whether a number of the action lies outside the box."""
        return (self.clip(action_Bk) != action_Bk).any(-1)

    def smooth(self, action_Bk: Tensor, previous_Bk: Tensor, step: int) -> Tensor:
        """Return the action to play, clipped, from the one given and the one played at the step before."""
        action_Bk = self.clip(action_Bk)
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
        host_Bk = action_Bk.cpu().double()
        if not bool((finite_B := torch.isfinite(host_Bk).all(-1)).all()):
            row = int((~finite_B).nonzero()[0])
            raise ValueError(f"action {host_Bk[row].tolist()} of row {row}: give finite numbers")
        row_K = self.schedule.table_T4[step]
        starts = self._starts[step]
        table_BK = row_K.repeat(len(action_Bk), 1)
        for column, action_B in zip(self.columns, host_Bk.unbind(-1), strict=True):
            moved_B = self.activations[column].forward(starts[column] + self.scale[column] * action_B)
            # Exact where the action is zero: no rounding may turn floor(L m) over, nor a floor switch
            # guidance on.
            table_BK[:, column] = (
                torch.where(action_B == 0, row_K[column], moved_B) if self.residual else moved_B
            )
        return DecodeParams.from_table(table_BK)

    def episode(self, actions_Tk: Tensor) -> Tensor:
        """Return the table (T, K) of an episode with these actions, one for each step.

        It is what the map says of one step after the other, in a tenth of the time: numbers go through an
        activation one by one, since of several at once a processor may round the last bit otherwise.
        """
        table_TK = self.schedule.table_T4.clone()
        starts_TK = table_TK.new_tensor(self._starts)
        for column, action_T in zip(self.columns, actions_Tk.cpu().double().unbind(-1), strict=True):
            moved_T = starts_TK[:, column] + self.scale[column] * action_T
            moved_T = torch.cat([self.activations[column].forward(number_1) for number_1 in moved_T.split(1)])
            stays_T = (action_T == 0) & self.residual
            table_TK[:, column] = torch.where(stays_T, table_TK[:, column], moved_T)
        return table_TK

    @property
    def _limits(self) -> list[float]:
        return [self.bounds[column] for column in self.columns]

    @cached_property
    def _starts(self) -> list[list[float]]:
        """What zero action is before the activation, per step and parameter."""
        if not self.residual:
            return [[0.0] * len(PARAMETERS)] * self.schedule.steps
        return [
            [
                self._inverse(value, activation)
                for value, activation in zip(row_K, self.activations, strict=True)
            ]
            for row_K in self.schedule.table_T4
        ]

    def _inverse(self, value: Tensor, activation: Activation) -> float:
        anchor = value.clamp(self.floor, 1 - _EPSILON if activation is SIGMOID else None)
        return activation.inverse(anchor).item()


@dataclass(frozen=True, eq=False)
class TokenMap:
    """Actions that say of each token whether the step reveals it; the parameters follow a schedule.

    What is revealed already or given stays, and the last step reveals everything. Where no token that is
    masked is chosen, the one is that the decoding rule puts first.

    Attributes:
        schedule: of temperatures and guidance; its mask ratios mean nothing.
        num_tokens: L.
    """

    schedule: Schedule
    num_tokens: int
    parameters = ()
    smoothing = 0.0
    num_smoothed = 0
    name = REVEAL

    def settings(self) -> None:
        """Return None: there are none."""

    @property
    def action_space(self) -> spaces.MultiBinary:
        """One bit for each token."""
        return spaces.MultiBinary(self.num_tokens)

    def chosen(self, action_BL: Tensor) -> Tensor:
        """Return which tokens are revealed, bool (B, L)."""
        return action_BL != 0

    def outside(self, action_BL: Tensor) -> Tensor:
        """Return a bool (B,): whether a number of the action is neither 0 nor 1."""
        return ((action_BL != 0) & (action_BL != 1)).any(-1)

    def smooth(self, action_BL: Tensor, previous: Tensor, step: int) -> Tensor:
        """Return the action as it is."""
        return action_BL

    def spread(self, action_BL: Tensor) -> Tensor:
        """Return (B, K), NaN for all parameters."""
        return torch.full((len(action_BL), len(PARAMETERS)), torch.nan)

    def __call__(self, action_BL: Tensor, step: int) -> DecodeParams:
        """Return the schedule's decoding parameters; ValueError if an action is not finite."""
        if not bool(torch.isfinite(action_BL.float()).all()):
            raise ValueError("an action is not finite; give a number for each token")
        return self.schedule.params(step, len(action_BL))


class ScoreMap(TokenMap):
    """Actions that are scores of the tokens: of those that are masked the highest are revealed, as many as
    the schedule's mask ratio says. They stand in the place of the rule's, so that tau_2 adds noise to them.
    """

    name = TOKENS  # type: ignore[assignment]

    @property
    def action_space(self) -> spaces.Box:  # type: ignore[override]
        """One score for each token."""
        return spaces.Box(-ACTION_BOUND, ACTION_BOUND, (self.num_tokens,), np.float32)

    def chosen(self, action_BL: Tensor) -> Tensor:
        """Return the scores, float (B, L)."""
        return action_BL.float()

    def outside(self, action_BL: Tensor) -> Tensor:
        """Return a bool (B,): whether a score is out of bounds, which changes nothing."""
        return (action_BL.abs() > ACTION_BOUND).any(-1)


Map = ActionMap | TokenMap
