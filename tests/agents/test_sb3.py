"""The bridge to stable-baselines3: same training as the stock buffer, exact updates, small checkpoints."""

import itertools
import json
import statistics
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer
from torch import Tensor

import natgym  # noqa: F401  (registers the environment)
from agents.adanat.network import AdaNATPolicy, PolicyConfig
from agents.buffer import TensorRolloutBuffer, group_advantages
from agents.sb3 import PPO, SB3VecEnv
from rounding import assert_rounded

T, N = 3, 8
TINY = PolicyConfig(width=16, channels=8, hidden=(16, 16), frequencies=8)


@pytest.fixture(scope="module")
def env() -> Any:
    return gymnasium.make_vec("natgym/Decode-v1", num_envs=N, steps=T, autoreset=False)


def make_ppo(env: Any, **changes: Any) -> PPO:
    """Build PPO with a policy that is somewhere, as in the middle of a training."""
    settings: dict[str, Any] = {
        "device": "cpu",
        "n_steps": T,
        "batch_size": 6,
        "n_epochs": 2,
        "gamma": 1.0,
        "gae_lambda": 1.0,
    }
    torch.manual_seed(0)
    policy_kwargs = {"config": TINY, "grid": env.generator.grid}
    ppo = PPO(AdaNATPolicy, SB3VecEnv(env), policy_kwargs=policy_kwargs, **(settings | changes))
    for parameter in ppo.policy.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    ppo.policy.log_std.data.fill_(-1.0)  # type: ignore[operator, union-attr]
    return ppo


def collect(ppo: PPO, seed: int = 3) -> Any:
    """Let PPO fill its buffer without training on it."""
    assert ppo.env is not None
    torch.manual_seed(seed)
    ppo.env.seed(seed)
    ppo._last_obs, ppo._last_episode_starts = ppo.env.reset(), np.ones(N, dtype=bool)  # type: ignore[assignment]
    ppo.collect_rollouts(ppo.env, ppo._init_callback(None), ppo.rollout_buffer, ppo.n_steps)
    return ppo.rollout_buffer


