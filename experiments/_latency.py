"""What benchmark.py --latency does: seconds of single images, beside images a second of batches."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _benchmark import LARGE, clock_of, environment, in_processes, repeats, write
from _progress import progress

from generators.conditions import at_random
from generators.schedules import reference
from natgym.policies import FixedPolicy
from natgym.rollouts import rollout

if TYPE_CHECKING:
    from benchmark import Args

WARM = 10  # draws before any is measured; where fewer are measured, as many as these


def waits(draw: Callable[[int], object], number: int, clock: Callable[[], float], name: str) -> list[float]:
    """Return the seconds of `draw(seed)` for `number` seeds, after some that are not measured."""
    warm, seconds = min(WARM, number), []
    for seed in progress(range(warm + number), desc=name, unit="draw"):
        begun = clock()
        draw(seed)
        seconds.append(clock() - begun)
    return seconds[warm:]


def most(seconds: list[float]) -> float:
    """Return what 95 % of them don't exceed, one of them."""
    return float(np.quantile(seconds, 0.95, method="inverted_cdf"))


def latency(name: str, args: Args) -> dict[str, Any]:
    """Draw tokens and pixels by the reference schedule, one image at a time and then in batches."""
    torch.manual_seed(args.seed)
    if args.device == "cpu":
        torch.set_num_threads(1)
    env, policy = environment(name, args), FixedPolicy(reference(args.steps))
    clock, nfe = clock_of(env.device), []

    def draw(rows: int, seed: int) -> None:
        condition = at_random(env.pool, rows, args.seed + seed)
        drawn = rollout(policy, env.generator, env.tokenizer, condition, seed=args.seed + seed)
        nfe.append(drawn.nfe_N.mean())

    alone = waits(lambda seed: draw(1, seed), args.latency or 1, clock, f"{name}, one by one")
    passes, B = float(np.mean(nfe)), env.num_envs
    batches = waits(lambda seed: draw(B, seed), repeats(name, args), clock, f"{name}, {B} at once")
    return {
        "generator": name,
        "steps": args.steps,
        "nfe": passes,
        "images": len(alone),
        "median_seconds": statistics.median(alone),
        "most_seconds": most(alone),
        "batch": B,
        "repeats": repeats(name, args),
        "images_per_second": B / statistics.median(batches),
    }


def format_rows(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    head = ("generator", "T", "NFE", "n", "median ms", "95 % ms", "B", "images/s")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        times = (f"{1000 * row[name]:,.1f}" for name in ("median_seconds", "most_seconds"))
        first = (row["generator"], row["steps"], f"{row['nfe']:.2f}", f"{row['images']:,}")
        last = (row["batch"], f"{row['images_per_second']:,.2f}")
        lines.append(f"| {' | '.join(map(str, (*first, *times, *last)))} |")
    return "\n".join(lines)


def work(args: Args) -> None:
    names = [name for name in args.generators if not (args.quick and name in LARGE)]
    rows = list(in_processes(latency, names, args))
    print(format_rows(rows))
    print("n images drawn one at a time: the median, and what 95 % take at most; B at once: images a second.")
    write(args, rows)
