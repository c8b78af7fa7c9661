"""Tables of policies: their rows, their columns, and one in a single call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from generators.conditions import balanced
from generators.data import SplitName
from generators.rules import DecodeRules
from generators.schedules import Schedule
from natgym.evaluation.cost import gflop_per_image
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.evaluation.statistics import Difference, measured, moments, paired_difference
from natgym.metrics.contract import Metrics
from natgym.metrics.named import NAMED
from natgym.metrics.pixels import PIXELS
from natgym.policies import FixedPolicy, Policy, named_policies, rules_of
from natgym.task import Task

COUNTED = 64  # images of which operations are counted, or fewer where fewer are judged


def summarize(policy: str, steps: int, per_seed: pd.DataFrame, images_spent: int | None) -> dict[str, Any]:
    """Return a table row: means over the seeds and, of the distances, the sample standard deviation; beside
    them the scores of each seed, from which paired differences are formed later."""
    means = {name: float(per_seed[name].mean()) for name in ("nfe", "images_per_second")}
    counts = {"seeds": len(per_seed), "images_spent": images_spent}
    scores = per_seed[["seed", *measured(per_seed)]].to_dict("list")
    return {"policy": policy, "steps": steps, **moments(per_seed), **means, **counts, "per_seed": scores}


def table_row(
    policy_name: str,
    policy: Policy,
    evaluator: Evaluator,
    per_seed: pd.DataFrame,
    images_spent: int | None = 0,
) -> dict[str, Any]:
    """Return a row of `summarize` with what belongs to its numbers: rules, cost and protocol.

    Args:
        per_seed: the evaluator's frame for the policy, or the means over several runs of it.
        images_spent: on finding the policy; None where that is not known.
    """
    row = summarize(policy_name, policy.steps, per_seed, images_spent)
    row["rules"] = rules_of(policy, evaluator.rules).text
    asked = balanced(evaluator.task.every, min(COUNTED, evaluator.protocol.images))
    row["gflop"] = gflop_per_image(policy, evaluator.generator, condition=asked, rules=evaluator.rules)
    return row | {"protocol": evaluator.manifest()}


def set_against(rows: Sequence[dict[str, Any]], baseline: str) -> list[dict[str, Any]]:
    """Return the rows of `summarize` by rising NFE, each with its paired difference to the baseline's.

    That is the baseline's row of the same number of steps, or of the nearest NFE where there is none; rows
    of the baseline itself have no difference.
    """
    rivals = [row for row in rows if row["policy"] == baseline]
    compared = []
    for row in sorted(rows, key=lambda row: row["nfe"]):
        if row["policy"] != baseline and rivals:
            rival = min(rivals, key=lambda r: (r["steps"] != row["steps"], abs(r["nfe"] - row["nfe"])))
            pair = (pd.DataFrame(one["per_seed"]) for one in (row, rival))
            difference = paired_difference(*pair, policy=row["policy"], minus=baseline)
            row = row | {"difference": difference.row() | {"steps": rival["steps"]}}
        compared.append(row)
    return compared


Columns = Mapping[str, tuple[str, str]]
"""Column of a row -> header and format in a printed table."""

_METRICS: Columns = {
    name: (metric.header, metric.format) for name, metric in NAMED.items() if metric.header is not None
}
_BRIEF: Columns = {name: column for name, column in _METRICS.items() if NAMED[name].brief}
_POLICY: Columns = {"policy": ("policy", "{}"), "steps": ("T", "{}")}
_COST: Columns = {"nfe": ("NFE", "{:.1f}"), "gflop": ("GFLOP", "{:.4g}")}
_SPEED: Columns = {"images_per_second": ("images/s", "{:,.0f}")}
# Named before the other metrics, which keeps it there: its spread follows it.
_DISTANCE: Columns = {"distance": _METRICS["distance"], "distance_std": ("std", "{:.3f}")}

COLUMNS: Columns = {
    **_POLICY,
    **_DISTANCE,
    "to_reference": ("ratio", "{:.2f}"),
    **_BRIEF,
    **_COST,
    **_SPEED,
    "images_spent": ("images spent", "{:,}"),
    PIXELS: ("pixels", "{:.4f}"),
}
FULL_COLUMNS: Columns = {
    **_POLICY,
    **_COST,
    **_DISTANCE,
    "difference": ("difference", "{}"),
    **_METRICS,
    **_SPEED,
}


def format_table(rows: Sequence[Mapping[str, Any]], columns: Columns = COLUMNS) -> str:
    """Return the rows of `summarize` as aligned text; a missing value is -, a missing column is left out."""
    columns = {name: column for name, column in columns.items() if any(name in row for row in rows)}
    lines = [[header for header, _ in columns.values()]]
    for row in rows:
        cells = ((row.get(name), form) for name, (_, form) in columns.items())
        lines.append([cell(value, form) for value, form in cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines)
    text = ["  ".join(cells) for cells in aligned]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def cell(value: Any, form: str) -> str:
    """Return a value as text; - for what there is none of, such as the spread over one seed."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return form.format(Difference.of_row(value) if isinstance(value, Mapping) else value)


