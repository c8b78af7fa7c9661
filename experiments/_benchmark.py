"""What benchmark.py does: a watch on every part of an episode around a generator."""

from __future__ import annotations

import cProfile
import json
import math
import multiprocessing
import platform
import pstats
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _progress import progress
from _ratios import ratios, table

import generators.parts
from agents.adanat.config import AdaNATConfig
from agents.adanat.network import AdaNATPolicy, PolicyConfig, small_policy
from agents.adanat.plan import memory_plan
from agents.sb3 import PPO, SB3VecEnv
from generators.checkpoints import write_atomic
from generators.enat import ENAT, enat_l
from generators.nat import NAT, nat_digits, nat_l
from generators.precision import in_precision
from generators.vqgan import VQGAN, vqgan_f16
from natgym.env.vector import DecodeVectorEnv
from natgym.rewards import AdversarialConfig, AdversarialReward
from natgym.task import Task

if TYPE_CHECKING:
    from benchmark import Args

LARGE: dict[str, Callable[[], torch.nn.Module]] = {
    "nat-l": lambda: NAT(nat_l()),
    "enat-l": lambda: ENAT(enat_l()),
}
# Part of an episode -> what it is. The forwards come first, the image decode last.
PARTS = {
    "forwards": "the generator's passes",
    "drawing": "guidance, categorical draw, confidences, re-masking",
    "env": "action map, observations, bookkeeping",
    "policy": "AdaNAT's actor and critic, with the draw of the actions",
    "buffer": "the rollout buffer",
    "loop": "stable-baselines3's own loop",
    "reward": "the classifier, or a discriminator with random weights",
    "decode": "tokens to pixels",
}


class Stopwatch:
    """Charge time to the innermost of the watched calls.

    Args:
        clock: seconds now.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.stack = [""]
        self.last = 0.0
        self.spent: dict[str, float] = defaultdict(float)

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Charge what `owner.name` takes to a part, without the watched calls inside it."""
        function = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self.stack.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self.stack.pop()

        setattr(owner, name, watched)

    def _switch(self) -> None:
        now = self.clock()
        self.spent[self.stack[-1]] += now - self.last
        self.last = now


