"""What claims.py measures: the commands of rows, their raw figures, intervals and verdicts."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from _claim_parts import LOCAL
from _claim_rows import ROWS
from _claim_terms import Arm, Command, Row, Statement
from _cli import open_run, parse, written_out

from generators.files import read_json, write_atomic
from natgym.discovery.config import SHARES
from natgym.discovery.report import frame_of
from natgym.evaluation.statistics import Difference, paired_difference
from natgym.figures.comparisons import claims_figure
from natgym.metrics.named import NAMED
from natgym.runs import Run

if TYPE_CHECKING:
    from claims import Args

HERE = Path(__file__).resolve().parent
SEEDS = 3  # fewer tell nothing of a method
Verdict = Literal["holds", "fails", "not shown"]


def verdict(pair: Difference, *, lower: bool, allowed: float = 0.0) -> Verdict:
    """Return whether ours is better than theirs, as the paired 95 % interval tells it.

    Args:
        pair: ours minus theirs, over three seeds at least.
        lower: whether the lower one is the better.
        allowed: by how much ours may be worse; below zero, by how much it has to be better.

    Raises:
        ValueError: there are fewer seeds.
    """
    if pair.n < SEEDS:
        raise ValueError(f"{pair.n} seeds: a claim is tested by {SEEDS} at least; run the others")
    worse = pair.mean if lower else -pair.mean
    if worse + pair.half_width < allowed:
        return "holds"
    return "fails" if worse - pair.half_width > allowed else "not shown"


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Return what comes of a claim of several statements: it holds if all do, and fails if one does."""
    if "fails" in verdicts:
        return "fails"
    return "not shown" if "not shown" in verdicts else "holds"


def lower_is_better(metric: str) -> bool:
    """Return which of two figures is the better one."""
    return metric not in SHARES and (metric not in NAMED or NAMED[metric].better == "lower")


def said(arm: Arm) -> str:
    """Return an arm as people read it."""
    return arm if isinstance(arm, str) else f"({arm[0]} - {arm[1]})"


def frame_of_arm(raw: pd.DataFrame, arm: Arm, metric: str) -> pd.DataFrame:
    """Return an arm's figures by seed; of two arms, the first minus the second.

    Raises:
        ValueError: it was not measured.
    """
    if not isinstance(arm, str):
        first, second = (frame_of_arm(raw, one, metric) for one in arm)
        return first.assign(**{metric: list(paired_difference(first, second, metric).each)})
    found = raw[raw["arm"] == arm].sort_values("seed").reset_index(drop=True)
    if found.empty or metric not in found or found[metric].isna().any():
        raise ValueError(f"{metric} of {arm} was not measured; there are {', '.join(raw['arm'].unique())}")
    return found[["seed", metric]]


def difference(statement: Statement, raw: pd.DataFrame) -> tuple[Difference, float]:
    """Return ours minus theirs over the seeds, and by how much ours may be worse, in units of the metric."""
    metric = statement.metric
    ours, theirs = (frame_of_arm(raw, arm, metric) for arm in (statement.ours, statement.theirs))
    command = said(statement.ours).partition(": ")[0]
    minus = said(statement.theirs).removeprefix(f"{command}: ")  # said once
    labels = {"policy": said(statement.ours), "minus": minus, "over": "seeds"}
    allowed = statement.allowed * float(theirs[metric].abs().mean())
    return paired_difference(ours, theirs, metric, **labels), allowed


def judged(row: Row, raw: pd.DataFrame) -> tuple[list[tuple[Difference, Verdict]], Verdict]:
    """Return each statement's difference and verdict, and the row's."""
    pairs = [difference(statement, raw) for statement in row.statements]
    each = [
        (pair, verdict(pair, lower=lower_is_better(pair.metric), allowed=allowed)) for pair, allowed in pairs
    ]
    return each, together([one for _, one in each])


def runs_of(row: Row, seeds: Sequence[int]) -> Iterator[tuple[Command, int, str]]:
    """Yield each command with its seed, the first of them where one run is of all, and its folder's name."""
    for command in row.commands:
        for seed in seeds[:1] if command.once else seeds:
            yield command, seed, f"{command.name}-{seed}"


def words_of(command: Command, seed: int, seeds: Sequence[int], folder: Path, toy: bool) -> list[str]:
    """Return a command's line with everything filled in: the script, then its flags."""
    filled = command.line.format(seed=seed, seeds=" ".join(map(str, seeds)), runs=folder)
    words = shlex.split(filled) + (shlex.split(command.toy) if toy else [])
    return [*words, "--output", str(folder / f"{command.name}-{seed}")]


def check(words: Sequence[str]) -> Any:
    """Return the settings that a command line says; a mistake in it is one line, and ends the program."""
    module = importlib.import_module(words[0].removesuffix(".py"))
    before = sys.argv
    try:
        sys.argv = [words[0], *written_out(list(words[1:]), module.Args)]
        return parse(module.Args, words[0], getattr(module, "defaults", None))
    finally:
        sys.argv = before


