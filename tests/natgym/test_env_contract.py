"""The environment's contract: arrays stay the caller's, rewards are checked, processes work."""

import copy
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from packaging.version import Version
from torch import Tensor

import natgym
from generators.conditions import Condition, Labels
from generators.schedules import PARAMETERS
from natgym.env.vector import DecodeVectorEnv
from natgym.rewards import DistanceReward, InfluenceReward, WeightedSum, make_reward

ID, N, T = "natgym/Decode-v1", 3, 2


def vector(num_envs: int = N, **arguments: Any) -> Any:
    return gymnasium.make_vec(ID, num_envs=num_envs, **({"steps": T} | arguments))


def single(**arguments: Any) -> Any:
    return gymnasium.make(ID, **({"steps": T} | arguments)).unwrapped


def brightness(images_BCHW: Tensor, condition: Condition) -> Tensor:
    return images_BCHW.mean((1, 2, 3))


def some_actions(steps: int = T, rows: int = N) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(steps, rows, 4)).astype(np.float32)


def test_both_forms_say_how_many_steps_an_episode_has() -> None:
    assert vector().steps == single().steps == T


def test_an_action_that_is_not_finite_is_named() -> None:
    env, action = vector(), np.zeros((N, 4))
    env.reset(seed=0)
    action[1, 2] = np.nan
    with pytest.raises(ValueError, match=re.escape("action [0.0, 0.0, nan, 0.0] of row 1: give finite")):
        env.step(action)


ASYNC = """
import os, gymnasium, natgym, torch
def threads():
    return len(os.listdir("/proc/self/task"))
if __name__ == "__main__":
    before = threads()
    for number, reward in enumerate(("classifier", "feature-distance", "classifier")):
        if number == 2:
            torch.rand(10**6).exp()  # by several threads
        print(threads() > before)
        envs = gymnasium.make_vec("natgym/Decode-v1", 2, "async", steps=1, reward=reward)
        envs.reset(seed=0)
        print(envs.step(0 * envs.action_space.sample())[1].shape)
        envs.close()
"""