class Bench:
    """PPO around one generator, with a watch on every part."""

    def __init__(self, name: str, args: Args) -> None:
        torch.manual_seed(args.seed)
        self.seed = args.seed
        if args.device == "cpu":
            torch.set_num_threads(1)
        large = name in LARGE
        self.env = environment(name, args)
        self.ppo = PPO(
            AdaNATPolicy,
            SB3VecEnv(self.env),
            n_steps=args.steps,
            batch_size=self.env.num_envs * args.steps,
            policy_kwargs={
                "config": PolicyConfig() if large else small_policy(),
                "grid": self.env.observer.features_grid,
            },
            device=self.env.device,
        )
        self.ppo.policy.log_std.data.fill_(math.log(0.3))  # type: ignore[operator, union-attr]
        self.watch = Stopwatch(clock_of(self.env.device))
        for owner, function, part in (
            (self.env.generator, "forward", "forwards"),
            (generators.parts, "start", "drawing"),
            (generators.parts, "advance", "drawing"),
            *((self.env, function, "env") for function in ("reset", "step")),
            *((self.ppo.policy, function, "policy") for function in ("forward", "predict_values")),
            *((self.ppo.rollout_buffer, function, "buffer") for function in ("add", "place")),
            (self.env, "judge", "reward"),
            (self.env.tokenizer, "decode", "decode"),
            (self, "episode", "loop"),
        ):
            self.watch.watch(owner, function, part)

    def episode(self, seed: int) -> None:
        """Collect one rollout, as `PPO.update` does before it trains."""
        ppo = self.ppo
        buffer = self.ppo.rollout_buffer
        assert ppo.env is not None
        ppo.env.seed(self.seed + seed)
        buffer.reset()
        ppo._last_obs = ppo.env.reset()  # type: ignore[assignment]
        ppo._last_episode_starts = np.ones(ppo.n_envs, dtype=bool)
        ppo.collect_rollouts(ppo.env, ppo._init_callback(None), buffer, ppo.n_steps)

    def measure(self, repeats: int, name: str) -> dict[str, Any]:
        """Return medians over the episodes, and the shares of the parts in an episode without the decode."""
        self.episode(0)  # not measured: it allocates, and compiles if asked to
        nfe = []
        spent = []
        for seed in progress(range(1, repeats + 1), desc=name, unit="episode"):
            self.watch.spent.clear()
            self.episode(seed)
            spent.append(dict(self.watch.spent))
            assert self.env.state is not None
            nfe.append(float(self.env.state.nfe_B.double().mean()))
        B = self.env.num_envs
        on_gpu = self.env.device.type != "cpu"
        unwatched = [self.seconds(seed) for seed in range(1, repeats + 1)] if on_gpu else []
        whole = [sum(parts.get(part, 0.0) for part in PARTS) for parts in spent]
        plain = [total - parts["decode"] for total, parts in zip(whole, spent, strict=True)]
        shares = {
            part: statistics.median(
                parts.get(part, 0.0) / total for parts, total in zip(spent, plain, strict=True)
            )
            for part in PARTS
        }
        return {
            "generator": name,
            "batch": B,
            "nfe": statistics.mean(nfe),
            "seconds": statistics.median(plain),
            "bare_forwards": statistics.median(parts["forwards"] for parts in spent),
            "images_per_second": B / statistics.median(unwatched or whole),
            "peak_mib": _peak_bytes(self.env.device) / 2**20,
            "repeats": repeats,
            **{f"share_{part}": share for part, share in shares.items()},
        }

    def seconds(self, seed: int) -> float:
        """Return the time of an episode in which nobody waits for the device between its parts."""
        # A GPU's clock waits for the device; the watch's stands still meanwhile.
        clock, self.watch.clock = self.watch.clock, lambda: 0.0
        begun = clock()
        self.episode(seed)
        elapsed = clock() - begun
        self.watch.clock = clock
        return elapsed

    def profile(self, lines: int = 16) -> list[dict[str, Any]]:
        """Return the functions with most time of their own in one more episode, the generator's left out."""
        profiler = cProfile.Profile(self.watch.clock)
        forward = self.env.generator.forward  # type: ignore[attr-defined]

        def unseen(*args: Any) -> Any:
            profiler.disable()
            try:
                return forward(*args)
            finally:
                profiler.enable()

        self.env.generator.forward = unseen  # type: ignore[attr-defined]
        profiler.runcall(self.episode, 1)
        table: Any = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
        total = sum(own for _, _, own, _, _ in table.values())
        most = sorted(table.items(), key=lambda item: -item[1][2])[:lines]
        return [
            {"function": _short(*place), "calls": calls, "share": own / total}
            for place, (_, calls, own, _, _) in most
        ]


def environment(name: str, args: Args) -> DecodeVectorEnv:
    """Return what PPO learns in."""
    options: dict[str, Any] = {"steps": args.steps, "autoreset": False, "device": args.device}
    if args.first_pass:
        options["first_pass_bytes"] = 2**28
    rows = args.batch or (2 if name in LARGE and args.device == "cpu" else 64)
    if name not in LARGE:
        task = Task.load(name, device=args.device, precision=args.precision)
        env = DecodeVectorEnv(rows, task=task, **options)
    else:
        generator = in_precision(LARGE[name]().eval().to(args.device), args.precision)
        tokenizer = VQGAN(vqgan_f16()).eval().requires_grad_(False).to(args.device)
        reward = AdversarialReward((3, 256, 256), 1000, AdversarialConfig(), device=args.device)
        live: dict[str, Any] = {"generator": generator, "tokenizer": tokenizer, "reward": reward}
        env = DecodeVectorEnv(rows, dtype="float16", **live, **options)
    if args.compile:
        env.generator.compile()  # type: ignore[attr-defined]
    return env


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return a clock: seconds of this process on a CPU; of the wall on a GPU, which is waited for."""
    if device.type == "cpu":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def _peak_bytes(device: torch.device) -> int:
    """Return the most memory that torch has held on a GPU, or else the process, its libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _short(file: str, line: int, function: str) -> str:
    return function if file == "~" else f"{'/'.join(Path(file).parts[-2:])}:{line} {function}"


