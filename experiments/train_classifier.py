"""Train a task's classifier, the judge of its metrics, and save it with its accuracy."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path

import torch
from _cli import main
from _progress import progress

from generators.checkpoints import save_pretrained
from natgym.metrics.classifier import ClassifierConfig, fit_classifier, judge
from natgym.task import Task


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train a task's classifier on its train split."""

    output: Path
    """Folder to write; it must not exist."""
    task: str = "digits"
    """Task or image folder to train on."""
    channels: int = 32
    """Of the first convolution; the others have twice as many."""
    features: int = 32
    """Width of the penultimate layer, in which distances are measured."""
    updates: int = 1000
    """Adam steps."""
    seed: int = 0
    """Of weights and batches."""
    device: str = "cpu"
    """Where it trains."""
    threads: int = 1
    """CPU threads; results are bit-equal for the same number."""

    def __post_init__(self) -> None:
        for name in ("channels", "features", "updates", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: it must be at least 1")


def work(args: Args) -> None:
    if args.output.exists():
        raise ValueError(f"{args.output} exists and is not overwritten; choose another --output")
    torch.set_num_threads(args.threads)  # sums in one order: the same weights for the same number
    task = Task.load(args.task)
    train = task.images("train")
    config = ClassifierConfig(
        image_shape=train.image_shape,
        num_classes=train.condition.vectors.shape[1],
        channels=args.channels,
        features=args.features,
    )
    with progress(total=args.updates, unit="update") as bar:

        def tell(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}")
            bar.update()

        classifier = fit_classifier(
            config,
            train,
            train.condition.values,
            updates=args.updates,
            seed=args.seed,
            device=args.device,
            progress=tell,
        )
    save_pretrained(classifier, args.output, task=args.task)
    select = task.images("select")
    right = judge(classifier, select)[1].argmax(-1) == select.condition.values
    print(f"{args.output}: accuracy {right.float().mean():.4f} on the select split")


if __name__ == "__main__":
    main(Args, work)
