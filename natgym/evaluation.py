"""Tables one can trust: policies on the same conditions and noise, judged on one part of the data, with the
protocol.

By default the distance is the Frechet distance in the features of the task's classifier. It is NOT the
Inception FID and compares only within one protocol; beside it stands the kernel distance, which has no bias
of small samples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from generators.checkpoints import weights_hash
from generators.conditions import Condition
from generators.data import Part, PartName
from generators.noise import derive_seed
from generators.rules import DecodeRules
from natgym.judge import Judge
from natgym.metrics.contract import Metrics
from natgym.protocol import EIGHT_BITS, ConditionLaw, Protocol
from natgym.reference import CHUNK
from natgym.rollouts import Policy, at_random, balanced, rollout
from natgym.task import Task


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How policies are judged; all of it stands in the protocol."""

    split: PartName | Literal["-"] = "report"
    """Real images to compare with; "-" for statistics from a file."""
    images: int = 5000
    """Generated per evaluation seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Evaluation seeds; the paired intervals are over these."""
    conditions: ConditionLaw = "balanced"
    """Every condition in turn, or random ones, anew for each seed."""
    convention: str = "natgym"
    """Name of the published protocol that all of this follows."""


class Evaluator:
    """Evaluate policies of one task's generator against one reference, all on the same conditions and noise.

    Args:
        task: of generator, tokenizer and, unless a judge is given, of extractor and real images.
        config: how.
        judge: of the images, with its own reference; by default the task's score extractor on the split.
        rules: of policies that have none of their own; by default AutoNAT's.
        metrics: of one's own, {column: maker of a `Metric`}.
        threads: batches drawn at once; results don't depend on it.
    """

    def __init__(
        self,
        task: Task,
        config: EvaluationConfig | None = None,
        *,
        judge: Judge | None = None,
        rules: DecodeRules | None = None,
        metrics: Metrics | None = None,
        threads: int = 1,
    ) -> None:
        config = config or EvaluationConfig()
        self.task, self.generator, self.tokenizer = task, task.generator, task.tokenizer
        if judge is None:
            if config.split == "-":
                raise ValueError("split '-' stands for statistics from a file; give the judge that has them")
            judge = Judge(task.score_extractor, task.split(config.split))  # type: ignore[arg-type]
        self.judge, self.rules, self.metrics, self.threads = judge, rules, metrics or {}, threads
        features = judge.reference.features_Nd
        self.protocol = Protocol(
            task=task.name or "-",
            part=config.split,
            reference_images=0 if features is None else len(features),
            reference=judge.reference.name,
            generator=weights_hash(self.generator),  # type: ignore[arg-type]
            tokenizer=weights_hash(self.tokenizer),  # type: ignore[arg-type]
            extractor=weights_hash(judge.extractor),
            images=config.images,
            seeds=tuple(config.seeds),
            conditions=config.conditions,
            distance=judge.extractor.meaning,
            quantisation=EIGHT_BITS if judge.quantise else "none",
            name=config.convention,
        )

    def __call__(self, policy: Policy, progress: Callable[[int], object] | None = None) -> pd.DataFrame:
        """Return one row per seed: METRICS, one's own, nfe and images_per_second (of generation alone)."""
        images, rows = self.protocol.images, []
        for seed in self.protocol.seeds:
            condition = self.conditions(seed)
            began = time.perf_counter()
            drawn = rollout(
                policy,
                self.generator,
                self.tokenizer,
                condition,
                seed=derive_seed("evaluation", self.protocol.part, seed),
                rules=self.rules,
                threads=self.threads,
                progress=progress,
            )
            took = time.perf_counter() - began
            scores = self.judge.score(drawn.images_NCHW, condition) | self._own(drawn.images_NCHW, condition)
            rows.append(
                {"seed": seed, **scores, "nfe": drawn.nfe_N.mean(), "images_per_second": images / took}
            )
        return pd.DataFrame(rows)

    def conditions(self, seed: int) -> Condition:
        """Return what is drawn for an evaluation seed, by the law of the protocol."""
        pool, images = self.generator.conditions(), self.protocol.images
        if self.protocol.conditions == "balanced":
            return balanced(pool, images)
        return at_random(pool, images, derive_seed("conditions", seed))

    def floor(self, part: Part) -> dict[str, Any]:
        """Return a table row for real pictures of another part, which no generator of these tokens should
        beat.

        With enough of them it is taken like the others, as many for each evaluation seed; else the row is of
        all there are, a guide and not comparable to the digit.
        """
        images, total = self.protocol.images, len(part)
        if total < images:
            scores = self.judge.score(part.images_NCHW, part.condition) | self._own(
                part.images_NCHW, part.condition
            )
            return {"policy": f"real, n={total:,}", "comparable": False, **scores}
        rows = []
        for seed in self.protocol.seeds:
            rng = np.random.default_rng(derive_seed("floor", seed))
            chosen = torch.from_numpy(rng.choice(total, images, replace=False))
            images_NCHW, condition = part.images_NCHW[chosen], part.condition[chosen]
            rows.append(self.judge.score(images_NCHW, condition) | self._own(images_NCHW, condition))
        return {"policy": f"real, n={images:,}", "comparable": True, **_moments(pd.DataFrame(rows))}

    def _own(self, images_NCHW: Tensor, condition: Condition) -> dict[str, float]:
        """Return the metrics of one's own, fed in chunks; ValueError if one is not a finite number."""
        making = {name: make() for name, make in self.metrics.items()}
        for rows in torch.arange(len(images_NCHW)).split(CHUNK) if making else ():
            seen_BCHW = self.judge.seen(images_NCHW[rows])
            for metric in making.values():
                metric.update(seen_BCHW, condition[rows], self.judge.features(images_NCHW[rows]))
        found = {name: float(metric.compute()) for name, metric in making.items()}
        if wrong := [name for name, value in found.items() if not math.isfinite(value)]:
            raise ValueError(
                f"metric {wrong[0]!r} is {found[wrong[0]]}; compute has to return a finite number"
            )
        return found

    def manifest(self) -> dict[str, Any]:
        """Return the protocol as JSON values."""
        return self.protocol.manifest()

    def legend(self) -> str:
        """Say in three lines what the numbers of a table are."""
        p = self.protocol
        against = f"{p.reference_images:,} real pictures" if p.reference_images else "statistics from a file"
        return (
            f"{p.distance}; kernel distance: {p.kernel}.\n"
            f"Against {against} ({p.task}, {p.part} part); {p.images:,} generated "
            f"per evaluation seed, {len(p.seeds)} seeds: mean and standard deviation.\n"
            f"A row of real pictures with n other than {p.images:,} is a guide, not comparable to the digit."
        )


