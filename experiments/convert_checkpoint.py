"""Turn official weights into a folder that natgym loads, or a strategy file into a schedule and back."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from _cli import main

from natgym.names.spaces import Preset


@dataclass(frozen=True, kw_only=True)
class Args:
    """Convert official weights (.pth, .ckpt, .safetensors) to a folder, or AutoNAT's .yaml to .json and back.

    Known are the U-ViT of AutoNAT, AdaNAT and AdaGen, ENAT, the VQGAN of all, AdaNAT's and AdaGen's
    policies, and Halton-MaskGIT; --entry discriminator takes AdaNAT's discriminator out of ckpt_N.pth.
    Nothing in IN is executed.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """File to read."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to write, or schedule file; it must not exist."""
    grid: tuple[int, int] | None = None
    """Rows and columns of tokens; by default square, for a VQGAN 16 x 16."""
    heads: int | None = None
    """Attention heads; known for the official sizes."""
    decoder_depth: int | None = None
    """Decoder blocks of an ENAT; known for the official size."""
    steps: int | None = None
    """Decoding steps of a policy; by default 8 for AdaNAT and 16 for AdaGen."""
    actions: Preset | None = None
    """A policy's action map; by default the official one of its kind."""
    smoothing: float | None = None
    """Share of the action before in a policy's action; by default 0 for AdaNAT and 0.8 for AdaGen."""
    entry: str | None = None
    """Entry of IN that holds the weights; by default `state_dict`, `model` or the file itself."""


def work(args: Args) -> None:
    import _convert_checkpoint  # torch, only now that the flags are read

    _convert_checkpoint.work(args)


if __name__ == "__main__":
    main(Args, work)
