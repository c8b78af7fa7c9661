"""Train a task's generator on its cached tokens and save the averaged weights."""

import _root  # noqa: F401

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from _cli import main, refuse_settings
from tqdm import tqdm

from generators.checkpoints import load_state, save_pretrained, save_state
from generators.data import load_part
from generators.nat import NAT, NATConfig, nat_digits
from generators.noise import derive_seed, seeded
from generators.training import Trainer, TrainingConfig
from natgym.loading import load_companion
from natgym.runs import MetricsLog, Run


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train a NAT on a task's train part; the run folder gets generator/ with the averaged weights."""

    task: str = "digits"
    """Task to train on."""
    tokenizer: str = "digits"
    """Shipped task or folder of a saved tokenizer."""
    output: Path | None = None
    """Run folder, by default runs/train_generator-<time>."""
    resume: Path | None = None
    """Run folder to go on with; its own settings are used."""
    checkpoint_every: int = 100
    """Updates between checkpoints."""
    threads: int = 1
    """CPU threads; results are bit-equal for the same number."""
    train: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)
    """Hyper-parameters."""
    model: NATConfig = field(default_factory=nat_digits)
    """Geometry."""

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: it must be at least 1")


def work(args: Args) -> None:
    if args.resume is not None:
        refuse_settings(args.resume, ("resume",))
        run = Run.open(args.resume)
        args = dataclasses.replace(run.config(Args), resume=args.resume)
    else:
        run = Run.create("train_generator", args.output, args)
    torch.set_num_threads(args.threads)
    tokenizer, part = load_companion(args.tokenizer, "tokenizer", None), load_part(args.task, "train")
    with seeded(derive_seed(args.train.seed, "generator")):
        generator = NAT(args.model)
    trainer = Trainer(generator, tokenizer.encode(part.images_NCHW), part.condition, args.train)
    checkpoint = run.folder / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.load_state_dict(load_state(checkpoint))
    log = MetricsLog(run.folder / "metrics.csv", "update", trainer.done + 1)
    with tqdm(total=args.train.updates, initial=trainer.done, unit="update", dynamic_ncols=True) as bar:
        for metrics in trainer:
            log.append(metrics)
            bar.set_postfix(loss=f"{metrics['loss']:.3f}", accuracy=f"{metrics['accuracy']:.3f}")
            bar.update()
            if trainer.done % args.checkpoint_every == 0:
                save_state(checkpoint, trainer.state_dict())
    save_pretrained(trainer.ema, run.folder / "generator", task=args.task)
    print(f"{run.folder / 'generator'}: {sum(p.numel() for p in generator.parameters()):,} parameters")


if __name__ == "__main__":
    main(Args, work)
