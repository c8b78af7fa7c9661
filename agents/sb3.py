"""natgym's vector env under stable-baselines3: observations stay on the device, checkpoints stay small.

SB3's rollout and training loops run unchanged; what is ours is the `VecEnv` adapter, the rollout buffer whose
observations are tensors, and `PPO.update`, one seeded iteration.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from generators.noise import seeded
from natgym.env import DecodeVectorEnv, Observation


class SB3VecEnv(VecEnv):
    """A `DecodeVectorEnv` as an SB3 `VecEnv`; episodes terminate, so no terminal observation is needed."""

    def __init__(self, env: DecodeVectorEnv) -> None:
        self.env = env  # before super(), which asks for render_mode
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        observation, _ = self.env.reset(seed=self._seeds[0], options=self._options[0] or None)
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        observation, rewards, terminated, truncated, _ = self.env.step(self.actions)
        return (
            observation,
            rewards.astype(np.float32),
            terminated | truncated,
            [{} for _ in range(self.num_envs)],
        )

    def close(self) -> None:
        self.env.close()

    def get_images(self) -> Any:
        return self.env.render()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [getattr(self.env, method_name)(*args, **kwargs)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


class TensorRolloutBuffer(DictRolloutBuffer):
    """`DictRolloutBuffer` whose observations are tensors on `device`, allocated once; scalars stay numpy.

    With `normalize_returns`, returns are standardised over the rollout before the advantages are taken
    (AdaNAT, code); the critic then learns standardised returns.
    """

    def __init__(self, *args: Any, normalize_returns: bool = False, **kwargs: Any) -> None:
        self.normalize_returns = normalize_returns
        self.store: Observation = {}
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        length = (self.buffer_size, self.n_envs)
        if not self.store:
            self.store = {
                key: torch.empty(
                    *length, *shape, device=self.device, dtype=_torch_dtype(self.observation_space[key])
                )
                for key, shape in self.obs_shape.items()  # type: ignore[union-attr]
            }
        self.observations: Any = self.store
        self.actions = np.zeros((*length, self.action_dim), np.float32)
        for name in ("rewards", "returns", "episode_starts", "values", "log_probs", "advantages"):
            setattr(self, name, np.zeros(length, np.float32))
        self.generator_ready, self.pos, self.full = False, 0, False

    def add(
        self,
        obs: Any,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: Tensor,
        log_prob: Tensor,
    ) -> None:
        for key, stored in self.store.items():
            stored[self.pos].copy_(obs[key])
        self.actions[self.pos] = action
        self.rewards[self.pos], self.episode_starts[self.pos] = reward, episode_start
        self.values[self.pos] = value.flatten().cpu().numpy()
        self.log_probs[self.pos] = log_prob.cpu().numpy()
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def compute_returns_and_advantage(self, last_values: Tensor, dones: np.ndarray) -> None:
        super().compute_returns_and_advantage(last_values, dones)
        if self.normalize_returns:
            self.returns = (self.returns - self.returns.mean()) / (self.returns.std(ddof=1) + 1e-7)
            self.advantages = self.returns - self.values

    def get(self, batch_size: int | None = None) -> Iterator[DictRolloutBufferSamples]:  # type: ignore
        total = self.buffer_size * self.n_envs
        if not self.generator_ready:  # PPO.train flattens values and returns afterwards, in this order
            for name in ("actions", "values", "log_probs", "advantages", "returns"):
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        for rows in torch.randperm(total).split(batch_size or total):
            yield self._get_samples(rows.numpy())

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> DictRolloutBufferSamples:  # type: ignore
        row, step = np.divmod(batch_inds, self.buffer_size)  # swap_and_flatten is row-major over envs
        at = torch.as_tensor(step, device=self.device), torch.as_tensor(row, device=self.device)
        scalars = (
            getattr(self, name)[batch_inds].ravel()
            for name in ("values", "log_probs", "advantages", "returns")
        )
        observations: Any = {key: stored[at] for key, stored in self.store.items()}
        return DictRolloutBufferSamples(
            observations,
            self.to_torch(self.actions[batch_inds]),
            *(self.to_torch(values) for values in scalars),
        )


class PPO(stable_baselines3.PPO):
    """SB3's PPO, one iteration at a time: `update(seed)` makes each a function of weights and seed alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **(kwargs | {"rollout_buffer_class": TensorRolloutBuffer}))
        self.set_logger(Logger(folder=None, output_formats=[]))
        self.ep_info_buffer = self.ep_success_buffer = None  # episode statistics come from the buffer

    def update(self, seed: int) -> dict[str, float]:
        """Reset the env, collect one rollout of full episodes and train on it; return the metrics."""
        assert self.env is not None
        with seeded(seed, self.device):
            self.env.seed(seed)
            self._last_obs = self.env.reset()  # type: ignore[assignment]
            self._last_episode_starts = np.ones(self.n_envs, dtype=bool)
            self.collect_rollouts(self.env, self._init_callback(None), self.rollout_buffer, self.n_steps)
            reward = float(self.rollout_buffer.rewards[-1].mean())
            self.train()
        metrics = {
            key.removeprefix("train/"): float(value) for key, value in self.logger.name_to_value.items()
        }
        return {"reward": reward} | metrics

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        """Skip SB3's loop over rows: the adapter sends no episode statistics."""

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_last_obs", "_last_episode_starts"]


def _torch_dtype(space: spaces.Space[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, space.dtype)).dtype
