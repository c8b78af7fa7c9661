"""Does a policy adapt to the sample? Set trained policies against their own controls."""

import _root  # noqa: F401

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from _cli import Places, main

from agents.autonat.config import OptimizerName, SearchConfig


@dataclass(frozen=True, kw_only=True)
class Args(Places):
    """Ask whether trained policies adapt to the sample, or have only learned a schedule.

    Each policy meets: the schedule it started from; its own mean schedule, for all samples; itself on the
    features of other samples, of the same class and of any; a policy that sees the step alone, trained alike;
    and the best schedule of a search of as many images. Controls that the run has not are trained here.
    Intervals are over the trainings, so give several that differ in their seed: adanat_ppo.py --num-samples
    8.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")] = ()
    """Run folders of adanat_ppo.py; of a sweep all its trials are taken."""
    table: Path | None = None
    """class-table.json of autonat_search.py: a row of its own, with its shuffled control."""
    equal: bool = True
    """Search a schedule with as many images as each policy has cost: the best static one at that price."""
    optimizer: OptimizerName = "cma"
    """How it is searched."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Details of that search; its budget is what the search before a training and the training spent."""
    images: int = 3000
    """Images per policy and evaluation seed, compared with the report split."""
    evaluation_seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Seeds of the evaluation; a training's score is the mean over them."""
    samples: int = 1000
    """Images whose decisions are analysed and drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.images, self.samples, len(self.evaluation_seeds)) < 1:
            raise ValueError("images, samples and the number of evaluation-seeds must be at least 1")
        if self.table is not None and not Path(self.table).is_file():  # JSON has no paths
            raise ValueError(f"table {self.table} is no file; give the class-table.json of autonat_search.py")


def work(args: Args) -> None:
    import _adaptivity  # torch, only now that the flags are read

    _adaptivity.work(args)


if __name__ == "__main__":
    main(Args, work)
