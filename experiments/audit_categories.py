"""Audit a policy's images: which categories of the real data they cover, which cluster is nobody's."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path

from _cli import main

from generators.checks import at_least


@dataclass(frozen=True, kw_only=True)
class Args:
    """Generate images, and cluster them with held-out real ones around the categories of labelled real ones.

    Features are those of the task's classifier; labelled images are the train split, held-out ones the
    report split.
    """

    generator: str = "digits"
    """Shipped generator, or folder of a saved one."""
    task: str | None = None
    """Task of tokenizer, classifier and real images, by default the generator's."""
    policy: str = "maskgit"
    """Name of a policy, as evaluate.py takes it, a schedule file, or a run folder."""
    steps: int | None = None
    """Decoding steps T; by default those of the file or run folder, else 8."""
    images: int = 1000
    """Images to generate."""
    extra: int = 3
    """Clusters beyond the categories."""
    seed: int = 0
    """Of images and clusters."""
    output: Path | None = None
    """Run folder, by default runs/audit_categories-<time>."""

    def __post_init__(self) -> None:
        at_least(1, self, "images", "steps", "extra")


def work(args: Args) -> None:
    import _audit_categories  # torch, only now that the flags are read

    _audit_categories.work(args)


if __name__ == "__main__":
    main(Args, work)
