"""The environment's arguments, made into the objects that it plays with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from generators.conditions import Condition
from generators.contract import Generator
from generators.schedules import PARAMETERS, Schedule, as_schedule
from natgym.spaces import ActionMap, Preset
from natgym.task import Task


def build_task(task: Any, generator: Any, tokenizer: Any, device: str) -> Task:
    """Return the task that an environment plays.

    That is the one given, with the networks given in place of its own; without one that of a saved generator;
    of a live generator alone one without name and images; of nothing the digits.

    Raises:
        ValueError: there is no such task, or it lacks generator or tokenizer.
    """
    if task is not None:
        return Task.load(task, device=device, generator=generator, tokenizer=tokenizer)
    if generator is None or isinstance(generator, str | Path):
        return Task.load(generator or "digits", device=device, tokenizer=tokenizer)
    device = str(next(generator.parameters()).device)
    return Task(generator=generator, tokenizer=tokenizer, device=device)


def build_action_map(
    actions: Preset | ActionMap,
    schedule: str | Path | Schedule,
    steps: int,
    parameters: Sequence[str],
    smoothing: float,
) -> ActionMap:
    """Return a preset's map around a schedule, or a live one as it is.

    Raises:
        ValueError: a live map comes with parameters or smoothing, or has other than T steps.
    """
    if not isinstance(actions, ActionMap):
        options: dict[str, Any] = {"parameters": tuple(parameters), "smoothing": smoothing}
        return ActionMap.preset(actions, as_schedule(schedule, steps), **options)
    if tuple(parameters) != PARAMETERS or smoothing:
        raise ValueError("a live action map has its own parameters and smoothing; set them there")
    as_schedule(actions.schedule, steps)  # a map of another length fails here, not at a later step
    return actions


def build_pool(conditions: str | Condition, generator: Generator) -> Condition:
    """Return what conditions are taken from: a copy of those given, or all of the generator's."""
    if not isinstance(conditions, str):
        return own_condition(conditions)
    if conditions not in ("balanced", "random"):
        raise ValueError(
            f"conditions {conditions!r} is not one of balanced, random; a live Condition may be passed"
        )
    return generator.conditions()


def own_condition(condition: Condition) -> Condition:
    """Return a copy, which its giver can't change."""
    return condition[torch.arange(len(condition))]
