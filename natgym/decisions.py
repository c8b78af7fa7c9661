"""What a policy is, and what it decides."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from generators.schedules import PARAMETERS, DecodeParams
from natgym.observations import Observation
from natgym.spaces import ActionMap

ACTIONS = tuple(f"action_{name}" for name in PARAMETERS)


class Policy(Protocol):
    """Decide the decoding parameters of every row; `steps` is its T.

    The observation is the environment's and `condition`, the values of the rows' conditions. A policy may
    also have `rules` of its own, a `DecodeRules`, which it is always played by.
    """

    @property
    def steps(self) -> int: ...

    def __call__(self, observation: Observation, step: int) -> DecodeParams: ...


class Decision(NamedTuple):
    """The decoding parameters of one step, and what a learned policy can tell of them.

    Attributes:
        params: what is played.
        action_B4: what it would give to the environment's `step`; NaN where it decides nothing.
        value_B: the return it expects, if it has a critic.
        previous_action: what the next observation shows under this name, (B, k), if actions are smoothed.
    """

    params: DecodeParams
    action_B4: Tensor | None = None
    value_B: Tensor | None = None
    previous_action: Tensor | None = None

    @classmethod
    def of(cls, action_map: ActionMap, action_Bk: Tensor, previous_Bk: Tensor, step: int) -> Decision:
        """Return what an action means as the environment plays it, after the one that was played before."""
        played_Bk = action_map.smooth(action_Bk, previous_Bk, step)
        remembered = played_Bk if action_map.smoothing else None
        params = action_map(played_Bk, step)
        return cls(params, action_map.spread(action_Bk), previous_action=remembered)


@runtime_checkable
class DecidingPolicy(Protocol):
    """A policy that can tell more than the parameters; `decide` is asked instead of calling it."""

    def decide(self, observation: Observation, step: int) -> Decision: ...