@dataclass(frozen=True)
class Table:
    """Policies side by side; printed, it is a table and what its numbers are.

    Attributes:
        rows: one per policy, by rising number of passes (NFE); `per_seed` has the scores of each seed.
        columns: key of a row -> header and format.
        legend: what the numbers are.
        protocol: all that they depend on, as JSON values.
    """

    rows: Sequence[Mapping[str, Any]]
    columns: Columns
    legend: str
    protocol: Mapping[str, Any]

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a frame, without the scores of each seed."""
        return pd.DataFrame([{k: v for k, v in row.items() if k != "per_seed"} for row in self.rows])

    def __str__(self) -> str:
        return f"{format_table(self.rows, self.columns)}\n{self.legend}"


def evaluate(
    policies: Mapping[str, str | Path | Policy],
    task: Any,
    *,
    steps: int = 8,
    images: int = 5000,
    seeds: Sequence[int] = (0, 1, 2),
    split: SplitName = "report",
    rules: str | DecodeRules = "confidence",
    metrics: Metrics | None = None,
    threads: int = 1,
) -> Table:
    """Judge policies of a task's generator against a split, all on the same conditions and noise.

    Args:
        policies: {label: policy}; a text is a schedule family or rule ("reference", "linear:w=2",
            "threshold:theta=.7") or a schedule file. The first is what the others are set against. Learned
            and searched policies come from `agents.load_policy`.
        task: a `Task`, or what `Task.load` takes.
        steps: T of policies by name.
        images: generated per evaluation seed.
        seeds: the paired intervals are over these.
        rules: of policies that have none of their own.
        metrics: of one's own, {column: maker of a `Metric`}.
        threads: batches drawn at once.

    Raises:
        ValueError: there is no such policy or task, or no policy at all.
    """
    if not isinstance(policies, Mapping) or not policies:
        raise ValueError("policies have to be {label: policy}, at least one")
    task = Task.load(task)
    config = EvaluationConfig(split=split, images=images, seeds=tuple(seeds))
    rules = DecodeRules.of(rules, task.generator.grid)
    found = {label: _policy(spec, steps, task) for label, spec in policies.items()}
    evaluator = Evaluator(task, config, rules=rules, metrics=metrics, threads=threads)
    rows = [table_row(label, policy, evaluator, evaluator(policy)) for label, policy in found.items()]
    against = next(iter(policies))
    custom = {name: (name, "{:.3f}") for name in metrics or {}}
    note = f"difference: to {against}, paired over the seeds, with 95 % t-interval"
    return Table(
        set_against(rows, against),
        {**FULL_COLUMNS, **custom},
        f"{evaluator.legend()}\n{note}",
        evaluator.manifest(),
    )


def _policy(spec: str | Path | Policy, steps: int, task: Task) -> Policy:
    if not isinstance(spec, str | Path):
        return spec
    if Path(spec).is_file():
        return FixedPolicy(Schedule.load(Path(spec)))
    if Path(spec).is_dir():
        raise ValueError(
            f"policy {str(spec)!r} is a folder; load it with agents.load_policy and give the policy"
        )
    return named_policies(str(spec), [steps], task.generator)[0][1]
