"""Figures of strategy searches: the schedules found, what finding them took, and laws of the mask ratio."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from generators.schedules import TABLE, Schedule
from natgym.figures.style import COLORS, DASHES, MARKERS, SMALL, finish, panels, plain


def schedules_figure(schedules: Mapping[str, Schedule], note: str) -> Figure:
    """Draw schedules over their steps, a panel for each decoding parameter.

    What the last step ignores is left out.
    """
    longest = max(schedule.steps for schedule in schedules.values())
    figure = Figure(figsize=(2.75 * len(TABLE), 3.4))
    for column, (parameter, axis) in enumerate(
        zip(TABLE.values(), panels(figure, 1, len(TABLE)), strict=True)
    ):
        styles = zip(cycle(COLORS), cycle(DASHES), cycle(MARKERS), schedules.items(), strict=False)
        for color, dash, marker, (name, schedule) in styles:
            shown = parameter.decides(schedule.steps)
            values = schedule.table_T4[:shown, column]
            look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 4, "linewidth": 1.2}
            axis.plot(range(1, shown + 1), values, dash, label=name, **look)
        plain(axis, parameter.label, "step")
        axis.set_xticks(range(1, longest + 1))
    figure.axes[0].legend(fontsize=SMALL, frameon=False)
    return finish(figure, note)


def search_figure(logs: Mapping[str, pd.DataFrame], note: str, title: str = "distance") -> Figure:
    """Draw distance against images spent, a panel for each optimizer, four in a row.

    Dots are evaluations, the line their median in each generation, the diamond the winner of the second look
    with its standard error.

    Args:
        logs: optimizer -> the log of one search: columns evaluation, generation, images, distance, error.
        note: what the reader must know, under the panels.
        title: what the column distance is, as a search may make other things small.
    """
    columns, rows = min(4, len(logs)), -(-len(logs) // 4)
    figure = Figure(figsize=(2.6 * columns, 2.9 * rows))
    axes = panels(figure, rows, columns)
    seen = pd.concat([log["distance"] for log in logs.values()])
    for axis in axes[len(logs) :]:
        axis.remove()
    for axis, (name, log) in zip(axes, logs.items(), strict=False):
        log = log.sort_values("evaluation").assign(spent=lambda rows: rows["images"].cumsum() / 1000)
        final = log["generation"] == log["generation"].max()
        axis.scatter(log["spent"], log["distance"], s=7, color=COLORS[5], linewidths=0)
        walk = log[~final].groupby("generation").agg({"spent": "max", "distance": "median"})
        if len(walk) > 1:
            axis.plot(walk["spent"], walk["distance"], color=COLORS[0], linewidth=1.4)
        winner = log.loc[log[final]["distance"].idxmin()]
        point = winner["spent"], winner["distance"], winner["error"]
        axis.errorbar(*point, color=COLORS[1], marker="D", markersize=4.5, capsize=2)
        plain(axis, name, "thousand images spent")
        axis.set_yscale("log")
        axis.set_ylim(0.9 * seen.min(), 1.1 * seen.max())
        for which in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            which(FormatStrFormatter("%g"))
        axis.tick_params(which="minor", labelsize=SMALL)
    for axis in axes[: len(logs) : columns]:
        axis.set_ylabel(title, fontsize=SMALL + 1)
    return finish(figure, note)


def laws_figure(laws: pd.DataFrame, note: str) -> Figure:
    """Draw what each law of the mask ratio came to, a panel for each round; the best one stands out.

    Args:
        laws: columns round, law, best, updates, distance, error.
        note: what the reader must know, under the panels.
    """
    rounds = laws.groupby("round")
    figure = Figure(figsize=(4.6 * len(rounds), 0.24 * rounds.size().max() + 1.2))
    for axis, (number, group) in zip(panels(figure, 1, len(rounds)), rounds, strict=True):
        group = group.sort_values(["updates", "distance"], ascending=[True, False])
        colors = [COLORS[1] if best else COLORS[0] for best in group["best"]]
        names = [f"{row.law}, {row.updates} updates" for row in group.itertuples()]
        axis.errorbar(group["distance"], range(len(group)), xerr=group["error"], fmt="none", ecolor=COLORS[6])
        axis.scatter(group["distance"], range(len(group)), color=colors, s=22, zorder=3)
        plain(axis, f"round {int(str(number)) + 1}", "distance")
        axis.set_yticks(range(len(group)), names)
    return finish(figure, note)