def summarize(policy: str, steps: int, per_seed: pd.DataFrame, images_spent: int) -> dict[str, Any]:
    """Return a table row: means over the seeds and, of the distances, the sample standard deviation; beside
    them the scores of each seed, from which paired differences are formed later."""
    means = {name: float(per_seed[name].mean()) for name in ("nfe", "images_per_second")}
    counts = {"seeds": len(per_seed), "images_spent": images_spent}
    scores = per_seed[["seed", *_measured(per_seed)]].to_dict("list")
    return {"policy": policy, "steps": steps, **_moments(per_seed), **means, **counts, "per_seed": scores}


def means_by_run(frames: Sequence[pd.DataFrame], first: int = 0) -> pd.DataFrame:
    """Return one row per search or training, the mean over its evaluation seeds.

    Args:
        frames: of an `Evaluator`, one per run.
        first: `seed` of the first row; they are counted up.
    """
    means = pd.DataFrame([frame.mean() for frame in frames])
    return means.assign(seed=np.arange(first, first + len(frames)))


def _measured(per_seed: pd.DataFrame) -> list[str]:
    return [name for name in per_seed if name not in ("seed", "nfe", "images_per_second")]


def _moments(per_seed: pd.DataFrame) -> dict[str, float]:
    measured = _measured(per_seed)
    spread = [name for name in ("distance", "kernel_distance") if name in measured]
    return {name: float(per_seed[name].mean()) for name in measured} | {
        f"{name}_std": float(per_seed[name].std(ddof=1)) for name in spread
    }


