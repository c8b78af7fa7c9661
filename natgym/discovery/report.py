"""What comes of a discovery: assignments, figures, and the comparison of methods over splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from natgym.discovery.accuracy import clustering_accuracy
from natgym.discovery.config import SHARES
from natgym.discovery.figures import confusion_figure, examples_figure, map_figure, plane
from natgym.discovery.pairs import Pairs
from natgym.discovery.split import Split
from natgym.evaluation.statistics import paired_difference
from natgym.evaluation.tables import format_table

EXAMPLES = 12  # new categories shown
MAPPED = 5000  # samples on the map at most; t-SNE of more takes minutes
# Column of a row -> header and format in the printed table.
COLUMNS = {
    "method": ("method", "{}"),
    **{share: (share.title(), "{}") for share in SHARES},
    "splits": ("splits", "{}"),
    "cpu_seconds": ("CPU-s", "{:.1f}"),
}
BETTER = "better single modality"  # the better of simgcd-image and simgcd-text by All, split by split


@dataclass(frozen=True, eq=False)
class Discovery:
    """The categories of N samples.

    Attributes:
        pairs: the samples.
        split: their labels that the method saw.
        clusters_N: assigned categories, the split's old ones first.
        confidence_N: probabilities of these.
        features_ND: of which the map is.
        title: of the figures.
    """

    pairs: Pairs
    split: Split
    clusters_N: np.ndarray
    confidence_N: np.ndarray
    features_ND: np.ndarray
    title: str

    @property
    def names(self) -> list[str]:
        """Of the assigned categories: the old ones', then "new 1" and so on."""
        old = [self.pairs.class_names[category] for category in self.split.old]
        return old + [f"new {i + 1}" for i in range(int(self.clusters_N.max()) + 1 - len(old))]

    def table(self) -> pd.DataFrame:
        """Return one row per sample: name, category, probability, labelled, label, text."""
        pairs = self.pairs
        names = self.names
        return pd.DataFrame(
            {
                "name": pairs.names,
                "category": [names[c] for c in self.clusters_N],
                "probability": self.confidence_N.round(4),
                "labelled": self.split.targets_N >= 0,
                "label": [pairs.class_names[c] if c >= 0 else "" for c in pairs.labels_N],
                "text": pairs.texts,
            }
        )

    def figures(self) -> dict[str, Figure]:
        """Return "map"; "examples" if there are new categories, "confusion" if true categories are known."""
        figures: dict[str, Figure] = {}
        new = [c for c in range(len(self.split.old), len(self.names)) if (self.clusters_N == c).any()]
        if new:
            figures["examples"] = self._examples(new)
        names = self.names
        colorings = [("assigned", self.clusters_N)]
        if self.split.judged_N.any():
            figures["confusion"], colorings, names = self._confusion()
        figures["map"] = self._map(colorings, names)
        return figures

    def _map(self, colorings: Sequence[tuple[str, np.ndarray]], names: Sequence[str]) -> Figure:
        N = len(self.clusters_N)
        rows = np.random.default_rng(0).permutation(N)[:MAPPED]
        shown = [(title, category_N[rows]) for title, category_N in colorings]
        extent = "" if len(rows) == N else f"; {len(rows):,} of {N:,} samples"
        note = f"{self.title}; t-SNE of the branches' features; crosses are labelled samples{extent}"
        return map_figure(plane(self.features_ND[rows]), shown, names, self.split.targets_N[rows] >= 0, note)

    def _examples(self, new: Sequence[int]) -> Figure:
        best_N = np.argsort(-self.confidence_N, kind="stable")
        rows_of = [(self.names[c], best_N[self.clusters_N[best_N] == c]) for c in new[:EXAMPLES]]
        note = f"{self.title}; {len(rows_of)} of {len(new)} new categories, the most confident samples first"
        return examples_figure(self.pairs, rows_of, note)

    def _confusion(self) -> tuple[Figure, list[tuple[str, np.ndarray]], list[str]]:
        """Return the figure, colorings of the map by true and by matched category, and their names."""
        class_names = self.pairs.class_names
        old = self.split.old
        rows = self.split.judged_N
        order = [*old, *(category for category in range(len(class_names)) if category not in old)]
        place_N = np.append(np.argsort(order), -1)[self.pairs.labels_N]  # an unknown label, -1, stays so
        accuracy = clustering_accuracy(self.clusters_N[rows], place_N[rows], self.split.of_old_N[rows])
        shares = ", ".join(f"{name.title()} {getattr(accuracy, name):.1%}" for name in SHARES)
        names = [class_names[category] for category in order]
        figure = confusion_figure(
            accuracy, names, len(old), f"{self.title}: {shares}; {rows.sum():,} unlabelled samples"
        )
        matched = np.full(len(self.names), -1)
        matched[: len(accuracy.category_C)] = accuracy.category_C
        by_match = ("assigned, in the color of the matched category", matched[self.clusters_N])
        return figure, [("true category", place_N), by_match], names


