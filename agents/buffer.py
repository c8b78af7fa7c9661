"""stable-baselines3's rollout buffer with observations as tensors, and what returns are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples
from torch import Tensor

from agents.distributed.ranks import Ranks
from generators.conditions import Condition
from generators.contract import Generator
from generators.room import cut, decoding_rows
from natgym.observations import Observation

NUMBERS = ("values", "log_probs", "advantages", "returns")  # of each transition, as SB3's samples have them


class TensorRolloutBuffer(DictRolloutBuffer):
    """`DictRolloutBuffer` whose observations are tensors on `device`, allocated once; scalars are numpy.

    With `normalize_returns`, returns are standardized over the rollout before the advantages are taken
    (AdaNAT, code); the critic then learns standardized returns. Of an environment that shows tokens, features
    are not stored but computed again by `source` for each minibatch.

    What is subtracted from a return to give its advantage is, by `baseline`, the critic's value; or, of rows
    that share noise and condition in groups of `group`, the mean return of the others of its group ("rloo",
    Ahmadian et al. 2024), or that of all of it, divided by their standard deviation ("grpo", Shao et al.
    2024). Rows that are all equal then have no advantage.

    Of several ranks each holds the observations and actions of its rows, and the numbers of all. A minibatch
    is drawn from all rows; a rank gets those of it that are its own, `weight` times as many as ranks have on
    the average, with `normalize_minibatches` standardized over all of the minibatch.
    """

    def __init__(
        self,
        *args: Any,
        normalize_returns: bool = False,
        baseline: str = "critic",
        group: int = 1,
        ranks: Ranks | None = None,
        **kwargs: Any,
    ) -> None:
        if baseline != "critic" and group < 2:
            raise ValueError(f"baseline {baseline!r} compares the rows of a group; group {group} has none")
        self.normalize_returns = normalize_returns
        self.baseline, self.group = baseline, group
        self.ranks, self.weight, self.normalize_minibatches = ranks or Ranks(), 1.0, False
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
        own_4TB = np.stack([getattr(self, name) for name in NUMBERS])
        for name, numbers_TB in zip(NUMBERS, np.concatenate(self.ranks.all(own_4TB), -1), strict=True):
            setattr(self, name, numbers_TB)
        if self.normalize_returns:
            self.returns = (self.returns - self.returns.mean()) / (self.returns.std(ddof=1) + 1e-7)
            self.advantages = self.returns - self.values
        if self.baseline != "critic":
            self.advantages = group_advantages(self.returns, self.group, self.baseline)

    def get(self, batch_size: int | None = None) -> Iterator[DictRolloutBufferSamples]:  # type: ignore
        total = self.buffer_size * self.n_envs * self.ranks.count
        if not self.generator_ready:  # PPO.train flattens values and returns afterwards, in this order
            for name in ("actions", *NUMBERS):
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        for rows in torch.randperm(total).split(batch_size or total):
            yield self._get_samples(rows.numpy())

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> DictRolloutBufferSamples:  # type: ignore
        size = self.buffer_size * self.n_envs
        own = np.flatnonzero(batch_inds // size == self.ranks.rank)
        self.weight = len(own) * self.ranks.count / len(batch_inds)
        if not len(own):  # a network has to meet something
            own, batch_inds = np.zeros(1, int), np.array([self.ranks.rank * size])
        numbers = {name: getattr(self, name)[batch_inds].ravel() for name in NUMBERS}
        if self.normalize_minibatches and len(batch_inds) > 1:
            advantages = numbers["advantages"]
            numbers["advantages"] = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
        inds = batch_inds[own] - self.ranks.rank * size
        row, step = map(torch.from_numpy, np.divmod(inds, self.buffer_size))  # row-major over envs
        at = step.to(self.device), row.to(self.device)
        observations: Any = {key: stored[at] for key, stored in self.store.items()}
        if self.recomputes:
            if self.source is None:
                raise ValueError("features are computed again by PPO.update alone; observe 'features' here")
            observations["features"] = self._features_again(*self.source, step, at[1])
        return DictRolloutBufferSamples(
            observations,
            self.to_torch(self.actions[inds]),
            *(self.to_torch(numbers[name][own]) for name in NUMBERS),
        )

    def _features_again(
        self, generator: Generator, condition: Condition, step_N: Tensor, row_N: Tensor
    ) -> Tensor:
        """Return `features_again` in the precision that is observed, some transitions at a time."""
        dtype = _torch_dtype(self.observation_space["features"])
        size = decoding_rows(generator, row_N.device)
        parts = [
            features_again(generator, condition, self.store["tokens"], step_N[rows], row_N[rows]).to(dtype)
            for rows in cut(len(row_N), size)
        ]
        return torch.cat(parts)


def group_advantages(returns_TB: np.ndarray, group: int, baseline: str) -> np.ndarray:
    """Return the advantages (T, B) of returns over those of their groups, `group` rows in a row each.

    Args:
        baseline: "rloo", the mean of the others; "grpo", the mean of all, in units of their sample standard
            deviation, and 0 where that is none.
    """
    grouped_TNG = returns_TB.reshape(len(returns_TB), -1, group)
    centered_TNG = grouped_TNG - grouped_TNG.mean(-1, keepdims=True)
    if baseline == "rloo":
        # The mean of the others is G / (G - 1) times as far away as the mean of all.
        return (centered_TNG * (group / (group - 1))).reshape(returns_TB.shape)
    equal_TN1 = np.ptp(grouped_TNG, -1, keepdims=True) == 0  # a rounded mean would be a spread
    spread_TN1 = np.where(equal_TN1, np.inf, grouped_TNG.std(-1, ddof=1, keepdims=True))
    return (centered_TNG / spread_TN1).reshape(returns_TB.shape)


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


def _torch_dtype(space: Any) -> torch.dtype:
    return torch.from_numpy(np.empty(0, space.dtype)).dtype