def paired_difference(
    ours: pd.DataFrame, theirs: pd.DataFrame, metric: str = "distance"
) -> tuple[float, float]:
    """Return the mean of ours - theirs over common seeds and the half-width of its 95 % t-interval.

    Raises:
        ValueError: the seeds differ.
    """
    if list(ours["seed"]) != list(theirs["seed"]):
        raise ValueError(
            f"seeds {list(ours['seed'])} and {list(theirs['seed'])} are not paired; use the same ones"
        )
    difference = (ours[metric] - theirs[metric]).to_numpy()
    if len(difference) < 2:
        return float(difference.mean()), float("nan")
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean()), float(stats.t.ppf(0.975, len(difference) - 1) * error)


def set_against(rows: Sequence[dict[str, Any]], baseline: str) -> list[dict[str, Any]]:
    """Return the rows of `summarize` by rising NFE, each with its paired difference to the baseline's.

    That is the baseline's row of the same number of steps, or of the nearest NFE where there is none; rows
    of the baseline itself have no difference.
    """
    rivals = [row for row in rows if row["policy"] == baseline]
    found = []
    for row in sorted(rows, key=lambda row: row["nfe"]):
        if row["policy"] != baseline and rivals:
            rival = min(rivals, key=lambda r: (r["steps"] != row["steps"], abs(r["nfe"] - row["nfe"])))
            pair = (pd.DataFrame(given["per_seed"]) for given in (row, rival))
            mean, half_width = paired_difference(*pair)
            against = {"policy": baseline, "steps": rival["steps"]}
            row = row | {"difference": against | {"mean": mean, "half_width": half_width}}
        found.append(row)
    return found


# Column of a row -> header and format in the printed table.
COLUMNS: Mapping[str, tuple[str, str]] = {
    "policy": ("policy", "{}"),
    "steps": ("T", "{}"),
    "distance": ("distance", "{:.3f}"),
    "distance_std": ("std", "{:.3f}"),
    "to_reference": ("ratio", "{:.2f}"),
    "kernel_distance": ("kernel", "{:.4f}"),
    "accuracy": ("accuracy", "{:.3f}"),
    "recall": ("recall", "{:.3f}"),
    "coverage": ("coverage", "{:.3f}"),
    "nfe": ("NFE", "{:.1f}"),
    "gflop": ("GFLOP", "{:.4g}"),
    "images_per_second": ("images/s", "{:,.0f}"),
    "images_spent": ("images spent", "{:,}"),
}


FULL_COLUMNS: Mapping[str, tuple[str, str]] = {
    "policy": COLUMNS["policy"],
    "steps": COLUMNS["steps"],
    "nfe": COLUMNS["nfe"],
    "gflop": COLUMNS["gflop"],
    "distance": COLUMNS["distance"],
    "distance_std": COLUMNS["distance_std"],
    "difference": ("difference", "{0[mean]:+.3f} ± {0[half_width]:.3f}"),
    "kernel_distance": COLUMNS["kernel_distance"],
    "score": ("score", "{:.2f}"),
    "accuracy": COLUMNS["accuracy"],
    "precision": ("precision", "{:.3f}"),
    "recall": COLUMNS["recall"],
    "density": ("density", "{:.3f}"),
    "coverage": COLUMNS["coverage"],
    "images_per_second": COLUMNS["images_per_second"],
}


def format_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]] = COLUMNS) -> str:
    """Return the rows of `summarize` as aligned text; a missing value is -, a missing column is left out."""
    columns = {name: column for name, column in columns.items() if any(name in row for row in rows)}
    lines = [[header for header, _ in columns.values()]]
    for row in rows:
        cells = ((row.get(name), form) for name, (_, form) in columns.items())
        lines.append(["-" if value is None else form.format(value) for value, form in cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines)
    text = ["  ".join(cells) for cells in aligned]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])