def test_worker_processes_of_gymnasium_start_whatever_the_number_of_threads() -> None:
    """Making an environment leaves none behind; nor do workers wait for those that there are."""
    command = [sys.executable, "-c", ASYNC]
    environment = os.environ | {"OMP_NUM_THREADS": "4"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    several = Version(torch.__version__) >= Version("2.14")  # threads for so few numbers
    assert done.stdout.split() == ["False", "(2,)", "False", "(2,)", str(several), "(2,)"], done.stderr


def test_the_default_reward_needs_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natgym.task.open_split", lambda *_: pytest.fail("data were loaded"))
    single().reset(seed=0)


@pytest.mark.parametrize("as_array", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_array_of_actions_may_be_used_again(as_array: Callable[[Any], Any], dtype: Any) -> None:
    def played(reused: bool) -> list[list[float]]:
        env, ratios = vector(steps=3, smoothing=0.5), []
        env.reset(seed=0)
        actions = as_array(np.ones((N, 4), dtype))
        for _ in range(3):
            ratios.append(env.step(actions)[-1]["mask_ratio"].tolist())
            actions = actions if reused else as_array(np.zeros((N, 4), dtype))
            actions[:] = 0
        return ratios

    assert played(reused=True) == played(reused=False)


def test_conditions_of_the_caller_may_be_changed() -> None:
    pool, chosen = torch.tensor([3, 1, 8]), torch.tensor([7, 7, 0])
    env = vector(conditions=Labels(pool, 10))
    pool.fill_(5)
    env.reset(seed=0)
    assert env.state.condition.ids_B.tolist() == [3, 1, 8]
    env.reset(seed=0, options={"condition": Labels(chosen, 10)})
    chosen.fill_(5)
    assert env.state.condition.ids_B.tolist() == [7, 7, 0]


@pytest.mark.parametrize("autoreset", [True, False])
def test_nothing_of_the_environment_is_handed_out(autoreset: bool) -> None:
    def played(spoil: bool) -> list[Any]:
        env, seen = vector(autoreset=autoreset, observation="tokens", smoothing=0.5), []
        env.reset(seed=0)
        for actions in some_actions():
            observation, rewards, *_, info = env.step(actions)
            seen += [rewards.tolist(), info["mask_ratio"].tolist()]
            for array in [*observation.values(), rewards, *info.values()] if spoil else []:
                if not isinstance(array, dict) and array.dtype != object:
                    array[:] = 1
        return [seen, env.finished.ids_BL.tolist(), env.finished.nfe_B.tolist(), env.images.tolist()]

    assert played(spoil=True) == played(spoil=False)


def test_arrays_of_info_are_numpy_contiguous_and_of_their_own() -> None:
    env = vector()
    env.reset(seed=0)
    for actions in some_actions():
        info = env.step(actions)[-1]
    final = info.pop("final_info")
    for array in [*info.values(), *final.values()]:
        assert isinstance(array, np.ndarray) and array.flags.c_contiguous and array.flags.writeable
    for key in (*PARAMETERS, "tokens", "images", "nfe"):
        assert info[f"_{key}"].tolist() == [True] * N and len(info[key]) == N
        assert not np.shares_memory(info[key], final[key])


@pytest.mark.parametrize(
    "reward",
    [
        lambda images, condition: brightness(images, condition).numpy(),
        lambda images, condition: brightness(images, condition).tolist(),
        lambda images, condition: [float(image.mean()) for image in images],
        lambda images, condition: brightness(images, condition).requires_grad_(),
        lambda images, condition: brightness(images, condition).bfloat16(),
    ],
)
def test_rewards_may_be_arrays_and_lists(reward: Any) -> None:
    for env, actions in (
        (vector(reward=reward), some_actions()),
        (single(reward=reward), some_actions()[:, 0]),
    ):
        env.reset(seed=0)
        for action in actions:
            _, found, *_, info = env.step(action)
        expected = info["images"].reshape(np.size(found), -1).mean(1)
        np.testing.assert_allclose(np.reshape(found, -1), expected, rtol=1e-2)
        assert np.asarray(found).dtype == np.float64


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (lambda images, _: images.mean((1, 2, 3))[:, None], "the reward has shape (3, 1)"),
        (lambda images, _: images.mean((1, 2, 3))[:2], "the reward has shape (2,)"),
        (lambda images, _: 0.5, "the reward has shape ()"),
        (lambda images, _: torch.tensor([0, torch.nan, 0]), "the reward of row 1 is nan"),
        (lambda images, _: torch.tensor([0, 0, torch.inf]), "the reward of row 2 is inf"),
        (lambda images, _: None, "the reward is a NoneType"),
        (lambda images, _: ["good"] * 3, "the reward is a list"),
        (lambda images, _: [[1.0], [1.0, 2.0]], "the reward is a list"),
        (lambda images, _: torch.zeros(3, dtype=torch.complex64), "the reward is torch.complex64"),
    ],
)
def test_a_wrong_reward_is_told_in_one_line(reward: Any, said: str) -> None:
    env = vector(steps=1, reward=reward)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        env.step(np.zeros((N, 4)))
    assert "\n" not in str(caught.value) and "return one finite number per image, shape (3,)" in str(
        caught.value
    )


@pytest.mark.parametrize("reward", ["influence", "distance", {"classifier": 1.0, "influence": 0.5}])
@pytest.mark.parametrize("make", [single, lambda **arguments: vector(1, **arguments)])
def test_a_reward_that_compares_images_needs_two_rows(make: Any, reward: Any) -> None:
    with pytest.raises(ValueError, match="compares images and num_envs is 1: use make_vec"):
        make(reward=reward)
    vector(2, reward=reward)
    assert DistanceReward.needs_batch and InfluenceReward.needs_batch
    assert not WeightedSum([(brightness, 1.0)]).needs_batch
    nested = WeightedSum([(make_reward(reward, "digits"), 1.0)])
    assert nested.needs_batch and WeightedSum([(nested, 2.0), (brightness, 1.0)]).needs_batch


def test_resets_without_a_seed_take_every_condition_in_turn() -> None:
    env, seen = single(), []
    for reset in range(20):
        env.reset(seed=7 if reset == 0 else None)
        seen += env.rows.state.condition.ids_B.tolist()
    assert seen == [(7 + i) % 10 for i in range(20)]
    env = single()
    drawn = [env.reset() and env.rows.state.condition.ids_B.item() for _ in range(10)]
    assert sorted(drawn) == list(range(10)), "without any seed, too"


