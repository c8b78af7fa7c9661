"""How fast does learning come near, and searching? Distance against images and seconds."""

import _root  # noqa: F401

from dataclasses import dataclass, field
from typing import Annotated, get_args

import tyro
from _cli import Places, given_flags, main

from agents.adanat.config import TrainingConfig
from agents.adanat.presets import followed
from agents.autonat.config import SearchConfig
from agents.studies.config import Method
from generators.checks import at_least


@dataclass(frozen=True, kw_only=True)
class Args(Places):
    """Follow trainings and searches of as many images: what would each play, had it ended there?

    Each point is measured on the select split, on noise of its own that is the same for all; what that costs
    is not counted. Seconds are those of one CPU.
    """

    train: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)
    """Task, steps, seed and all of the trainings."""
    methods: tuple[Method, ...] = get_args(Method)
    """What is followed: adanat and step-only are trained; grid, cma and raced cma search."""
    repeats: int = 3
    """Trainings and searches of each, with the seeds seed, seed + 1, ..."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Details of the searches, which may spend as many images as a training."""
    images: int = 3000
    """Images that a point is measured with."""
    every: int = 5000
    """Images between two points of a search."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "repeats", "images", "every")
        self.train.env.rewards.adversarial.refuse_absent()
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods {' '.join(self.methods)}: give at least one, and none twice")


def defaults(arguments: list[str]) -> Args:
    """Return the settings that follow from flags of trainings."""
    return Args(train=followed(TrainingConfig(), given_flags(arguments)))


def work(args: Args) -> None:
    import _learning_curves  # torch, only now that the flags are read

    _learning_curves.work(args)


if __name__ == "__main__":
    main(Args, work, defaults)
