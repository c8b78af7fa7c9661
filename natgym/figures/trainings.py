"""How trainings of policies and generators went."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from natgym.figures.style import (
    COLORS,
    SMALL,
    finish,
    panels,
    plain,
)


def learning_figure(metrics: pd.DataFrame, note: str) -> Figure:
    """Draw a training's distance from the select split, the level it started from, and its moving reward.

    Args:
        metrics: metrics.csv of a training, whose `distance` is that of the last measurement.
        note: what the reader must know, under the panels.
    """
    figure = Figure(figsize=(8.4, 2.9))
    distance, reward = panels(figure, 1, 2)
    measured = metrics[metrics["distance"].ne(metrics["distance"].shift())]
    updates = measured["update"].where(measured["update"] > 1, 0)  # the first one comes before any update
    distance.plot(updates, measured["distance"], color=COLORS[0], marker="o", markersize=3.5, label="adanat")
    distance.axhline(
        measured["distance"].iloc[0], color=COLORS[1], linewidth=1.1, linestyle="--", label="start"
    )
    distance.set_ylim(0, 1.08 * measured["distance"].max())
    for name, color in (("reward", COLORS[0]), ("discriminator_accuracy", COLORS[1])):
        if name in metrics:
            reward.plot(
                metrics["update"], metrics[name], color=color, linewidth=1.2, label=name.replace("_", " ")
            )
    plain(distance, "distance from the select split", "update")
    if "discriminator_accuracy" in metrics:
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
    titles = {"loss": "loss a hidden token", "distance": "distance from the select split"}
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
