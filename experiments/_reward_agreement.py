"""What reward_agreement.py does: gradients of rewards beside that of the distance, and a step along each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from _progress import progress

from agents.adanat.trainer import AdaNATTrainer
from agents.studies.agreement import PARTS, agreement, explore, follow, gradients, parts
from generators.noise import derive_seed
from natgym.evaluation.scorer import Scorer
from natgym.figures.comparisons import agreement_figure
from natgym.policies import FixedPolicy
from natgym.rollouts import Policy, balanced, rollout
from natgym.runs import Run

if TYPE_CHECKING:
    from reward_agreement import Args

MEASURED = ("cosine", "reliability", "corrected")


def load(args: Args) -> tuple[AdaNATTrainer, Scorer]:
    """Return what plays the schedule itself, and the judge of the true gradient, by the train split.

    Raises:
        ValueError: something named is not there.
    """
    torch.set_num_threads(1)  # sums in one order; the CPUs are used by drawing batches side by side
    plain = AdaNATTrainer.of(args.config("influence"))
    task = plain.env.task
    return plain, Scorer(task.score_extractor, task.images("train"))  # type: ignore[arg-type]


def measure(args: Args, spec: str, truth: Scorer, bar: Any) -> dict[str, Any]:
    """Return one row: agreement by part of the gradient, and the distances that its steps lead to."""
    trainer = AdaNATTrainer.of(args.config(spec))
    row: dict[str, Any] = {"reward": spec}
    trainer.warm_up()
    bar.update(trainer.images_spent)
    seen = explore(trainer, truth, args.episodes, derive_seed(args.train.adanat.seed, "agreement"))
    bar.update(len(seen.rewards_N))
    for part, agreed in agreement(seen).items():
        row |= {f"{part} cosine": agreed.cosine, f"{part} reliability": agreed.reliability}
        row |= {f"{part} corrected": agreed.corrected}
    directions = parts(gradients(seen.actions_NTk, seen.std, seen.classes_N, seen.rewards_N))
    for part in PARTS:
        for size in args.sizes:
            row[f"{part} {size:g}"] = distance(args, trainer, follow(trainer, directions[part], size), bar)
    return row


def distance(args: Args, trainer: AdaNATTrainer, policy: Policy, bar: Any) -> float:
    """Return the mean distance from the select split over the noise seeds."""
    scorer = trainer.monitor.scorer
    assert scorer is not None
    condition = balanced(trainer.env.task.every, args.images)
    distances = []
    for seed in range(args.seeds):
        drawn = rollout(
            policy,
            trainer.env.generator,
            trainer.env.tokenizer,
            condition,
            seed=derive_seed(args.train.adanat.seed, "follow", seed),
            rules=trainer.env.rules,
            threads=args.threads,
            progress=bar.update,
        )
        distances.append(scorer.distance(drawn.images_NCHW))
    return sum(distances) / len(distances)


def work(args: Args) -> None:
    plain, truth = load(args)
    run = Run.create("reward_agreement", args.output, args)
    learning = [spec for spec in args.rewards if spec.startswith("adversarial")]
    total = len(args.rewards) * (args.episodes + len(PARTS) * len(args.sizes) * args.seeds * args.images)
    total += len(learning) * args.train.adanat.warmup * args.train.env.trajectories + args.seeds * args.images
    rows = []
    with progress(total=total, unit="img", unit_scale=True) as bar:
        for spec in args.rewards:
            bar.set_description(spec)
            rows.append(measure(args, spec, truth, bar))
        start = distance(args, plain, FixedPolicy(plain.env.action_map.schedule), bar)
    run.write_results({}, rows, start=start)
    table = pd.DataFrame(rows).set_index("reward")
    table.to_csv(run.folder / "agreement.csv")
    print("Cosine between the gradient of the reward and that of the distance, of independent halves of the")
    print(f"{args.episodes:,} episodes; reliability: between the reward's halves; corrected for both noises.")
    print("static: what all classes share; class: what each has beyond it.")
    measured = [f"{part} {name}" for part in PARTS for name in MEASURED]
    print(table[measured].to_string(float_format="{:+.2f}".format))
    print(
        f"\nDistance from the select split after a step of this size along the gradient; before: {start:.3f}"
    )
    steps = [f"{part} {size:g}" for part in PARTS for size in args.sizes]
    print(table[steps].to_string(float_format="{:.3f}".format))
    env = args.train.env
    note = f"{env.task_name}, T = {env.steps}, {args.episodes:,} episodes; 1: both want the same"
    run.write_figure("agreement", agreement_figure(table, note))
    print(f"{run.folder}: agreement.csv, results.json, figures/")
