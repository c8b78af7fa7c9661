"""Batches of images that an environment draws, each rank a share of the rows and all getting all images."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from agents.distributed.ranks import Ranks
from generators.conditions import Condition
from generators.noise import seeded
from natgym.env.vector import DecodeVectorEnv
from natgym.rewards.contract import Images, Reward, needs_batch


def share(env: DecodeVectorEnv, num_envs: int, **changed: Any) -> DecodeVectorEnv:
    """Return a sibling of an environment with this rank's share of rows.

    Args:
        num_envs: rows of all ranks.
        changed: arguments that differ.

    Raises:
        ValueError: the rows can't be shared equally.
    """
    ranks = Ranks.here()
    own = env.like(num_envs=ranks.share(num_envs, changed.get("group", env.group)), **changed)
    if ranks.count > 1 and needs_batch(own.reward):
        own.judge = _Together(own.reward, ranks)
    return own


def draw(policy: Any, env: DecodeVectorEnv, seed: int) -> Images:
    """Let an exploring policy of SB3 draw one batch."""
    observation, _ = env.reset(seed=Ranks.here().first_seed(seed, env.num_envs, env.group))
    with seeded(seed, env.device), torch.no_grad():
        while env.images is None:
            observation, *_ = env.step(policy(observation)[0])
    return drawn_by(env)


def drawn_by(env: DecodeVectorEnv) -> Images:
    """Return what the ranks' environments drew last; all ranks have to look at the images, or none."""
    assert env.finished is not None and env.images is not None
    return _of_all(Ranks.here(), env.images, env.finished.condition)


class _Together:
    """A reward that compares images, given those of all ranks."""

    def __init__(self, reward: Reward, ranks: Ranks) -> None:
        self.reward, self.ranks = reward, ranks

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        return self.ranks.own(self.reward(*_of_all(self.ranks, images_BCHW, condition)))


def _of_all(ranks: Ranks, images_BCHW: Tensor, condition: Condition) -> Images:
    """Return the images of all ranks, which are gathered when somebody looks at them."""
    if ranks.count == 1:
        return Images(images_BCHW, condition)
    conditions = ranks.all(condition.to("cpu"))
    whole = type(condition).cat(conditions).to(condition.device)
    return Images(partial(ranks.gather, images_BCHW), whole)
