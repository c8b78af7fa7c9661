"""What train_generator.py does: a training as the only process or as ranks, watched by the first."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from _cli import refuse_settings
from _progress import progress
from _ranks import begun, followed
from torch import Tensor

from agents.distributed.workers import agree, own_device, process_group, rank, run_workers, world_size
from agents.loggers import RunLog
from generators.checkpoints import restore, save_pretrained, save_state
from generators.conditions import Condition, in_rows
from generators.data import encodable, open_split, tokens
from generators.encoders import TextEncoder, make_encoder
from generators.noise import derive_seed, seeded
from generators.recipes import DEFAULT_SIZE, build
from generators.schedules import as_schedule
from generators.texts import Captions
from generators.training import Trainer, TrainingConfig, take_ids
from natgym.evaluation.scorer import Scorer
from natgym.figures.policies import samples_figure
from natgym.figures.trainings import training_figure
from natgym.policies import FixedPolicy
from natgym.rollouts import rollout
from natgym.runs import MetricsLog, Run
from natgym.task import Task

if TYPE_CHECKING:
    from train_generator import Args


def task_of(args: Args, device: torch.device | str = "cpu", encoder: TextEncoder | None = None) -> Task:
    """Return the task with the tokenizer, classifier and encoder that were asked for.

    Args:
        encoder: the one asked for, if it is at hand: it may be large.
    """
    networks: dict[str, Any] = {"tokenizer": args.tokenizer, "score_extractor": args.classifier}
    task = Task.load(args.data, device=device, encoder=encoder, **networks)
    if encoder is not None or (args.encoder is None and task.has("encoder")):
        return task
    said = open_split(task.data, "train").condition
    if not isinstance(said, Captions):
        if args.encoder is not None:
            raise ValueError(f"encoder {args.encoder}: images of {args.data} have no captions to be read")
        return task
    return task.like(encoder=make_encoder(args.encoder or "words", said, device))


def work(args: Args) -> None:
    task = None
    places = {name: getattr(args, name) for name in ("resume", "workers", "address", "device")}
    folder = args.resume
    if folder is not None:
        refuse_settings(folder, places)
        args = dataclasses.replace(opened(folder).config(type(args)), **places)
    elif (folder := begun(args)) is not None:
        opened(folder)
    else:
        task = check(args, "cpu" if args.workers > 1 else own_device(args.device))
        if rank() == 0:
            folder = Run.create("train_generator", args.output, args).folder
    if args.workers == 1:
        with process_group(args.device):
            train(args, folder, task)
    else:
        assert folder is not None, "torchrun's processes are no Ray workers"
        args = dataclasses.replace(args, cache=args.cache.resolve())
        training = partial(train, args, folder.resolve())
        with progress(total=args.train.updates, unit="update") as bar:
            with followed(folder / "metrics.csv", lambda row: bar.update()):
                run_workers(training, args.workers, folder, args.device, args.address)
        print(folder / "generator")


def check(args: Args, device: torch.device | str) -> Task:
    """Return the task; ValueError for what its training would refuse, as one of a single image does."""
    if args.evaluate_every:
        as_schedule(args.evaluation_schedule, args.evaluation_steps)
    task = task_of(args, device)
    if args.evaluate_every and task.has("score_extractor"):
        task.score_extractor  # noqa: B018
    pictures, _ = encodable(task.data, "train", task.tokenizer, args.crops)
    config = args.train
    if config.given and not task.given:
        raise ValueError(
            f"given {config.given}: {task} gives no tokens; say which, --data TASK#given=FORM, or set it to 0"
        )
    if config.batch_size % (ranks := max(args.workers, world_size())):
        raise ValueError(f"batch_size {config.batch_size} can't be shared by {ranks} ranks equally")
    ids_1L = torch.zeros(1, math.prod(task.tokenizer.grid), dtype=torch.long)
    condition = task.read(pictures.condition[:1])
    trainer_of(args, task, ids_1L, condition, dataclasses.replace(config, given=0.0))
    return task


def opened(folder: Path) -> Run:
    """Return a run to go on with, in whose folder rank 0 alone writes."""
    return Run.resume(folder) if rank() == 0 else Run.open(folder)


def train(args: Args, folder: Path | None, task: Task | None = None) -> None:
    """Train as the only process or as one of the ranks; the first one writes into the run's folder.

    Args:
        task: on the device; loaded if it is not.
    """
    torch.set_num_threads(args.threads)
    device = own_device(args.device)
    task = task or task_of(args, device)
    tokenizer: Any = task.tokenizer
    ids_NL, said = tokens(task.data, "train", tokenizer, args.cache, mirror=args.mirror, crops=args.crops)
    if isinstance(said, Captions):  # each of an image's texts is a row
        rows_N, said = said.wordings()
        ids_NL = take_ids(ids_NL, rows_N).to(ids_NL.dtype)
    condition = task.read(said)
    if args.train.given:
        condition = task.begun("train") if task.given else condition
    trainer = trainer_of(args, task, ids_NL.to(device), condition.to(device), args.train)
    if folder is not None and (checkpoint := folder / "checkpoint.pt").is_file():
        restore(trainer, checkpoint)  # each tensor goes where its parameter is
    agree("the update to go on from", trainer.done)
    if rank() == 0 and folder is not None:
        Watcher(args, Run(folder), trainer, task).watch()
    else:
        for _ in trainer:
            pass


def trainer_of(
    args: Args, task: Task, ids_NL: Tensor, condition: Condition, config: TrainingConfig
) -> Trainer:
    """Return an untrained generator, on the device of its token ids, and what trains it."""
    with seeded(derive_seed(config.seed, "generator")):
        size = args.size or task.recipe or DEFAULT_SIZE
        sizes: dict[str, Any] = {
            "width": args.width,
            "heads": args.heads,
            "depth" if args.model == "nat" else "encoder_depth": args.depth,
            "decoder_depth": args.decoder_depth,
            "dropout": args.dropout,
            "cut": args.cut,
        }
        if args.model == "enat" and not config.reuse:
            sizes["reuse"] = False  # what it has not learned it would do badly
        generator = build(args.model, size, task.tokenizer, condition.geometry, **sizes).to(ids_NL.device)
    return Trainer(generator, ids_NL, condition, config)


class Watcher:
    """What rank 0 does beside training: progress, checkpoints, curves, sample grids, the final weights."""

    def __init__(self, args: Args, run: Run, trainer: Trainer, task: Task) -> None:
        self.args = args
        self.run = run
        self.trainer = trainer
        self.tokenizer = task.tokenizer
        self.note = f"{args.data}, {args.model}; {args.evaluation_schedule} at T = {args.evaluation_steps}"
        self.scorer = None
        self.log = RunLog(args.log, run.folder)
        encoder = task.encoder if task.has("encoder") else None
        self.task = task_of(args, encoder=encoder).like(generator=trainer.ema)  # judged on the CPU
        if args.evaluate_every and self.task.has("score_extractor"):
            self.scorer = Scorer(self.task.score_extractor, self.task.images("select"))  # type: ignore[arg-type]

    def watch(self) -> None:
        """Run the training to its end."""
        args = self.args
        trainer = self.trainer
        folder = self.run.folder
        log = MetricsLog(folder / "metrics.csv", "update", trainer.done + 1, whole=True)
        bar = progress(total=args.train.updates, initial=trainer.done, unit="update")
        with bar:
            for metrics in trainer:
                last = trainer.done == args.train.updates
                due = args.evaluate_every and (last or trainer.done % args.evaluate_every == 0)
                scores = self.evaluate() if due else dict.fromkeys(("distance", "sample_accuracy"))
                log.append(metrics | scores)
                self.log.write(trainer.done, metrics | scores, self.shown if due else None)
                bar.set_postfix(
                    loss=f"{metrics['loss']:.3f}",
                    **{name: f"{value:.3f}" for name, value in scores.items() if value is not None},
                )
                bar.update()
                if trainer.done % args.checkpoint_every == 0:
                    save_state(folder / "checkpoint.pt", trainer.state_dict())
        self.log.close()
        generator = trainer.ema
        save_pretrained(generator, folder / "generator", task=self.task.home)
        if self.task.has("encoder"):  # beside it, where it is found by those who load the generator
            save_pretrained(self.task.encoder, folder / "encoder")  # type: ignore[arg-type]
        metrics = pd.read_csv(folder / "metrics.csv")
        self.run.write_figure("training", training_figure(metrics, self.note))
        count = sum(parameter.numel() for parameter in generator.parameters())
        print(f"{folder / 'generator'}: {count:,} parameters")

    def evaluate(self) -> dict[str, float | None]:
        """Draw images with the averaged generator; save a grid, return distance and accuracy if judged."""
        args = self.args
        generator: Any = self.trainer.ema
        pool = self.task.examples(20)
        policy = FixedPolicy(as_schedule(args.evaluation_schedule, args.evaluation_steps))
        seed = derive_seed(args.train.seed, "evaluation")
        draw = partial(rollout, policy, generator, self.tokenizer, seed=seed)
        shown = draw(in_rows(pool, args.evaluation_images)).images_NCHW.cpu()
        title = f"update {self.trainer.done:,}"
        self.shown = samples_figure({title: shown}, pool.names, self.note + "; unselected")
        self.run.write_figure(f"samples-{self.trainer.done:06d}", self.shown)
        if self.scorer is None:
            return {"distance": None, "sample_accuracy": None}
        condition = self.task.asked(args.evaluation_images).to(generator.head.bias.device)
        scores = self.scorer.score(draw(condition).images_NCHW.cpu(), condition.to("cpu"))
        return {"distance": scores["distance"], "sample_accuracy": scores.get("accuracy")}