def score(clusters_N: np.ndarray, pairs: Pairs, split: Split) -> dict[str, float | None]:
    """Return All, Old and New over the unlabelled samples of known category, None over no samples."""
    rows = split.judged_N
    accuracy = clustering_accuracy(clusters_N[rows], pairs.labels_N[rows], split.of_old_N[rows])
    return {name: None if np.isnan(share := getattr(accuracy, name)) else share for name in SHARES}


def frame_of(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return a row per split and method from results {"split", "cpu_seconds", "rows": {method: shares}}."""
    rows = [
        {"method": name, "seed": result["split"], "cpu_seconds": result["cpu_seconds"], **shares}
        for result in results
        for name, shares in result["rows"].items()
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(SHARES, float))


def summarize(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row per method: means and sample standard deviations over the splits."""
    rows = []
    for name, group in frame.groupby("method", sort=False):
        row: dict[str, Any] = {"method": name} | {share: float(group[share].mean()) for share in SHARES}
        row |= {f"{share}_std": float(group[share].std(ddof=1)) for share in SHARES}
        rows.append(row | {"splits": len(group), "cpu_seconds": float(group["cpu_seconds"].mean())})
    return rows


def differences(frame: pd.DataFrame, subject: str) -> list[dict[str, Any]]:
    """Return, for each other method and for the better single modality of each split, the subject minus it.

    Means over the common splits, and the half-widths of their 95 % t-intervals.

    Args:
        frame: of `frame_of`.
        subject: the method to compare with all others.
    """
    # The index goes, because pandas would pair by it instead of by the split.
    ordered = frame.sort_values("seed", kind="stable")
    groups = {str(n): g.reset_index(drop=True) for n, g in ordered.groupby("method", sort=False)}
    subject_rows = groups.pop(subject, None)
    if subject_rows is None:
        return []
    singles = [groups[name] for name in ("simgcd-image", "simgcd-text") if name in groups]
    if len(singles) == 2:
        # Of each split the last by rising All, that is, the better one, chosen in hindsight.
        best = pd.concat(singles).sort_values("all").groupby("seed").tail(1).sort_values("seed")
        groups = {BETTER: best.reset_index(drop=True), **groups}
    rows = []
    for name, rival_rows in groups.items():
        row: dict[str, Any] = {"method": name}
        for share in SHARES:
            paired = paired_difference(subject_rows, rival_rows, share)
            row[share] = paired.mean
            row[f"{share}_half_width"] = paired.half_width
        rows.append(row)
    return rows


def format_shares(rows: Sequence[dict[str, Any]], spread: str, sign: str = "") -> str:
    """Return rows of `summarize` or `differences` as text, in percent.

    Args:
        rows: with "all", "old", "new", and their spreads.
        spread: suffix of the spreads' names: "std" or "half_width".
        sign: "+" prints signs.
    """

    def percent(row: dict[str, Any], share: str) -> str | None:
        half = row[f"{share}_{spread}"]
        if np.isnan(row[share]):
            return None
        mean = f"{100 * row[share]:{sign}.1f}"
        return mean if np.isnan(half) else f"{mean} ± {100 * half:.1f}"

    shown = [row | {share: percent(row, share) for share in SHARES} for row in rows]
    return format_table(shown, COLUMNS)
