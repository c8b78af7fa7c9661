"""Policies that PPO trains, and what becomes of them: made, played, saved, loaded."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from agents.adanat.actor import Actor, export_actor
from agents.adanat.config import SEARCHED, AdaNATConfig, TrainingConfig
from agents.adanat.folders import policy_name
from agents.adanat.network import AdaNATPolicy, PolicyConfig, SeparatePolicy
from agents.adanat.orders import OrderPolicy
from agents.adanat.parts import TokenPolicyConfig
from agents.adanat.tokens import TokenPolicy
from agents.distributed.ranks import Ranks
from agents.sb3 import PPO, LearnedPolicy, SB3VecEnv
from generators.checkpoints import (
    from_pretrained,
    load_tensors,
    read_description,
    save_pretrained,
    save_tensors,
)
from generators.conditions import Condition
from generators.files import config_from_dict, read_json
from generators.noise import seeded
from generators.rules import DecodeRules
from generators.schedules import Schedule
from natgym.env.arguments import shown_space, used_options
from natgym.env.vector import DecodeVectorEnv
from natgym.names.spaces import REVEAL, TOKENS
from natgym.observations import Observer
from natgym.policies import FixedPolicy
from natgym.rewards.config import RewardOptions
from natgym.spaces import ActionMap, Map, ScoreMap, TokenMap
from natgym.task import Task


@dataclass(frozen=True, kw_only=True)
class OwnConfig:
    """What a saved policy whose class is not natgym's saw and decided."""

    observer: dict[str, Any]
    table: list[list[float]]
    schedule_name: str
    actions: str
    own_map: dict[str, Any] | None
    parameters: tuple[str, ...]
    smoothing: float
    rules: str | None
    widths: dict[str, Any] | None


Learned = Actor | LearnedPolicy
_TRUNK, _HEAD = "pi_features_extractor.trunk.", "action_net."  # of the actor, by SB3's names
OWN = "SB3Policy"  # the type of a saved policy whose class is not natgym's


def new_ppo(env: DecodeVectorEnv, config: AdaNATConfig, policy: Any = None) -> PPO:
    """Return PPO with a new policy, the same on all ranks.

    Args:
        env: of this rank's rows.
        policy: class or instance of SB3's actor-critic policies; by default AdaNAT's network.

    Raises:
        ValueError: it is none, or has no standard deviation that the training could set.
    """
    ranks = Ranks.here()
    transitions = env.steps * env.num_envs * ranks.count
    chooses = isinstance(env.action_map, TokenMap)
    usual = _usual(env.action_map)
    made_of = usual if policy is None else policy
    _check_policy(made_of, config)
    kwargs: dict[str, Any] = {"optimizer_kwargs": {"eps": config.adam_eps}}
    if isinstance(made_of, type) and issubclass(made_of, AdaNATPolicy):
        kwargs |= {"config": config.policy, "grid": env.observer.features_grid}
    elif made_of in (TokenPolicy, OrderPolicy):
        if env.observer.kind != "statistics":
            raise ValueError(f"observation {env.observer.kind}: to choose tokens, policies read statistics")
        kwargs |= {"config": config.tokens}
    with seeded(config.seed_of("policy")):
        ppo = PPO(
            made_of if isinstance(made_of, type) else lambda *spaces, **options: made_of,
            SB3VecEnv(env, ranks),
            ranks=ranks,
            n_steps=env.steps,
            batch_size=min(config.minibatch or transitions, transitions),
            n_epochs=config.epochs,
            learning_rate=config.learning_rate,
            clip_range=config.clip,
            vf_coef=config.value_weight,
            ent_coef=config.kl_weight or config.entropy_weight,
            normalize_advantage=config.normalize_advantages,
            max_grad_norm=config.max_gradient_norm or math.inf,
            gamma=1.0,
            gae_lambda=1.0,
            rollout_buffer_kwargs={
                "normalize_returns": True,
                "baseline": config.baseline,
                "group": env.group,
                "ranks": ranks,
            },
            policy_kwargs=kwargs,
            device=env.device,
        )
    if config.kl_weight:
        _hold_near(ppo.policy, config.reference, env.action_map)
    if chooses:
        return ppo
    if not hasattr(ppo.policy, "log_std"):
        raise ValueError(f"policy {policy_name(policy)} has no log_std; its actions have to be Gaussian")
    ppo.policy.log_std.requires_grad_(False)  # the training sets it, update by update
    return ppo


