"""What a search of schedules measures: the distance of a schedule's pictures from the task's select part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from generators.conditions import Condition
from generators.data import load_part
from generators.first_pass import FirstPass
from generators.noise import derive_seed
from generators.rules import DecodeRules
from generators.schedules import Schedule
from natgym.evaluation import Evaluator
from natgym.judge import Judge
from natgym.loading import load_companion, load_generator
from natgym.policies import FixedPolicy
from natgym.rollouts import Policy, Rollout, at_random, balanced, rollout


class Evaluation(NamedTuple):
    """One schedule to be measured.

    Attributes:
        number: counts the evaluations of a search; the key of its log.
        generation: its evaluations are open together.
        schedule: what to measure.
        images: pictures to draw.
        seed: of the first picture's noise.
        balanced: conditions in turn; else drawn at random from the seed, as AutoNAT does.
    """

    number: int
    generation: int
    schedule: Schedule
    images: int
    seed: int
    balanced: bool


class Measurement(NamedTuple):
    """Distance from the select part, and its standard error over draws of as many pictures."""

    distance: float
    error: float


class Meter:
    """Measure schedules of one generator: their pictures' distance from the task's select part.

    Args:
        task: of tokenizer, classifier and real pictures.
        generator: live, or a name or folder; by default the task's.
        rules: of policies that have none of their own, perhaps as text.
        threads: batches drawn at once; results don't depend on it.
    """

    def __init__(
        self,
        task: str,
        generator: Any = None,
        *,
        device: str = "cpu",
        rules: str | DecodeRules = "confidence",
        threads: int = 1,
    ) -> None:
        self.task, self.device = task, device
        self.generator, _ = load_generator(task if generator is None else generator, device)
        self.tokenizer = load_companion(None, "tokenizer", task, device)
        classifier = load_companion(None, "classifier", task, device)
        self.judge = Judge(classifier, load_part(task, "select").to(device))
        self.rules, self.threads = DecodeRules.of(rules, self.generator.grid), threads
        self.first_pass = FirstPass(self.generator)  # every picture of a class begins with the same one

    def __call__(self, evaluation: Evaluation) -> Measurement:
        pool, images, seed = self.generator.conditions(), evaluation.images, evaluation.seed
        if evaluation.balanced:
            condition = balanced(pool, images)
        else:
            condition = at_random(pool, images, derive_seed(seed, "conditions"))
        drawn_NCHW = self.draw(FixedPolicy(evaluation.schedule), condition, seed).images_NCHW
        return Measurement(*self.judge.distance_and_error(drawn_NCHW))

    def evaluator(self, images: int, seeds: Sequence[int]) -> Evaluator:
        """Return what evaluates policies of this generator on the report part, which is opened only here."""
        return Evaluator(
            self.generator,
            self.tokenizer,
            self.judge.classifier,
            task=self.task,
            part_name="report",
            part=load_part(self.task, "report").to(self.device),
            images=images,
            seeds=seeds,
            rules=self.rules,
            threads=self.threads,
        )

    def draw(self, policy: Policy, condition: Condition, seed: int) -> Rollout:
        """Draw one picture per condition."""
        return rollout(
            policy,
            self.generator,
            self.tokenizer,
            condition,
            seed=seed,
            rules=self.rules,
            first_pass=self.first_pass,
            threads=self.threads,
        )