def weights(ppo: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in ppo.policy.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def filled(buffer_class: type[DictRolloutBuffer], tensors: bool) -> DictRolloutBuffer:
    """A buffer with random content of several dtypes; the same content for every class."""
    space = spaces.Dict(
        {
            "half": spaces.Box(-1, 1, (2, 3), np.float16),
            "byte": spaces.Box(0, 255, (5,), np.uint8),
            "step": spaces.Box(0, T, (1,), np.float32),
        }
    )
    buffer = buffer_class(T, space, spaces.Box(-1, 1, (4,)), gamma=0.9, gae_lambda=0.7, n_envs=N)
    rng = np.random.default_rng(0)
    for step in range(T):
        observation: dict[str, Any] = {
            "half": rng.normal(size=(N, 2, 3)).astype(np.float16),
            "byte": rng.integers(256, size=(N, 5)).astype(np.uint8),
            "step": np.full((N, 1), step, np.float32),
        }
        if tensors:
            observation = {key: torch.from_numpy(value) for key, value in observation.items()}
        action, reward = rng.normal(size=(N, 4)).astype(np.float32), rng.normal(size=N).astype(np.float32)
        value, log_prob = (torch.from_numpy(rng.normal(size=N).astype(np.float32)) for _ in range(2))
        buffer.add(observation, action, reward, np.full(N, step == 0), value[:, None], log_prob)
    buffer.compute_returns_and_advantage(torch.ones(N, 1), np.zeros(N))
    return buffer


def test_every_sample_is_that_of_the_stock_buffer() -> None:
    """Index by index, each entry of a sample stays with its observation."""
    ours, stock = filled(TensorRolloutBuffer, tensors=True), filled(DictRolloutBuffer, tensors=False)
    assert ours.full and stock.full
    raw = {key: value.clone() for key, value in ours.observations.items()}
    next(ours.get(5)), next(stock.get(5))  # flattens the scalars
    for index in range(T * N):
        found, expected = (buffer._get_samples(np.array([index])) for buffer in (ours, stock))
        row, step = divmod(index, T)
        for key, value in found.observations.items():
            assert torch.equal(value, expected.observations[key])
            assert torch.equal(value[0], raw[key][step, row]) and value.dtype == raw[key].dtype
        for name in ("actions", "old_values", "old_log_prob", "advantages", "returns"):
            one, other = getattr(found, name), getattr(expected, name)
            assert torch.equal(one, other) and one.dtype == other.dtype, name


def test_every_epoch_sees_every_sample_once_in_another_order() -> None:
    buffer = filled(TensorRolloutBuffer, tensors=True)
    torch.manual_seed(0)
    epochs = [list(buffer.get(10)) for _ in range(2)]
    assert [len(batch.actions) for batch in epochs[0]] == [10, 10, 4]
    one, other = (torch.cat([batch.old_log_prob for batch in epoch]) for epoch in epochs)
    assert torch.equal(one.sort().values, other.sort().values) and not torch.equal(one, other)
    assert len(next(buffer.get(None)).actions) == T * N


def test_training_is_that_of_the_stock_buffer(env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same minibatches in the same order give the same weights, bit for bit."""
    trained = []
    for stock in (False, True):
        ppo = make_ppo(env)
        ours, before = collect(ppo), weights(ppo)
        if stock:
            buffer = DictRolloutBuffer(
                T, ppo.observation_space, ppo.action_space, gamma=1.0, gae_lambda=1.0, n_envs=N
            )
            buffer.observations = {key: value.numpy() for key, value in ours.observations.items()}
            for name in ("actions", "values", "log_probs", "advantages", "returns"):
                setattr(buffer, name, getattr(ours, name))
            buffer.full, ppo.rollout_buffer = True, buffer
            monkeypatch.setattr(np.random, "permutation", lambda n: torch.randperm(n).numpy())
        torch.manual_seed(5)
        ppo.train()
        trained.append(weights(ppo))
        assert not same(before, trained[-1])
    assert same(*trained)


def test_the_buffer_is_allocated_once(env: Any) -> None:
    ppo = make_ppo(env)
    places = {key: value.data_ptr() for key, value in collect(ppo).observations.items()}
    first = ppo.rollout_buffer.observations["features"].clone()
    second = collect(ppo, seed=4).observations
    assert {key: value.data_ptr() for key, value in second.items()} == places
    assert not torch.equal(second["features"], first)


def test_every_step_returns_the_final_reward(env: Any) -> None:
    """gamma = lambda = 1, and nothing is added for what comes after the end."""
    buffer = collect(make_ppo(env))
    assert not buffer.rewards[:-1].any() and buffer.rewards[-1].std() > 0 and np.abs(buffer.values).min() > 0
    assert_rounded(buffer.returns, np.broadcast_to(buffer.rewards[-1], (T, N)))
    assert_rounded(buffer.advantages, buffer.rewards[-1] - buffer.values)


def test_normalised_returns_by_hand(env: Any) -> None:
    """Mean and unbiased deviation over all steps and rows, before the values are taken off."""
    plain = collect(make_ppo(env))
    buffer = collect(make_ppo(env, rollout_buffer_kwargs={"normalize_returns": True}))
    final = [float(reward) for reward in buffer.rewards[-1]]
    mean = sum(final) / N
    deviation = (T * sum((reward - mean) ** 2 for reward in final) / (T * N - 1)) ** 0.5
    for row in range(N):
        expected = (final[row] - mean) / (deviation + 1e-7)
        assert_rounded(buffer.returns[:, row], expected)
        assert_rounded(buffer.advantages[:, row], expected - buffer.values[:, row])
    assert np.abs(plain.returns - buffer.returns).max() > 0.1


def test_advantages_over_a_group_by_hand() -> None:
    returns_TB = np.array([[1.0, 3.0, 8.0, 0.5, 0.5, 0.5], [2.0, 2.0, 5.0, 1.0, 0.0, 2.0]], np.float32)
    rloo, grpo = group_advantages(returns_TB, 3, "rloo"), group_advantages(returns_TB, 3, "grpo")
    for step, row in itertools.product(range(2), range(6)):
        group = returns_TB[step, row // 3 * 3 : row // 3 * 3 + 3].astype(float).tolist()
        others = group[: row % 3] + group[row % 3 + 1 :]
        assert_rounded(rloo[step, row], group[row % 3] - sum(others) / 2)
        spread = statistics.stdev(group)
        expected = (group[row % 3] - statistics.mean(group)) / spread if spread else 0.0
        assert_rounded(grpo[step, row], expected)
    assert not rloo[0, 3:].any() and not grpo[0, 3:].any(), "equal rewards have no gradient"


def test_equal_rewards_have_no_gradient_whatever_their_rounding() -> None:
    returns_TB = np.full((2, 21), 0.1, np.float32)  # a mean of three or seven tenths is not a tenth
    baselines: tuple[Any, ...] = ("rloo", "grpo")
    for group, baseline in itertools.product((3, 7), baselines):
        advantages = group_advantages(returns_TB, group, baseline)
        assert np.abs(advantages).max() < 1e-7, baseline
    assert not group_advantages(returns_TB, 3, "grpo").any()


@pytest.mark.parametrize("baseline", ["rloo", "grpo"])
def test_a_rollout_compares_the_rows_of_its_groups(env: Any, baseline: Any) -> None:
    options = {"normalize_returns": True, "baseline": baseline, "group": 2}
    buffer = collect(make_ppo(env.like(group=2), rollout_buffer_kwargs=options))
    assert_rounded(buffer.advantages, group_advantages(buffer.returns, 2, baseline))
    with pytest.raises(ValueError, match="group 1 has none"):
        make_ppo(env, rollout_buffer_kwargs={"baseline": baseline})


def test_an_update_is_a_function_of_weights_and_seed(env: Any) -> None:
    one, two, other = make_ppo(env), make_ppo(env), make_ppo(env)
    metrics = one.update(11)
    torch.rand(7), np.random.rand(7), env.reset(seed=5)  # what others do in between has no say
    assert two.update(11) == metrics and same(weights(one), weights(two))
    assert other.update(12) != metrics and not same(weights(one), weights(other))
    assert two.update(13) == one.update(13) and same(weights(one), weights(two))


def test_an_update_leaves_the_global_generator_alone(env: Any) -> None:
    ppo = make_ppo(env)
    before = torch.random.get_rng_state()
    ppo.update(11)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_update_reports_the_final_reward(env: Any) -> None:
    ppo = make_ppo(env)
    metrics = ppo.update(11)
    assert metrics["reward"] == pytest.approx(float(ppo.rollout_buffer.rewards[-1].mean()))
    assert {"approx_kl", "clip_fraction", "explained_variance", "value_loss"} <= metrics.keys()


def test_the_first_minibatch_has_ratio_one(env: Any) -> None:
    """The rollout's log-probabilities are those of the policy that learns from it."""
    whole = {"batch_size": T * N, "clip_range": 1e-3}
    metrics = make_ppo(env, n_epochs=1, **whole).update(1)
    assert abs(metrics["approx_kl"]) < 1e-6 and metrics["clip_fraction"] == 0
    assert make_ppo(env, n_epochs=2, **whole).update(1)["clip_fraction"] > 0, "the second has not"


def test_a_saved_model_is_small_and_goes_on_exactly(env: Any, tmp_path: Path) -> None:
    """Neither observations nor the environment, and with it the generator, get into the file."""
    ppo = make_ppo(env)
    ppo.update(1)
    ppo.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        saved = json.loads(archive.read("data"))
        assert archive.getinfo("data").file_size < 64_000
    assert not saved.keys() & {"_last_obs", "_last_episode_starts", "env", "rollout_buffer"}
    loaded = PPO.load(tmp_path / "model.zip", env=SB3VecEnv(env))
    assert same(weights(loaded), weights(ppo))
    assert loaded.update(2) == ppo.update(2) and same(weights(loaded), weights(ppo))


def test_the_adapter_gives_what_sb3_asks_for(env: Any) -> None:
    adapter = SB3VecEnv(env)
    adapter.seed(5)
    first = adapter.reset()
    direct, _ = env.reset(seed=5)
    assert all(torch.equal(first[key], direct[key]) for key in direct)
    assert adapter.get_attr("steps", indices=[0, 2]) == [T, T]
    assert adapter.env_is_wrapped(gymnasium.Wrapper) == [False] * N
    for step in range(T):
        _, rewards, dones, infos = adapter.step(np.zeros((N, 4), np.float32))
        assert rewards.dtype == np.float32 and rewards.shape == dones.shape == (N,)
        assert infos == [{}] * N and dones.all() == dones.any() == (step == T - 1)


def test_stock_ppo_learns_on_the_one_picture_environment() -> None:
    """Unmodified stable-baselines3 with its own network and buffer."""
    env = gymnasium.make("natgym/Decode-v1", steps=2)
    model = stable_baselines3.PPO(
        "MultiInputPolicy", env, n_steps=8, batch_size=8, n_epochs=1, policy_kwargs={"net_arch": [8]}, seed=0
    )
    before = weights(model)
    model.learn(16)
    assert model.num_timesteps == 16 and not same(before, weights(model))
    assert [episode["l"] for episode in model.ep_info_buffer] == [2] * 8  # type: ignore[union-attr]