def refuse_unfit(config: TrainingConfig, task: Task) -> None:
    """Raise ValueError if a training's settings don't go together, before anything is searched or drawn.

    Environment and policy are made, of few rows and without the reward, which may look at all real images.

    Args:
        task: the training's, which is loaded already.
    """
    env, adanat = config.env, config.adanat
    used_options(env.reward, env.rewards.changed)
    if env.schedule == SEARCHED:
        if adanat.reference != "start":
            raise ValueError(
                f"reference {adanat.reference}: it learned around another schedule than is searched anew; "
                f"give its own, such as --schedule {Path(adanat.reference) / SEARCHED}.json"
            )
        env = replace(env, schedule="reference")  # any: the searched one is not there yet
    few = replace(env, trajectories=2 * env.group, rewards=RewardOptions())
    new_ppo(few.build(_unjudged, task), adanat)


def _unjudged(images_BCHW: Tensor, condition: Condition) -> Tensor:
    return images_BCHW.new_zeros(len(images_BCHW))


def _usual(action_map: Map) -> type[SeparatePolicy]:
    """Return natgym's policy for a map."""
    if isinstance(action_map, ScoreMap):
        return OrderPolicy
    return TokenPolicy if isinstance(action_map, TokenMap) else AdaNATPolicy


def _hold_near(policy: ActorCriticPolicy, reference: str, action_map: Map) -> None:
    """Hold a new policy near itself or near a saved one; ValueError if that plays another schedule or has
    another network."""
    if not isinstance(policy, SeparatePolicy) or isinstance(policy, OrderPolicy):
        raise ValueError(f"kl_weight: {policy_name(policy)} measures no divergence; others of natgym do")
    other = copy.deepcopy(policy)
    if reference != "start":
        table_T4, weights = _saved(Path(reference))
        if not torch.equal(table_T4, action_map.schedule.table_T4):
            raise ValueError(f"reference {reference} learned around another schedule; give its own")
        actor = {key for key in other.state_dict() if key.startswith((_TRUNK, _HEAD))}
        try:
            other.load_state_dict({key: weights[key] for key in actor}, strict=False)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"reference {reference} has another network: {error}") from None
    policy.hold_near(other)


def _saved(folder: Path) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Return the schedule (T, K) and the weights, by SB3's names, of a saved policy or that of a training."""
    folder = folder / "policy" if (folder / "policy").is_dir() else folder
    if is_own(folder):
        table = read_description(folder)["config"]["table"]
        return torch.tensor(table, dtype=torch.float64), load_tensors(folder / "model.safetensors")
    actor: Any = from_pretrained(folder)
    if not isinstance(actor, Actor):
        raise ValueError(f"reference {folder} is a {type(actor).__name__}; give the folder of a policy")
    weights = {_TRUNK + key: value for key, value in actor.trunk.state_dict().items()}
    return actor.schedule, weights | {_HEAD + key: value for key, value in actor.head.state_dict().items()}


def learned_policy(
    policy: ActorCriticPolicy, env: DecodeVectorEnv, weights: dict[str, Any] | None = None
) -> Learned:
    """Return an SB3 policy in evaluation, a copy: its mean action.

    Args:
        env: that it was trained in.
        weights: in place of its own.
    """
    if type(policy) is AdaNATPolicy and isinstance(env.action_map, ActionMap):
        return export_actor(policy, env.observer, env.action_map, env.rules, weights).to(env.device)
    policy.action_dist.distribution = None  # type: ignore[assignment]  # of the last pass, with its graph
    policy = copy.deepcopy(policy)
    policy.set_training_mode(False)
    if weights is not None:
        policy.load_state_dict(weights)
    return LearnedPolicy(policy, env.observer, env.action_map, env.rules)


def save_policy(policy: Learned, folder: Path, **metadata: Any) -> None:
    """Write a learned policy, which plays without SB3 if its network is AdaNAT's."""
    if isinstance(policy, Actor):
        save_pretrained(policy, folder, **metadata)
    else:
        save_own(policy, folder, **metadata)


def save_own(policy: LearnedPolicy, folder: Path, **metadata: Any) -> None:
    """Write a policy whose class is not natgym's: its weights, and what it saw and decided."""
    observer, action_map = policy.observer, policy.action_map
    rules = None if policy.rules is None else policy.rules.text
    config = {
        "class": policy_name(policy.policy),
        "observer": vars(observer),
        "table": action_map.schedule.table_T4.tolist(),
        "schedule_name": action_map.schedule.name,
        "actions": action_map.name,
        "own_map": action_map.settings(),
        "parameters": list(action_map.parameters),
        "smoothing": action_map.smoothing,
        "rules": rules,
        "widths": vars(widths) if (widths := getattr(policy.policy, "widths", None)) else None,
    }
    weights = policy.policy.state_dict().items()  # SB3 has some under two names, which a file can't
    save_tensors(
        {name: value.clone() for name, value in weights},
        folder,
        {"type": OWN, "config": config, "metadata": metadata},
    )


