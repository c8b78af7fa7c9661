"""Results side by side: one ranking where the protocols agree, and an explanation where they don't."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from natgym.evaluation.protocol import Comparison, compare
from natgym.evaluation.statistics import paired_difference
from natgym.evaluation.tables import format_table

Row = Mapping[str, Any]


def read_results(path: Path | str) -> list[dict[str, Any]]:
    """Return the rows of a results.json (or of the run folder that holds it), each with its protocol.

    Rows of real pictures are left out: they are no policy's.

    Raises:
        ValueError: the file is not there, or holds no table of policies.
    """
    path = Path(path) / "results.json" if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(path.read_text())
        rows = [{"protocol": content["protocol"]} | row for row in content["rows"] if "steps" in row]
        found = [row for row in rows if {"policy", "distance", "protocol"} <= set(row)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no results.json of natgym ({error!r}); give a run's") from None
    if not found:
        raise ValueError(f"{path} holds no distances of policies; give the results.json of an evaluation")
    return found


def compare_results(first: Path | str, second: Path | str) -> tuple[Comparison, str]:
    """Return how the protocols of two results differ, and what there is to say: a ranking, or why not.

    The ranking holds all rows of both by distance; rows of the same policy and number of steps are followed
    by their paired difference, if the seeds are the same.
    """
    named = {"A": read_results(first), "B": read_results(second)}
    found = Comparison()
    for ours in {json.dumps(row["protocol"]): row["protocol"] for row in named["A"]}.values():
        for theirs in {json.dumps(row["protocol"]): row["protocol"] for row in named["B"]}.values():
            new = compare(ours, theirs)
            found.forbidding.extend(line for line in new.forbidding if line not in found.forbidding)
            found.notes.extend(line for line in new.notes if line not in found.notes)
    said = [f"A: {first}", f"B: {second}"]
    if found.forbidding:
        said += ["The protocols differ, so that these numbers can't be ranked:"]
        return found, "\n".join([*said, *(f"  {line}" for line in found.forbidding + found.notes)])
    said += [f"Note: {line}" for line in found.notes]
    rows = [dict(row) | {"policy": f"{name} {row['policy']}"} for name in named for row in named[name]]
    rows.sort(key=lambda row: row["distance"])
    said += [format_table(rows), *_differences(named["A"], named["B"])]
    return found, "\n".join(said)


def _differences(ours: Sequence[Row], theirs: Sequence[Row]) -> list[str]:
    lines = []
    for first in ours:
        for second in theirs:
            same = all(first.get(key) == second.get(key) for key in ("policy", "steps"))
            if same and "per_seed" in first and "per_seed" in second:
                pair = pd.DataFrame(first["per_seed"]), pd.DataFrame(second["per_seed"])
                if list(pair[0]["seed"]) == list(pair[1]["seed"]):
                    mean, half = paired_difference(*pair)
                    lines.append(f"A - B, {first['policy']}, T = {first['steps']}: {mean:+.3f} ± {half:.3f}")
    return lines
