"""Make a task of a folder of images: splits, tokenizer, extractors and generator, ready for every script."""

import _root  # noqa: F401

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from _cli import main

from generators.checks import at_least, finite
from generators.config import TrainingConfig
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
    condition: Literal["class", "text"] = "class"
    """What images are drawn from: classes, or the texts of metadata.csv's column text, of another one by
    IMAGES#caption=COLUMN; several rows of a file are several texts."""
    encoder: str | None = None
    """What reads the texts, as in train_generator.py; by default a word encoder, which needs nothing."""
    mirror: bool = False
    """Train the generator on mirrored images, too; right where an image means the same seen in a mirror."""
    crops: int = 0
    """Train the generator on so many random crops of each image, read an eighth larger, and not on its
    center."""
    class_power: float = 1.0
    """Classes are learned from in proportion to their numbers of images to this power: 1 is as the data have
    them, 0 evenly, 0.5 in between, for long tails."""
    conditions: Literal["balanced", "data"] | None = None
    """How classes are drawn in trainings, searches and tables: evenly, or as often as the data have them; by
    default as the data, if their shares are far from even."""
    tokenizer: str | None = None
    """Task or folder whose tokenizer is borrowed, in place of training one."""
    codebook_size: int = 256
    """Codes of the tokenizer."""
    perceptual: float = 0.0
    """Weight of what images lose in the eyes of a network, in the tokenizer's training: of the one that
    rewards look through, or of VGG16."""
    perceptual_weights: str | None = None
    """Local file of torchvision's VGG16 weights."""
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
    extractor: Literal["inception", "dinov2-small", "dinov2-base", "dinov2-large"] | None = None
    """What judges tables in place of a classifier of the task's own; its features tell no classes, so that no
    accuracy is taken."""
    extractor_weights: str | None = None
    """Its local file of weights."""
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
        at_least(1, self, "width", "depth", "features")
        at_least(0, self, "crops")
        at_least(2, self, "codebook_size", "evaluation_images", "downsampling")
        if (self.images is None) == (self.resume is None):
            raise ValueError("give either a folder of images or --resume, and not both")
        if self.resume is None and self.output is None:
            raise ValueError("name the task's folder with --output")
        finite(self, "perceptual")
        if self.perceptual and self.tokenizer is not None:
            raise ValueError("--perceptual is of a tokenizer that is trained; leave out it or --tokenizer")
        if self.perceptual_weights is not None and not self.perceptual:
            raise ValueError("--perceptual-weights are looked through with --perceptual WEIGHT, which is 0")
        if (self.extractor is None) != (self.extractor_weights is None):
            raise ValueError("--extractor and --extractor-weights, its local file, go together")
        text = self.condition == "text" or (self.images is not None and "caption=" in self.images)
        if self.encoder is not None and not text:
            raise ValueError("--encoder reads texts; say --condition text, or leave it out")
        TrainingConfig(class_power=self.class_power)  # says what is wrong with it
        if self.images is not None:
            FolderSpec.parse(self.images)
        for name in ("tokenizer", "extractor_weights", "perceptual_weights"):
            object.__setattr__(self, name, at_hand(getattr(self, name)))  # a resume may begin elsewhere


def work(args: Args) -> None:
    import _train_task  # torch, only now that the flags are read

    _train_task.work(args)


if __name__ == "__main__":
    main(Args, work)
