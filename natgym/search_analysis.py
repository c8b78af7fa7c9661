"""Figures of strategy searches: the schedules found, and what finding them took."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from generators.schedules import PARAMETERS, Schedule
from natgym.analysis import COLORS, TITLES, _plain


def schedules_figure(schedules: Mapping[str, Schedule], note: str) -> Figure:
    """Draw schedules side by side, a panel for each decoding parameter; the first one dashed.

    What the last step does not use, its mask ratio and re-mask temperature, is left out.
    """
    figure = Figure(figsize=(11, 2.9))
    for axis, (column, parameter) in zip(
        figure.subplots(1, len(PARAMETERS)), enumerate(PARAMETERS), strict=True
    ):
        for color, (at, (name, schedule)) in zip(cycle(COLORS), enumerate(schedules.items()), strict=False):
            shown = schedule.steps - (column < 2)
            steps = range(1, shown + 1)
            style = "--" if at == 0 else "-"
            values = schedule.table_T4[:shown, column]
            axis.plot(
                steps, values, style, color=color, marker="o", markersize=3.5, linewidth=1.4, label=name
            )
        axis.set_title(TITLES[parameter], fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.set_xticks(range(1, max(schedule.steps for schedule in schedules.values()) + 1))
        if parameter == "remask_temperature":
            axis.set_yscale("symlog", linthresh=1)
        _plain(axis)
    figure.axes[0].legend(fontsize=7, frameon=False)
    figure.text(0.5, 0.0, note, ha="center", va="top", fontsize=7, color="#555555")
    figure.tight_layout()
    return figure


def search_figure(logs: Mapping[str, pd.DataFrame], note: str) -> Figure:
    """Draw distance against pictures spent: every evaluation a dot, the generations' means lines.

    Args:
        logs: optimiser -> the log of one search: columns evaluation, generation, images, distance, error.
        note: what the reader must know, under the panel.
    """
    figure = Figure(figsize=(6.4, 3.4))
    axis = figure.subplots()
    for color, (name, log) in zip(cycle(COLORS), logs.items(), strict=False):
        log = log.sort_values("evaluation")
        spent = log["images"].cumsum() / 1000
        axis.scatter(spent, log["distance"], s=7, color=color, alpha=0.3, linewidths=0)
        last = log["generation"].max()
        walk = log[log["generation"] < last]
        means = walk.groupby("generation")["distance"].median()
        ends = spent[walk.index].groupby(walk["generation"]).max()
        if len(means) > 1:
            axis.plot(ends, means, color=color, linewidth=1.4, label=name)
        else:
            axis.plot([], [], color=color, linewidth=1.4, label=name)
        final = log[log["generation"] == last]
        axis.errorbar(
            spent.max(),
            final["distance"].min(),
            yerr=final.loc[final["distance"].idxmin(), "error"],
            color=color,
            marker="D",
            markersize=4.5,
            capsize=2,
        )
    axis.set_yscale("log")
    axis.set_xlabel("thousand pictures spent", fontsize=8)
    axis.set_title("distance from the select part", fontsize=9)
    axis.legend(fontsize=7, frameon=False)
    _plain(axis)
    figure.text(0.5, 0.0, note, ha="center", va="top", fontsize=7, color="#555555")
    figure.tight_layout()
    return figure


def laws_figure(laws: pd.DataFrame, note: str) -> Figure:
    """Draw what each law of the mask ratio came to, a panel for each round; the best one filled.

    Args:
        laws: columns round, law, best, updates, distance, error.
        note: what the reader must know, under the panels.
    """
    rounds = laws.groupby("round")
    figure = Figure(figsize=(4.6 * len(rounds), 0.24 * rounds.size().max() + 1.2))
    panels = np.atleast_1d(figure.subplots(1, len(rounds)))
    for axis, (number, group) in zip(panels, rounds, strict=True):
        group = group.sort_values(["updates", "distance"], ascending=[True, False])
        colors = [COLORS[1] if best else COLORS[0] for best in group["best"]]
        names = [f"{row.law}, {row.updates} updates" for row in group.itertuples()]
        axis.errorbar(group["distance"], range(len(group)), xerr=group["error"], fmt="none", ecolor=COLORS[0])
        axis.scatter(group["distance"], range(len(group)), color=colors, s=22, zorder=3)
        axis.set_yticks(range(len(group)), names)
        axis.set_title(f"round {number + 1}", fontsize=9)
        axis.set_xlabel("distance", fontsize=8)
        _plain(axis)
    figure.text(0.5, 0.0, note, ha="center", va="top", fontsize=7, color="#555555")
    figure.tight_layout()
    return figure
