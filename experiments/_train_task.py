"""What train_task.py does: a folder read and shown, its splits frozen, networks trained one by one."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _train_classifier
import _train_generator
import _train_tokenizer
import torch
import train_classifier
import train_generator
import train_tokenizer
from _cli import refuse_settings
from _task_card import judge
from _task_plan import TOKENIZER_WIDTH, Plan, contact_sheet, estimate

from generators.checkpoints import save_pretrained
from generators.config import VQTrainingConfig, recipe
from generators.data import open_split
from generators.encoders import make_encoder
from generators.files import LOCK, hold, saved
from generators.frozen import write_splits
from generators.texts import Captions
from natgym.evaluation.evaluator import refuse_too_few
from natgym.metrics.extractors import load_extractor
from natgym.metrics.perceptual import PerceptualDistance
from natgym.names.tasks import SPLIT_FILE, TASK_FILE, read_task, write_task
from natgym.runs import Run, write_config
from natgym.task import Task

if TYPE_CHECKING:
    from train_task import Args

RUN = "training"  # of the generator, in the task's folder


def work(args: Args) -> None:
    folder = args.resume
    if folder is None:
        folder = prepare(args)
        if args.dry_run:
            return
    else:
        refuse_settings(folder, ("resume",))
        if not (folder / TASK_FILE).is_file():
            raise ValueError(
                f"{folder} has no {TASK_FILE}: it is no task, or was not read to its end; start anew"
            )
    args, folder = Run.resume(folder).config(type(args)), folder.resolve()  # to resume from anywhere
    for place, train in stages(args, folder):
        if not saved(folder / place):
            clear(folder / place)
            train()
    judge(args, folder)


def prepare(args: Args) -> Path:
    """Read the folder of images, show what was read and the plan, and begin the task's folder."""
    folder = args.output
    assert folder is not None
    begun = {"figures", SPLIT_FILE, "config.json", LOCK}  # by a dry run, or a run that was stopped so early
    if folder.exists() and {path.name for path in folder.iterdir()} - begun:
        raise ValueError(f"{folder} exists and is not overwritten; choose another --output, or --resume it")
    if args.tokenizer is not None:
        refuse_own_tokenizer(args)
    plan = Plan.of(args)
    if args.tokenizer is not None:
        refuse_another_shape(args.tokenizer, plan)
    refuse_other_weights(args, plan)
    print(*plan.said(), sep="\n")
    stages = estimate(args, plan)  # of networks that are made for it, before there is a folder
    folder.mkdir(parents=True, exist_ok=True)
    print(Run(folder).write_figure("contact-sheet", contact_sheet(plan)))
    print(stages.to_string(index=False))
    if not args.dry_run:
        hold(folder)
        write_splits(folder / SPLIT_FILE, plan.rows)
        chosen = dataclasses.replace(
            args, size=plan.spec.size, features=plan.features, downsampling=plan.downsampling
        )
        write_config(folder / "config.json", chosen)
        write_task(folder, plan.description(args))  # last, as a sign that all of it is there
    return folder


def clear(place: Path) -> None:
    """Remove what a kill left of a network that was not saved whole, unless its training can go on."""
    if not (place / _train_tokenizer.SETTINGS).is_file():
        shutil.rmtree(place, ignore_errors=True)


def refuse_own_tokenizer(args: Args) -> None:
    """Raise ValueError if settings are of a tokenizer that is trained, where one is borrowed."""
    usual = {field.name: field.default for field in dataclasses.fields(args)}
    own = ("codebook_size", "downsampling", "tokenizer_updates")
    if said := [name for name in own if getattr(args, name) != usual[name]]:
        raise ValueError(f"tokenizer {args.tokenizer} is borrowed as it is; leave out {', '.join(said)}")


def refuse_another_shape(tokenizer: str, plan: Plan) -> None:
    """Raise ValueError if a tokenizer is not for the images of a plan."""
    shape = tuple(Task.load(tokenizer).tokenizer.image_shape)
    if shape != (own := tuple(plan.pixels.image_shape)):
        raise ValueError(f"tokenizer {tokenizer} is for images {shape}, these are {own}; say --size or #grey")


