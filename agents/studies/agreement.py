"""Does a reward prefer what brings images nearer to real ones? Two gradients, and the angle between them.

PPO follows the gradient of the expected reward by the actions. What it should follow is the gradient of the
distance, which is that of a reward too: minus each image's influence on it. Both are estimated from the
same episodes under random actions around a schedule, for each class, step and parameter.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from agents.adanat.trainer import AdaNATTrainer
from agents.autonat.class_table import ClassTable
from generators.noise import derive_seed, seeded
from generators.schedules import Schedule
from natgym.evaluation.scorer import Scorer

PARTS = ("static", "class", "all")


class Episodes(NamedTuple):
    """Random actions (N, T, k) of standard deviation `std`, and what came of them, (N,)."""

    actions_NTk: Tensor
    std: float
    classes_N: Tensor
    rewards_N: Tensor
    truth_N: Tensor


class Agreement(NamedTuple):
    """How a reward's gradient lies to the distance's.

    Attributes:
        cosine: between the gradients of different halves of the episodes, whose noise is independent.
        reliability, truth_reliability: cosine between the halves of the reward's, and of the distance's: what
            noise leaves of 1.
        corrected: the cosine over the root of both reliabilities, an estimate without noise (Spearman 1904);
            NaN where a reliability is not positive.
    """

    cosine: float
    reliability: float
    truth_reliability: float

    @property
    def corrected(self) -> float:
        product = self.reliability * self.truth_reliability
        return self.cosine / math.sqrt(product) if min(self.reliability, product) > 0 else math.nan


def explore(trainer: AdaNATTrainer, scorer: Scorer, episodes: int, seed: int) -> Episodes:
    """Play random actions around the trainer's schedule, with the trainer's reward.

    Args:
        scorer: of the distance, whose influence is the truth.
        episodes: rounded up to whole batches of the trainer's environment.
        seed: of actions and noise; the same for every reward.
    """
    env = trainer.env
    std = trainer.config.action_std_at(0)
    batches = []
    shape = env.num_envs, env.steps, len(env.action_map.parameters)
    for batch in range(-(-episodes // env.num_envs)):
        env.reset(seed=derive_seed(seed, "explore", batch))
        with seeded(derive_seed(seed, "actions", batch)):
            actions_BTk = std * torch.randn(shape)
        for actions_Bk in actions_BTk.unbind(1):
            _, rewards, *_ = env.step(actions_Bk)
        assert env.finished is not None and env.images is not None
        classes_B = env.finished.condition.kinds_B.cpu()
        batches.append((actions_BTk, classes_B, torch.from_numpy(rewards), scorer.features(env.images)))
    actions_NTk, classes_N, rewards_N, features_Nd = map(torch.cat, zip(*batches, strict=True))
    truth_N = -scorer.frechet.influence(features_Nd).cpu()
    return Episodes(actions_NTk, std, classes_N, rewards_N, truth_N)


def gradients(actions_NTk: Tensor, std: float, classes_N: Tensor, rewards_N: Tensor) -> Tensor:
    """Return the gradient of each class's mean reward by its mean action, (C, T, k): the score estimate."""
    per_class = []
    for label in range(int(classes_N.max()) + 1):
        rows = classes_N == label
        advantages = rewards_N[rows] - rewards_N[rows].mean()
        per_class.append((actions_NTk[rows] * advantages[:, None, None]).mean(0) / std**2)
    return torch.stack(per_class)


def parts(gradient_CTk: Tensor) -> dict[str, Tensor]:
    """Split a gradient: what all classes share ("static"), what each has beyond it ("class"), and "all"."""
    static = gradient_CTk.mean(0, keepdim=True).expand_as(gradient_CTk)
    return dict(zip(PARTS, (static, gradient_CTk - static, gradient_CTk), strict=True))


def agreement(episodes: Episodes) -> dict[str, Agreement]:
    """Return how far reward and distance want the same, by part of the gradient."""
    halves = []
    for half in torch.arange(len(episodes.rewards_N)).tensor_split(2):
        common = episodes.actions_NTk[half], episodes.std, episodes.classes_N[half]
        halves.append(
            [parts(gradients(*common, values[half])) for values in (episodes.rewards_N, episodes.truth_N)]
        )
    ours, theirs = halves[0]
    ours_too, theirs_too = halves[1]
    return {
        part: Agreement(
            (_cosine(ours[part], theirs_too[part]) + _cosine(ours_too[part], theirs[part])) / 2,
            _cosine(ours[part], ours_too[part]),
            _cosine(theirs[part], theirs_too[part]),
        )
        for part in PARTS
    }


def follow(trainer: AdaNATTrainer, direction_CTk: Tensor, size: float) -> ClassTable:
    """Return the schedules that one step along a gradient leads to, one per class.

    Args:
        direction_CTk: of any length.
        size: root mean square of the actions moved to.
    """
    actions_CTk = direction_CTk * size / direction_CTk.square().mean().sqrt()
    played = [
        trainer.env.action_map(actions_Ck, step) for step, actions_Ck in enumerate(actions_CTk.unbind(1))
    ]
    tables_CT4 = torch.stack([torch.stack(params, -1) for params in played], 1)
    return ClassTable(tuple(Schedule(table_T4) for table_T4 in tables_CT4), tuple(range(len(tables_CT4))))


def _cosine(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum() / (one.norm() * other.norm()))
