"""A learned policy in evaluation: AdaNAT's network without its critic, which plays without SB3."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agents.adanat.network import AdaNATPolicy, PolicyConfig, Trunk
from generators.checkpoints import register
from generators.files import config_from_dict
from generators.parameters import STANDARD, completed
from generators.rules import DecodeRules
from generators.schedules import PARAMETERS, DecodeParams, Schedule
from natgym.names.prices import Price, inside
from natgym.observations import STATISTICS, Observation, Observer, pool, with_statistics
from natgym.rollouts import Decision
from natgym.spaces import ActionMap


@dataclass(frozen=True, kw_only=True)
class ActorConfig:
    """All that a saved actor needs to be rebuilt."""

    policy: dict[str, Any]
    grid: tuple[int, int]
    features_width: int
    steps: int
    actions: str
    """Preset of the action map; "own" is one with `own_map`."""
    schedule_name: str
    parameters: tuple[str, ...] = STANDARD
    smoothing: float = 0.0
    rules: str = "confidence"
    """Rules of the decoding step that the policy was trained with."""
    pooled_from: tuple[int, int] | None = None
    """The generator's grid, if the features are pooled to `grid`."""
    sees_previous: bool = True
    """Whether the network reads the action played before, where actions are smoothed; AdaGen's does not."""
    statistics: bool = False
    """Whether the network reads STATISTICS of each token beside the features."""
    own_map: dict[str, Any] | None = None
    """Settings of an action map that is no preset."""
    prices: tuple[float, float] | None = None
    """Range of the price that the network reads."""

    @property
    def widths(self) -> PolicyConfig:
        """The network's, as a config."""
        return config_from_dict(PolicyConfig, self.policy)

    @property
    def shown_width(self) -> int:
        """Numbers of each token that the network reads."""
        return self.features_width + len(STATISTICS) * self.statistics


class ActorNetwork(nn.Module):
    """Trunk and head of an actor: observation -> mean action (B, k)."""

    def __init__(self, config: ActorConfig) -> None:
        super().__init__()
        self.config, widths = config, config.widths
        k = len(config.parameters)
        smoothed = k if config.smoothing and config.sees_previous else 0
        shown = config.shown_width
        self.trunk = Trunk(widths, config.grid, shown, smoothed, widths.blind, config.prices)
        self.head = nn.Linear(widths.hidden[1], k)


@register(ActorConfig)
class Actor(ActorNetwork):
    """A learned policy in evaluation: the mean action through the action map.

    Attributes:
        price: that it is told, where it learned prices of a range: that range, from which each image draws
            its own, or of `at` a number.
    """

    def __init__(self, config: ActorConfig) -> None:
        super().__init__(config)
        self.register_buffer("schedule", torch.ones(config.steps, len(PARAMETERS), dtype=torch.float64))
        self.schedule: Tensor
        self._mapped: tuple[Any, ActionMap] | None = None
        self.price: Price | None = config.prices

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Complete the schedule of a file from before a parameter was registered."""
        key = f"{prefix}schedule"
        if key in state_dict:
            state_dict[key] = completed(state_dict[key])
        super()._load_from_state_dict(state_dict, prefix, *others)

    @property
    def steps(self) -> int:
        return self.config.steps

    @property
    def rules(self) -> DecodeRules:
        """The rules that it was trained with, on the generator's grid."""
        return DecodeRules.of(self.config.rules, self.config.pooled_from or self.config.grid)

    def at(self, price: float) -> Actor:
        """Return the policy as it plays at one price; ValueError if it learned none, or others."""
        other = copy.copy(self)
        other.price = inside(price, self.config.prices)
        return other

    def action_map(self) -> ActionMap:
        """The map that the policy was trained with, on the host; made anew only for another schedule."""
        version = self.schedule.data_ptr(), self.schedule._version
        if self._mapped is None or self._mapped[0] != version:
            config, schedule = self.config, Schedule(self.schedule.cpu(), self.config.schedule_name)
            options: dict[str, Any] = {"parameters": config.parameters, "smoothing": config.smoothing}
            self._mapped = version, ActionMap.named(config.actions, schedule, config.own_map, **options)
        return self._mapped[1]

    def forward(self, observation: Observation, step: int) -> DecodeParams:
        """Return the decoding parameters of the mean action."""
        return self.decide(observation, step).params

    def seen(self, observation: Observation) -> Observation:
        """Return an observation as the trunk reads it: pooled features, and a previous action in any case."""
        features = with_statistics(observation) if self.config.statistics else observation["features"]
        features = features.float()
        if self.config.pooled_from is not None:
            features = pool(features, self.config.pooled_from)
        start = {"previous_action": features.new_zeros(len(features), len(self.config.parameters))}
        return start | observation | {"features": features}

    @torch.no_grad()
    def decide(self, observation: Observation, step: int) -> Decision:
        """Return the mean action, and the parameters that it means."""
        seen = self.seen(observation)
        action_Bk, action_map = self.head(self.trunk(seen)), self.action_map()
        return Decision.of(action_map, action_Bk, seen["previous_action"], step)


def export_actor(
    policy: AdaNATPolicy,
    observer: Observer,
    action_map: ActionMap,
    rules: DecodeRules,
    weights: Mapping[str, Tensor] | None = None,
) -> Actor:
    """Copy the actor out of an SB3 policy.

    Args:
        observer, action_map, rules: of the environment that it was trained in.
        weights: of all the policy, in place of those that it has.
    """
    weights = policy.state_dict() if weights is None else weights
    config = ActorConfig(
        policy=vars(policy.widths),
        grid=observer.features_grid,
        features_width=observer.width,
        statistics=observer.kind == "statistics",
        steps=action_map.schedule.steps,
        actions=action_map.name,
        schedule_name=action_map.schedule.name,
        parameters=tuple(action_map.parameters),
        smoothing=action_map.smoothing,
        rules=rules.text,
        pooled_from=observer.grid if observer.kind == "pooled" else None,
        own_map=action_map.settings(),
        prices=observer.prices,
    )
    actor = Actor(config)
    for module, place in ((actor.trunk, "pi_features_extractor.trunk."), (actor.head, "action_net.")):
        own = {key.removeprefix(place): value for key, value in weights.items() if key.startswith(place)}
        module.load_state_dict(own)
    actor.schedule.copy_(action_map.schedule.table_T4)
    return actor.eval().requires_grad_(False)
