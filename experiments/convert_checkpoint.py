"""Turn official weights into a folder that natgym loads, or a strategy file into a schedule and back."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from _cli import main
from torch import nn

from agents.official import POLICY_FORMATS, actor_from
from generators.checkpoints import save_pretrained
from generators.formats import FORMATS
from generators.schedules import Schedule
from generators.weights import convert, read
from natgym.rewards.official import DISCRIMINATOR_FORMATS
from natgym.spaces import Preset

SCHEDULES = (".json", ".yaml", ".yml")
KNOWN = {**FORMATS, **POLICY_FORMATS, **DISCRIMINATOR_FORMATS}
GEOMETRY = ("grid", "heads", "decoder_depth", "steps", "actions", "smoothing")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Convert official weights (.pth, .ckpt, .safetensors) to a folder, or AutoNAT's .yaml to .json and back.

    Known are the U-ViT of AutoNAT, AdaNAT and AdaGen, ENAT, the VQGAN of all, and AdaNAT's and AdaGen's
    policies; --entry discriminator takes AdaNAT's discriminator out of ckpt_N.pth. Nothing in IN is executed.
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
    if args.output.exists():
        raise ValueError(f"{args.output} exists and is not overwritten; choose another OUT")
    if args.source.suffix.lower() in SCHEDULES:
        if given := [flag for flag in (*GEOMETRY, "entry") if getattr(args, flag) is not None]:
            raise ValueError(f"{args.source} is a schedule, which has no {', '.join(given)}")
        convert_schedule(args.source, args.output)
    else:
        convert_weights(args)


def convert_schedule(source: Path, output: Path) -> None:
    """Write a schedule in the form that the name of `output` says."""
    if output.suffix.lower() not in SCHEDULES:
        raise ValueError(
            f"{source} is a schedule, so OUT has to end in {' or '.join(SCHEDULES)}, not {output}"
        )
    schedule = Schedule.load(source)
    schedule.save(output)
    print(f"{output}: schedule of {schedule.steps} steps; guidance is l_c + w (l_c - l_u) in both files")


def convert_weights(args: Args) -> None:
    """Write the module of `args.source` and say what it is and what was left out."""
    official = read(args.source, args.entry)
    try:
        converted = convert(official, formats=KNOWN, **{flag: getattr(args, flag) for flag in GEOMETRY})
    except ValueError as error:
        raise ValueError(f"{args.source}: {error}") from None
    form = converted.format.name
    if form in POLICY_FORMATS:
        module: nn.Module = actor_from(converted)
    else:
        module = converted.build()
    save_pretrained(module, args.output, source=args.source.name, format=form)
    count = sum(parameter.numel() for parameter in module.parameters())
    print(f"{args.output}: {form}, {len(converted.weights)} tensors, {count:,} parameters")
    if form in POLICY_FORMATS:
        told = converted.config
        print(f"{told.steps} steps, actions {told.actions!r}, smoothing {told.smoothing:g}")
    for key, why in converted.ignored.items():
        print(f"left out {key}: {why}")


if __name__ == "__main__":
    main(Args, work)