def load_own(folder: Path, policy_class: Any, device: torch.device | str = "cpu") -> LearnedPolicy:
    """Return a policy that `save_own` wrote.

    Args:
        policy_class: its class, or what makes one of (observation space, action space, learning rate).

    Raises:
        ValueError: the class is not given, or the weights don't fit it.
    """
    told = read_description(folder)["config"]
    ours = {policy_name(kind): kind for kind in (TokenPolicy, OrderPolicy)}
    policy_class = ours.get(name := told.pop("class"), policy_class)
    if policy_class is None:
        raise ValueError(
            f"{folder} holds a policy of class {name}, which is not natgym's; load it with "
            "agents.load_policy(folder, policy_class=...)"
        )
    config = config_from_dict(OwnConfig, told)
    observer = config_from_dict(Observer, config.observer)
    schedule = Schedule(torch.tensor(config.table, dtype=torch.float64), config.schedule_name)
    action_map = _action_map(config, schedule, observer)
    kwargs: dict[str, Any] = {}
    if policy_class in (TokenPolicy, OrderPolicy):
        kwargs = {"config": config_from_dict(TokenPolicyConfig, config.widths or {})}
    elif config.widths is not None:  # a child of AdaNAT's own
        widths = config_from_dict(PolicyConfig, config.widths)
        kwargs = {"config": widths, "grid": observer.features_grid}
    rules = DecodeRules() if config.rules is None else DecodeRules.of(config.rules, observer.grid)
    spaces = shown_space(observer, action_map, rules, schedule.steps), action_map.action_space
    policy = policy_class(*spaces, lambda _: 0.0, **kwargs).to(device)
    try:
        policy.load_state_dict(load_tensors(folder / "model.safetensors", device))
    except RuntimeError as error:
        raise ValueError(f"{folder} does not fit {policy_name(policy)}: {error}") from None
    policy.set_training_mode(False)
    return LearnedPolicy(policy, observer, action_map, None if config.rules is None else rules)


def _action_map(config: OwnConfig, schedule: Schedule, observer: Observer) -> Map:
    """Return the action map that a saved policy was trained with."""
    if config.actions in (REVEAL, TOKENS):
        kind = TokenMap if config.actions == REVEAL else ScoreMap
        return kind(schedule, math.prod(observer.grid))
    options: dict[str, Any] = {"parameters": config.parameters, "smoothing": config.smoothing}
    return ActionMap.named(config.actions, schedule, config.own_map, **options)


def started_from(policy: Any) -> FixedPolicy | None:
    """Return what a policy was before it learned: its schedule, or the rule that chose tokens; None of
    policies that have not learned."""
    if isinstance(policy, Actor):
        return FixedPolicy(policy.action_map().schedule, policy.rules)
    if not isinstance(policy, LearnedPolicy):
        return None
    rules = policy.rules
    if isinstance(policy.policy, TokenPolicy):
        rules = DecodeRules.of(policy.policy.widths.start, policy.observer.grid)
    return FixedPolicy(policy.action_map.schedule, rules)


def is_own(folder: Path) -> bool:
    """Whether a folder holds a policy that `save_own` wrote."""
    path = folder / "config.json"
    return path.is_file() and read_json(path).get("type") == OWN


def _check_policy(policy: Any, config: AdaNATConfig) -> None:
    """Raise ValueError if a policy is none of SB3's, or settings of the config would be ignored."""
    own = policy if isinstance(policy, type) else type(policy)
    if not issubclass(own, ActorCriticPolicy):
        raise ValueError(
            f"policy {policy!r} is no actor-critic policy; give a class or an instance of SB3's "
            "MultiInputActorCriticPolicy"
        )
    usual = AdaNATConfig()
    if config.policy != usual.policy and not (isinstance(policy, type) and issubclass(own, AdaNATPolicy)):
        raise ValueError(
            "config.policy has AdaNAT's widths, and the policy is another; set its own in its class"
        )
    ignored = {TokenPolicy: {"order"}, OrderPolicy: {"start", "slope"}}.get(policy, set(vars(usual.tokens)))
    for name, value in vars(config.tokens).items():
        if name in ignored and value != getattr(usual.tokens, name):
            raise ValueError(f"tokens.{name} {value}: {policy_name(policy)} does not read it; leave it out")
    if config.adam_eps != usual.adam_eps and not isinstance(policy, type):
        raise ValueError(f"adam_eps {config.adam_eps}: an instance has its own optimizer; set it there")