def bench(name: str, args: Args) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure one generator; return its row and its profile."""
    measured = Bench(name, args)
    row = measured.measure(repeats(name, args), name)
    return row, measured.profile() if args.profile else []


def plan(name: str, args: Args) -> str:
    """Return what memory a training around one generator takes, as a table."""
    torch.manual_seed(args.seed)
    env = environment(name, args)
    widths = PolicyConfig() if name in LARGE else small_policy()
    needs = memory_plan(env, AdaNATConfig(minibatch=args.minibatch, policy=widths))
    rows = f"{name}, {env.num_envs:,} rows of T = {env.steps}"
    return f"{rows}: {needs.peak / 2**30:,.2f} GiB at the peak\n{needs.table()}"


def print_ratios(args: Args) -> None:
    """Print the ratios of digits, and unless there is no time of NAT-L."""
    torch.set_num_threads(1)
    for name, config in (("digits", nat_digits()), ("nat-l", nat_l())):
        if name in LARGE and args.quick:
            continue
        torch.manual_seed(args.seed)
        rows = args.batch or (1 if name in LARGE else 64)
        repeated = repeats(name, args, 9)  # two minutes each, and less tells a hundredth from nothing
        print(table(ratios(NAT(config).eval(), rows, repeated), name), flush=True)


def repeats(name: str, args: Args, most: int = 3) -> int:
    """Return how often to measure a generator; the papers' geometry `most` times."""
    if args.quick:
        return 2
    return min(args.repeats, most) if name in LARGE else args.repeats


def format_rows(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    head = ("generator", "B", "NFE", "ms/episode", *PARTS, "images/s", "peak MiB")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        shares = (f"{100 * row[f'share_{part}']:.1f} %" for part in PARTS)
        first = (row["generator"], row["batch"], f"{row['nfe']:.2f}", f"{1000 * row['seconds']:,.1f}")
        last = (f"{row['images_per_second']:,.2f}", f"{row['peak_mib']:,.0f}")
        lines.append(f"| {' | '.join(map(str, (*first, *shares, *last)))} |")
    return "\n".join(lines)


def in_processes(measure: Callable[[str, Args], Any], names: list[str], args: Args) -> Iterator[Any]:
    """Yield what is measured of each generator, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        yield from pool.map(measure, names, [args] * len(names))


def work(args: Args) -> None:
    names = [name for name in args.generators if not (args.quick and name in LARGE)]
    if args.ratios:
        print_ratios(args)
        return
    if args.plan:
        print("\n\n".join(plan(name, args) for name in names))
        return
    measured = list(in_processes(bench, names, args))
    rows = [row for row, _ in measured]
    profiles = {name: lines for name, (_, lines) in zip(names, measured, strict=True)}
    print(format_rows(rows))
    print("Shares are of an episode without the image decode, medians over the episodes:")
    print("; ".join(f"{part}: {what}" for part, what in PARTS.items()) + ".")
    for name, profile in profiles.items():
        if profile:
            print(f"\n{name}, own time of functions as shares of all beside the generator's passes:")
        for line in profile:
            print(f"{100 * line['share']:6.1f} %  {line['calls']:7,} calls  {line['function']}")
    write(args, rows, profiles=profiles)


def write(args: Args, rows: list[dict[str, Any]], **more: Any) -> None:
    """Write the numbers to --json, if it is asked for."""
    if args.json is None:
        return
    machine = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    if args.device != "cpu":
        machine["device"] = torch.cuda.get_device_name(args.device)
    config = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(args).items()}
    content = {"args": config, "machine": machine, "rows": rows, **more}
    write_atomic(args.json, json.dumps(content, indent=2) + "\n")
