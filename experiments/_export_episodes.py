"""What export_episodes.py does: episodes written, read and replayed, and schedules distilled of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from _progress import progress
from _table import check_table

from agents.named import find_policy
from agents.studies.distilled import by_class, static
from natgym.env.episodes import Episodes, record, replay
from natgym.env.exploring import Explored
from natgym.env.minari_data import from_minari, refuse_name, to_minari
from natgym.evaluation.tables import Table, evaluate
from natgym.policies import FixedPolicy, Policy
from natgym.rewards import make_reward
from natgym.runs import Run
from natgym.task import Task

if TYPE_CHECKING:
    from export_episodes import Args


def work(args: Args) -> None:
    torch.set_num_threads(1)
    task = Task.load(args.task, device=args.device)
    policy = find_policy(args.policy, args.steps, task.generator)
    reward = None if args.reward is None else make_reward(args.reward, task)
    if args.action_std:
        Explored(policy, args.action_std, ())  # says before there is a folder what it can't explore
    if args.minari is not None:
        refuse_name(args.minari)
    if args.distill:
        check_table(task, args.evaluation_images, args.seeds)
    run = Run.create("export_episodes", args.output, args)
    with progress(total=args.images, unit="img", unit_scale=True) as bar:
        played = record(
            policy,
            task,
            num_images=args.images,
            seed=args.seed,
            rules=args.rules,
            reward=reward,
            action_std=args.action_std,
            progress=bar.update,
            facts={"policy": args.policy, "reward": args.reward},
        )
    path = run.folder / "episodes.parquet"
    played.save(path)
    replay(Episodes.load(path), task)
    print(f"{path}: {len(played):,} episodes of T = {played.steps}, read again and replayed to the bit")
    if args.minari is not None:
        replay(from_minari(to_minari(played, args.minari)), task)
        print(f"{args.minari}: the same for Minari")
    if args.distill:
        table = distilled(args, task, policy, played, run)
        run.write_results(table.protocol, [dict(row) for row in table.rows])
        print(table)


def distilled(args: Args, task: Task, policy: Policy, played: Episodes, run: Run) -> Table:
    """Return the table of a policy and what is distilled of its episodes, all by its rules."""
    policies: dict[str, Policy] = {args.policy: policy}
    schedule = static(played)
    schedule.save(run.folder / "schedule.json")
    policies["static"] = FixedPolicy(schedule)
    if not task.has("encoder"):
        classes = by_class(played, task.every.names)
        classes.save(run.folder / "table.json")
        policies["by class"] = classes
    return evaluate(
        policies,
        task,
        images=args.evaluation_images,
        seeds=args.seeds,
        rules=played.facts["rules"],
        threads=args.threads,
    )
