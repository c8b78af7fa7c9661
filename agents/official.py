"""Official policy files of AdaNAT (arXiv 2409.00342) and AdaGen (arXiv 2603.06993) as actors.

Neither says how many steps its policy decodes in, nor how its actions are mapped: AdaNAT's ImageNet policy
has no residual, its text policy and AdaGen's have the hand-made schedule, and AdaGen smooths actions without
showing the network the one before. What is not given is the papers'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from agents.adanat.actor import Actor, ActorConfig, ActorNetwork
from generators.formats import Format, Given, Shapes
from generators.schedules import reference
from generators.weights import Converted
from natgym.spaces import Preset

NETWORK_KEYS = {
    "x_embedder.": "trunk.embed.",
    "t_embedder.mlp.0.": "trunk.step.fc1.",
    "t_embedder.mlp.2.": "trunk.step.fc2.",
    "adaLN1.adaLN_modulation.1.": "trunk.norm1.modulation.",
    "dw_conv.": "trunk.depthwise.",
    "pw_conv.": "trunk.pointwise.",
    "linear1.": "trunk.fc1.",
    "adaLN2.adaLN_modulation.1.": "trunk.norm2.modulation.",
    "linear2.": "trunk.fc2.",
    "adaLN3.adaLN_modulation.1.": "trunk.norm3.modulation.",
    "linear3.": "head.",
}
OPTIONS = ("grid", "steps", "actions", "smoothing")
TEXT_WIDTH = 1152  # of the features that AdaNAT's text policy reads
SMOOTHING = 0.8


def _config(shapes: Shapes, **options: Any) -> ActorConfig:
    """Infer the widths; `options` are the other fields."""
    width, channels = (shapes[f"trunk.{name}.weight"][0] for name in ("depthwise", "pointwise"))
    widths: dict[str, Any] = {
        "width": width,
        "channels": channels,
        "hidden": (shapes["trunk.fc1.weight"][0], shapes["trunk.fc2.weight"][0]),
        "frequencies": shapes["trunk.step.fc1.weight"][1],
    }
    side = 2 * math.isqrt(shapes["trunk.fc1.weight"][1] // channels)
    # Features as wide as the network are not embedded.
    features_width = shapes.get("trunk.embed.weight", (0, width))[1]
    fields: dict[str, Any] = {"grid": (side, side), "features_width": features_width, **options}
    if fields["actions"] not in get_args(Preset):
        raise ValueError(f"actions {fields['actions']!r} is not one of {', '.join(get_args(Preset))}")
    if fields["steps"] < 1 or not 0 <= fields["smoothing"] < 1:
        raise ValueError(
            f"steps {fields['steps']}, smoothing {fields['smoothing']}: steps are at least 1, "
            "smoothing is in [0, 1)"
        )
    fields["rules"] = "adanat"  # the official step may reveal nothing
    return ActorConfig(policy=widths, schedule_name="reference", sees_previous=False, **fields)


def _adanat_config(shapes: Shapes, given: Given) -> ActorConfig:
    text = shapes.get("trunk.embed.weight", (0, 0))[1] == TEXT_WIDTH
    usual: dict[str, Any] = {
        "steps": 8,
        "actions": "paper" if text else "paper-no-residual",
        "smoothing": 0.0,
    }
    return _config(shapes, **{**usual, **given})


def _adagen_config(shapes: Shapes, given: Given) -> ActorConfig:
    usual: dict[str, Any] = {"steps": 16, "actions": "paper", "smoothing": SMOOTHING}
    return _config(shapes, **{**usual, **given})


ADANAT_POLICY = Format(
    "AdaNAT policy",
    {f"policy_old.actor.{theirs}": ours for theirs, ours in NETWORK_KEYS.items()},
    ActorNetwork,
    _adanat_config,
    ignored={
        "policy.actor.": "the copy in training; policy_old acts, and is the same after each iteration",
        ".critic.": "expects returns, which playing does not need",
    },
    options=OPTIONS,
)
ADAGEN_POLICY = Format("AdaGen policy", NETWORK_KEYS, ActorNetwork, _adagen_config, {}, OPTIONS)
POLICY_FORMATS: Mapping[str, Format] = {form.name: form for form in (ADANAT_POLICY, ADAGEN_POLICY)}


def actor_from(converted: Converted) -> Actor:
    """Return the actor of a converted policy, around the paper's hand-made schedule."""
    actor = Actor(converted.config)
    schedule = {"schedule": reference(converted.config.steps).table_T4}
    actor.load_state_dict(converted.weights | schedule)
    return actor.eval().requires_grad_(False)
