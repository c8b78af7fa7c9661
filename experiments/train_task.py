"""Make a task of a folder of images: splits, tokenizer, extractors and generator, ready for every script."""

import _root  # noqa: F401

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from _cli import main

from generators.checks import at_least
from generators.folders import FolderSpec
from natgym.names.tasks import at_hand


@dataclass(frozen=True, kw_only=True)
class Args:
    """Make a task of a folder of images: read it, freeze its splits, train all that the other scripts need.

    IMAGES is a folder with a folder per class, perhaps below train and test; or with a metadata.csv, or with
    images alone. PATH#COLUMN,size=N,grey says what is not plain (docs/own-data.md). What was read is shown
    before anything is trained; --dry-run stops there. A run that was stopped goes on with --resume.
    """

    images: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")] = None
    """The folder of images."""
    output: Path | None = None
    """Folder of the task; it must not exist, but for what a dry run left there."""
    resume: Path | None = None
    """Folder of a task to go on with; its own settings are used."""
    dry_run: bool = False
    """Read, plan and show what was read; train nothing."""
    size: int | None = None
    """Side of the squares that images are resized and cropped to; by default the images', at most
    32."""
    mirror: bool = False
    """Train the generator on mirrored images, too; right where an image means the same seen in a mirror."""
    conditions: Literal["balanced", "data"] | None = None
    """How classes are drawn in trainings, searches and tables: evenly, or as often as the data have them; by
    default as the data, if their shares are far from even."""
    tokenizer: str | None = None
    """Task or folder whose tokenizer is borrowed, in place of training one."""
    codebook_size: int = 256
    """Codes of the tokenizer."""
    tokenizer_updates: int = 2000
    """Updates of the tokenizer."""
    extractor_updates: int = 1000
    """Updates of each of the two extractors."""
    generator_updates: int = 3000
    """Updates of the generator."""
    width: int = 96
    """Of the generator."""
    depth: int = 4
    """Of the generator: blocks beside the middle one."""
    features: int | None = None
    """Width of the extractors' features; by default as many as few real images can judge by, 8 to 64."""
    downsampling: int | None = None
    """Side of a token in pixels, a power of 2; by default such that at most 8 x 8 tokens make an image."""
    evaluation_images: int = 2000
    """Images of each row of the table at the end."""
    source: str = ""
    """Where the images are from, and under which licence, for the task's card."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where networks are trained."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """CPU threads; results are bit-equal for the same number."""

    def __post_init__(self) -> None:
        at_least(1, self, "tokenizer_updates", "extractor_updates", "generator_updates", "threads")
        at_least(4, self, "size")
        at_least(2, self, "codebook_size", "evaluation_images")
        if (self.images is None) == (self.resume is None):
            raise ValueError("give either a folder of images or --resume, and not both")
        if self.resume is None and self.output is None:
            raise ValueError("name the task's folder with --output")
        if self.images is not None:
            FolderSpec.parse(self.images)
        object.__setattr__(self, "tokenizer", at_hand(self.tokenizer))  # a resume may begin elsewhere


def work(args: Args) -> None:
    import _train_task  # torch, only now that the flags are read

    _train_task.work(args)


if __name__ == "__main__":
    main(Args, work)
