"""How trainings of policies and generators went."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from natgym.figures.style import (
    COLORS,
    SMALL,
    finish,
    panels,
    plain,
)

DISTANCE = "distance from the select split"


def learning_figure(logs: Mapping[str, pd.DataFrame], note: str, title: str = DISTANCE) -> Figure:
    """Draw what trainings make small on the select split, and the start and the moving reward of the last.

    Args:
        logs: label -> metrics.csv of a training, whose `distance` is that of the last measurement.
        note: what the reader must know, under the panels.
        title: of what is made small.
    """
    figure = Figure(figsize=(8.4, 2.9))
    distance, reward = panels(figure, 1, 2)
    colors = [COLORS[0], *COLORS[2:]]  # the last one's is the first
    for color, (label, metrics) in zip(colors, reversed(list(logs.items())), strict=False):
        measured = metrics[metrics["distance"].ne(metrics["distance"].shift())]
        updates = measured["update"].where(measured["update"] > 1, 0)  # the first comes before any update
        distance.plot(updates, measured["distance"], color=color, marker="o", markersize=3.5, label=label)
    metrics = list(logs.values())[-1]
    start = metrics["distance"].iloc[0]
    distance.axhline(start, color=COLORS[1], linewidth=1.1, linestyle="--", label="start")
    distance.set_ylim(0, 1.08 * max(log["distance"].max() for log in logs.values()))
    # The reward in closed form is refitted against the images it is given for, so that its mean says nothing.
    shown = ("mmd",) if "mmd" in metrics else ("reward", "discriminator_accuracy")
    for name, color in zip(shown, COLORS, strict=False):
        if name in metrics:
            label = name.replace("_", " ")
            reward.plot(metrics["update"], metrics[name], color=color, linewidth=1.2, label=label)
    plain(distance, title, "update")
    if "mmd" in metrics:
        reward.set_ylim(bottom=0)
        plain(reward, "squared MMD of the exploring policy's images", "update")
    elif "discriminator_accuracy" in metrics:
        reward.set_ylim(0, 1)
        plain(reward, "adversarial reward (moving: not comparable over updates)", "update")
    else:
        plain(reward, "mean reward of the exploring policy", "update")
    for axis in (distance, reward):
        axis.legend(fontsize=SMALL, frameon=False)
    return finish(figure, note)


def training_figure(metrics: pd.DataFrame, note: str) -> Figure:
    """Draw a generator's training: loss, and where they were measured distance and accuracy of its samples.

    Args:
        metrics: metrics.csv of a training; `distance` and `sample_accuracy` are empty between measurements.
        note: what the reader must know, under the panels.
    """
    titles = {"loss": "loss a hidden token", "distance": DISTANCE}
    titles |= {"sample_accuracy": "share of samples of the right class"}
    shown = {name: title for name, title in titles.items() if metrics[name].notna().any()}
    figure = Figure(figsize=(3.6 * len(shown), 2.9))
    for axis, (name, title) in zip(panels(figure, 1, len(shown)), shown.items(), strict=True):
        measured = metrics.dropna(subset=name)
        if name == "loss":
            axis.plot(measured["update"], measured[name], color=COLORS[0], alpha=0.25, linewidth=0.7)
            smooth = measured[name].rolling(max(1, len(measured) // 50), min_periods=1).mean()
            axis.plot(measured["update"], smooth, color=COLORS[0], linewidth=1.4)
        else:
            axis.plot(measured["update"], measured[name], color=COLORS[0], marker="o", markersize=3.5)
        plain(axis, title, "update")
    return finish(figure, note)


def curves_figure(curves: pd.DataFrame, note: str, title: str = DISTANCE) -> Figure:
    """Draw distances against images and against seconds, a line per method: mean over its runs, their range.

    Args:
        curves: columns method, seed, images, seconds, distance; the runs of a method may have other points.
        note: what the reader must know, under the panels.
        title: of what stands in the column distance.
    """
    figure = Figure(figsize=(8.4, 3.4))
    axes = panels(figure, 1, 2)
    for axis, cost, unit in zip(axes, ("images", "seconds"), (1000, 1), strict=True):
        for color, (method, runs) in zip(COLORS, curves.groupby("method", sort=False), strict=False):
            first = runs.groupby("seed")[cost].first().max()
            last = runs.groupby("seed")[cost].last().min()
            grid = np.linspace(first, last, 100)
            lines = [np.interp(grid, run[cost], run["distance"]) for _, run in runs.groupby("seed")]
            axis.plot(grid / unit, np.mean(lines, 0), color=color, linewidth=1.4, label=method)
            axis.fill_between(
                grid / unit, np.min(lines, 0), np.max(lines, 0), color=color, alpha=0.15, linewidth=0
            )
        plain(axis, "", "thousand images" if cost == "images" else "CPU seconds")
        axis.set_yscale("log")
        for which in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            which(FormatStrFormatter("%g"))
        axis.tick_params(which="minor", labelsize=SMALL)
    axes[0].set_ylabel(title, fontsize=SMALL + 1)
    axes[1].legend(fontsize=SMALL, frameon=False)
    return finish(figure, note)
