"""What watches a training: measurements on the select split, alarms, and which policy is kept in the end."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch

from agents.adanat.alarms import Alarm, Vitals, alarms
from agents.adanat.config import AdaNATConfig
from generators.noise import derive_seed
from natgym.env.vector import DecodeVectorEnv
from natgym.evaluation.scorer import Scorer
from natgym.rewards.checks import judged
from natgym.rewards.contract import LearningReward
from natgym.rewards.projected import GROUP
from natgym.rewards.sums import parts_of
from natgym.rollouts import Policy, Rollout, rollout


class Monitor:
    """Measure policies against the select split of the environment's task, on the same noise each time.

    Args:
        env: of task and reward; one whose task has no real images is not measured.
        config: how often, with how many images, and which alarms end a training.

    Attributes:
        first, vitals: the first and the last measurement.
        alarms: those of the last update, each with a sentence.
        images: drawn so far.
        finalists: the measured policies with the smallest distances, best first, each with its update, that
            distance and the weights; after `choose` in the order and with the distances of the second look.
    """

    def __init__(self, env: DecodeVectorEnv, config: AdaNATConfig) -> None:
        self.env, self.config, self.images = env, config, 0
        self.first = self.vitals = Vitals()
        self.alarms: dict[Alarm, str] = {}
        self.finalists: list[dict[str, Any]] = []
        self.scorer: Scorer | None = None
        if env.task.description is None:
            return
        select = env.task.split("select")
        self.scorer = Scorer(env.task.score_extractor, select)  # type: ignore[arg-type]
        # The papers' discriminator judges groups of GROUP, and fewer images as one.
        rows = torch.arange(len(select) // GROUP * GROUP or len(select))
        self.held_out = select.images_NCHW[rows], select.condition[rows]

    @property
    def best(self) -> dict[str, Any] | None:
        """The best of the finalists; None before the first measurement."""
        return self.finalists[0] if self.finalists else None

    @property
    def stopped(self) -> bool:
        """Whether an alarm has ended the training."""
        return not self.alarms.keys().isdisjoint(self.config.alarms.stop)

    def watch(self, update: int, policy: Callable[[], Policy], weights: Callable[[], dict[str, Any]]) -> None:
        """Measure after an update if it is time; note alarms, and the weights if they are among the best.

        Args:
            update: how many there were; 0 is the start, which alarms compare with.
            policy, weights: make what is measured and kept, and are asked only then.
        """
        self.alarms = {}
        if update and not self.config.measures_at(update):
            return
        self.vitals = self.measure(policy())
        if update == 0:
            self.first = self.vitals
        else:
            self.alarms = alarms(self.config.alarms, self.first, self.vitals)
        distance = self.vitals.distance
        if math.isnan(distance):  # where nothing is measured, the last is kept
            self.finalists = []
        elif len(self.finalists) == self.config.finalists and distance >= self.finalists[-1]["distance"]:
            return
        new = {"update": update, "distance": distance, "weights": copy.deepcopy(weights())}
        ranked = sorted([*self.finalists, new], key=lambda one: one["distance"])
        self.finalists = ranked[: self.config.finalists]

    def choose(self, policy: Callable[[dict[str, Any]], Policy]) -> None:
        """Measure the finalists again on fresh noise, and rank them by that alone.

        The best of many noisy measurements is partly the luckiest, and all were on one noise.

        Args:
            policy: makes one of weights.
        """
        if self.scorer is None or len(self.finalists) < 2:
            return
        seed = derive_seed(self.config.seed, "finalists")
        for finalist in self.finalists:
            drawn = self._draw(policy(finalist["weights"]), self.config.final_images, seed)
            finalist["distance"] = self.scorer.distance(drawn.images_NCHW)
        self.finalists.sort(key=lambda one: one["distance"])

    def measure(self, policy: Policy) -> Vitals:
        """Return the vitals of a policy; all not a number where there are no real images."""
        if self.scorer is None:
            return Vitals()
        env, seed = self.env, derive_seed(self.config.seed, "select")
        drawn = self._draw(policy, self.config.evaluation_images, seed)
        fake = drawn.images_NCHW, drawn.condition
        scores = self.scorer.score(*fake)
        real_B, fake_B = judged(env.reward, *self.held_out), judged(env.reward, *fake)
        told_apart = math.nan
        for judge in (part for part in parts_of(env.reward) if hasattr(part, "threshold")):
            real, drawn_too = real_B, fake_B
            if judge is not env.reward:
                real, drawn_too = judged(judge, *self.held_out), judged(judge, *fake)
            right = (real > judge.threshold).float().mean() + (drawn_too < judge.threshold).float().mean()
            told_apart = right.item() / 2
        gap, spread = real_B.mean() - fake_B.mean(), ((real_B.var() + fake_B.var()) / 2).sqrt()
        learns = isinstance(env.reward, LearningReward) and spread > 0
        before = drawn.frame[(drawn.frame["step"] < policy.steps - 1) & (drawn.frame["masked_before"] > 0)]
        measured = ("distance", "recall", "coverage", "class_drift")
        return Vitals(
            **{name: scores.get(name, math.nan) for name in measured},
            reward_gap=gap.item(),
            told_apart=told_apart,
            separation=(gap / spread).item() if learns else math.nan,
            idle=float((before["masked_after"] == before["masked_before"]).mean()),
        )

    def _draw(self, policy: Policy, images: int, seed: int) -> Rollout:
        condition = self.env.task.asked(images)
        self.images += images
        return rollout(policy, self.env.generator, self.env.tokenizer, condition, seed=seed)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        told = {"first": self.first._asdict(), "vitals": self.vitals._asdict()}
        return {**told, "alarms": self.alarms, "finalists": self.finalists}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.first, self.vitals = Vitals(**state["first"]), Vitals(**state["vitals"])
        self.alarms = state["alarms"]
        # Checkpoints of before have the best alone, or nothing.
        best = [state["best"]] if state.get("best") else []
        self.finalists = state.get("finalists", best)
