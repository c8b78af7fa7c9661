"""What claims.py prints: the list of all rows, what the page of claims says of raw figures, and what comes of
rows that it measures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from _claim_rows import ROWS
from _claim_terms import Row
from _claims import HERE, Verdict, frame_of_arm, judged, measure

from generators.files import read_json
from natgym.evaluation.statistics import Difference

if TYPE_CHECKING:
    from claims import Args


def work(args: Args) -> None:
    if args.list:
        print(listing())
    if args.table:
        print(tables(args.measured or HERE.parent / "docs" / "claims"))
    if args.row or args.resume or args.quick:
        measure(args)


def listing() -> str:
    """Return the rows, their commands and what each may spend."""
    lines = []
    for row in ROWS.values():
        lines += [f"{row.name}: {row.paper}. {row.claim}", f"  budget: {row.budget}", f"  {row.chooses}"]
        lines += [f"  {command.name}: python experiments/{command.line}" for command in row.commands]
    return "\n".join(lines)


def tables(folder: Path) -> str:
    """Return the page's tables: what came of each claim, by which figures, and how it was measured.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"measured {folder} is no folder; give the docs/claims of a clone, or a run")
    claims = ["| row | paper | claim | in the paper | here on | verdict |", "|---|---|---|---|---|---|"]
    figures = [
        "| row | ours - theirs | metric | ours | theirs | difference | |",
        "|---|---|---|---|---|---|---|",
    ]
    hows = ["| row | seeds | budget | what chooses | date, commit, machine |", "|---|---|---|---|---|"]
    for row in ROWS.values():
        outcome, when = "not measured here", "-"
        if (path := folder / f"{row.name}.csv").is_file():
            raw = pd.read_csv(path)
            each, verdict = judged(row, raw)
            outcome = _outcome(row, verdict)
            figures += _figures(row, raw, each)
            about = read_json(folder / f"{row.name}.json")
            when = f"{about['date']}, {about['commit']}, {about['machine']}; [raw](claims/{row.name}.csv), "
            when += f"[figure](claims/{row.name}.png)"
        told = (f"`{row.name}`", row.paper, row.claim, row.reported, row.where, outcome)
        claims.append(f"| {' | '.join(told)} |")
        hows.append(f"| `{row.name}` | {len(row.seeds)} | {row.budget} | {row.chooses} | {when} |")
    return "\n\n".join("\n".join(table) for table in (claims, figures, hows))


def _figures(row: Row, raw: pd.DataFrame, each: list[tuple[Difference, Verdict]]) -> Iterator[str]:
    """Yield a line for each statement."""
    for statement, (pair, verdict) in zip(row.statements, each, strict=True):
        arms = (statement.ours, statement.theirs)
        ours, theirs = (frame_of_arm(raw, arm, pair.metric)[pair.metric].mean() for arm in arms)
        compared = f"{pair.policy} - {pair.minus}"
        numbers = f"{ours:.3f} | {theirs:.3f} | {pair}"
        yield f"| `{row.name}` | {compared} | {pair.metric} | {numbers} | {verdict} |"


def _outcome(row: Row, verdict: Verdict) -> str:
    if verdict == "holds":
        return "**holds**"
    times = "one attempt" if row.attempts == 1 else f"{row.attempts} attempts"
    return f"**{verdict}** at this scale, {times}"
