"""A learned policy that tries what lies around its actions, as a training does, on chance of its own."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generators.noise import derive_seed
from generators.rules import DecodeRules
from generators.schedules import DecodeParams
from natgym.names.prices import Price
from natgym.observations import Observation
from natgym.policies import Decision
from natgym.spaces import ActionMap


@dataclass(frozen=True)
class Explored:
    """A policy whose actions are drawn around those that another decides, for each row by its seed.

    Attributes:
        policy: with an `action_map`, as the learned ones of `agents` have.
        std: of the Gaussian, in units of actions; the box of actions cuts what is played, not what is told.
        seeds_B: of the rows; independent of all else that is drawn by them.

    Raises:
        ValueError: std is not positive, or the policy sets no decoding parameters by actions.
    """

    policy: Any
    std: float
    seeds_B: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < self.std < math.inf:
            raise ValueError(f"action_std {self.std}: it must be positive and finite")
        if not isinstance(self.action_map, ActionMap):
            raise ValueError("action_std is for learned policies, which decide by actions; leave it out")

    @property
    def steps(self) -> int:
        return self.policy.steps

    @property
    def rules(self) -> DecodeRules | None:
        return getattr(self.policy, "rules", None)

    @property
    def price(self) -> Price | None:
        return getattr(self.policy, "price", None)

    @property
    def action_map(self) -> Any:
        """What actions mean."""
        found = getattr(self.policy, "action_map", None)
        return found() if inspect.ismethod(found) else found

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        return self.decide(observation, step).params

    def decide(self, observation: Observation, step: int) -> Decision:
        """Return the drawn action, what it means, and its log-density."""
        decision, action_map = self.policy.decide(observation, step), self.action_map
        mean_Bk = decision.action_B4[:, action_map.columns]
        action_Bk = mean_Bk + self.std * self._normal(step, mean_Bk)
        previous_Bk = observation.get("previous_action", torch.zeros_like(mean_Bk))
        normal = torch.distributions.Normal(mean_Bk.double(), self.std)
        return Decision.of(action_map, action_Bk, previous_Bk, step)._replace(
            value_B=decision.value_B, log_prob_B=normal.log_prob(action_Bk.double()).sum(-1)
        )

    def _normal(self, step: int, like_Bk: Tensor) -> Tensor:
        rows = [
            np.random.default_rng(derive_seed("exploration", seed, step)).standard_normal(like_Bk.shape[1])
            for seed in self.seeds_B
        ]
        return torch.from_numpy(np.stack(rows)).to(like_Bk)
