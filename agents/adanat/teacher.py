"""Who feeds a learning reward: images of the policy against real ones, whatever the reward is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.adanat.batches import draw, share
from agents.adanat.config import AdaNATConfig
from agents.distributed.ranks import Ranks
from generators.conditions import Condition
from generators.images import SplitRows
from generators.noise import derive_seed, seeded
from generators.room import image_rows
from generators.tokenizers import Tokenizer, decode_all, encode_all
from natgym.env.vector import DecodeVectorEnv
from natgym.rewards.contract import (
    Images,
    LearningReward,
    learned_state,
    learns_from,
    load_learned_state,
    reset,
)

ENCODED = 1000  # images at once
KEPT = (Tensor, int, float, str, bool, type(None))  # that a checkpoint can hold


class Teacher:
    """Train the environment's reward in turn with the policy; one that does not learn costs nothing.

    On several ranks each learns alike from the images of all, so that there is one reward.

    Args:
        env: of this rank's rows, whose reward learns, in whose place images are drawn; without autoreset.
        config: how many, and what real images are.

    Attributes:
        images: drawn so far for the reward alone.

    Raises:
        ValueError: the reward learns, and the environment's task has no real images, or the rows can't be cut
            into its batches.
    """

    def __init__(self, env: DecodeVectorEnv, config: AdaNATConfig) -> None:
        self.env, self.config, self.images = env, config, 0
        self.reward: Any = env.reward if isinstance(env.reward, LearningReward) else None
        if self.reward is None:
            return
        self.fresh = learns_from(self.reward) == "fresh"
        num_envs = env.num_envs * Ranks.here().count
        if self.fresh and num_envs % config.discriminator_batch:
            raise ValueError(
                f"discriminator_batch {config.discriminator_batch} must divide the environment's "
                f"{num_envs} rows"
            )
        self.real = _real_images(env, config)
        own = self.fresh and config.discriminator_steps is not None
        rows = config.discriminator_batch if own else num_envs
        # A discriminator learns from images that have nothing in common, as those that are judged.
        self.fresh_env = share(env, rows, group=1, coupled=False) if self.fresh else env

    def begin(self, policy: Any) -> None:
        """Reset the reward, and let one that learns from fresh images learn before the first update."""
        if self.reward is None:
            return
        reset(self.reward, self.config.seed_of("discriminator"))
        for batch in range(self.config.warmup if self.fresh else 0):
            self.teach(policy, self.config.seed_of("warmup", batch))

    def teach(self, policy: Any, seed: int, rollout: Images | None = None) -> dict[str, float]:
        """Train the reward; return its mean metrics, none if it does not learn.

        Args:
            policy: of SB3, exploring; it draws what the reward learns from.
            seed: everything random follows from it.
            rollout: the policy's last one, for a reward that learns from it.
        """
        if self.reward is None:
            return {}
        rng, metrics = np.random.default_rng(seed), list[dict[str, float]]()
        for fake in self._lessons(policy, seed, rollout):
            rows = torch.from_numpy(rng.integers(len(self.real), size=fake.num_images))
            real = Images(partial(self.real.__getitem__, rows), self.real.condition[rows])
            with seeded(derive_seed(seed, len(metrics)), self.env.device):  # crops are drawn at random
                metrics.append(_numbers(self.reward, self.reward.update(real, fake)))
        self._agree()
        return {name: float(np.mean([row[name] for row in metrics])) for name in metrics[0]}

    def _agree(self) -> None:
        """Take the reward of rank 0: a GPU may have rounded another rank's otherwise."""
        ranks = Ranks.here()
        if ranks.count == 1 or not hasattr(self.reward, "load_state_dict"):
            return
        file = BytesIO()
        torch.save(self.state_dict(), file)
        file = BytesIO(ranks.firsts(file.getvalue()))
        self.load_state_dict(torch.load(file, self.env.device, weights_only=True))

    def state_dict(self) -> dict[str, Any]:
        """Return what the reward has learned.

        Raises:
            ValueError: something in it could not be read again.
        """
        state = learned_state(self.env.reward)
        if odd := [type(leaf).__name__ for leaf in _leaves(state) if not isinstance(leaf, KEPT)]:
            raise ValueError(
                f"state_dict of reward {type(self.env.reward).__name__} holds a {odd[0]}; give tensors, "
                "numbers and texts, in dicts and lists"
            )
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the reward go on where `state_dict` was taken.

        Raises:
            ValueError: it learns, and keeps nothing to go on from.
        """
        if self.reward is not None and not hasattr(self.reward, "load_state_dict"):
            raise ValueError(
                f"reward {type(self.reward).__name__} learns and has no state_dict and load_state_dict, "
                "without which a training can't go on; begin anew in another folder"
            )
        load_learned_state(self.env.reward, state)

    def _lessons(self, policy: Any, seed: int, rollout: Images | None) -> Iterator[Images]:
        """Return the generated images of each step of the reward's."""
        if not self.fresh:
            assert rollout is not None
            yield rollout
            return
        for drawn in self._draw_fresh(policy, seed):
            self.images += drawn.num_images
            for rows in torch.arange(drawn.num_images).split(self.config.discriminator_batch):
                yield drawn.rows(rows)

    def _draw_fresh(self, policy: Any, seed: int) -> Iterator[Images]:
        """Let the policy draw one batch that all steps share, or one for each step."""
        steps = self.config.discriminator_steps
        if steps is None:
            yield draw(policy, self.fresh_env, seed)
            return
        for step in range(steps):
            yield draw(policy, self.fresh_env, derive_seed(seed, "fresh", step))


