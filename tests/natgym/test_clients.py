"""Other people's agents on the environment, a few seconds each: they run, and what they see is finite."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from torch import Tensor, nn

import natgym  # noqa: F401  (registers the environment)

ID, N, T = "natgym/Decode-v1", 4, 2
TINY: dict[str, dict[str, Any]] = {
    "PPO": {"n_steps": 8, "batch_size": 8, "n_epochs": 1},
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


class Agent(nn.Module):
    """CleanRL's continuous actor and critic, on flattened observations."""

    def __init__(self, envs: Any) -> None:
        super().__init__()
        num_seen = gymnasium.spaces.flatdim(envs.single_observation_space)
        num_actions = int(np.prod(envs.single_action_space.shape))
        self.critic = nn.Sequential(nn.Linear(num_seen, 16), nn.Tanh(), nn.Linear(16, 1))
        self.mean = nn.Sequential(nn.Linear(num_seen, 16), nn.Tanh(), nn.Linear(16, num_actions))
        self.log_std = nn.Parameter(torch.zeros(1, num_actions))

    def act(self, seen: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions, their log-probabilities and the values."""
        normal = torch.distributions.Normal(self.mean(seen), self.log_std.exp().expand(len(seen), -1))
        action = normal.sample() if action is None else action
        return action, normal.log_prob(action).sum(1), self.critic(seen)[:, 0]


def flat(observation: dict[str, Any]) -> Tensor:
    parts = [torch.as_tensor(observation[key]).flatten(1).float() for key in sorted(observation)]
    return torch.cat(parts, 1)


def collect(envs: Any, agent: Agent, seen: Tensor, done: Tensor, steps: int, log: list[Any]) -> Any:
    """Return one rollout, and what is seen after it, as CleanRL's loop does."""
    rows = []
    for _ in range(steps):
        with torch.no_grad():
            action, log_prob, value = agent.act(seen)
        observation, reward, terminated, truncated, infos = envs.step(action.numpy())
        rows.append((seen, action, log_prob, torch.as_tensor(reward).float(), done, value))
        seen, done = flat(observation), torch.as_tensor(terminated | truncated).float()
        if "final_info" in infos:
            log += infos["final_info"]["nfe"][infos["_final_info"]].tolist()
    return [torch.stack(column) for column in zip(*rows, strict=True)], seen, done


def advantages(
    agent: Agent, rewards: Tensor, dones: Tensor, values: Tensor, seen: Tensor, done: Tensor
) -> Tensor:
    """Return CleanRL's generalized advantage estimates, gamma 0.99 and lambda 0.95."""
    with torch.no_grad():
        following, last, found = agent.critic(seen)[:, 0], torch.zeros(len(seen)), torch.zeros_like(rewards)
    for t in reversed(range(len(rewards))):
        alive = 1.0 - (done if t == len(rewards) - 1 else dones[t + 1])
        after = following if t == len(rewards) - 1 else values[t + 1]
        last = rewards[t] + 0.99 * after * alive - values[t] + 0.99 * 0.95 * alive * last
        found[t] = last
    return found


def learn(agent: Agent, optimizer: Any, batch: list[Tensor], gains: Tensor, returns: Tensor) -> None:
    """Take CleanRL's clipped step on a whole rollout."""
    _, log_prob, value = agent.act(batch[0], batch[1])
    ratio, gains = (log_prob - batch[2]).exp(), (gains - gains.mean()) / (gains.std() + 1e-8)
    loss = (
        torch.max(-gains * ratio, -gains * ratio.clamp(0.8, 1.2)).mean()
        + 0.25 * (value - returns).square().mean()
    )
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
    optimizer.step()


@pytest.mark.parametrize("kind", [None, "sync"])
def test_the_loop_of_cleanrl(kind: str | None) -> None:
    torch.manual_seed(0)
    vectors: Any = {"vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}} if kind else {}
    envs = gymnasium.make_vec(ID, N, kind, steps=T, observation="pooled", **vectors)
    envs = RecordEpisodeStatistics(envs)
    agent, log = Agent(envs), []
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3, eps=1e-5)
    seen, done = flat(envs.reset(seed=1)[0]), torch.zeros(N)
    for _ in range(3):
        batch, seen, done = collect(envs, agent, seen, done, 2 * T, log)
        gains = advantages(agent, *batch[3:], seen, done)
        returns = gains + batch[5]
        learn(agent, optimizer, [part.flatten(0, 1) for part in batch], gains.flatten(), returns.flatten())
    assert len(log) == len(envs.return_queue) == 6 * N and np.isfinite(envs.return_queue).all()
    assert finite(agent) and returns.isfinite().all()


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


@pytest.mark.parametrize("rows", [1, 2])
def test_torchrl(rows: int) -> None:
    pytest.importorskip("torchrl", reason="TorchRL is not installed; natgym does not depend on it")
    from tensordict.nn import TensorDictModule
    from torchrl.collectors import Collector
    from torchrl.envs import GymEnv, SerialEnv
    from torchrl.objectives.value import GAE

    def make() -> Any:
        return GymEnv(ID, steps=T, observation="pooled")

    critic = nn.Sequential(nn.Flatten(-2), nn.Linear(4 * 64, 1))
    value = TensorDictModule(critic, ["features"], ["state_value"])
    env = SerialEnv(rows, make) if rows > 1 else make()
    collector = Collector(env, frames_per_batch=8 * rows, total_frames=16 * rows)
    for batch in collector:
        estimated = GAE(gamma=0.99, lmbda=0.95, value_network=value)(batch)
        assert estimated["advantage"].isfinite().all() and estimated["next", "reward"].isfinite().all()
    collector.shutdown()
