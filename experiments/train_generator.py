"""Train a NAT or an ENAT on a task's tokens and save the averaged weights."""

import _root  # noqa: F401

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from _cli import Log, given_flags, main, refuse_missing

from generators.checks import at_least
from generators.config import CUTS, SIZE_NAMES, Model, TrainingConfig, recipe, small_recipe
from natgym.names.tasks import recipe_of


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train a generator on a task's train split; the run folder gets generator/ with the averaged weights.

    The defaults are AutoNAT's on ImageNet-256; for the small tasks, and for ENAT's reuse, they follow --data
    and --model. Under torchrun each process is a rank of one training.
    """

    data: str = "digits"
    """digits, mnist, cifar10, shapes, sudoku-4, sudoku-6, chain or a folder of images; with captions
    it learns to draw from texts."""
    model: Model = "nat"
    """Architecture."""
    size: str | None = None
    """Geometry, by default the task's, for a folder of images that of cifar10: digits, mnist, small, shapes,
    sudoku-4, sudoku-6, chain, cifar10, or the papers': l, of ENAT also s and b."""
    width: int | None = None
    """Instead of the size's width."""
    heads: int | None = None
    """Instead of the size's attention heads."""
    depth: int | None = None
    """Instead of the size's depth: NAT's blocks beside the middle one, or ENAT's encoder blocks."""
    decoder_depth: int | None = None
    """Instead of the size's decoder blocks, which ENAT alone has."""
    dropout: float | None = None
    """Instead of the size's dropout on the token embeddings."""
    cut: str | None = None
    """One kind of attention that a NAT does without, who doesn't read whom: visible-masked, masked-visible,
    visible-visible or masked-masked."""
    tokenizer: str | None = None
    """Shipped task or folder of a saved tokenizer, by default the task's."""
    encoder: str | None = None
    """What reads captions, by default the task's, else words, which knows theirs and needs nothing. Or
    clip:NAME, amused:NAME, t5:NAME, transformers:NAME, each a model's name or folder, minilm, or a saved
    one's folder."""
    classifier: str | None = None
    """Shipped task or folder of a saved classifier for the curves, by default the task's, if any."""
    mirror: bool = False
    """Add the mirror image of each image, as the papers do."""
    crops: int = 0
    """Take so many random crops of each image of a folder, read an eighth larger, and not its center."""
    cache: Path = Path("cache")
    """Folder of encoded data sets."""
    output: Path | None = None
    """Run folder, by default runs/train_generator-<time>."""
    resume: Path | None = None
    """Run folder to go on with; its own settings are used."""
    checkpoint_every: int = 100
    """Updates between checkpoints."""
    evaluate_every: int = 1000
    """Updates between sample grids, and distances from the select split; 0: never."""
    evaluation_images: int = 1000
    """Images generated for a distance."""
    evaluation_steps: int = 8
    """Decoding steps of these."""
    evaluation_schedule: str = "maskgit"
    """Schedule of these: a family's name or a file."""
    device: str = "cpu"
    """Where to train, such as cuda; each rank takes a GPU of its own."""
    threads: int = 1
    """CPU threads; results are bit-equal for the same number."""
    workers: int = 1
    """Processes that train together on a Ray cluster; 1: this one, without Ray."""
    address: str | None = None
    """Address of a running Ray cluster for the workers; none starts one on this machine."""
    log: tuple[Log, ...] = ()
    """Log the training for these, too: its metrics, and samples at evaluations."""
    train: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=small_recipe)
    """Hyper-parameters."""

    def __post_init__(self) -> None:
        at_least(0, self, "crops", "evaluate_every")
        at_least(1, self, "width", "heads", "depth", "decoder_depth")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout}: it must be in [0, 1)")
        if self.cut is not None and (self.model != "nat" or self.cut not in CUTS):
            raise ValueError(f"cut {self.cut} of {self.model}: nat alone has cuts, {', '.join(CUTS)}")
        if self.decoder_depth is not None and self.model != "enat":
            raise ValueError(f"decoder_depth {self.decoder_depth} of {self.model}: enat alone has a decoder")
        if self.train.given and (self.mirror or self.crops):
            raise ValueError(
                "given: what is given is known of the images as they are; no --mirror or --crops"
            )
        refuse_missing(self.log)
        at_least(1, self, "checkpoint_every", "threads", "workers", "evaluation_images", "evaluation_steps")
        if self.size is not None and self.size not in SIZE_NAMES[self.model]:
            raise ValueError(f"size {self.size!r}: {self.model} has {', '.join(SIZE_NAMES[self.model])}")


def defaults(arguments: list[str]) -> Args:
    """Return the settings that follow from --data and --model alone."""
    flags = given_flags(arguments)
    data = flags.get("--data", "digits")
    model: Model = "enat" if flags.get("--model") == "enat" else "nat"
    return Args(data=data, train=recipe(recipe_of(data), model))


def work(args: Args) -> None:
    import _train_generator  # torch, only now that the flags are read

    _train_generator.work(args)


if __name__ == "__main__":
    main(Args, work, defaults)
