"""Train a task's classifier, the judge of its metrics, and save it with its accuracy."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path

from _cli import main

from generators.checks import at_least


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train a task's classifier on its train split.

    Where there is one class alone, it learns to tell how images are turned, and has features without logits.
    """

    output: Path
    """Folder to write; it must not exist."""
    task: str = "digits"
    """Task or image folder to train on."""
    channels: int = 32
    """Of the first convolution; the others have twice as many."""
    features: int = 32
    """Width of the penultimate layer, in which distances are measured."""
    updates: int = 1000
    """Adam steps."""
    seed: int = 0
    """Of weights and batches."""
    device: str = "cpu"
    """Where it trains."""
    threads: int = 1
    """CPU threads; results are bit-equal for the same number."""

    def __post_init__(self) -> None:
        at_least(1, self, "channels", "features", "updates", "threads")


def work(args: Args) -> None:
    import _train_classifier  # torch, only now that the flags are read

    _train_classifier.work(args)


if __name__ == "__main__":
    main(Args, work)
