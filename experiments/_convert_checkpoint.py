"""What convert_checkpoint.py does: official weights and strategy files read and written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from agents.official import POLICY_FORMATS, actor_from
from generators.checkpoints import save_pretrained
from generators.formats import FORMATS
from generators.schedules import Schedule
from generators.weights import convert, other_entries, read
from natgym.rewards.official import DISCRIMINATOR_FORMATS

if TYPE_CHECKING:
    from convert_checkpoint import Args

SCHEDULES = (".json", ".yaml", ".yml")
KNOWN = {**FORMATS, **POLICY_FORMATS, **DISCRIMINATOR_FORMATS}
GEOMETRY = ("grid", "heads", "decoder_depth", "steps", "actions", "smoothing")


def work(args: Args) -> None:
    if args.output.exists():
        raise ValueError(f"{args.output} exists and is not overwritten; choose another OUT")
    if args.source.suffix.lower() in SCHEDULES:
        if flags := [flag for flag in (*GEOMETRY, "entry") if getattr(args, flag) is not None]:
            raise ValueError(f"{args.source} is a schedule, which has no {', '.join(flags)}")
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
        config = converted.config
        print(f"{config.steps} steps, actions {config.actions!r}, smoothing {config.smoothing:g}")
    for key, why in converted.ignored.items():
        print(f"left out {key}: {why}")
    for name, number in ({} if args.entry else other_entries(args.source)).items():
        print(f"{args.source} also holds {number} tensors under {name!r}: --entry {name} takes these")
