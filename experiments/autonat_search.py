"""Search for the best static decoding schedule (AutoNAT), and compare it with the hand-made ones."""

import _root  # noqa: F401

from dataclasses import dataclass, field
from typing import Annotated

import tyro
from _cli import Places, main

from agents.autonat.config import ClassTableConfig, OptimizerName, SearchConfig
from generators.checks import at_least, finite
from generators.precision import Precision
from generators.rules import DecodeRules
from natgym.evaluation.objective import ObjectiveName


@dataclass(frozen=True, kw_only=True)
class Args(Places):
    """Search for the best static decoding schedule, and compare it with hand-made ones.

    Each optimizer may spend the same number of images; candidates are measured against the train split and
    finalists against select. The best schedule is written as strategy.json, and as strategy.yaml for AutoNAT;
    with --table.candidates, a schedule is searched for every class too. The table is of the report split,
    which no search has seen.
    """

    task: str = "digits"
    """Task of tokenizer, classifier and real images: digits or mnist."""
    generator: str | None = None
    """Folder of a saved generator, or the name of a shipped one such as mnist/enat; by default the task's."""
    steps: int = 4
    """Decoding steps T."""
    optimizer: tuple[OptimizerName, ...] = ("grid", "cma")
    """One or more of: paper (AutoNAT's finite differences), grid (three scales of the reference), random,
    spsa, gradient, coordinate, cma, tpe (Optuna's, if that is installed)."""
    repeats: int = 1
    """Searches by each optimizer, with the seeds seed, seed + 1, ...; the table gives their mean."""
    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = field(default_factory=SearchConfig)
    """Budget and details of each search."""
    table: ClassTableConfig = field(default_factory=ClassTableConfig)
    """The schedule per class."""
    objective: ObjectiveName = "distance"
    """What is made small: the distance from the split; or, where the score extractor tells it, the share of
    images that are not as their captions ask, or not by the rules of a puzzle."""
    price: float = 0.0
    """Added to it for each forward pass of an image."""
    rules: str = "confidence"
    """Rules of the decoding step: confidence, random, halton, with limits if need be (generators.rules);
    adanat lets a step reveal nothing."""
    images: int = 5000
    """Images per row and evaluation seed in the table."""
    evaluation_seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the table."""
    seed: int = 0
    """Everything random in the searches follows from it."""
    device: str = "cpu"
    """Where generator and classifier live: cpu or cuda."""
    precision: Precision = "float32"
    """In which the generator computes: float32, tf32 (a GPU's matrix products), or bfloat16 weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "steps", "repeats", "images")
        finite(self, "price")
        DecodeRules.of(self.rules, (1, 1))  # says what is wrong with them before anything is loaded
        for name in ("optimizer", "evaluation_seeds"):
            if not (given := getattr(self, name)) or len(set(given)) < len(given):
                raise ValueError(f"{name} {' '.join(map(str, given))}: give at least one, and none twice")


def work(args: Args) -> None:
    import _autonat_search  # torch, only now that the flags are read

    _autonat_search.work(args)


if __name__ == "__main__":
    main(Args, work)
