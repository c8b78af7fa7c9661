"""Results side by side: one ranking where the protocols agree, and an explanation where they don't."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from generators import former
from generators.files import read_json
from natgym.evaluation.statistics import paired_difference
from natgym.evaluation.tables import format_table

# What each field of a protocol does to a comparison. A difference in what is not here blocks it.
_WHY = {
    "task": "the images are of different tasks",
    "split": "they are compared with different splits of the data",
    "reference_images": "the numbers of real images differ, and with them every bias",
    "reference": "the real images are not the same",
    "extractor": "the features come from different networks, whose scales have nothing in common",
    "images": "a Frechet distance falls with the number of generated images",
    "conditions": "the conditions follow different laws",
    "distance": "the distances are not the same quantity",
    "kernel": "the kernel distances are not the same quantity",
    "quantisation": "images of different depth are judged",
    "neighbors": "precision, recall, density and coverage use balls of different size",
    "neighborhoods": "precision, recall, density and coverage are of different numbers of images",
    "name": "they follow different conventions",
}
_COMPARABLE = {
    "generator": "different generators, which is what may be compared",
    "tokenizer": "different tokenizers: the reconstruction bounds each distance from below",
    "encoder": "different encoders of texts, of which each generator has its own",
    "precision": "generators compute in different precisions, float32 where none is said",
    "seeds": "different evaluation seeds: means may be compared, paired intervals can't be formed",
}


@dataclass(frozen=True)
class Comparison:
    """How two protocols differ, in sentences: what forbids a ranking, and what a reader should know."""

    forbidding: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Comparison:
    """Explain where two manifests differ.

    A field that only one of them has, or that no version of natgym knew, forbids a ranking too.
    """
    comparison = Comparison()
    ours = former.manifest(ours)
    theirs = former.manifest(theirs)
    for name in dict.fromkeys((*ours, *theirs)):
        a, b = (_shown(manifest, name) for manifest in (ours, theirs))
        if a == b:
            continue
        if name in _COMPARABLE:
            comparison.notes.append(f"{name}: {a} against {b} ({_COMPARABLE[name]})")
        else:
            comparison.forbidding.append(
                f"{name}: {a} against {b} ({_WHY.get(name, 'unknown to this version')})"
            )
    return comparison


def _shown(manifest: Mapping[str, Any], name: str) -> str:
    if name not in manifest:
        return "not said"
    value = manifest[name]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


Row = Mapping[str, Any]


def read_results(path: Path | str) -> list[dict[str, Any]]:
    """Return the rows of a results.json (or of the run folder that holds it), each with its protocol.

    Rows of real images are left out: they are no policy's.

    Raises:
        ValueError: the file is not there, or holds no table of policies.
    """
    path = Path(path) / "results.json" if Path(path).is_dir() else Path(path)
    try:
        content = read_json(path)
        rows = [{"protocol": content["protocol"]} | row for row in content["rows"] if "steps" in row]
        judged = [row for row in rows if {"policy", "distance", "protocol"} <= set(row)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no results.json of natgym ({error!r}); give a run's") from None
    if not judged:
        raise ValueError(f"{path} holds no distances of policies; give the results.json of an evaluation")
    return judged


def compare_results(first: Path | str, second: Path | str) -> tuple[Comparison, str]:
    """Return how the protocols of two results differ, and what there is to say: a ranking, or why not.

    The ranking holds all rows of both by distance; rows of the same policy and number of steps are followed
    by their paired difference, if the seeds are the same.
    """
    named = {"A": read_results(first), "B": read_results(second)}
    comparison = Comparison()
    for ours in {json.dumps(row["protocol"]): row["protocol"] for row in named["A"]}.values():
        for theirs in {json.dumps(row["protocol"]): row["protocol"] for row in named["B"]}.values():
            pair = compare(ours, theirs)
            comparison.forbidding.extend(
                line for line in pair.forbidding if line not in comparison.forbidding
            )
            comparison.notes.extend(line for line in pair.notes if line not in comparison.notes)
    lines = [f"A: {first}", f"B: {second}"]
    if comparison.forbidding:
        lines += ["The protocols differ, so that these numbers can't be ranked:"]
        return comparison, "\n".join(
            [*lines, *(f"  {line}" for line in comparison.forbidding + comparison.notes)]
        )
    lines += [f"Note: {line}" for line in comparison.notes]
    rows = [dict(row) | {"policy": f"{name} {row['policy']}"} for name in named for row in named[name]]
    rows.sort(key=lambda row: row["distance"])
    lines += [format_table(rows), *_differences(named["A"], named["B"])]
    return comparison, "\n".join(lines)


def _differences(ours: Sequence[Row], theirs: Sequence[Row]) -> list[str]:
    lines = []
    for first in ours:
        for second in theirs:
            same = all(first.get(key) == second.get(key) for key in ("policy", "steps"))
            if same and "per_seed" in first and "per_seed" in second:
                pair = pd.DataFrame(first["per_seed"]), pd.DataFrame(second["per_seed"])
                if list(pair[0]["seed"]) == list(pair[1]["seed"]):
                    difference = paired_difference(*pair)
                    lines.append(f"A - B, {first['policy']}, T = {first['steps']}: {difference}")
    return lines