def run(words: list[str]) -> None:
    """Run a command, or go on with it; line and output stand beside its folder once it is through.

    Raises:
        ValueError: it has failed, or was another command when the run began.
    """
    folder = Path(words[-1])
    told = folder.with_name(f"{folder.name}.txt")
    line = shlex.join(words).replace(f"{folder.parent}/", "")
    if told.is_file():
        if (before := told.read_text().partition("\n")[0]) != line:
            raise ValueError(f"{told} is of `{before}`, and the row has another command now; begin anew")
        return
    if (folder / "config.json").is_file():
        here = LOCAL.split() if LOCAL in " ".join(words) else []
        words = [words[0], *here, "--resume", str(folder)]
    print(shlex.join(words), file=sys.stderr)
    done = subprocess.run([sys.executable, str(HERE / words[0]), *words[1:]], stdout=subprocess.PIPE)
    if done.returncode:
        raise ValueError(f"{words[0]} ended with {done.returncode}; see above, then go on with --resume")
    write_atomic(told, line.encode() + b"\n" + done.stdout)


def measured(row: Row, seeds: Sequence[int], folder: Path) -> pd.DataFrame:
    """Return what a row's commands have measured: a line per arm and seed, means over evaluation seeds."""
    frames = []
    for command, seed, name in runs_of(row, seeds):
        if (path := folder / name / "results.json").is_file():  # trainings of generators judge nothing
            frames.append(_figures(read_json(path), command, seed, folder))
    return pd.concat(frames, ignore_index=True)


def _figures(results: dict[str, Any], command: Command, seed: int, folder: Path) -> pd.DataFrame:
    if "jobs" in results:  # of mmgcd_discover.py: methods on splits
        frame = frame_of(results["jobs"]).drop(columns="cpu_seconds")
        categories = len(results["protocol"]["categories"])
        found = {job["split"]: job["num_categories"] for job in results["jobs"]}
        frame["off"] = (frame["seed"].map(found) / categories - 1).abs()  # by which share of the number
        frame.insert(0, "arm", f"{command.name}: " + frame.pop("method"))
        return frame
    lines = []
    for row in results["rows"]:
        if "steps" in row and "per_seed" in row:  # not of real images
            policy = row["policy"].replace(f"{folder}/", "")  # a name by folders, and these without seeds
            policy = re.sub(rf"-{seed}(?=[/@]|$)", "", policy)
            policy = policy.rpartition("/generator ")[2]  # generators are known by their command
            means = pd.DataFrame(row["per_seed"]).drop(columns="seed").mean()
            costs = {cost: row.get(cost) for cost in ("nfe", "gflop", "images_spent")}
            lines.append({"arm": f"{command.name}: {policy}", "seed": seed, **means, **costs})
    return pd.DataFrame(lines)


def protocol(row: Row, seeds: Sequence[int]) -> dict[str, Any]:
    """Return what a row was measured by: when, with which commit, where."""
    asked = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return {
        "row": row.name,
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit or "none: no clone",
        "machine": machine(),
        "seeds": list(seeds),
    }


def machine() -> str:
    """Return how many cores of which processor there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # no Linux
        model = platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores of {model}"


def write(row: Row, run_: Run, seeds: Sequence[int], toy: bool) -> None:
    """Write a row's raw figures, its protocol and its figure, and print what comes of it."""
    raw = measured(row, seeds, run_.folder)
    write_atomic(run_.folder / f"{row.name}.csv", raw.to_csv(index=False, float_format="%.6g"))
    about = protocol(row, seeds)
    write_atomic(run_.folder / f"{row.name}.json", json.dumps(about, indent=2) + "\n")
    pairs = [difference(statement, raw)[0] for statement in row.statements]
    note = f"{row.where}; {len(seeds)} seeds; diamonds: means, bars: paired 95 % t-intervals"
    run_.write_figure(row.name, claims_figure(pairs, note))
    for name, path in row.shows:
        (found,) = run_.folder.glob(path)
        write_atomic(run_.folder / "figures" / f"{row.name}-{name}.png", found.read_bytes())
    if not toy:
        each, verdict_ = judged(row, raw)
        for pair, one in each:
            print(f"{pair.policy} - {pair.minus}: {pair} in {pair.metric}, {one}")
        print(f"{row.name}: {verdict_}", flush=True)  # the next row may take an hour


def load(args: Args) -> list[Row]:
    """Return the rows, whose commands can be parsed."""
    rows = [ROWS[name] for name in args.names]
    for row in rows:
        for command, seed, _ in runs_of(row, row.seeds):
            check(words_of(command, seed, row.seeds, Path("runs"), args.quick))
    return rows


def measure(args: Args) -> None:
    """Run rows, or go on with them, and write what comes of each."""
    args, run_, rows = open_run("claims", args, ("resume",), load)
    for row in rows:
        seeds = row.seeds[:1] if args.quick else row.seeds
        for command, seed, _ in runs_of(row, seeds):
            run(words_of(command, seed, seeds, run_.folder, args.quick))
        write(row, run_, seeds, args.quick)
    print(f"{run_.folder}: ROW.csv, ROW.json, figures/, and the folders of the commands")
