"""Judge static schedules on one or more generators of a task: one table, one protocol, one command."""

import _root  # noqa: F401

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _cli import main
from tqdm import tqdm

from agents.fixed import FixedPolicy
from generators.data import PartName, load_part
from generators.schedules import Schedule, as_schedule
from natgym.analysis import samples_figure
from natgym.cost import gflop_per_image
from natgym.evaluation import Evaluator, format_table, summarize
from natgym.loading import load_companion, load_generator
from natgym.rollouts import balanced, rollout
from natgym.runs import Run


@dataclass(frozen=True, kw_only=True)
class Args:
    """Evaluate schedules on generators, all on the same conditions, noise and real pictures.

    The table has a row per generator, number of steps and schedule, and a row of real pictures.
    """

    generators: tuple[str, ...] = ("digits/nat",)
    """Shipped generators ("digits", "digits/nat") or folders of saved ones."""
    schedules: tuple[str, ...] = ("reference", "maskgit", "random-order")
    """Families, or files of schedules."""
    steps: tuple[int, ...] = (4, 8)
    """Decoding steps; a file stands for its own number only."""
    task: str | None = None
    """Task of tokenizer, classifier and real pictures, by default the first generator's."""
    tokenizer: str | None = None
    """Shipped task or folder of a saved tokenizer, by default the task's."""
    classifier: str | None = None
    """Shipped task or folder of a saved classifier, by default the task's."""
    part: PartName = "report"
    """Real pictures to compare with."""
    images: int = 5000
    """Pictures generated per evaluation seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Evaluation seeds."""
    threads: int = 2
    """Batches drawn at once."""
    device: str = "cpu"
    """Where to draw and judge."""
    output: Path | None = None
    """Run folder, by default runs/evaluate-<time>."""

    def __post_init__(self) -> None:
        for name in ("generators", "schedules", "steps", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one")
        for name in ("images", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: it must be at least 1")


def policies(args: Args) -> Iterator[tuple[str, FixedPolicy]]:
    """Yield each schedule at each number of steps that it exists for."""
    for name in args.schedules:
        for steps in args.steps:
            schedule = as_schedule(name, steps) if not Path(name).is_file() else Schedule.load(name)
            if schedule.steps == steps:
                yield schedule.name, FixedPolicy(schedule)


def work(args: Args) -> None:
    torch.set_num_threads(1)
    loaded = [load_generator(name, args.device) for name in args.generators]
    task = args.task or loaded[0][1]
    if task is None:
        raise ValueError(f"{args.generators[0]} does not say its task; give --task")
    tokenizer, classifier = (
        load_companion(getattr(args, kind), kind, task, args.device) for kind in ("tokenizer", "classifier")
    )
    plays = list(policies(args))
    run = Run.create("evaluate", args.output, args)
    part = load_part(task, args.part).to(args.device)
    rows: list[dict[str, Any]] = []
    manifests, samples = {}, {}
    total = len(loaded) * len(plays) * len(args.seeds) * args.images
    with tqdm(total=total, unit="img", unit_scale=True, dynamic_ncols=True) as bar:
        for name, (generator, _) in zip(args.generators, loaded, strict=True):
            evaluator = Evaluator(
                generator,
                tokenizer,
                classifier,
                task=task,
                part_name=args.part,
                part=part,
                images=args.images,
                seeds=args.seeds,
                threads=args.threads,
            )
            manifests[name] = evaluator.manifest()
            for policy_name, policy in plays:
                label = f"{name} {policy_name}" if len(loaded) > 1 else policy_name
                bar.set_description(label)
                row = summarize(label, policy.steps, evaluator(policy, bar.update), 0)
                rows.append(row | {"gflop": gflop_per_image(policy, generator)})
                pool = generator.conditions()[:10]
                drawn = rollout(policy, generator, tokenizer, balanced(pool, 10 * len(pool)), seed=0)
                samples[f"{label}, T = {policy.steps}"] = drawn.images_NCHW.cpu()
    other: PartName = "select" if args.part == "train" else "train"
    rows.append(evaluator.floor(load_part(task, other).to(args.device)))
    run.write_results(manifests, rows)
    for label, images in samples.items():
        stem = label.replace("/", "-").replace(", T = ", "-T").replace(" ", "-")
        run.write_figure(
            f"samples-{stem}", samples_figure({label: images}, pool.names, f"{task}; unselected")
        )
    print(format_table(rows))
    print(evaluator.legend())
    print(f"{run.folder}: config.json, results.json, figures/")


if __name__ == "__main__":
    main(Args, work)
