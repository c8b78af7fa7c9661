"""What train_classifier.py does: a classifier fitted, saved and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from _progress import progress

from generators.checkpoints import save_pretrained
from natgym.metrics.classifier import (
    Classifier,
    ClassifierConfig,
    RotationNetConfig,
    fit_classifier,
    fit_rotations,
    judge,
)
from natgym.task import Task

if TYPE_CHECKING:
    from train_classifier import Args


def work(args: Args) -> None:
    if args.output.exists():
        raise ValueError(f"{args.output} exists and is not overwritten; choose another --output")
    torch.set_num_threads(args.threads)  # sums in one order: the same weights for the same number
    task = Task.load(args.task)
    train = task.images("train")
    num_classes = train.condition.vectors.shape[1]
    sizes: dict[str, Any] = {"channels": args.channels, "features": args.features}
    with progress(total=args.updates, unit="update") as bar:

        def tell(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}")
            bar.update()

        how: dict[str, Any] = {"updates": args.updates, "seed": args.seed, "device": args.device}
        if num_classes == 1:
            rotations = RotationNetConfig(image_shape=train.image_shape, **sizes)
            network: Classifier = fit_rotations(rotations, train, progress=tell, **how)
        else:
            config = ClassifierConfig(image_shape=train.image_shape, num_classes=num_classes, **sizes)
            network = fit_classifier(config, train, train.condition.values, progress=tell, **how)
    save_pretrained(network, args.output, task=args.task)
    if num_classes == 1:
        print(f"{args.output}: features of a network that tells rotations, since there is one class")
        return
    select = task.images("select")
    right = judge(network, select)[1].argmax(-1) == select.condition.values
    print(f"{args.output}: accuracy {right.float().mean():.4f} on the select split")
