"""What train_classifier.py does: a classifier fitted, saved and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from _progress import progress

from generators.checkpoints import save_pretrained
from natgym.metrics.classifier import ClassifierConfig, fit_classifier, judge
from natgym.task import Task

if TYPE_CHECKING:
    from train_classifier import Args


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
