"""What watches a training: measurements on the select split, alarms, and the best policy so far."""

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
from natgym.rewards.adversarial import AdversarialReward
from natgym.rewards.checks import judged
from natgym.rewards.projected import GROUP
from natgym.rewards.sums import parts_of
from natgym.rollouts import Policy, balanced, rollout


class Monitor:
    """Measure policies against the select split of the environment's task, on the same noise each time.

    Args:
        env: of task and reward; one whose task has no real images is not measured.
        config: how often, with how many images, and which alarms end a training.

    Attributes:
        first, vitals: the first and the last measurement.
        alarms: those of the last update, each with a sentence.
        images: drawn so far.
        best: of the measurement with the smallest distance: its update, that distance and the weights; None
            before the first.
    """

    def __init__(self, env: DecodeVectorEnv, config: AdaNATConfig) -> None:
        self.env, self.config, self.images = env, config, 0
        self.first = self.vitals = Vitals()
        self.alarms: dict[Alarm, str] = {}
        self.best: dict[str, Any] | None = None
        self.scorer: Scorer | None = None
        if env.task.description is None:
            return
        select = env.task.split("select")
        self.scorer = Scorer(env.task.score_extractor, select)  # type: ignore[arg-type]
        rows = torch.arange(len(select) - len(select) % GROUP)  # the papers' discriminator judges groups
        self.held_out = select.images_NCHW[rows], select.condition[rows]

    @property
    def stopped(self) -> bool:
        """Whether an alarm has ended the training."""
        return not self.alarms.keys().isdisjoint(self.config.alarms.stop)

    def watch(self, update: int, policy: Callable[[], Policy], weights: Callable[[], dict[str, Any]]) -> None:
        """Measure after an update if it is time; note alarms, and the weights if they are the best so far.

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
        if self.best is None or not distance >= self.best["distance"]:  # where nothing is measured, the last
            self.best = {"update": update, "distance": distance, "weights": copy.deepcopy(weights())}

    def measure(self, policy: Policy) -> Vitals:
        """Return the vitals of a policy; all not a number where there are no real images."""
        if self.scorer is None:
            return Vitals()
        env, config = self.env, self.config
        condition = balanced(env.generator.conditions(), config.evaluation_images)
        seed = derive_seed(config.seed, "select")
        drawn = rollout(policy, env.generator, env.tokenizer, condition, seed=seed)
        self.images += len(condition)
        scores = self.scorer.score(drawn.images_NCHW, condition)
        fake = drawn.images_NCHW, condition
        real_B, fake_B = judged(env.reward, *self.held_out), judged(env.reward, *fake)
        told_apart = math.nan
        for adversary in (part for part in parts_of(env.reward) if isinstance(part, AdversarialReward)):
            real, drawn_too = real_B, fake_B
            if adversary is not env.reward:
                real, drawn_too = adversary(*self.held_out), adversary(*fake)
            told_apart = ((real > 0.5).float().mean() + (drawn_too < 0.5).float().mean()).item() / 2
        before = drawn.frame[(drawn.frame["step"] < policy.steps - 1) & (drawn.frame["masked_before"] > 0)]
        measured = ("distance", "recall", "coverage", "class_drift")
        return Vitals(
            **{name: scores.get(name, math.nan) for name in measured},
            reward_gap=(real_B.mean() - fake_B.mean()).item(),
            told_apart=told_apart,
            idle=float((before["masked_after"] == before["masked_before"]).mean()),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        told = {"first": self.first._asdict(), "vitals": self.vitals._asdict()}
        return {**told, "alarms": self.alarms, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.first, self.vitals = Vitals(**state["first"]), Vitals(**state["vitals"])
        self.alarms, self.best = state["alarms"], state.get("best")
