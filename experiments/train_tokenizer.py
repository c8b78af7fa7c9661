"""Train a task's tokenizer and save it, with what it loses on the select split."""

import _root  # noqa: F401

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from _cli import Log, main, refuse_missing

from generators.checks import at_least
from generators.config import VQTrainingConfig


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train a tokenizer on a task's train split: a convolutional VQ-VAE, or a codebook of k-means patches."""

    output: Path | None = None
    """Folder to write; it must not exist."""
    resume: Path | None = None
    """Folder to go on with (vq); its own settings are used."""
    task: str = "digits"
    """Task or image folder to train on."""
    kind: Literal["vq", "kmeans"] | None = None
    """By default the task's recipe, which is vq unless its task.json says otherwise."""
    codebook_size: int | None = None
    """Number of codes, by default 128 (kmeans) or 256 (vq)."""
    patch: int = 2
    """kmeans: side of a patch in pixels."""
    code_width: int = 8
    """vq: width of a code."""
    width: int = 64
    """vq: channels of the convolutions."""
    downsampling: int = 4
    """vq: side of a token in pixels, a power of 2."""
    blocks: int = 2
    """vq: residual blocks on either side of the codebook."""
    perceptual_network: Path | None = None
    """vq: what sees images beside the squared error of their pixels: a file of torchvision's VGG16 weights,
    or the folder of a saved classifier, which should not be the one that judges tables."""
    classifier: str | None = None
    """In whose features the distance is measured: a folder, by default the one shipped for the task."""
    device: str = "cpu"
    """Where vq trains."""
    threads: int = 1
    """CPU threads; results are bit-equal for the same number."""
    checkpoint_every: int = 100
    """vq: updates between checkpoints."""
    log: tuple[Log, ...] = ()
    """vq: log the training for these, too: its metrics, and coded images at checkpoints."""
    train: Annotated[VQTrainingConfig, tyro.conf.arg(name="")] = field(default_factory=VQTrainingConfig)
    """Hyper-parameters of vq; the seed is also that of the k-means restarts."""

    def __post_init__(self) -> None:
        refuse_missing(self.log)
        at_least(1, self, "codebook_size", "checkpoint_every", "threads", "patch")
        at_least(1, self, "code_width", "width", "downsampling")
        at_least(0, self, "blocks")
        if (network := self.perceptual_network) is not None:
            object.__setattr__(self, "perceptual_network", network.resolve())  # a resume may begin elsewhere


def work(args: Args) -> None:
    import _train_tokenizer  # torch, only now that the flags are read

    _train_tokenizer.work(args)


if __name__ == "__main__":
    main(Args, work)
