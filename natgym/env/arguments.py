"""The environment's arguments, made into the objects that it plays with."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from generators.conditions import Condition
from generators.noise import Purpose, hash_uniform
from generators.parts import Parts
from generators.rules import DecodeRules
from generators.schedules import PARAMETERS, Schedule, as_schedule
from natgym.env.prices import Prices
from natgym.names.spaces import REVEAL, TOKENS
from natgym.observations import Observation, Observer, observe, reveal_counts
from natgym.rewards.config import reward_weights
from natgym.rewards.contract import needs_batch
from natgym.spaces import ActionMap, Actions, Map, ScoreMap, TokenMap
from natgym.task import Task

RENDER_MODES = ("rgb_array",)
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("num_envs", "steps", "group", "first_pass_bytes"), (Integral,)),
    "micro_batch": (Integral, NoneType),
    "smoothing": (Real,),
    "price": (Real, tuple, list),
    **dict.fromkeys(("coupled", "autoreset"), (bool, np.bool_)),
    "rewards": (Mapping, NoneType),
    "parameters": (Sequence,),
    "schedule": (str, Path, Schedule, NoneType),
    "conditions": (str, Condition, NoneType),
    "rules": (str, DecodeRules),
    "device": (str, torch.device, NoneType),
}
_WORDS: dict[type, str] = {Integral: "int", Real: "float", NoneType: "None"}
# Of live objects: what shows that they are.
_LIVE = {"generator": "parameters", "tokenizer": "codebook_size", "actions": "parameters"}


def check_types(given: Mapping[str, Any]) -> None:
    """Raise TypeError that names the first argument of a wrong type, or ValueError for no device."""
    for name, types in _TYPES.items():
        value = given[name]
        number = Integral in types or Real in types
        if not isinstance(value, types) or (number and isinstance(value, bool)):
            names = " or ".join(dict.fromkeys(_WORDS.get(kind, kind.__name__) for kind in types))
            raise TypeError(f"{name} {reprlib.repr(value)} is a {type(value).__name__}, not {names}")
    for name, shown in _LIVE.items():
        value = given[name]
        named = isinstance(value, str | Path) or (value is None and name != "actions")
        if not named and not hasattr(value, shown):
            what = f"{name} {reprlib.repr(value)}"
            raise TypeError(f"{what} has no {shown}; give a name, a folder or a live object")
    try:
        torch.device(given["device"] or "cpu")
    except RuntimeError as error:
        raise ValueError(f"device {given['device']!r} is none: {error}") from None


def as_actions(actions: Any) -> Tensor:
    """Return actions as a tensor; ValueError if they are no real numbers."""
    try:
        values = torch.as_tensor(actions).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"actions are no numbers ({error}); give an array or a tensor") from None
    if values.is_complex():
        raise ValueError(f"actions are {values.dtype}; give real numbers")
    return values


def build_task(task: Any, generator: Any, tokenizer: Any, device: str | None) -> Task:
    """Return the task that an environment plays.

    That is the one given, with the networks given in place of its own; without one that of a saved generator;
    of a live generator alone one without name and images; of nothing the digits.

    Raises:
        ValueError: there is no such task, it lacks generator or tokenizer, or a device is asked for that a
            live object is not on.
    """
    live = None
    if isinstance(task, Task):
        live = task.device
    elif generator is not None and not isinstance(generator, str | Path):
        live = next(generator.parameters()).device
    if None not in (device, live) and torch.device(str(device)).type != live.type:  # type: ignore[union-attr]
        raise ValueError(f"device {device!r}: what is live is on {live}; move it, or leave the device out")
    device = str(live or device or "cpu")
    if task is not None:
        return Task.load(task, device=device, generator=generator, tokenizer=tokenizer)
    if generator is None or isinstance(generator, str | Path):
        return Task.load(generator or "digits", device=device, tokenizer=tokenizer)
    return Task(generator=generator, tokenizer=tokenizer, device=device)


def shown_space(observer: Observer, action_map: Map, rules: DecodeRules, steps: int) -> spaces.Dict:
    """Return what one agent sees: what the observer shows, and `reveal` where actions are scores of tokens.

    Raises:
        ValueError: of scores, the rules mask tokens again.
    """
    shown = observer.space(steps)
    if not isinstance(action_map, ScoreMap):
        return shown
    if rules.remask_rate:
        raise ValueError(f"rules {rules.text!r}: with actions 'tokens' none is masked again; give no rate")
    return spaces.Dict({**shown, "reveal": spaces.Box(0, action_map.num_tokens, (1,), np.float32)})


def shown(
    parts: Parts | None, observer: Observer, action_map: Map, played_Bk: Tensor, prices: Prices
) -> Observation:
    """Return what agents see of images in progress."""
    assert parts is not None
    told = parts.show(observer, played_Bk) | prices.shown
    if isinstance(action_map, ScoreMap) and not parts.done:
        told["reveal"] = torch.cat(
            [
                reveal_counts(observe(state, observer.mask_id), action_map.schedule, parts.rules)
                for state in parts.states
            ]
        )
    elif isinstance(action_map, ScoreMap):
        told["reveal"] = torch.zeros_like(told["step"])
    return told


def used_options(reward: Any, options: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return the options of named rewards, none of which is for a reward that is not used.

    Raises:
        ValueError: one is.
    """
    names: set[str] = set()
    if isinstance(reward, str):
        names = set(reward_weights(reward))
    elif isinstance(reward, Mapping):
        names = set(reward)
    elif isinstance(reward, Sequence):
        pairs = [pair for pair in reward if isinstance(pair, Sequence)]
        names = {name for pair in pairs for name in pair[:1] if isinstance(name, str)}
    if unused := sorted(set(options or {}) - names):
        shown = ", ".join(sorted(names)) or "live"
        raise ValueError(f"rewards: options of {unused[0]!r}, but the reward is {shown}; leave them out")
    return {name: dict(values) for name, values in (options or {}).items()}


