"""natgym's vector env under stable-baselines3: observations stay on the device, checkpoints stay small.

SB3's rollout and training loops run unchanged; what is ours is the `VecEnv` adapter, the rollout buffer
(`agents.buffer`), and `PPO.update`, one seeded iteration.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.distributions import BernoulliDistribution
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.buffer import TensorRolloutBuffer
from agents.distributed.ppo import AveragedGradient, share_noise
from agents.distributed.ranks import Ranks
from generators.conditions import Condition
from generators.contract import Generator
from generators.noise import Purpose, hash_uniform, seeded
from generators.rules import DecodeRules
from generators.schedules import DecodeParams
from natgym.env.vector import DecodeVectorEnv
from natgym.names.prices import Price, inside
from natgym.observations import Observation, Observer, reveal_counts
from natgym.rollouts import Decision
from natgym.spaces import Map, ScoreMap

NUMBERS = "@draw: this policy decides numbers, whose mean it plays; those are drawn that choose tokens"


class SB3VecEnv(VecEnv):
    """A `DecodeVectorEnv` as an SB3 `VecEnv`; episodes terminate, so no terminal observation is needed.

    Args:
        ranks: that draw together; the env has the rows of this one.
    """

    def __init__(self, env: DecodeVectorEnv, ranks: Ranks | None = None) -> None:
        self.env = env  # before super(), which asks for render_mode
        self.ranks = ranks or Ranks()
        self.buffer: TensorRolloutBuffer | None = None  # where observations are put at once, if known
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        seed = self._seeds[0]
        if seed is not None and self.ranks.count > 1:
            seed = self.ranks.first_seed(seed, self.num_envs, self.env.group)
        observation, _ = self.env.reset(seed=seed, options=self._options[0] or None)
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


class PPO(stable_baselines3.PPO):
    """SB3's PPO, one iteration at a time: `update(seed)` makes each a function of weights and seed alone.

    Args:
        ranks: that learn together; batches and minibatches are those of all.
    """

    def __init__(self, *args: Any, ranks: Ranks | None = None, **kwargs: Any) -> None:
        self.ranks = ranks or Ranks()
        with warnings.catch_warnings():
            if self.ranks.count > 1:  # SB3 asks whether a minibatch divides this rank's transitions
                warnings.filterwarnings("ignore", "You have specified a mini-batch size")
            super().__init__(*args, **(kwargs | {"rollout_buffer_class": TensorRolloutBuffer}))
        self.set_logger(Logger(folder=None, output_formats=[]))
        self.ep_info_buffer = self.ep_success_buffer = None  # episode statistics come from the buffer

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.env is not None and isinstance(self.env.unwrapped, SB3VecEnv):
            assert isinstance(self.rollout_buffer, TensorRolloutBuffer)
            self.env.unwrapped.buffer = self.rollout_buffer
        if self.ranks.count > 1:
            self._share()

    def _share(self) -> None:
        """Leave to the ranks' buffer and gradient what SB3 would do to a rank's alone."""
        assert isinstance(self.rollout_buffer, TensorRolloutBuffer)
        share_noise(self.policy, self.ranks)
        self.rollout_buffer.normalize_minibatches = self.normalize_advantage
        averaged = AveragedGradient(self, self.ranks, self.max_grad_norm)
        self.policy.optimizer.register_step_pre_hook(averaged)
        self.normalize_advantage, self.max_grad_norm = False, math.inf

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
        return self.ranks.means({"reward": reward} | metrics)

    def _source(self) -> tuple[Generator, Condition]:
        """Return what the features of one rollout are computed from."""
        assert self.env is not None
        generator, parts, steps = (
            self.env.get_attr(name, [0])[0] for name in ("generator", "parts", "steps")
        )
        if self.n_steps != steps:
            raise ValueError(
                f"n_steps {self.n_steps}: with tokens observed, a rollout is one episode of {steps}"
            )
        return generator, parts.condition

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        """Skip SB3's loop over rows: the adapter sends no episode statistics."""

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_last_obs", "_last_episode_starts"]


@dataclass(frozen=True)
class LearnedPolicy:
    """Any SB3 actor-critic policy as one of `natgym.rollouts`: its likeliest action and its value.

    Attributes:
        policy: of a model that was trained on the environment, which has the others.
        rules: of the environment; None follows whoever plays it.
        price: that it is told, where it learned prices of a range: a number, or by default that range, from
            which each image draws its own.
        draws: whether actions are drawn from its distribution, by the row seeds, as in a training; only where
            they choose tokens.
    """

    policy: Any
    observer: Observer
    action_map: Map
    rules: DecodeRules | None = None
    price: Price | None = None
    draws: bool = False

    def __post_init__(self) -> None:
        if self.price is None:
            object.__setattr__(self, "price", self.observer.prices)

    def at(self, price: float) -> LearnedPolicy:
        """Return the policy as it plays at one price; ValueError if it learned none, or others."""
        return replace(self, price=inside(price, self.observer.prices))

    def drawing(self) -> LearnedPolicy:
        """Return the policy as it plays when it draws; ValueError if its actions are numbers."""
        kind = self.policy.action_dist
        if not (isinstance(kind, BernoulliDistribution) or hasattr(kind, "drawn")):
            raise ValueError(NUMBERS)
        return replace(self, draws=True)

    @property
    def steps(self) -> int:
        return self.action_map.schedule.steps

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        """Return the decoding parameters of its action."""
        return self.decide(observation, step).params

    @torch.no_grad()
    def decide(self, observation: Observation, step: int) -> Decision:
        """Return its action, the parameters that it means, and the value of what is observed."""
        B = len(observation["step"])
        k = len(self.action_map.parameters)
        start_Bk = torch.zeros(B, k, device=observation["step"].device)
        previous_Bk = observation.get("previous_action", start_Bk)
        shown = self.observer.show(observation, previous_Bk)
        if isinstance(self.action_map, ScoreMap):
            rules = self.rules or DecodeRules()
            shown["reveal"] = reveal_counts(observation, self.action_map.schedule, rules)
        if self.observer.prices is not None:
            shown["price"] = observation["price"].to(shown["step"].device)
        action_Bk = self._action(self.policy.get_distribution(shown), observation, step)
        decision = Decision.of(self.action_map, action_Bk, previous_Bk, step)
        return decision._replace(value_B=self.policy.predict_values(shown)[:, 0])

    def _action(self, distribution: Any, observation: Observation, step: int) -> Tensor:
        if not self.draws:
            return distribution.mode()
        tokens = observation["masked"].shape[1]
        uniform_BL = hash_uniform(observation["row_seeds"], step, tokens, Purpose.ACTION)
        if isinstance(distribution, BernoulliDistribution):
            return (uniform_BL < distribution.distribution.probs).float()
        return distribution.drawn(uniform_BL)
