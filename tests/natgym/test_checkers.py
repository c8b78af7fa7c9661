"""Gymnasium's and stable-baselines3's checkers over everything that changes a space."""

import itertools
import warnings
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common import env_checker

import natgym  # noqa: F401  (registers the environment)

SPACES: dict[str, list[Any]] = {
    "observation": ["features", "pooled", "tokens"],
    "dtype": ["float32", "float16"],
    "smoothing": [0.0, 0.8],
    "parameters": [("mask_ratio",), ("mask_ratio", "guidance_scale")],
    "actions": ["default", "paper", "paper-no-residual"],
}
KNOWN = (
    "minimum value is -infinity",  # features have no bounds
    "maximum value is infinity",
    "symmetric and normalized",  # actions are pre-activations around zero
    "features has an unconventional shape",  # (L, D)
)


# A third of all combinations: any values of two settings meet, and of nearly any three.
CHOSEN = [
    {name: SPACES[name][place] for name, place in zip(SPACES, places, strict=True)}
    for places in itertools.product(*(range(len(values)) for values in SPACES.values()))
    if sum(places) % 3 == 0
]


def test_all_values_of_two_settings_meet() -> None:
    for one, other in itertools.combinations(SPACES, 2):
        met = {(str(chosen[one]), str(chosen[other])) for chosen in CHOSEN}
        assert len(met) == len(SPACES[one]) * len(SPACES[other]), (one, other)


@pytest.mark.parametrize("arguments", CHOSEN, ids=str)
def test_both_checkers_pass(arguments: dict[str, Any]) -> None:
    env = gymnasium.make("natgym/Decode-v1", steps=2, **arguments).unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
        env_checker.check_env(env)
    said = [str(warning.message) for warning in caught]
    assert not [message for message in said if not any(known in message for known in KNOWN)]
