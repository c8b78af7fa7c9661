"""The methods that are compared, by name: semi-supervised k-means, SimGCD, MM-GCD and parts of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from natgym.discovery.config import DiscoveryConfig

Balance = Literal["equal", "reliability"]


@dataclass(frozen=True)
class Method:
    """What a method sees and how it differs from the common configuration.

    Attributes:
        sees: "image", "text", "joined" (their features side by side, one branch) or "both" (two branches).
        trained: whether it is a training, or k-means.
        changes: values of DiscoveryConfig that make it what it is.
        balance: of the branches' weights (`natgym.discovery.balance`).
    """

    sees: str
    trained: bool = True
    changes: Mapping[str, Any] = field(default_factory=dict)
    balance: Balance = "equal"


METHODS: dict[str, Method] = {
    "k-means-image": Method("image", trained=False),
    "k-means-text": Method("text", trained=False),
    "k-means-joined": Method("joined", trained=False),
    "simgcd-image": Method("image"),
    "simgcd-text": Method("text"),
    "simgcd-joined": Method("joined"),
    "mm-gcd": Method("both"),
    "mm-gcd-reliability": Method("both", balance="reliability"),
    "mm-gcd-no-feature": Method("both", changes={"feature_alignment": 0.0}),
    "mm-gcd-no-output": Method("both", changes={"output_alignment": 0.0}),
    "mm-gcd-neither": Method("both", changes={"feature_alignment": 0.0, "output_alignment": 0.0}),
}


def changed(config: DiscoveryConfig, changes: Mapping[str, Any]) -> DiscoveryConfig:
    """Return the config with some values changed; ValueError naming one that it does not have."""
    names = {f.name: f.type for f in dataclasses.fields(config) if f.type in ("int", "float")}
    if unknown := sorted(set(changes) - set(names)):
        raise ValueError(f"{', '.join(unknown)}: the settings are {', '.join(names)}")
    numbers: dict[str, Any] = {
        name: int(value) if names[name] == "int" else float(value) for name, value in changes.items()
    }
    return dataclasses.replace(config, **numbers)


def parse_settings(settings: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Read entries such as "simgcd-text:learning_rate=3e-3,entropy_weight=4" into method -> name -> value."""
    by_method: dict[str, dict[str, str]] = {}
    for entry in settings:
        method, _, values = entry.partition(":")
        pairs = [value.partition("=") for value in values.split(",")]
        if method not in METHODS or not all(equals and value for _, equals, value in pairs):
            raise ValueError(
                f"settings {entry!r}: write METHOD:NAME=VALUE,... with one of {', '.join(METHODS)}"
            )
        by_method.setdefault(method, {}).update((name, value) for name, _, value in pairs)
    return by_method
