"""Policies and rewards against one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from natgym.evaluation.statistics import Difference, half_width
from natgym.figures.style import (
    COLORS,
    FAINT,
    MARKERS,
    SMALL,
    finish,
    plain,
)
from natgym.metrics.named import NAMED


def frontier_figure(rows: Sequence[Mapping[str, Any]], note: str) -> Figure:
    """Place policies by what they cost and how far they are from real images; bars: 95 % t-intervals.

    Args:
        rows: of `natgym.evaluation.summarize`; points of one policy are joined.
    """
    figure = Figure(figsize=(7.2, 4.4))
    axis = figure.subplots()
    for style, (policy, points) in zip(
        cycle(product(MARKERS, COLORS)), _by_policy(rows).items(), strict=False
    ):
        nfe, distance = ([row[name] for row in points] for name in ("nfe", "distance"))
        spread = [half_width(row["distance_std"], row["seeds"]) for row in points]
        axis.errorbar(
            nfe,
            distance,
            None if np.isnan(spread).any() else spread,
            color=style[1],
            marker=style[0],
            markersize=4.5,
            linewidth=1,
            elinewidth=0.8,
            label=policy,
        )
    plain(axis, "", "forward passes an image (NFE)", "Frechet distance")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=SMALL, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return finish(figure, note)


def front_figure(
    rules: Sequence[pd.DataFrame],
    front: Sequence[pd.DataFrame],
    kinds: Mapping[str, Sequence[pd.DataFrame]],
    metric: str,
    note: str,
) -> Figure:
    """Place policies by their mean passes and their quality, beside the front of rules.

    Distances stand on a logarithmic axis: rules of few passes may be a hundred times as far as others.

    Args:
        rules: frames of an `Evaluator`, one for each rule.
        front: those of its corners, by rising passes.
        kinds: those of the policies, by kind.
        metric: the quality, a column.
        note: what the reader must know, under the panel.
    """
    figure = Figure(figsize=(7.2, 4.4))
    axis = figure.subplots()

    def places(frames: Sequence[pd.DataFrame]) -> tuple[list[float], list[float]]:
        return [frame["nfe"].mean() for frame in frames], [frame[metric].mean() for frame in frames]

    axis.plot(*places(rules), ".", color=FAINT, markersize=3.5, label="rules")
    passes, qualities = places(front)
    between = np.union1d(
        passes, np.linspace(passes[0], passes[-1], 200)
    )  # mixing is linear, and a logarithmic axis bends it
    mixed = np.interp(between, passes, qualities)
    axis.plot(between, mixed, "-", color=COLORS[6], linewidth=1.2, label="their front")
    for (marker, color), (kind, frames) in zip(cycle(product(MARKERS, COLORS)), kinds.items(), strict=False):
        axis.plot(*places(frames), marker, color=color, markersize=5, label=kind)
    plain(axis, "", "mean forward passes an image (NFE)", NAMED[metric].header or metric)
    if NAMED[metric].better == "lower":
        axis.set_yscale("log")
        axis.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 4, 6)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params(axis="y", which="minor", labelsize=SMALL)
    axis.legend(fontsize=SMALL, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return finish(figure, note)


def differences_figure(differences: Sequence[Difference], note: str) -> Figure:
    """Draw paired differences with their intervals, one line per control; dots are single runs.

    Args:
        differences: of the policy to each control.
        note: what the reader must know, under the panel.
    """
    figure = Figure(figsize=(6.4, 0.42 * len(differences) + 1.1))
    axis = figure.subplots()
    _intervals(axis, differences, [pair.minus for pair in differences])
    plain(axis, "", "difference in distance; left of 0: the policy is nearer to real images")
    return finish(figure, note)


def claims_figure(differences: Sequence[Difference], note: str) -> Figure:
    """Draw paired differences of any policies and metrics, a panel for each metric.

    Args:
        differences: each with its policies' names.
        note: what the reader must know, under the panels.
    """
    metrics = dict.fromkeys(pair.metric for pair in differences)
    groups = [[pair for pair in differences if pair.metric == metric] for metric in metrics]
    heights = [len(group) + 1 for group in groups]
    figure = Figure(figsize=(8.2, 0.42 * sum(heights) + 0.6))
    axes = figure.subplots(len(groups), height_ratios=heights, squeeze=False)[:, 0]
    for axis, metric, group in zip(axes, metrics, groups, strict=True):
        _intervals(axis, group, [f"{pair.policy} - {pair.minus}" for pair in group])
        plain(axis, "", f"difference in {metric}")
    return finish(figure, note)


def _intervals(axis: Axes, differences: Sequence[Difference], names: Sequence[str]) -> None:
    for place, pair in enumerate(differences):
        axis.plot(pair.each, [place] * pair.n, "o", color=COLORS[0], alpha=0.35, markersize=3)
        axis.errorbar(pair.mean, place, xerr=pair.half_width, color=COLORS[0], marker="D", markersize=4.5)
    axis.axvline(0, color="0.5", linewidth=0.8)
    axis.set_yticks(range(len(differences)), names, fontsize=SMALL + 1)
    axis.set_ylim(len(differences) - 0.5, -0.5)  # the first one above


def agreement_figure(table: pd.DataFrame, note: str) -> Figure:
    """Draw how far rewards want what the distance wants: a line per reward, of `agents.studies.agreement`.

    Args:
        table: a row per reward; for the parts static and class of the gradient "<part> cosine", open marks,
            and "<part> corrected", full ones.
        note: what the reader must know, under the panel.
    """
    figure = Figure(figsize=(6.8, 0.42 * len(table) + 1.1))
    axis = figure.subplots()
    places = np.arange(len(table))
    for color, marker, shift, part in ((COLORS[0], "o", -0.12, "static"), (COLORS[1], "s", 0.12, "class")):
        style: dict[str, Any] = {"marker": marker, "linestyle": "", "color": color, "markersize": 5.5}
        axis.plot(
            table[f"{part} cosine"], places + shift, fillstyle="none", label=f"{part}, as measured", **style
        )
        axis.plot(table[f"{part} corrected"], places + shift, label=f"{part}, without noise", **style)
    axis.axvline(0, color="0.5", linewidth=0.8)
    axis.set_yticks(places, table.index, fontsize=SMALL)
    axis.invert_yaxis()
    plain(axis, "", "cosine of the reward's gradient and the distance's")
    axis.legend(fontsize=SMALL, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return finish(figure, note)


def _by_policy(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    names = dict.fromkeys(row["policy"] for row in rows)
    return {name: [row for row in rows if row["policy"] == name] for name in names}