def _numbers(reward: Any, metrics: Any) -> dict[str, float]:
    """Return what `update` returned as numbers.

    Raises:
        ValueError: they are none, or not finite.
    """
    try:
        found = {str(name): float(value) for name, value in metrics.items()}
    except (AttributeError, TypeError, ValueError):
        found = {"metrics": math.nan}
    if wrong := [name for name, value in found.items() if not math.isfinite(value)]:
        raise ValueError(
            f"update of reward {type(reward).__name__} returned {metrics!r}: {wrong[0]} has to be a finite "
            "number; return a dict of its metrics"
        )
    return found


def _leaves(state: Any) -> Iterator[Any]:
    if isinstance(state, dict):
        state = [*state.keys(), *state.values()]
    if isinstance(state, list | tuple):
        for item in state:
            yield from _leaves(item)
    else:
        yield state


@dataclass(frozen=True, eq=False)
class Coded:
    """A split as a tokenizer brings it back, of which the tokens are kept, (N, L) on the host."""

    tokenizer: Tokenizer
    ids_NL: Tensor
    condition: Condition

    def __len__(self) -> int:
        return len(self.ids_NL)

    def __getitem__(self, rows: Tensor) -> Tensor:
        device, ids_BL = self.condition.device, self.ids_NL[rows].long()
        return decode_all(self.tokenizer, ids_BL.to(device), device)

    def take(self, rows: Tensor) -> Coded:
        """Return the split of some rows 0..N-1 alone."""
        return replace(self, ids_NL=self.ids_NL[rows], condition=self.condition[rows])


def train_ids(env: DecodeVectorEnv) -> Tensor:
    """Return the tokens (N, L) of the train split of an environment's task, int32 on the host."""
    images, tokenizer = env.task.images("train"), env.tokenizer
    rows = min(ENCODED, image_rows(tokenizer.image_shape))
    return encode_all(tokenizer, images.to("cpu"), env.device, rows).int()


def _real_images(env: DecodeVectorEnv, config: AdaNATConfig) -> SplitRows:
    """Return the train split, decoded from its tokens or as it is."""
    if env.task.description is None:
        name = type(env.reward).__name__
        raise ValueError(
            f"reward {name} learns from real images, and {env.task} has none; give the environment a task"
        )
    part = env.task.images("train")
    return Coded(env.tokenizer, train_ids(env), part.condition) if config.real == "tokens" else part
