"""Autoreset as Gymnasium's vector environments do it, and what its own wrappers make of it."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from gymnasiums import KNOWS_SAME_STEP, MISCOUNTS

import natgym  # noqa: F401  (registers the environment)

ID, N, T = "natgym/Decode-v1", 3, 2


def native(**arguments: Any) -> Any:
    return gymnasium.make_vec(ID, num_envs=N, **({"steps": T} | arguments))


def gymnasiums(mode: AutoresetMode, **arguments: Any) -> Any:
    """Gymnasium's vector of one-image environments."""
    options = {"autoreset_mode": mode}
    return gymnasium.make_vec(ID, N, "sync", vector_kwargs=options, **({"steps": T} | arguments))


def some_actions(steps: int = 2 * T) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(steps, N, 4)).astype(np.float32)


def assert_same(found: Any, expected: Any) -> None:
    """Compare nested infos of tensors and arrays."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, np.ndarray) and expected.dtype.hasobject:
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        np.testing.assert_allclose(np.asarray(found), expected, atol=1e-4)


@pytest.mark.parametrize("arguments", [{}, {"observation": "tokens", "smoothing": 0.5}, {"steps": 1}])
def test_same_step_is_gymnasiums(arguments: dict[str, Any]) -> None:
    ours, theirs = native(**arguments), gymnasiums(AutoresetMode.SAME_STEP, **arguments)
    assert ours.metadata["autoreset_mode"] == ours.autoreset_mode == AutoresetMode.SAME_STEP
    ours.reset(seed=0), theirs.reset(seed=0)
    steps = arguments.get("steps", T)
    for step, actions in enumerate(some_actions(steps)):
        (observation, *found, info), (_, *expected, other) = ours.step(actions), theirs.step(actions)
        for one, two in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-4)
        if step + 1 < steps:
            assert_same(info, other)
    for key in ("final_info", "_final_info", "final_obs", "_final_obs"):
        assert_same(info[key], other[key])
    assert not observation["step"].any() and info["final_obs"][0]["step"].tolist() == [steps]


def test_the_end_also_stands_where_it_stands_without_autoreset() -> None:
    by_itself, by_hand = native(), native(autoreset=False)
    by_itself.reset(seed=0), by_hand.reset(seed=0)
    for actions in some_actions(T):
        found, expected = by_itself.step(actions), by_hand.step(actions)
    assert set(found[-1]) - set(expected[-1]) == {"final_info", "_final_info", "final_obs", "_final_obs"}
    assert_same({key: found[-1][key] for key in expected[-1]}, expected[-1])
    for row in range(N):
        assert_same(found[-1]["final_obs"][row], {key: v[row].numpy() for key, v in expected[0].items()})


def test_a_final_observation_is_the_callers_own() -> None:
    env = native()
    env.reset(seed=0)
    for actions in some_actions(T):
        observation, *_, info = env.step(actions)
    for values in info["final_obs"][0].values():
        values.fill_(77)
    assert not any((values == 77).any() for values in info["final_obs"][1].values())
    assert not any((values == 77).any() for values in observation.values())


def test_resetting_by_a_mask_is_gymnasiums() -> None:
    ours, theirs = native(autoreset=False), gymnasiums(AutoresetMode.DISABLED)
    assert ours.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    ours.reset(seed=0), theirs.reset(seed=0)
    for _ in range(2):
        for actions in some_actions(T):
            (_, _, ended, _, info), (*_, expected) = ours.step(actions), theirs.step(actions)
            assert_same(info, expected)
        options = {"reset_mask": ended}
        found, _ = ours.reset(seed=5, options=options)
        assert options == {"reset_mask": ended}, "the caller's options are left alone"
        assert_same(
            {key: values.numpy() for key, values in found.items()}, theirs.reset(seed=5, options=options)[0]
        )


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.array([True, False, True]), "reset_mask has 2 of 3 rows: rows begin and end together"),
        (np.array([False] * N), "reset_mask has 0 of 3 rows"),
        (np.array([True] * (N + 1)), r"reset_mask is bool \(4,\); give bool \(3,\)"),
        (np.ones(N), r"reset_mask is float64 \(3,\); give bool \(3,\)"),
    ],
)
def test_another_mask_is_refused_and_changes_nothing(mask: np.ndarray, said: str) -> None:
    env = native(autoreset=False)
    env.reset(seed=0)
    state = env.state
    with pytest.raises(ValueError, match=said):
        env.reset(options={"reset_mask": mask})
    assert env.state is state
    env.reset(options={"reset_mask": torch.ones(N, dtype=torch.bool)})


@pytest.mark.parametrize("autoreset", [True, False])
def test_gymnasiums_list_of_infos(autoreset: bool) -> None:
    env, plain = DictInfoToList(native(autoreset=autoreset)), native(autoreset=autoreset)
    assert env.reset(seed=0)[1] == [{}] * N
    plain.reset(seed=0)
    for actions in some_actions(T):
        infos, info = env.step(actions)[-1], plain.step(actions)[-1]
    for row, one in enumerate(infos):
        assert np.array_equal(one["tokens"], info["tokens"][row])
        assert one["mask_ratio"] == info["mask_ratio"][row] and not any(key.startswith("_") for key in one)
        if autoreset:
            assert np.array_equal(one["final_info"]["images"], info["images"][row])
            assert one["final_obs"].keys() == info["final_obs"][row].keys()


@pytest.mark.parametrize("autoreset", [True, False])
def test_gymnasiums_episode_statistics(autoreset: bool) -> None:
    if autoreset and not KNOWS_SAME_STEP:
        pytest.skip(MISCOUNTS)
    env = RecordEpisodeStatistics(native(autoreset=autoreset))
    env.reset(seed=0)
    returns = []
    for _ in range(3):
        for actions in some_actions(T):
            _, rewards, ended, _, info = env.step(actions)
        np.testing.assert_allclose(info["episode"]["r"], rewards)
        assert info["episode"]["l"].tolist() == [T] * N and info["_episode"].all()
        returns += rewards.tolist()
        if not autoreset:
            env.reset(options={"reset_mask": ended})
    assert env.episode_count == 3 * N
    np.testing.assert_allclose(sorted(env.return_queue), sorted(returns))
