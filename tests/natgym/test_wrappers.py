"""Gymnasium's vector wrappers on the vector environment: which work, and why the others don't."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.wrappers import vector
from gymnasiums import KNOWS_SAME_STEP, MISCOUNTS

import natgym  # noqa: F401  (registers the environment)
from rounding import assert_rounded

N, T = 3, 2
HIGH = np.array([3.0, 5.0, 3.5, 3.5], np.float32)  # of the box

# Wrapper -> how it is put on, and what it does to the actions that reach the environment and to the rewards.
WORKING: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "ClipAction": (vector.ClipAction, lambda a: a.clip(-HIGH, HIGH), lambda r: r),
    "RescaleAction": (lambda env: vector.RescaleAction(env, -1, 1), lambda a: HIGH * a, lambda r: r),
    "TransformAction": (
        lambda env: vector.TransformAction(env, lambda a: a / 2),
        lambda a: a / 2,
        lambda r: r,
    ),
    "VectorizeTransformAction": (
        lambda env: vector.VectorizeTransformAction(env, wrappers.ClipAction),
        lambda a: a.clip(-HIGH, HIGH),
        lambda r: r,
    ),
    "ClipReward": (lambda env: vector.ClipReward(env, -1, -0.5), lambda a: a, lambda r: r.clip(-1, -0.5)),
    "TransformReward": (
        lambda env: vector.TransformReward(env, lambda r: r - 1),
        lambda a: a,
        lambda r: r - 1,
    ),
    "VectorizeTransformReward": (
        lambda env: vector.VectorizeTransformReward(env, wrappers.TransformReward, func=lambda r: r - 1),
        lambda a: a,
        lambda r: r - 1,
    ),
    "RecordEpisodeStatistics": (vector.RecordEpisodeStatistics, lambda a: a, lambda r: r),
    "DictInfoToList": (vector.DictInfoToList, lambda a: a, lambda r: r),
}
SCALED = "NormalizeReward"  # its rewards depend on its own running statistics
SAME_STEP = "refuses AutoresetMode.SAME_STEP: no observation of its own follows the last step"
LIBRARY = "needs a library that natgym does not depend on"
NOT_WORKING = {
    **dict.fromkeys(
        ("VectorizeTransformObservation", "TransformObservation", "FilterObservation"), SAME_STEP
    ),
    **dict.fromkeys(("FlattenObservation", "GrayscaleObservation", "ResizeObservation"), SAME_STEP),
    **dict.fromkeys(("ReshapeObservation", "RescaleObservation", "DtypeObservation"), SAME_STEP),
    "NormalizeObservation": SAME_STEP,
    "RecordVideo": f"{LIBRARY} (moviepy), and misses the finished image; see natgym.env.recorder",
    "HumanRendering": f"{LIBRARY} (pygame)",
    **dict.fromkeys(("ArrayConversion", "JaxToNumpy", "JaxToTorch", "NumpyToTorch"), LIBRARY),
}


def make(**options: Any) -> Any:
    return gymnasium.make_vec("natgym/Decode-v1", num_envs=N, steps=T, render_mode="rgb_array", **options)


def test_every_wrapper_of_gymnasium_is_accounted_for() -> None:
    known = {*WORKING, SCALED, *NOT_WORKING}
    assert set(vector.__all__) == known if KNOWS_SAME_STEP else set(vector.__all__) <= known


@pytest.mark.parametrize("name", WORKING)
def test_a_wrapper_does_what_it_says_across_the_autoreset(name: str) -> None:
    if name == "RecordEpisodeStatistics" and not KNOWS_SAME_STEP:
        pytest.skip(MISCOUNTS)
    wrap, moved, rewarded = WORKING[name]
    wrapped, plain = wrap(make()), make()
    wrapped.reset(seed=4), plain.reset(seed=4)
    for actions in np.random.default_rng(0).normal(size=(2 * T, N, 4)).astype(np.float32):
        actions = actions / 10 if name == "RescaleAction" else 4 * actions
        observation, rewards, ended, _, info = wrapped.step(actions)
        expected = plain.step(moved(actions))
        assert_rounded(rewards, rewarded(expected[1]))
        assert ended.tolist() == expected[2].tolist()
        for key, values in expected[0].items():
            assert_rounded(observation[key], values)
        ratios = [row["mask_ratio"] for row in info] if isinstance(info, list) else info["mask_ratio"]
        assert_rounded(ratios, expected[-1]["mask_ratio"])
    if name == "RecordEpisodeStatistics":
        assert_rounded(info["episode"]["r"], rewards)
        assert info["episode"]["l"].tolist() == [T] * N


def test_rewards_may_be_normalised() -> None:
    how = {"reward": "feature-distance"}  # is never 0
    wrapped, plain = vector.NormalizeReward(make(**how)), make(**how)
    wrapped.reset(seed=4), plain.reset(seed=4)
    scales = []
    for actions in np.random.default_rng(0).normal(size=(20 * T, N, 4)).astype(np.float32):
        rewards, expected = wrapped.step(actions)[1], plain.step(actions)[1]
        scale = rewards / np.where(expected, expected, 1)
        assert np.ptp(scale) == pytest.approx(0, abs=1e-6), "one scale for all rows"
        scales.append(scale[0])
    assert scales[-1] != scales[T - 1] > 0


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda env: vector.TransformObservation(env, lambda seen: seen), "SAME_STEP"),
        (lambda env: vector.FilterObservation(env, ["step"]), "SAME_STEP"),
        (vector.FlattenObservation, "SAME_STEP"),
        (vector.NormalizeObservation, "SAME_STEP"),
    ],
)
def test_what_refuses_says_why(wrap: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) if KNOWS_SAME_STEP else pytest.raises(AssertionError):
        wrap(make())
