"""What train_tokenizer.py does: a codebook of k-means or a trained VQ-VAE, and what it loses."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from _cli import refuse_settings
from _progress import progress
from matplotlib.figure import Figure

from agents.loggers import RunLog
from generators.checkpoints import restore, save_pretrained, save_state
from generators.files import hold
from generators.images import Batch
from generators.noise import derive_seed, seeded
from generators.recipes import tokenizer_kind
from generators.room import image_rows
from generators.tokenizers import ConvVQ, ConvVQConfig, PatchKMeans, Tokenizer, decode_all, encode_all
from generators.vq import VQTrainer
from natgym.evaluation.scorer import Scorer
from natgym.figures.policies import samples_figure
from natgym.metrics.perceptual import PerceptualDistance
from natgym.metrics.reference import refuse_too_few_real
from natgym.runs import MetricsLog, read_config, write_config
from natgym.task import Task

if TYPE_CHECKING:
    from train_tokenizer import Args

SETTINGS = "training.json"  # config.json is the saved module's
COLUMNS = 10  # of images shown


def work(args: Args) -> None:
    if args.resume is not None:
        refuse_settings(args.resume, ("resume",))
        if not (args.resume / SETTINGS).is_file():
            raise ValueError(
                f"{args.resume} has no {SETTINGS}: it is not the folder of a vq training; start anew"
            )
        args = dataclasses.replace(read_config(args.resume / SETTINGS, type(args)), output=args.resume)
    elif args.output is None:
        raise ValueError("neither --output nor --resume is given; name a new folder with --output")
    elif args.output.exists():
        raise ValueError(f"{args.output} exists and is not overwritten; choose another --output")
    assert args.output is not None
    task = Task.load(args.task, score_extractor=args.classifier)
    if task.has("score_extractor"):  # that judges at the end
        refuse_too_few_real(len(task.images("select")))
    kind = args.kind or tokenizer_kind(task.recipe)
    if args.log and kind == "kmeans":
        raise ValueError(f"log {' '.join(args.log)}: k-means has no updates to log; leave it out")
    tokenizer = fit_kmeans(args) if kind == "kmeans" else train_vq(args, args.output)
    save_pretrained(tokenizer, args.output, task=args.task)
    print(f"{args.output}: {losses(tokenizer, args)} on the select split")


def fit_kmeans(args: Args) -> PatchKMeans:
    images = Task.load(args.task).images("train")
    size = args.codebook_size or 128
    return PatchKMeans.fit(images, patch=args.patch, codebook_size=size, seed=args.train.seed)


def train_vq(args: Args, folder: Path) -> ConvVQ:
    """Train to the last update, going on from the folder's checkpoint if there is one."""
    torch.set_num_threads(args.threads)
    task = Task.load(args.task)
    pictures = task.images("train")
    config = ConvVQConfig(
        image_shape=pictures.image_shape,
        codebook_size=args.codebook_size or 256,
        code_width=args.code_width,
        width=args.width,
        downsampling=args.downsampling,
        blocks=args.blocks,
    )
    with seeded(derive_seed(args.train.seed, "tokenizer")):
        tokenizer = ConvVQ(config).to(args.device)
    network = args.perceptual_network
    look = None if network is None else PerceptualDistance.load(network).to(args.device)
    trainer = VQTrainer(tokenizer, pictures, args.train, look)
    folder.mkdir(parents=True, exist_ok=True)
    hold(folder)
    write_config(folder / SETTINGS, args)
    if (checkpoint := folder / "checkpoint.pt").is_file():
        restore(trainer, checkpoint, args.device)
    log = MetricsLog(folder / "metrics.csv", "update", trainer.done + 1, whole=True)
    more = RunLog(args.log, folder)
    with progress(total=args.train.updates, initial=trainer.done, unit="update") as bar:
        for metrics in trainer:
            log.append(metrics)
            due = trainer.done % args.checkpoint_every == 0 or trainer.done == args.train.updates
            more.write(trainer.done, metrics, coded(tokenizer, task) if args.log and due else None)
            bar.set_postfix(squared_error=f"{metrics['squared_error']:.5f}", codes=metrics["codes"])
            bar.update()
            if trainer.done % args.checkpoint_every == 0:
                save_state(checkpoint, trainer.state_dict())
    more.close()
    return tokenizer.eval()


@torch.no_grad()
def coded(tokenizer: ConvVQ, task: Task) -> Figure:
    """Draw images of the select split, and what their tokens keep of them."""
    select = task.images("select")
    images_NCHW = select[torch.arange(min(len(select), 5 * COLUMNS))]
    coded_NCHW = tokenizer.decode(tokenizer.encode(images_NCHW.to(tokenizer.codes.device))).cpu()
    shown = {"select split": images_NCHW, "after the tokenizer": coded_NCHW}
    return samples_figure(shown, [""] * COLUMNS, "the first images")


@torch.no_grad()
def losses(tokenizer: Tokenizer, args: Args) -> str:
    """Say what the select split loses: codes used, squared error and, given a classifier, distance."""
    task = Task.load(args.task, score_extractor=args.classifier)
    part = task.images("select")
    device = args.device if isinstance(tokenizer, ConvVQ) else "cpu"
    rows = image_rows(part.image_shape)
    ids_NL = encode_all(tokenizer, part, device, rows)
    squares: list[float] = []

    def decoded() -> Iterator[Batch]:
        """Yield the images as their tokens bring them back, and note how far they are off."""
        for at in torch.arange(len(part)).split(rows):
            images_BCHW = decode_all(tokenizer, ids_NL[at], device)
            squares.append((images_BCHW - part[at]).double().square().mean().item() * len(at))
            yield images_BCHW, part.condition[at]

    distance = ""
    if task.has("score_extractor"):
        scorer = Scorer(task.score_extractor, part)  # type: ignore[arg-type]
        distance = f", distance {scorer.reference.distance(scorer.look(decoded()).features_Nd):.3f}"
    else:
        deque(decoded(), maxlen=0)
    used, error = ids_NL.unique().numel(), sum(squares) / len(part)
    codes = f"{used} codes used ({used / tokenizer.codebook_size:.1%})"
    return f"{codes}, squared error {error:.5f}{distance}"
