"""What watches a training: measurements on the select split, alarms, and which policy is kept in the end."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.adanat.alarms import Alarm, Vitals, alarms
from agents.adanat.config import AdaNATConfig
from agents.distributed.ranks import Ranks
from generators.images import Batch, labelled, regrouped
from generators.room import image_rows
from natgym.env.vector import DecodeVectorEnv
from natgym.evaluation.objective import Objective
from natgym.evaluation.scorer import Looked, Scorer
from natgym.metrics.extractors import CHUNK
from natgym.rewards.checks import judged
from natgym.rewards.contract import LearningReward
from natgym.rewards.projected import GROUP
from natgym.rewards.sums import parts_of
from natgym.rollouts import Policy, Rollout, stream

# As many times the images that a network sees at once are judged together, unless the environment has more
# rows: all of a small task's, since of those rewards that compare images some compare a whole batch.
TIMES = 4


class Monitor:
    """Measure policies against the select split of the environment's task, on the same noise each time.

    On several ranks each draws and looks at a part of the images, and all get the numbers of all; of rewards
    that compare images those of a rank's part compared with each other.

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
        self.env, self.config, self.images, self.ranks = env, config, 0, Ranks.here()
        self.first = self.vitals = Vitals()
        self.alarms: dict[Alarm, str] = {}
        self.finalists: list[dict[str, Any]] = []
        self.scorer: Scorer | None = None
        self.objective = Objective(config.objective, env.price)
        if env.task.description is None:
            return
        select = env.task.images("select")
        self.scorer = Scorer(env.task.score_extractor, select)  # type: ignore[arg-type]
        self.objective.refuse_untold(env.task.score_extractor, env.task)
        # The papers' discriminator judges groups of GROUP, and fewer images as one.
        rows = torch.arange(len(select) // GROUP * GROUP or len(select))
        self.held_out = select.take(rows)

    @property
    def best(self) -> dict[str, Any] | None:
        """The best of the finalists; None before the first measurement."""
        return self.finalists[0] if self.finalists else None

    @property
    def columns(self) -> dict[str, float]:
        """The last measurement as metrics.csv has it."""
        told = self.vitals._asdict()
        return told if self.env.price else {name: told[name] for name in told if name != "nfe"}

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
        seed = self.config.seed_of("finalists")
        for finalist in self.finalists:
            steps = Steps(self.env.steps)
            drawn = self._draw(policy(finalist["weights"]), self.config.final_images, seed)
            looked, steps = self._of_all(self.scorer.look(steps.over(drawn)), steps)
            finalist["distance"] = self.objective(self.scorer, looked, steps.nfe_N, seed).distance
        self.finalists.sort(key=lambda one: one["distance"])

    def measure(self, policy: Policy) -> Vitals:
        """Return the vitals of a policy; all not a number where there are no real images."""
        if self.scorer is None:
            return Vitals()
        env, seed = self.env, self.config.seed_of("select")
        parts = [part for part in parts_of(env.reward) if part is not env.reward]
        judges = [env.reward, *(part for part in parts if hasattr(part, "threshold"))]
        most = max(env.num_envs * self.ranks.count, TIMES * image_rows(env.tokenizer.image_shape))
        real = Judgments(judges, evenly(len(self.held_out), most))
        part = self.ranks.part(self.config.evaluation_images, GROUP)
        fake = Judgments(judges, evenly(part.stop - part.start, most))
        steps = Steps(policy.steps)
        for _ in real.over(labelled(self.held_out, CHUNK)):
            pass
        drawn = self._draw(policy, self.config.evaluation_images, seed)
        looked, steps = self._of_all(self.scorer.look(fake.over(steps.over(drawn))), steps)
        scores = self.scorer.scores(looked)
        told_apart, real_rewards, fake_rewards = math.nan, real.rewards, fake.of_all(self.ranks)
        for judge, real_B, fake_B in zip(judges, real_rewards, fake_rewards, strict=True):
            if hasattr(judge, "threshold"):
                right = (real_B > judge.threshold).float().mean() + (fake_B < judge.threshold).float().mean()
                told_apart = right.item() / 2
        real_B, fake_B = real_rewards[0], fake_rewards[0]
        gap, spread = real_B.mean() - fake_B.mean(), ((real_B.var() + fake_B.var()) / 2).sqrt()
        separation = (gap / spread).item() if gap else 0.0  # also where all rewards are one
        return Vitals(
            distance=self.objective.value(scores, steps.nfe_N, seed),
            **{name: scores.get(name, math.nan) for name in ("recall", "coverage", "class_drift")},
            reward_gap=gap.item(),
            told_apart=told_apart,
            separation=separation if isinstance(env.reward, LearningReward) else math.nan,
            idle=steps.idle,
            nfe=float(steps.nfe_N.mean()),
        )

    def _draw(self, policy: Policy, images: int, seed: int) -> Iterator[Rollout]:
        """Draw this rank's part of some images."""
        part = self.ranks.part(images, GROUP)
        condition = self.env.task.asked(images, "select")[part]
        self.images += images
        return stream(policy, self.env.generator, self.env.tokenizer, condition, seed=seed + part.start)

    def _of_all(self, looked: Looked, steps: Steps) -> tuple[Looked, Steps]:
        """Return what all ranks saw and counted."""
        if self.ranks.count == 1:
            return looked, steps
        device = looked.features_Nd.device
        all_looked, all_steps = zip(*self.ranks.all((looked.to("cpu"), steps)), strict=True)
        return Looked.cat(all_looked).to(device), Steps.sum(all_steps)

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


def evenly(images: int, most: int) -> int:
    """Return the size of batches, whole groups, that images are cut into so that the last is no remnant."""
    batches = -(-images // most)
    return -(-images // (batches * GROUP)) * GROUP


class Judgments:
    """What rewards say of images as they come.

    Args:
        judges: rewards.
        rows: images that they judge at once.
    """

    def __init__(self, judges: Sequence[Any], rows: int) -> None:
        self.judges, self.rows = judges, rows
        self._parts: list[list[Tensor]] = [[] for _ in judges]

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Judge images and hand them on."""
        for batch in regrouped(batches, self.rows):
            for judge, parts in zip(self.judges, self._parts, strict=True):
                parts.append(judged(judge, *batch))
            yield batch

    @property
    def rewards(self) -> list[Tensor]:
        """Those of each judge, (N,)."""
        return [torch.cat(parts) for parts in self._parts]

    def of_all(self, ranks: Ranks) -> list[Tensor]:
        """Return those of the images of all ranks; a reward that compares images compared a rank's."""
        own = self.rewards
        found = zip(*ranks.all([rewards_B.cpu() for rewards_B in own]), strict=True)
        return [torch.cat(parts).to(rewards_B.device) for parts, rewards_B in zip(found, own, strict=True)]


class Steps:
    """What the steps of images did and cost.

    Args:
        steps: of the policy.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.open, self.unchanged = steps, 0, 0
        self._passes: list[np.ndarray] = []

    def over(self, drawn: Iterable[Rollout]) -> Iterator[Batch]:
        """Count the steps of batches and hand on their images."""
        for part in drawn:
            self._passes.append(part.nfe_N)
            for step in part.steps:
                if step.step < self.steps - 1:
                    open_B = step.masked_before_B > 0
                    self.open += int(open_B.sum())
                    self.unchanged += int((open_B & (step.masked_after_B == step.masked_before_B)).sum())
            yield part.images_NCHW, part.condition

    @classmethod
    def sum(cls, parts: Sequence[Steps]) -> Steps:
        """Return those of all images, of parts of them."""
        whole = cls(parts[0].steps)
        for part in parts:
            whole.open, whole.unchanged = whole.open + part.open, whole.unchanged + part.unchanged
            whole._passes += part._passes
        return whole

    @property
    def nfe_N(self) -> np.ndarray:
        """Forward passes of each image."""
        return np.concatenate(self._passes)

    @property
    def idle(self) -> float:
        """In which share of the steps before the last, of those where something is masked, nothing is
        revealed; not a number where there is no such step."""
        return self.unchanged / self.open if self.open else math.nan