def test_a_reset_draws_what_an_autoreset_draws() -> None:
    def last_tokens(env: Any, **reset: Any) -> Any:
        for actions in some_actions():
            info = env.step(actions)[-1]
        return info["tokens"].tolist()

    by_itself, by_hand, alone = vector(), vector(autoreset=False), single()
    by_itself.reset(seed=3)
    for episode in range(3):
        by_hand.reset(seed=3 if episode == 0 else None)
        alone.reset(seed=3 if episode == 0 else None)
        assert last_tokens(by_itself) == last_tokens(by_hand)
        for action in some_actions()[:, 0]:
            alone.step(action)
        classes = by_hand.state.condition.ids_B
        assert classes.tolist() == [(3 + N * episode + i) % 10 for i in range(N)]
        first = alone.rows.parts.noise.row_seeds_B
        assert first.tolist() == by_hand.parts.noise.row_seeds_B[:1].tolist()


@pytest.mark.parametrize("through", [pickle, cloudpickle, copy])
@pytest.mark.parametrize("make", [vector, single])
@pytest.mark.parametrize("arguments", [{}, {"actions": "paper", "smoothing": 0.5, "first_pass_bytes": 2**20}])
def test_an_environment_goes_on_elsewhere(through: Any, make: Any, arguments: dict[str, Any]) -> None:
    env, actions = make(**arguments), some_actions() if make is vector else some_actions()[:, 0]
    env.reset(seed=0)
    twin = copy.deepcopy(env) if through is copy else through.loads(through.dumps(env))
    for action in actions:
        (*_, info), (*_, expected) = twin.step(action), env.step(action)
        assert np.array_equal(info["mask_ratio"], expected["mask_ratio"])
    assert np.array_equal(info["tokens"], expected["tokens"])
    inner = twin if make is vector else twin.rows
    assert inner.action_map._starts == (env if make is vector else env.rows).action_map._starts


def torch_state() -> Any:
    return (
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


def half() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("around", [torch.enable_grad, torch.no_grad, torch.inference_mode, half])
def test_torchs_global_state_is_left_alone_and_changes_nothing(around: Any) -> None:
    def played() -> Any:
        env = vector(smoothing=0.5, first_pass_bytes=2**20, reward="feature-distance")
        seen = [env.reset(seed=0)[0]]
        for actions in some_actions():
            observation, rewards, *_ = env.step(actions)
            seen.append(observation)
        return [{key: values.tolist() for key, values in one.items()} for one in seen], rewards.tolist(), env

    expected_seen, expected, _ = played()
    numpy_state = np.random.get_state()[1].tolist()
    torch.set_default_dtype(torch.float64)
    try:
        with around():
            before = torch_state()
            seen, rewards, env = played()
            assert torch_state() == before
            observation = {key: values.numpy() for key, values in env.reset(seed=0)[0].items()}
            assert env.observation_space.contains(observation)
    finally:
        torch.set_default_dtype(torch.float32)
    assert seen == expected_seen and rewards == pytest.approx(expected)
    assert np.random.get_state()[1].tolist() == numpy_state


@pytest.mark.filterwarnings("ignore:.*out of date")
def test_the_old_id_says_what_to_use() -> None:
    for make in (gymnasium.make, gymnasium.make_vec):
        with pytest.raises(gymnasium.error.DeprecatedEnv, match="use `natgym/Decode-v1` instead"):
            make("natgym/Decode-v0")
    gymnasium.register_envs(natgym)
    assert gymnasium.make(f"natgym:{ID}").unwrapped.spec.id == ID


def test_arguments_of_make_vec_are_refused_by_make() -> None:
    with pytest.raises(ValueError, match="arguments of make_vec"):
        single(autoreset=True)
    with pytest.raises(ValueError, match="arguments of make_vec"):
        single(num_envs=4)


@pytest.mark.parametrize("make", [single, vector])
def test_public_words(make: Any) -> None:
    kind = type(make())
    texts = [kind.__doc__, *(vars(kind)[name].__doc__ or "" for name in ("reset", "step", "render"))]
    assert "picture" not in " ".join(texts).lower()
    assert issubclass(kind, DecodeVectorEnv | gymnasium.Env)
