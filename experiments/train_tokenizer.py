"""Train a task's tokenizer and save it, with what it loses on the select split."""

import _root  # noqa: F401

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from _cli import main, refuse_settings
from _progress import progress

from generators.checkpoints import load_state, save_pretrained, save_state
from generators.noise import derive_seed, seeded
from generators.recipes import tokenizer_kind
from generators.tokenizers import ConvVQ, ConvVQConfig, PatchKMeans, Tokenizer
from generators.vq import VQTrainer, VQTrainingConfig
from natgym.evaluation.scorer import Scorer
from natgym.runs import MetricsLog, read_config, write_config
from natgym.task import Task

SETTINGS = "training.json"  # config.json is the saved module's


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
    classifier: str | None = None
    """In whose features the distance is measured: a folder, by default the one shipped for the task."""
    device: str = "cpu"
    """Where vq trains."""
    threads: int = 1
    """CPU threads; results are bit-equal for the same number."""
    checkpoint_every: int = 100
    """vq: updates between checkpoints."""
    train: Annotated[VQTrainingConfig, tyro.conf.arg(name="")] = field(default_factory=VQTrainingConfig)
    """Hyper-parameters of vq; the seed is also that of the k-means restarts."""

    def __post_init__(self) -> None:
        for name in ("codebook_size", "checkpoint_every", "threads", "patch"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} {value}: it must be at least 1")


def work(args: Args) -> None:
    if args.resume is not None:
        refuse_settings(args.resume, ("resume",))
        if not (args.resume / SETTINGS).is_file():
            raise ValueError(
                f"{args.resume} has no {SETTINGS}: it is not the folder of a vq training; start anew"
            )
        args = dataclasses.replace(read_config(args.resume / SETTINGS, Args), output=args.resume)
    elif args.output is None:
        raise ValueError("neither --output nor --resume is given; name a new folder with --output")
    elif args.output.exists():
        raise ValueError(f"{args.output} exists and is not overwritten; choose another --output")
    assert args.output is not None
    kind = args.kind or tokenizer_kind(Task.load(args.task).recipe)
    tokenizer = fit_kmeans(args) if kind == "kmeans" else train_vq(args, args.output)
    save_pretrained(tokenizer, args.output, task=args.task)
    print(f"{args.output}: {losses(tokenizer, args)} on the select split")


def fit_kmeans(args: Args) -> PatchKMeans:
    images_NCHW = Task.load(args.task).split("train").images_NCHW
    size = args.codebook_size or 128
    return PatchKMeans.fit(images_NCHW, patch=args.patch, codebook_size=size, seed=args.train.seed)


def train_vq(args: Args, folder: Path) -> ConvVQ:
    """Train to the last update, going on from the folder's checkpoint if there is one."""
    torch.set_num_threads(args.threads)
    pictures = Task.load(args.task).images("train")
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
    trainer = VQTrainer(tokenizer, pictures, args.train)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder / SETTINGS, args)
    if (checkpoint := folder / "checkpoint.pt").is_file():
        trainer.load_state_dict(load_state(checkpoint, args.device))
    log = MetricsLog(folder / "metrics.csv", "update", trainer.done + 1)
    with progress(total=args.train.updates, initial=trainer.done, unit="update") as bar:
        for metrics in trainer:
            log.append(metrics)
            bar.set_postfix(squared_error=f"{metrics['squared_error']:.5f}", codes=metrics["codes"])
            bar.update()
            if trainer.done % args.checkpoint_every == 0:
                save_state(checkpoint, trainer.state_dict())
    return tokenizer.eval()


@torch.no_grad()
def losses(tokenizer: Tokenizer, args: Args) -> str:
    """Say what the select split loses: codes used, squared error and, given a classifier, distance."""
    task = Task.load(args.task, score_extractor=args.classifier)
    part = task.split("select")
    device = args.device if isinstance(tokenizer, ConvVQ) else "cpu"
    ids_NL = torch.cat([tokenizer.encode(images.to(device)).cpu() for images in part.images_NCHW.split(256)])
    coded_NCHW = torch.cat([tokenizer.decode(ids.to(device)).cpu() for ids in ids_NL.split(256)])
    used = ids_NL.unique().numel()
    error = (coded_NCHW - part.images_NCHW).square().mean().item()
    said = f"{used} codes used ({used / tokenizer.codebook_size:.1%}), squared error {error:.5f}"
    if not task.has("score_extractor"):
        return said
    return f"{said}, distance {Scorer(task.score_extractor, part).distance(coded_NCHW):.3f}"  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Args, work)
