"""Look into policies: what they decide, when, for whom, and where it differs from a schedule."""

import _root  # noqa: F401

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro
from _cli import main

from generators.checks import at_least


@dataclass(frozen=True, kw_only=True)
class Args:
    """Draw the same images under several policies; write tidy frames, figures and a report.

    A policy is a run folder of AdaNAT or AutoNAT, a schedule file, or a name as in evaluate.py. Each is set
    beside --against at its own number of steps, on the same noise and conditions.
    """

    policies: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run folders, files or names."""
    against: str = "reference"
    """The schedule to compare with."""
    steps: int = 4
    """T of policies that are given by name."""
    generator: str | None = None
    """Shipped generator or folder of a saved one; by default that of the first run, else digits."""
    samples: int = 1000
    """Images drawn with each policy."""
    films: int = 3
    """Images shown being revealed, and where policies disagree most: that many of each."""
    seed: int = 0
    """Of the noise."""
    format: Literal["csv", "parquet"] = "csv"
    """Of the frames."""
    threads: int = 2
    """Batches drawn at once."""
    device: str = "cpu"
    """Where to draw."""
    output: Path | None = None
    """Run folder, by default runs/analyze_policies-<time>."""

    def __post_init__(self) -> None:
        if not self.policies:
            raise ValueError("no policy is given; name run folders, files or schedules")
        at_least(1, self, "steps", "samples", "films", "threads")
        if self.format == "parquet" and find_spec("pyarrow") is None:
            raise ValueError("format parquet needs pyarrow; install it, or take csv")
        if self.films > self.samples:
            raise ValueError(f"films {self.films} are more than samples {self.samples}")


def work(args: Args) -> None:
    import _analyze_policies  # torch, only now that the flags are read

    _analyze_policies.work(args)


if __name__ == "__main__":
    main(Args, work)
