"""Fit a task's tokenizer and save it: codebook, metadata and reconstruction error."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path

from _cli import main

from generators.checkpoints import save_pretrained
from generators.data import load_part
from generators.tokenizers import PatchKMeans


@dataclass(frozen=True, kw_only=True)
class Args:
    """Fit a codebook of k-means patches to a task's train part."""

    output: Path
    """Folder to write; it must not exist."""
    task: str = "digits"
    """Task to fit."""
    patch: int = 2
    """Side of a patch in pixels."""
    codebook_size: int = 128
    """Number of codes."""
    seed: int = 0
    """Of the k-means restarts."""


def work(args: Args) -> None:
    if args.output.exists():
        raise ValueError(f"{args.output} exists and is not overwritten; choose another --output")
    train, select = load_part(args.task, "train"), load_part(args.task, "select")
    tokenizer = PatchKMeans.fit(
        train.images_NCHW, patch=args.patch, codebook_size=args.codebook_size, seed=args.seed
    )
    error = (
        (tokenizer.decode(tokenizer.encode(select.images_NCHW)) - select.images_NCHW).square().mean().item()
    )
    used = tokenizer.encode(train.images_NCHW).unique().numel()
    save_pretrained(tokenizer, args.output, task=args.task)
    print(f"{args.output}: {used} codes used, squared error {error:.5f} on the select part")


if __name__ == "__main__":
    main(Args, work)
