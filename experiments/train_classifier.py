"""Train a task's classifier, the judge of its metrics, and save it with its accuracy."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path

import torch
from _cli import main

from generators.checkpoints import save_pretrained
from generators.data import Part, load_part
from natgym.metrics.classifier import Classifier, ClassifierConfig, fit_classifier


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train a task's classifier on its train part."""

    output: Path
    """Folder to write; it must not exist."""
    task: str = "digits"
    """Task to train on."""
    features: int = 32
    """Width of the penultimate layer, in which distances are measured."""
    updates: int = 1000
    """Adam steps."""
    seed: int = 0
    """Of weights and batches."""

    def __post_init__(self) -> None:
        for name in ("features", "updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: it must be at least 1")


def accuracy(classifier: Classifier, part: Part) -> float:
    return (classifier(part.images_NCHW)[1].argmax(-1) == part.condition.values).float().mean().item()


def work(args: Args) -> None:
    if args.output.exists():
        raise ValueError(f"{args.output} exists and is not overwritten; choose another --output")
    torch.set_num_threads(1)  # sums in one order: the same weights on any number of cores
    train, select = load_part(args.task, "train"), load_part(args.task, "select")
    config = ClassifierConfig(
        image_shape=tuple(train.images_NCHW.shape[1:]),  # type: ignore[arg-type]
        num_classes=train.condition.vectors.shape[1],
        features=args.features,
    )
    classifier = fit_classifier(
        config, train.images_NCHW, train.condition.values, updates=args.updates, seed=args.seed
    )
    save_pretrained(classifier, args.output, task=args.task)
    print(f"{args.output}: accuracy {accuracy(classifier, select):.4f} on the select part")


if __name__ == "__main__":
    main(Args, work)
