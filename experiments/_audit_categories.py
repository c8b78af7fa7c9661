"""What audit_categories.py does: images generated, clustered with real ones, and judged by cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from _progress import progress

from agents.named import find_policy
from generators.images import ImageRows
from natgym.discovery.audit import COLUMNS, audit, audit_figure
from natgym.evaluation.tables import format_table
from natgym.metrics.extractors import Extractor, extract
from natgym.rollouts import balanced, rollout
from natgym.runs import Run
from natgym.task import Task

if TYPE_CHECKING:
    from audit_categories import Args


def features(classifier: Extractor, images: ImageRows) -> np.ndarray:
    """Return the classifier's features (N, d)."""
    return extract(classifier, images, quantise=False)[0].numpy()


def work(args: Args) -> None:
    torch.set_num_threads(1)
    task = Task.load(args.task or args.generator, generator=args.generator if args.task else None)
    if task.has("encoder"):
        raise ValueError(f"{task} draws from texts; audit_categories looks for classes")
    generator = task.generator
    classifier = task.score_extractor
    policy = find_policy(args.policy, args.steps, generator)
    real = task.images("train")
    held_out = task.images("report")
    run = Run.create("audit_categories", args.output, args)
    with progress(total=args.images, unit="img") as bar:
        conditions = balanced(generator.conditions(), args.images)
        generated = rollout(
            policy,
            generator,
            task.tokenizer,
            conditions,
            seed=args.seed,
            progress=bar.update,
        )
    clusters = audit(
        features(classifier, real),
        real.condition.values.numpy(),
        features(classifier, held_out),
        features(classifier, generated.images_NCHW),
        names=real.class_names,
        extra=args.extra,
        seed=args.seed,
    )
    protocol = {"task": task.name, "images": args.images, "held_out": len(held_out), "labelled": len(real)}
    run.write_results(protocol | {"policy": args.policy, "steps": policy.steps}, clusters.rows())
    counts = f"{args.images:,} generated and {len(held_out):,} held-out images"
    note = f"{task.name}, {args.policy}, T = {policy.steps}; {counts}"
    run.write_figure("audit", audit_figure(clusters, generated.images_NCHW, note))
    print(format_table(clusters.rows(), COLUMNS))
    print(note)
    print(f"{run.folder}: config.json, results.json, figures/")
