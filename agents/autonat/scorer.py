"""What a search of schedules measures: the distance of a schedule's images from a split of the task; or what
a reward says of them, where there are no real images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from agents.autonat.config import SearchConfig
from generators.conditions import Condition, balanced
from generators.data import SplitName
from generators.first_pass import FirstPass
from generators.noise import derive_seed
from generators.rules import DecodeRules
from generators.schedules import Schedule
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.evaluation.objective import Measurement, Objective, ObjectiveName
from natgym.evaluation.scorer import Scorer
from natgym.metrics import pixels
from natgym.policies import FixedPolicy
from natgym.rewards.checks import as_rewards
from natgym.rewards.contract import Reward, needs_batch
from natgym.rollouts import Policy, Rollout, at_random, rollout, stream
from natgym.task import Task


class Evaluation(NamedTuple):
    """One schedule to be measured.

    Attributes:
        number: counts the evaluations of a search; the key of its log.
        generation: its evaluations are open together.
        schedule: what to measure.
        images: images to draw.
        seed: of the first image's noise.
        balanced: conditions by the task's law; else drawn at random from the seed, as AutoNAT does.
        split: of the real images that they are compared with; tokens are given of the same.
    """

    number: int
    generation: int
    schedule: Schedule
    images: int
    seed: int
    balanced: bool
    split: SplitName = "select"


class ScheduleScorer:
    """Measure schedules of one generator: their images' distance from a split of the task's real images.

    Args:
        task: a `Task`, or what `Task.load` takes.
        rules: of policies that have none of their own, perhaps as text.
        objective, price: what is measured; see `natgym.evaluation.objective`.
        threads: batches drawn at once; results don't depend on it.

    Raises:
        ValueError: nobody tells the objective.
    """

    def __init__(
        self,
        task: Any,
        *,
        rules: str | DecodeRules = "confidence",
        objective: ObjectiveName = "distance",
        price: float = 0.0,
        threads: int = 1,
    ) -> None:
        self.task = Task.load(task)
        self.objective = Objective(objective, price)
        if objective != "distance":
            self.objective.refuse_untold(self.task.score_extractor, self.task)
        self.generator, self.tokenizer = self.task.generator, self.task.tokenizer
        self.rules, self.threads = DecodeRules.of(rules, self.generator.grid), threads
        self.first_pass = FirstPass(self.generator)  # every image of a class begins with the same one
        self._scorers: dict[SplitName, Scorer] = {}

    def scorer(self, split: SplitName = "select") -> Scorer:
        """Return what compares images with a split, made when it is first asked for."""
        if split not in self._scorers:
            self._scorers[split] = Scorer(self.task.score_extractor, self.task.images(split))  # type: ignore[arg-type]
        return self._scorers[split]

    def suited(self, config: SearchConfig) -> SearchConfig:
        """Return a search without what means nothing here: guidance, where all images are of one class."""
        return config if self.task.pool.guides else config.unguided()

    def __call__(self, evaluation: Evaluation) -> Measurement:
        images, seed = evaluation.images, evaluation.seed
        if evaluation.balanced:
            condition = self.task.asked(images, evaluation.split)
        else:
            pool = self.task.pool_of(evaluation.split)
            condition = at_random(pool, images, derive_seed(seed, "conditions"))
        drawn = self._play(stream, FixedPolicy(evaluation.schedule), condition, seed)
        scorer = self.scorer(evaluation.split)
        return self.objective.of(scorer, drawn)

    def evaluator(self, images: int, seeds: Sequence[int]) -> Evaluator:
        """Return what evaluates policies of this generator on the report split, which is opened only here.

        It has one more column, by a view of the images that no network has a say in.
        """
        config = EvaluationConfig(images=images, seeds=tuple(seeds))
        train, report = self.task.images("train"), self.task.images("report")
        return Evaluator(
            self.task,
            config,
            rules=self.rules,
            metrics={pixels.PIXELS: pixels.PixelDistance.maker(train, report)},
            notes=[pixels.NOTE],
            threads=self.threads,
        )

    def draw(self, policy: Policy, condition: Condition, seed: int) -> Rollout:
        """Draw one image per condition."""
        return self._play(rollout, policy, condition, seed)

    def _play(self, draw: Callable[..., Any], policy: Policy, condition: Condition, seed: int) -> Any:
        return draw(
            policy,
            self.generator,
            self.tokenizer,
            condition,
            seed=seed,
            rules=self.rules,
            first_pass=self.first_pass,
            threads=self.threads,
        )


class RewardScorer(ScheduleScorer):
    """Measure schedules by what a reward says of their images: minus its mean is made small.

    It asks a task for nothing but generator and tokenizer; all splits are one to it.

    Args:
        task, rules, threads: as of a `ScheduleScorer`.
        reward: one number for each image, of that image alone.
        conditions: drawn from; by default the task's.
        price: added for each forward pass of an image.

    Raises:
        ValueError: the reward compares images.
    """

    def __init__(
        self,
        task: Any,
        reward: Reward,
        *,
        conditions: Condition | None = None,
        rules: str | DecodeRules = "confidence",
        price: float = 0.0,
        threads: int = 1,
    ) -> None:
        super().__init__(task, rules=rules, price=price, threads=threads)
        if needs_batch(reward):
            raise ValueError(
                "the reward compares images, which come in batches; give one of each image alone"
            )
        self.reward = reward
        self.pool = self.task.pool if conditions is None else conditions

    def suited(self, config: SearchConfig) -> SearchConfig:
        return config if self.pool.guides else config.unguided()

    def __call__(self, evaluation: Evaluation) -> Measurement:
        images, seed = evaluation.images, evaluation.seed
        if evaluation.balanced:
            condition = balanced(self.pool, images)
        else:
            condition = at_random(self.pool, images, derive_seed(seed, "conditions"))
        losses = []
        for part in self._play(stream, FixedPolicy(evaluation.schedule), condition, seed):
            rewards_B = as_rewards(self.reward(part.images, part.condition), len(part.nfe_N))
            losses.append(self.objective.price * part.nfe_N - rewards_B)
        losses_N = np.concatenate(losses)
        return Measurement(float(losses_N.mean()), float(losses_N.std() / math.sqrt(images)))