def refuse_other_weights(args: Args, plan: Plan) -> None:
    """Raise ValueError if foreign weights are another's, or images too few or too small for them."""
    if args.extractor is not None:
        refuse_too_few(args.evaluation_images, load_extractor(args.extractor, args.extractor_weights))
    if args.perceptual_weights is not None:
        look, blank_BCHW = PerceptualDistance.of_vgg(args.perceptual_weights), torch.zeros(1, *plan.shape)
        try:
            look(blank_BCHW, blank_BCHW)
        except RuntimeError:
            raise ValueError(
                f"images of {plan.spec.size} pixels are too small for VGG16; --size 16"
            ) from None


def stages(args: Args, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the place of each network in the task's folder, and what trains it."""
    task = str(folder)
    for number, which in enumerate(("score", "reward")):
        if which == "score" and args.extractor is not None:
            yield "extractors/score", partial(take_extractor, args, folder)
            continue
        extractor = train_classifier.Args(
            output=folder / "extractors" / which,
            task=task,
            features=args.features or 32,
            updates=args.extractor_updates,
            seed=args.seed + number,
            device=args.device,
            threads=args.threads,
        )
        yield f"extractors/{which}", partial(_train_classifier.work, extractor)
    yield "tokenizer", partial(make_tokenizer, args, folder)
    if (said := open_split(read_task(folder).data, "train").condition) and isinstance(said, Captions):
        yield "encoder", partial(save_encoder, args, folder, said)
    yield "nat", partial(make_generator, args, folder)


def take_extractor(args: Args, folder: Path) -> None:
    """Copy a foreign network into the task, which then needs its file no more."""
    network = load_extractor(args.extractor or "", args.extractor_weights)
    save_pretrained(network, folder / "extractors" / "score", source=args.extractor)


def save_encoder(args: Args, folder: Path, captions: Captions) -> None:
    """Save what reads the texts; there is nothing in it to be trained."""
    encoder: Any = make_encoder(args.encoder or "words", captions)
    save_pretrained(encoder, folder / "encoder")


def make_tokenizer(args: Args, folder: Path) -> None:
    """Borrow a tokenizer or train one, from where it was stopped."""
    place = folder / "tokenizer"
    if args.tokenizer is not None:
        tokenizer = Task.load(args.tokenizer).tokenizer
        assert isinstance(tokenizer, torch.nn.Module)
        save_pretrained(tokenizer, place, borrowed=args.tokenizer)
        return
    if (place / _train_tokenizer.SETTINGS).is_file():
        return _train_tokenizer.work(train_tokenizer.Args(resume=place))
    seen_by = args.perceptual_weights or folder / "extractors" / "reward"
    _train_tokenizer.work(
        train_tokenizer.Args(
            output=place,
            task=str(folder),
            kind="vq",
            codebook_size=args.codebook_size,
            width=TOKENIZER_WIDTH,
            downsampling=args.downsampling or 4,
            perceptual_network=Path(seen_by) if args.perceptual else None,
            device=args.device,
            threads=args.threads,
            train=VQTrainingConfig(
                updates=args.tokenizer_updates, seed=args.seed, perceptual=args.perceptual
            ),
        )
    )


def make_generator(args: Args, folder: Path) -> None:
    """Train the generator in a run folder of its own, from where it was stopped, and take its weights."""
    run = folder / RUN
    if (run / "config.json").is_file():
        _train_generator.work(train_generator.Args(resume=run, device=args.device))
    else:
        clear(run)
        settings = dataclasses.replace(
            recipe("small", "nat"),
            updates=args.generator_updates,
            class_power=args.class_power,
            seed=args.seed,
        )
        _train_generator.work(
            train_generator.Args(
                data=str(folder),
                size="small",
                width=args.width,
                depth=args.depth,
                mirror=args.mirror,
                crops=args.crops,
                cache=run / "cache",
                output=run,
                device=args.device,
                threads=args.threads,
                train=settings,
            )
        )
    clear(folder / "nat.part")
    shutil.copytree(run / "generator", folder / "nat.part")
    (folder / "nat.part").rename(folder / "nat")
    shutil.rmtree(run / "cache", ignore_errors=True)
