"""What an AdaNAT run learned beside its policy: the critic's values and the discriminator's reward.

Both are in the run's checkpoint. The critic expects returns standardized over a rollout, so that its values
follow the reward up to scale and shift.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agents.adanat.actor import Actor
from agents.adanat.network import Trunk
from agents.adanat.trainings import read_training
from generators.checkpoints import load_state
from generators.rules import DecodeRules
from natgym.names.prices import Price
from natgym.observations import Observation
from natgym.rewards.contract import Reward, load_learned_state
from natgym.rewards.named import make_reward, names_of
from natgym.rollouts import Decision
from natgym.task import Task

CRITIC = "vf_features_extractor.trunk."


class ActorWithCritic:
    """Play an actor, and tell its actions and what the critic expects of them."""

    def __init__(self, actor: Actor, state: Mapping[str, Tensor]) -> None:
        self.actor, config = actor, actor.config
        smoothed = len(config.parameters) if config.smoothing else 0
        shape = config.grid, config.shown_width
        self.trunk = Trunk(config.widths, *shape, smoothed, prices=config.prices)
        self.trunk.load_state_dict(
            {key.removeprefix(CRITIC): value for key, value in state.items() if key.startswith(CRITIC)}
        )
        self.head = nn.Linear(config.widths.hidden[1], 1)
        self.head.load_state_dict({name: state[f"value_net.{name}"] for name in ("weight", "bias")})
        device = next(actor.parameters()).device
        for module in (self.trunk, self.head):
            module.to(device).eval().requires_grad_(False)

    @property
    def steps(self) -> int:
        return self.actor.steps

    @property
    def rules(self) -> DecodeRules:
        return self.actor.rules

    @property
    def price(self) -> Price | None:
        return self.actor.price

    def __call__(self, observation: Observation, step: int) -> Any:
        return self.actor(observation, step)

    @torch.no_grad()
    def decide(self, observation: Observation, step: int) -> Decision:
        """Return the actor's decision with the critic's value."""
        value_B = self.head(self.trunk(self.actor.seen(observation)))[:, 0]
        return self.actor.decide(observation, step)._replace(value_B=value_B)


def load_critic(run: Path, actor: Any) -> Any:
    """Return the actor with the critic of its run folder; the actor alone where there is no checkpoint."""
    if not (run / "checkpoint.pt").is_file() or not isinstance(actor, Actor):
        return actor
    state = load_state(run / "checkpoint.pt", next(actor.parameters()).device)
    return ActorWithCritic(actor, state["policy"])


def load_discriminator(run: Path, task: Task) -> Reward | None:
    """Return the reward as it was after the last update; None where there is no checkpoint of one, and, with
    a warning, where the weights that it reads are not.

    Args:
        task: of the generator that the run was made with.
    """
    if not (run / "checkpoint.pt").is_file() or not (run / "config.json").is_file():
        return None
    env = read_training(run).env
    if not env.adversary:
        return None
    try:
        env.rewards.adversarial.refuse_absent()
    except ValueError as error:
        warnings.warn(f"{run}: its discriminator judges nothing here: {error}", stacklevel=2)
        return None
    extractor = None if env.extractor == "reward" else env.extractor
    reward = make_reward(
        env.reward, task.like(reward_extractor=extractor), options=env.rewards.of(names_of(env.reward))
    )
    load_learned_state(reward, load_state(run / "checkpoint.pt", task.device)["reward"])
    return reward
