"""A table of policies in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from generators.data import PartName
from generators.rules import DecodeRules
from generators.schedules import Schedule
from natgym.evaluation import (
    FULL_COLUMNS,
    EvaluationConfig,
    Evaluator,
    format_table,
    set_against,
    summarize,
)
from natgym.metrics.contract import Metrics
from natgym.policies import FixedPolicy, named_policies
from natgym.rollouts import Policy, rules_of
from natgym.task import Task


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
    columns: Mapping[str, tuple[str, str]]
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
    split: PartName = "report",
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
    if not policies:
        raise ValueError("no policy is given; name at least one")
    found = Task.load(task)
    config = EvaluationConfig(split=split, images=images, seeds=tuple(seeds))
    rules = DecodeRules.of(rules, found.generator.grid)
    evaluator = Evaluator(found, config, rules=rules, metrics=metrics, threads=threads)
    rows = []
    for label, given in policies.items():
        policy = _policy(given, steps, found)
        row = summarize(label, policy.steps, evaluator(policy), 0)
        rows.append(row | {"rules": rules_of(policy, rules).text})
    against = next(iter(policies))
    own = {name: (name, "{:.3f}") for name in metrics or {}}
    note = f"difference: to {against}, paired over the seeds, with 95 % t-interval"
    return Table(
        set_against(rows, against),
        {**FULL_COLUMNS, **own},
        f"{evaluator.legend()}\n{note}",
        evaluator.manifest(),
    )


def _policy(given: str | Path | Policy, steps: int, task: Task) -> Policy:
    if not isinstance(given, str | Path):
        return given
    if Path(given).is_file():
        return FixedPolicy(Schedule.load(Path(given)))
    return named_policies(str(given), [steps], task.generator)[0][1]
