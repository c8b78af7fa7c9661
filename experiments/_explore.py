"""What explore.py does: policies on the same noise, and the page that shows them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from _played import trained_on
from _progress import progress

from agents.adanat.critic import load_discriminator
from agents.adanat.learned import started_from
from agents.named import find_all, find_policies, labelled_policy
from generators.conditions import Condition, balanced
from generators.files import write_atomic
from generators.hub import on_hub
from generators.rules import DecodeRules
from natgym.figures.explorations import Play, examples, explore
from natgym.pages.page import explorer_page
from natgym.rewards.contract import Reward
from natgym.rollouts import Policy
from natgym.task import Task

if TYPE_CHECKING:
    from explore import Args


def find(spec: str, args: Args, task: Task) -> list[tuple[str, Policy]]:
    """Return a named policy at --steps, and a saved one at its own number of steps."""
    if on_hub(spec) or Path(spec).exists():
        return [labelled_policy(spec, task.generator)]
    return find_policies(spec, [args.steps], task.generator)


def rival(policy: Policy, args: Args, task: Task) -> tuple[str, Policy]:
    """Return what a single policy is set against: --against, or its start if it has learned, or reference."""
    start = started_from(policy) if args.against is None else None
    if start is not None:
        return "start", start
    return find_policies(args.against or "reference", [policy.steps], task.generator)[0]


def plays(args: Args, task: Task) -> dict[str, Play]:
    """Return what is played, by label; ValueError if that is one policy alone."""
    found = {
        label: policy for label, _, policy in find_all(args.policies, partial(find, args=args, task=task))
    }
    if args.against is not None or len(found) == 1:
        label, policy = rival(next(iter(found.values())), args, task)
        found.setdefault(label, policy)
    if len(found) == 1:
        raise ValueError(
            f"{next(iter(found))} alone is nothing to compare; name another policy, or --against"
        )
    rules = DecodeRules.of(args.rules, task.generator.grid)
    return {label: Play(policy, task, rules) for label, policy in found.items()}


def rewards(args: Args, task: Task) -> dict[str, Reward]:
    """Return the rewards that runs have learned from, as they were after the last update."""
    learned = {spec: load_discriminator(Path(spec), task) for spec in args.policies if not on_hub(spec)}
    kept = {spec: reward for spec, reward in learned.items() if reward is not None}
    return {"reward" if len(kept) == 1 else f"reward of {spec}": reward for spec, reward in kept.items()}


def ask(args: Args) -> Callable[[Task, int], Condition]:
    """Return what to draw of a task, as many as are wanted."""
    names = args.label or args.prompt
    return (lambda task, images: balanced(task.named(names), images)) if names else examples


def work(args: Args) -> None:
    torch.set_num_threads(1)
    task = Task.load(args.task or trained_on(Path(args.policies[0])) or "digits", device=args.device)
    played = plays(args, task)
    with progress(total=len(played) * args.images, unit="img", unit_scale=True) as bar:
        content = explore(
            played,
            args.images,
            f"{task.name}: {', '.join(played)}",
            ask=ask(args),
            seed=args.seed,
            rewards=rewards(args, task),
            most=1e6 * args.megabytes,
            progress=bar.update,
        )
    page = explorer_page(content)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.output, page)
    print(f"{args.output}: {args.images} images under {', '.join(played)}; {len(page.encode()) / 1e6:.1f} MB")
