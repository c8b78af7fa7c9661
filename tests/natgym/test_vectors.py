"""Gymnasium's own vectors of one-image environments: they draw what the native one draws."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import natgym  # noqa: F401  (registers the environment)

ID, N, T = "natgym/Decode-v1", 4, 2


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_gymnasiums_vectors_draw_what_the_native_one_draws(mode: AutoresetMode) -> None:
    envs = gymnasium.make_vec(ID, N, "sync", vector_kwargs={"autoreset_mode": mode}, steps=T)
    ours = gymnasium.make_vec(ID, N, steps=T, autoreset=False)
    for _ in range(2):
        envs.reset(seed=5), ours.reset(seed=5)
        for actions in np.random.default_rng(0).normal(size=(T, N, 4)).astype(np.float32):
            (*_, info), (*_, expected) = envs.step(actions), ours.step(actions)
        info = info["final_info"] if mode == AutoresetMode.SAME_STEP else info
        assert np.array_equal(info["tokens"], expected["tokens"])


def test_gymnasiums_processes() -> None:
    """Spawned, which pickles the environment's arguments; a single one, since each takes seconds to start."""
    options = {"context": "spawn", "autoreset_mode": AutoresetMode.SAME_STEP}
    envs = gymnasium.make_vec(ID, 1, "async", vector_kwargs=options, steps=1)
    envs.reset(seed=5)
    *_, info = envs.step(np.zeros((1, 4), np.float32))
    envs.close()
    ours = gymnasium.make_vec(ID, 1, steps=1)
    ours.reset(seed=5)
    assert np.array_equal(info["final_info"]["tokens"], ours.step(np.zeros((1, 4)))[-1]["tokens"])
