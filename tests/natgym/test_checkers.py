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


@pytest.mark.parametrize(
    "arguments",
    [dict(zip(SPACES, values, strict=True)) for values in itertools.product(*SPACES.values())],
    ids=str,
)
def test_both_checkers_pass(arguments: dict[str, Any]) -> None:
    env = gymnasium.make("natgym/Decode-v1", steps=2, **arguments).unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
        env_checker.check_env(env)
    said = [str(warning.message) for warning in caught]
    assert not [message for message in said if not any(known in message for known in KNOWN)]
