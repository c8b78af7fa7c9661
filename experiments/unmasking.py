"""Set learned unmasking against rules: how much is solved in how many passes."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from _cli import main

from generators.checks import at_least

STEPS = (1, 2, 3, 4, 5, 6, 8, 12, 16)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Compare policies with the front of rules, all on the same images to complete and the same noise.

    Rules are many: schedules of each T in order of confidence, margin, entropy and at random, and adaptive
    ones with several numbers each. The corners of the upper convex hull of quality against mean passes on
    the select split are judged on the report split, as the policies are; the hull of these is the front, and
    a policy is judged by what it has beyond it at as many passes.
    """

    task: str = "sudoku-4"
    """Task, perhaps with what is given: sudoku-6#given=unique."""
    policy: tuple[str, ...] = ()
    """Run folders of learned policies, or schedule files; several trainings of one kind as KIND=RUN,
    which gives the interval over them."""
    price: tuple[float, ...] = ()
    """Prices at which policies that learned a range of them are played; by default each image has its own."""
    metric: Literal["valid", "held", "caption", "accuracy", "distance"] = "valid"
    """Quality; of the distance the hull is the lower one, and less than it is beyond."""
    steps: tuple[int, ...] = STEPS
    """T of schedules."""
    theta: tuple[float, ...] = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    """Probabilities from which the rules threshold and sure reveal a token."""
    epsilon: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 1.0, 1.5)
    """Bounds of the rule entropy-bounded, in nats."""
    sampling: tuple[float, ...] = (0.1, 1.0)
    """Sampling temperatures of rules; 0.1 all but takes the likeliest code."""
    guidance: tuple[float, ...] = ()
    """Guidance scales of rules, constant over the steps; 0 is one pass a step. By default each rule's own."""
    rules: tuple[str, ...] = ()
    """Further rules, as evaluate.py takes policies."""
    oracle: bool = False
    """Also play one that knows which grids can be completed, of a sudoku: how much room there is."""
    choose: Literal["select", "report"] = "select"
    """Split that chooses rules; report is in hindsight, a front that nobody could have known."""
    images: int = 1000
    """Images per policy and evaluation seed."""
    choose_images: int | None = None
    """Images per rule on the split that chooses, by default as many; those of the first seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Evaluation seeds."""
    threads: int = 2
    """Batches drawn at once."""
    device: str = "cpu"
    """Where generator and policies live: cpu or cuda."""
    output: Path | None = None
    """Run folder, by default runs/unmasking-<time>."""

    def __post_init__(self) -> None:
        at_least(1, self, "images", "choose_images", "threads")
        for name in ("steps", "sampling", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one")


def work(args: Args) -> None:
    import _unmasking  # torch, only now that the flags are read

    _unmasking.work(args)


if __name__ == "__main__":
    main(Args, work)
