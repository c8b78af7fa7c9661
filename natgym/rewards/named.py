"""Rewards by name: each name stands for a recipe that asks a task for what its reward needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from natgym.rewards.adversarial import AdversarialConfig, AdversarialReward
from natgym.rewards.contract import Reward
from natgym.rewards.distance import DistanceReward, InfluenceReward
from natgym.rewards.features import ClassifierReward, FeatureDistanceReward
from natgym.rewards.sums import reward_weights, weighted_sum
from natgym.rewards.witness import WitnessConfig, WitnessReward
from natgym.task import Task

Recipe = Callable[..., Reward]
RewardSpec = str | Reward | Mapping[str, float] | Sequence[tuple[str | Reward, float]]
Options = Mapping[str, Mapping[str, Any]]

NAMED: dict[str, Recipe] = {
    "adversarial": AdversarialReward.from_task,
    "classifier": ClassifierReward.from_task,
    "feature-distance": FeatureDistanceReward.from_task,
    "influence": InfluenceReward.from_task,
    "distance": DistanceReward.from_task,
    "mmd": WitnessReward.from_task,
}


@dataclass(frozen=True, kw_only=True)
class FeatureDistanceOptions:
    """Options of the reward feature-distance."""

    real_images: int = 5000
    """Real images of the train split that it compares with."""


@dataclass(frozen=True, kw_only=True)
class RewardOptions:
    """Options of the named rewards that have any."""

    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """The discriminator."""
    feature_distance: FeatureDistanceOptions = field(default_factory=FeatureDistanceOptions)
    """The nearest real images."""
    mmd: WitnessConfig = field(default_factory=WitnessConfig)
    """The witness of the squared MMD."""

    def of(self, names: Sequence[str]) -> Options:
        """Return those of some rewards that are not the defaults, as `make_reward` takes them."""
        usual, found = RewardOptions(), {}
        for field_ in fields(self):
            name = field_.name.replace("_", "-")
            ours, theirs = vars(getattr(self, field_.name)), vars(getattr(usual, field_.name))
            changed = {key: value for key, value in ours.items() if value != theirs[key]}
            if name in names and changed:
                found[name] = changed
        return found


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
    if unknown := sorted(set(options or {}) - set(NAMED)):
        raise ValueError(f"options of reward {unknown[0]!r}, which is not one of {', '.join(NAMED)}")
    if isinstance(spec, str) and set(spec) & set(",="):
        spec = reward_weights(spec)
    if isinstance(spec, Mapping):
        spec = tuple(spec.items())
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return weighted_sum(
            [(make_reward(part, task, options=options), float(weight)) for part, weight in spec]
        )
    if not isinstance(spec, str):
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