def build_action_map(
    actions: Actions | Map,
    schedule: str | Path | Schedule | None,
    steps: int,
    parameters: Sequence[str],
    smoothing: float,
    num_tokens: int,
    guides: bool = True,
) -> Map:
    """Return a preset's map around a schedule, or a live one as it is.

    Args:
        num_tokens: of an image.
        guides: whether there is anything to guide by; else all parameters are all but the guidance.

    Raises:
        ValueError: a live map comes with parameters or smoothing, has other than T steps, or is to set a
            guidance that means nothing.
    """
    usual = tuple(parameters) == PARAMETERS
    if actions in (REVEAL, TOKENS):
        if not usual or smoothing:
            raise ValueError(f"actions {actions!r} choose tokens and set no parameters; leave these out")
        kind = TokenMap if actions == REVEAL else ScoreMap
        return kind(as_schedule(schedule or "reference", steps), num_tokens)
    if not guides and usual and isinstance(actions, str):
        parameters = [name for name in PARAMETERS if name != "guidance_scale"]
    set_by_action = parameters if isinstance(actions, str) else actions.parameters
    if not guides and "guidance_scale" in set_by_action:
        raise ValueError(
            "parameters: guidance_scale has nothing to guide by where there is one class; leave it out"
        )
    if isinstance(actions, str):
        options: dict[str, Any] = {"parameters": tuple(parameters), "smoothing": smoothing}
        return ActionMap.preset(actions, as_schedule(schedule or "reference", steps), **options)
    if schedule is not None:
        raise ValueError("a live action map has its own schedule; leave out the other")
    if not usual or smoothing:
        raise ValueError("a live action map has its own parameters and smoothing; set them there")
    as_schedule(actions.schedule, steps)  # a map of another length fails here, not at a later step
    return actions


def build_pool(conditions: str | Condition | None, task: Task) -> Condition:
    """Return what conditions are taken from: a copy of those given, all of the generator's, or the task's."""
    if conditions is None:
        return task.pool
    if not isinstance(conditions, str):
        return own_condition(conditions)
    if conditions not in ("balanced", "random"):
        raise ValueError(
            f"conditions {conditions!r} is not one of balanced, random; a live Condition may be passed"
        )
    return task.every


def asked_condition(condition: Any, task: Task, num_rows: int) -> Condition:
    """Return what is asked for: a copy of a live condition, or that of the names of classes, one per row.

    Raises:
        ValueError: it is neither, a name is none of the generator's, or there is not one for each row.
    """
    if isinstance(condition, list | tuple) and all(isinstance(name, str) for name in condition):
        condition = task.named(condition)
    if not isinstance(condition, Condition):
        raise ValueError(
            f"condition is a {type(condition).__name__}; give names of classes, texts, or a Condition such "
            "as Labels"
        )
    if len(condition) != num_rows:
        raise ValueError(f"{len(condition)} conditions for {num_rows} rows; give one per row")
    return own_condition(condition)


def in_turn(pool: Condition, random: bool, row_seeds_B: Tensor, places_B: Tensor) -> Condition:
    """Return what rows draw of a pool: what their seeds say, or what stands at their places, in turn."""
    if random:
        uniform_B = hash_uniform(row_seeds_B, 0, 1, Purpose.CONDITION)[:, 0]
        return pool[(uniform_B * len(pool)).long()]
    return pool[(places_B % len(pool)).to(row_seeds_B.device)]


def own_condition(condition: Condition) -> Condition:
    """Return a copy, which its giver can't change."""
    return condition[torch.arange(len(condition))]


def check(num_envs: int, group: int, micro_batch: int | None, render_mode: str | None) -> None:
    """Raise ValueError if rows can't be cut into groups or met by a network, or rendered so."""
    if num_envs < 1:
        raise ValueError(f"num_envs {num_envs}: at least one row is needed")
    if group < 1 or num_envs % group:
        raise ValueError(f"group {group}: it must be at least 1 and divide the {num_envs} rows")
    if micro_batch is not None and micro_batch < 1:
        raise ValueError(f"micro_batch {micro_batch}: a network meets at least one row at once")
    if render_mode not in (None, *RENDER_MODES):
        raise ValueError(f"render_mode {render_mode!r} is not one of None, {', '.join(RENDER_MODES)}")


def check_batch(reward: Any, name: str, num_envs: int) -> None:
    """Raise ValueError if a reward that compares images would get one."""
    if num_envs == 1 and needs_batch(reward):
        raise ValueError(
            f"reward {name!r} compares images and num_envs is 1: use make_vec with num_envs of 2 or more"
        )
