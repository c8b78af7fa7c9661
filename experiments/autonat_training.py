"""Search for how tokens are masked in training, in turn with the decoding schedule (AutoNAT)."""

import _root  # noqa: F401

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from _cli import main

from agents.autonat.config import LawSearchConfig, OptimizerName, SearchConfig
from generators.checks import at_least


@dataclass(frozen=True, kw_only=True)
class Args:
    """Search for the law of the mask ratio in a NAT's training, in turn with its decoding schedule.

    Each round trains laws for a short time under ASHA, keeps the one whose generator is best on the select
    part, and searches a schedule for that generator, under which the next round compares. At the end the law
    found, MaskGIT's cosine and AutoNAT's Beta(12, 3) train anew and are compared on the report split.
    """

    task: str = "digits"
    """digits or mnist."""
    steps: int = 4
    """Decoding steps T."""
    rounds: int = 2
    """Alternations of training and generation strategy."""
    updates: int = 800
    """Updates of a training that is not stopped; best a rung times a power of 2."""
    laws: LawSearchConfig = field(default_factory=LawSearchConfig)
    """Laws tried in a round."""
    schedule: str = "maskgit"
    """Schedule of the first round: a name or a file."""
    optimizer: OptimizerName = "cma"
    """How schedules are searched; see autonat_search.py."""
    search: Annotated[SearchConfig, tyro.conf.arg(name="search")] = field(
        default_factory=lambda: SearchConfig(budget=40_000)
    )
    """Budget and details of each search for a schedule."""
    images: int = 5000
    """Images per row and evaluation seed in the table."""
    evaluation_seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the table."""
    cache: Path = Path("cache")
    """Folder of encoded data sets."""
    seed: int = 0
    """Everything random follows from it."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Batches drawn at once in search and table; results don't depend on it."""
    cpus_per_trial: int = 1
    """CPUs that Ray reserves for each training, which uses one."""
    address: str | None = None
    """Address of a running Ray cluster; by default one is started on this machine."""
    output: Path | None = None
    """Run folder, by default runs/autonat_training-<time>."""
    resume: Path | None = None
    """Run folder to go on with; its own settings are used."""

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "rounds", "updates", "images", "threads", "cpus_per_trial")
        if self.updates < self.laws.rung:
            raise ValueError(f"updates {self.updates} are fewer than a rung's {self.laws.rung}; raise them")


def work(args: Args) -> None:
    import _autonat_training  # torch, only now that the flags are read

    _autonat_training.work(args)


if __name__ == "__main__":
    main(Args, work)
