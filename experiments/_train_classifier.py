"""What train_classifier.py does: a classifier fitted, saved and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from _progress import progress

from generators.checkpoints import save_pretrained
from generators.shapes.data import ScenePixels
from generators.texts import Captions
from natgym.metrics.classifier import (
    Classifier,
    ClassifierConfig,
    RotationNetConfig,
    fit_classifier,
    fit_rotations,
    judge,
)
from natgym.metrics.extractors import extract
from natgym.metrics.scenes import SceneReaderConfig, contents, fit_reader
from natgym.task import Task

if TYPE_CHECKING:
    from train_classifier import Args


def work(args: Args) -> None:
    if args.output.exists():
        raise ValueError(f"{args.output} exists and is not overwritten; choose another --output")
    torch.set_num_threads(args.threads)  # sums in one order: the same weights for the same number
    task = Task.load(args.task)
    train = task.images("train")
    if isinstance(train.pixels, ScenePixels):
        return work_on_scenes(args, task)
    captioned = isinstance(train.condition, Captions)
    num_classes = 1 if captioned else train.condition.vectors.shape[1]
    sizes: dict[str, Any] = {"channels": args.channels, "features": args.features}
    with told(args) as tell:
        how: dict[str, Any] = {"updates": args.updates, "seed": args.seed, "device": args.device}
        if num_classes == 1:
            rotations = RotationNetConfig(image_shape=train.image_shape, **sizes)
            network: Classifier = fit_rotations(rotations, train, progress=tell, **how)
        else:
            config = ClassifierConfig(image_shape=train.image_shape, num_classes=num_classes, **sizes)
            network = fit_classifier(config, train, train.condition.values, progress=tell, **how)
    save_pretrained(network, args.output, task=args.task)
    if num_classes == 1:
        why = "texts are no classes" if captioned else "there is one class"
        print(f"{args.output}: features of a network that tells rotations, since {why}")
        return
    select = task.images("select")
    right = judge(network, select)[1].argmax(-1) == select.condition.values
    print(f"{args.output}: accuracy {right.float().mean():.4f} on the select split")


@contextmanager
def told(args: Args) -> Iterator[Callable[[float], None]]:
    """Show progress; what is yielded takes the loss after each update."""
    with progress(total=args.updates, unit="update") as bar:

        def tell(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}")
            bar.update()

        yield tell


def work_on_scenes(args: Args, task: Task) -> None:
    """Train a reader of scenes, and say how many of the select split's it misreads in any cell."""
    config = SceneReaderConfig(channels=args.channels, features=args.features)
    with told(args) as tell:
        reader = fit_reader(config, updates=args.updates, seed=args.seed, device=args.device, progress=tell)
    save_pretrained(reader, args.output, task=args.task)
    select = task.images("select")
    _, logits_BN = extract(reader, select, quantise=False, device=args.device)
    assert logits_BN is not None and isinstance(select.pixels, ScenePixels)
    held_NC = select.pixels.scenes.contents_NC[select.rows_N.numpy()]
    wrong = (contents(logits_BN) != held_NC).any(1).mean()
    print(f"{args.output}: misreads {wrong:.2%} of the scenes of the select split")
