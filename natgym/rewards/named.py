"""Rewards by name: each name stands for a recipe that asks a task for what its reward needs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from natgym.rewards.config import Options, reward_weights
from natgym.rewards.config import RewardOptions as RewardOptions
from natgym.rewards.contract import Reward

Recipe = Callable[..., Reward]
RewardSpec = str | Reward | Mapping[str, float] | Sequence[tuple[str | Reward, float]]


@dataclass(frozen=True)
class FromTask:
    """The `from_task` of a shipped class, whose module is imported when it is first asked for: names are read
    without torch."""

    module: str
    name: str

    @property
    def recipe(self) -> Recipe:
        return getattr(importlib.import_module(f"natgym.rewards.{self.module}"), self.name).from_task

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.recipe)

    def __call__(self, task: Any, **options: Any) -> Reward:
        return self.recipe(task, **options)


NAMED: dict[str, Recipe] = {
    "adversarial": FromTask("adversarial", "AdversarialReward"),
    "caption": FromTask("caption", "CaptionReward"),
    "classifier": FromTask("features", "ClassifierReward"),
    "feature-distance": FromTask("features", "FeatureDistanceReward"),
    "http": FromTask("server", "HTTPReward"),
    "influence": FromTask("distance", "InfluenceReward"),
    "distance": FromTask("distance", "DistanceReward"),
    "mmd": FromTask("witness", "WitnessReward"),
    "quadratic": FromTask("quadratic", "QuadraticReward"),
    "held": FromTask("puzzle", "HeldReward"),
    "valid": FromTask("puzzle", "ValidReward"),
}


def register_reward(name: str, recipe: Recipe) -> None:
    """Make a reward known by a name, in environments, sums and configs of this process.

    Args:
        name: without "," and "=".
        recipe: (task, **options) -> reward.

    Raises:
        ValueError: the name is taken or can't be part of a sum's text.
    """
    if name in NAMED or set(name) & set(",= "):
        raise ValueError(f"reward {name!r}: the name is taken, or has one of ',= ' in it; choose another")
    NAMED[name] = recipe


def names_of(text: str) -> tuple[str, ...]:
    """Return the names in a reward's text; ValueError if one is not known."""
    names = tuple(reward_weights(text))
    if unknown := [name for name in names if name not in NAMED]:
        raise ValueError(
            f"reward {unknown[0]!r} is not one of {', '.join(NAMED)}; a live reward object may be passed "
            "instead"
        )
    return names


def make_reward(spec: Any, task: Any = None, *, options: Options | None = None) -> Reward:
    """Return a live reward as it is, build one by name, or the weighted sum of several.

    Args:
        spec: a live reward; a name of NAMED; {name: weight}, also as text, "classifier=1,influence=0.5"; or
            pairs of a name or live reward and a weight.
        task: to which a named reward belongs, a `Task` or what `Task.load` takes.
        options: {name: {option: value}} of named rewards.

    Raises:
        ValueError: the name or an option is unknown, or the task has not what the reward needs.
    """
    from natgym.rewards.sums import weighted_sum  # names and options are read without torch
    from natgym.task import Task

    if unknown := sorted(set(options or {}) - set(NAMED)):
        raise ValueError(f"options of reward {unknown[0]!r}, which is not one of {', '.join(NAMED)}")
    if isinstance(spec, str) and set(spec) & set(",="):
        spec = reward_weights(spec)
    if isinstance(spec, Mapping):
        spec = tuple(spec.items())
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        if not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in spec):
            raise TypeError(f"reward {spec!r}: a sum is of pairs of a reward and its weight")
        return weighted_sum(
            [(make_reward(part, task, options=options), float(weight)) for part, weight in spec]
        )
    if not isinstance(spec, str):
        if not callable(spec):
            raise TypeError(f"reward {spec!r} is no name and can't be called; give one of {', '.join(NAMED)}")
        return spec
    names_of(spec)
    if task is None:
        raise ValueError(
            f"reward {spec!r} belongs to a task; a generator without one needs a live reward object"
        )
    found, given = Task.load(task), dict((options or {}).get(spec, {}))
    try:
        inspect.signature(NAMED[spec]).bind(found, **given)
    except TypeError as error:
        raise ValueError(f"reward {spec!r} can't be made with {sorted(given)}: {error}") from None
    return NAMED[spec](found, **given)
