"""Stable-baselines3 on all kinds of spaces, beside PPO in a program of its own: what it sees is finite."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import natgym  # noqa: F401  (registers the environment)

ID, T = "natgym/Decode-v1", 2
TINY: dict[str, dict[str, Any]] = {
    "A2C": {},
    "SAC": {"learning_starts": 8, "batch_size": 8, "buffer_size": 64},
}


def finite(module: Any) -> bool:
    return all(bool(weight.isfinite().all()) for weight in module.parameters())


@pytest.mark.parametrize("algorithm", TINY)
@pytest.mark.parametrize("rows", [0, 2], ids=["single", "DummyVecEnv"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"observation": "tokens", "smoothing": 0.5, "dtype": "float16"}],
    ids=["default", "tokens"],
)
def test_stable_baselines3(algorithm: str, rows: int, arguments: dict[str, Any]) -> None:
    options = {"steps": T, "observation": "pooled"} | arguments
    env: Any = make_vec_env(ID, rows, env_kwargs=options) if rows else gymnasium.make(ID, **options)
    kind = getattr(stable_baselines3, algorithm)
    model = kind("MultiInputPolicy", env, seed=0, device="cpu", **TINY[algorithm]).learn(20)
    assert model.num_timesteps >= 20 and finite(model.policy)
    reward, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=2, warn=False)
    assert np.isfinite(reward)
