"""What train_task.py ends with: a table with its bounds, one picture, the task's card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _progress import progress
from _task_plan import SHOWN

from generators.files import write_atomic
from generators.images import Pictures, Split
from generators.noise import derive_seed
from generators.schedules import maskgit, random_order
from generators.tokenizers import decode_all, encode_all
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.evaluation.tables import format_table, table_row
from natgym.figures.policies import prompts_figure, samples_figure
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout
from natgym.runs import Run
from natgym.task import Task

if TYPE_CHECKING:
    from train_task import Args

STEPS = 8
SEEDS = (0, 1, 2)


def judge(args: Args, folder: Path) -> None:
    """Set samples under two schedules beside their bounds, draw all of them, and write the card."""
    task, run = Task.load(str(folder), device=args.device), Run(folder)
    config = EvaluationConfig(images=args.evaluation_images, seeds=SEEDS)
    evaluator = Evaluator(task, config, threads=args.threads)
    rows = bounds(task, evaluator)
    policies = {schedule.name: FixedPolicy(schedule) for schedule in (maskgit(STEPS), random_order(STEPS))}
    total = len(policies) * len(SEEDS) * config.images
    with progress(total=total, unit="img", unit_scale=True) as bar:
        for name, policy in policies.items():
            bar.set_description(name)
            rows.append(table_row(name, policy, evaluator, evaluator(policy, bar.update), None))
    run.write_results(evaluator.manifest(), rows)
    table, legend = format_table(rows), evaluator.legend()
    print(table, legend, sep="\n")
    run.write_figure("overview", overview(task, policies))
    if not (folder / "README.md").exists():  # the user's, once it stands
        write_atomic(folder / "README.md", card(args, task, table, legend))
    print(f"{folder}: task.json, README.md, results.json, figures/overview.png")
    print(f"next: natgym adanat-ppo --task {folder}")


def bounds(task: Task, evaluator: Evaluator) -> list[dict[str, Any]]:
    """Return rows of real images, of the same after the tokenizer, and of their tokens in another order.

    No generator of these tokens should beat the second, and any that learned where tokens belong beats the
    third.
    """
    train = task.images("train")
    most = len(SEEDS) * evaluator.protocol.images
    rng = np.random.default_rng(derive_seed("bounds"))
    chosen = torch.from_numpy(rng.permutation(len(train))[:most])
    real = Split(train[chosen].to(task.device), train.condition[chosen].to(task.device))
    ids_NL = encode_all(task.tokenizer, real.images_NCHW, task.device)
    order_NL = torch.from_numpy(rng.random(tuple(ids_NL.shape))).argsort(1).to(ids_NL.device)
    rows = evaluator.floors(real)
    for name, ids in (("reconstructions", ids_NL), ("tokens shuffled", ids_NL.gather(1, order_NL))):
        row = evaluator.floor(Split(decode_all(task.tokenizer, ids, task.device), real.condition))
        rows.append({**row, "policy": name + row["policy"].removeprefix("real")})
    return rows


def overview(task: Task, policies: dict[str, FixedPolicy]) -> Any:
    """Draw real images, what the tokenizer makes of them, and samples of the same classes."""
    report = task.images("report")
    if task.has("encoder"):
        return overview_of_texts(task, report, policies)
    labels = report.condition.values.tolist()
    judged = [label for label in range(len(task.generator.conditions())) if label in labels][:10]
    pool = task.generator.conditions()[judged]
    places = [[row for row, label in enumerate(labels) if label == asked] for asked in judged]
    chosen = torch.tensor([[its[at % len(its)] for its in places] for at in range(SHOWN)])
    real = report[chosen.flatten()].to(task.device)
    ids = encode_all(task.tokenizer, real, task.device)
    panels = {"real": real, "reconstructions": decode_all(task.tokenizer, ids, task.device)}
    asked = balanced(pool, SHOWN * len(pool))
    for name, policy in policies.items():
        panels[f"{name}, T = {STEPS}"] = rollout(policy, task, condition=asked, seed=0).images_NCHW
    note = f"{task.name}, report split and its first classes; samples unselected, on the same noise"
    return samples_figure({name: images.cpu() for name, images in panels.items()}, pool.names, note)


def overview_of_texts(task: Task, report: Pictures, policies: dict[str, FixedPolicy]) -> Any:
    """Draw real images, what the tokenizer makes of them, and four samples of each one's text."""
    chosen = torch.arange(min(10, len(report)))
    real, asked = report[chosen].to(task.device), report.condition[chosen]
    ids = encode_all(task.tokenizer, real, task.device)
    panels = {"real": real, "reconstructions": decode_all(task.tokenizer, ids, task.device)}
    four = asked[chosen.repeat_interleave(4)].to(task.place)
    for name, policy in policies.items():
        panels[f"{name}, T = {STEPS}"] = rollout(policy, task, condition=four, seed=0).images_NCHW
    note = f"{task.name}, report split and its first texts, which training has not seen; samples unselected"
    return prompts_figure({name: images.cpu() for name, images in panels.items()}, asked.names, note)


def card(args: Args, task: Task, table: str, legend: str) -> str:
    """Return the task's README."""
    description = task.description
    assert description is not None and description.image_size is not None
    sizes = {split: len(task.images(split)) for split in ("train", "select", "report")}  # type: ignore[arg-type]
    height, width = description.image_size
    color = "grey" if description.color_mode == "L" else "color"
    counted = ", ".join(f"{number:,} {split}" for split, number in sizes.items())
    lines = [
        f"# Model card: {task.name}",
        "",
        f"Images of {width} x {height} pixels, {color}; {counted}.",
        "Drawn from texts." if task.has("encoder") else f"Classes: {', '.join(description.class_names)}.",
        f"Source and licence: {description.source or 'not noted'}.",
        "",
        "All networks learned from the train split alone (`split.csv`). Made by `experiments/train_task.py`, "
        f"seed {args.seed}, whose settings are in `config.json`.",
        "",
        "```",
        table,
        "```",
        "",
        legend,
        "",
        "![Real images, reconstructions, samples](figures/overview.png)",
        "",
    ]
    return "\n".join(lines)
