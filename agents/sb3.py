"""natgym's vector env under stable-baselines3: observations stay on the device, checkpoints stay small.

SB3's rollout and training loops run unchanged; what is ours is the `VecEnv` adapter, the rollout buffer whose
observations are tensors, and `PPO.update`, one seeded iteration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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

from generators.conditions import Condition
from generators.contract import Generator
from generators.noise import seeded
from generators.rules import DecodeRules
from generators.schedules import DecodeParams
from natgym.env.vector import DecodeVectorEnv
from natgym.observations import Observation, Observer
from natgym.rollouts import Decision
from natgym.spaces import ActionMap


class SB3VecEnv(VecEnv):
    """A `DecodeVectorEnv` as an SB3 `VecEnv`; episodes terminate, so no terminal observation is needed."""

    def __init__(self, env: DecodeVectorEnv) -> None:
        self.env = env  # before super(), which asks for render_mode
        self.buffer: TensorRolloutBuffer | None = None  # where observations are put at once, if known
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        observation, _ = self.env.reset(seed=self._seeds[0], options=self._options[0] or None)
        self._reset_seeds()
        self._reset_options()
        return observation if self.buffer is None else self.buffer.place(observation, 0)

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        observation, rewards, terminated, truncated, _ = self.env.step(self.actions)
        if self.buffer is not None:
            observation = self.buffer.place(observation, self.buffer.pos + 1)
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
    """`DictRolloutBuffer` whose observations are tensors on `device`, allocated once; scalars are numpy.

    With `normalize_returns`, returns are standardized over the rollout before the advantages are taken
    (AdaNAT, code); the critic then learns standardized returns. Of an environment that shows tokens, features
    are not stored but computed again by `source` for each minibatch.
    """

    def __init__(self, *args: Any, normalize_returns: bool = False, **kwargs: Any) -> None:
        self.normalize_returns = normalize_returns
        self.store: Observation = {}
        self.source: tuple[Generator, Condition] | None = None  # of this rollout's features
        super().__init__(*args, **kwargs)

    @property
    def recomputes(self) -> bool:
        """Whether features are computed again."""
        return "tokens" in self.obs_shape  # type: ignore[operator]

    def reset(self) -> None:
        length = (self.buffer_size, self.n_envs)
        if not self.store:
            self.store = {
                key: torch.empty(
                    *length, *shape, device=self.device, dtype=_torch_dtype(self.observation_space[key])
                )
                for key, shape in self.obs_shape.items()  # type: ignore[union-attr]
                if key != "features" or not self.recomputes
            }
        self.observations: Any = self.store
        self.actions = np.zeros((*length, self.action_dim), np.float32)
        for name in ("rewards", "returns", "episode_starts", "advantages"):
            setattr(self, name, np.zeros(length, np.float32))
        # Not copied to the host at each step, but once when the rollout is full.
        self.values, self.log_probs = torch.zeros(2, *length, device=self.device)  # type: ignore[assignment]
        self.generator_ready = False
        self.pos = 0
        self.full = False

    def place(self, observation: Observation, position: int) -> Observation:
        """Put an observation where `add` will want it and return it from there: no second copy stays alive.

        It comes back as it is when there is no such place.
        """
        if self.full or position >= self.buffer_size:
            return observation
        return observation | {
            key: stored[position].copy_(observation[key]) for key, stored in self.store.items()
        }

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
            if stored[self.pos].data_ptr() != obs[key].data_ptr():
                stored[self.pos].copy_(obs[key])
        self.actions[self.pos] = action
        self.rewards[self.pos] = reward
        self.episode_starts[self.pos] = episode_start
        self.values[self.pos] = value.flatten()
        self.log_probs[self.pos] = log_prob  # type: ignore[call-overload]
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def compute_returns_and_advantage(self, last_values: Tensor, dones: np.ndarray) -> None:
        both: Any = self.values, self.log_probs
        self.values, self.log_probs = torch.stack(both).cpu().numpy()
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
        row, step = map(torch.from_numpy, np.divmod(batch_inds, self.buffer_size))  # row-major over envs
        at = step.to(self.device), row.to(self.device)
        scalars = (
            getattr(self, name)[batch_inds].ravel()
            for name in ("values", "log_probs", "advantages", "returns")
        )
        observations: Any = {key: stored[at] for key, stored in self.store.items()}
        if self.recomputes:
            if self.source is None:
                raise ValueError("features are computed again by PPO.update alone; observe 'features' here")
            features = features_again(*self.source, self.store["tokens"], step, at[1])
            observations["features"] = features.to(_torch_dtype(self.observation_space["features"]))
        return DictRolloutBufferSamples(
            observations,
            self.to_torch(self.actions[batch_inds]),
            *(self.to_torch(values) for values in scalars),
        )


@torch.no_grad()
def features_again(
    generator: Generator, condition: Condition, tokens_TBL: Tensor, step_N: Tensor, row_N: Tensor
) -> Tensor:
    """Return the features (N, L, D) that a generator had at some steps of some rows.

    One pass for all of them; a generator that reuses features takes the same passes again up to the last step
    asked for.

    Args:
        condition: of the B rows.
        tokens_TBL: before each step, mask ids included.
        step_N: on the host.
        row_N: on the device.
    """
    condition = condition[row_N]
    ids_TNL = tokens_TBL[:, row_N].long()
    if not getattr(generator, "reuses", False):
        at = step_N.to(ids_TNL.device), torch.arange(len(step_N), device=ids_TNL.device)
        return generator(ids_TNL[at], condition).features_BLD
    prediction = generator(ids_TNL[0], condition)
    features_NLD = prediction.features_BLD
    for step in range(1, int(step_N.max()) + 1):
        prediction = generator(ids_TNL[step], condition, prediction.cache)
        here_N11 = (step_N == step).to(features_NLD.device)[:, None, None]
        features_NLD = torch.where(here_N11, prediction.features_BLD, features_NLD)
    return features_NLD


class PPO(stable_baselines3.PPO):
    """SB3's PPO, one iteration at a time: `update(seed)` makes each a function of weights and seed alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **(kwargs | {"rollout_buffer_class": TensorRolloutBuffer}))
        self.set_logger(Logger(folder=None, output_formats=[]))
        self.ep_info_buffer = self.ep_success_buffer = None  # episode statistics come from the buffer

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.env is not None and isinstance(self.env.unwrapped, SB3VecEnv):
            assert isinstance(self.rollout_buffer, TensorRolloutBuffer)
            self.env.unwrapped.buffer = self.rollout_buffer

    def update(self, seed: int, learning_rate: float | None = None) -> dict[str, float]:
        """Reset the env, collect one rollout of full episodes and train on it; return the metrics.

        Args:
            seed: of the episodes, the actions and the minibatches.
            learning_rate: of this update; by default that of before.
        """
        if learning_rate is not None:
            self.lr_schedule = lambda _: learning_rate
        buffer: Any = self.rollout_buffer
        assert self.env is not None
        with seeded(seed, self.device):
            self.env.seed(seed)
            buffer.reset()  # from here on it takes observations
            self._last_obs = self.env.reset()  # type: ignore[assignment]
            if buffer.recomputes:
                buffer.source = self._source()
            self._last_episode_starts = np.ones(self.n_envs, dtype=bool)
            callback = self._init_callback(None)
            self.collect_rollouts(self.env, callback, self.rollout_buffer, self.n_steps)
            callback.locals.clear()  # a cycle, which would keep observations for some time
            self._last_obs = None  # the next update resets
            reward = float(self.rollout_buffer.rewards[-1].mean())
            self.train()
            buffer.source = None
        metrics = {
            key.removeprefix("train/"): float(value) for key, value in self.logger.name_to_value.items()
        }
        return {"reward": reward} | metrics

    def _source(self) -> tuple[Generator, Condition]:
        """Return what the features of one rollout are computed from."""
        assert self.env is not None
        generator, state, steps = (
            self.env.get_attr(name, [0])[0] for name in ("generator", "state", "steps")
        )
        if self.n_steps != steps:
            raise ValueError(
                f"n_steps {self.n_steps}: with tokens observed, a rollout is one episode of {steps}"
            )
        return generator, state.condition

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        """Skip SB3's loop over rows: the adapter sends no episode statistics."""

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_last_obs", "_last_episode_starts"]


@dataclass(frozen=True)
class LearnedPolicy:
    """Any SB3 actor-critic policy as one of `natgym.rollouts`: its mean action and its value.

    Attributes:
        policy: of a model that was trained on the environment, which has the others.
        rules: of the environment; None follows whoever plays it.
    """

    policy: Any
    observer: Observer
    action_map: ActionMap
    rules: DecodeRules | None = None

    @property
    def steps(self) -> int:
        return self.action_map.schedule.steps

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        """Return the decoding parameters of the mean action."""
        return self.decide(observation, step).params

    @torch.no_grad()
    def decide(self, observation: Observation, step: int) -> Decision:
        """Return the mean action, the parameters that it means, and the value of what is observed."""
        B = len(observation["step"])
        k = len(self.action_map.parameters)
        start_Bk = torch.zeros(B, k, device=observation["step"].device)
        previous_Bk = observation.get("previous_action", start_Bk)
        shown = self.observer.show(observation, previous_Bk)
        action_Bk = self.policy.get_distribution(shown).mode()
        decision = Decision.of(self.action_map, action_Bk, previous_Bk, step)
        return decision._replace(value_B=self.policy.predict_values(shown)[:, 0])


def _torch_dtype(space: spaces.Space[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, space.dtype)).dtype
