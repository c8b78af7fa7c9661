"""Figures of what policies draw and what they learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import Any

import numpy as np
import pandas as pd
from einops import rearrange
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

from generators.schedules import PARAMETERS
from natgym.pictures import as_rgb, to_uint8

TITLES = {
    "mask_ratio": "mask ratio $m$",
    "remask_temperature": r"re-mask temperature $\tau_2$",
    "sampling_temperature": r"sampling temperature $\tau_1$",
    "guidance_scale": "guidance scale $w$",
}
MARKERS = ("o", "s", "^", "D")
COLORS = ("#4c5b6b", "#c8762b", "#2a7f9e", "#8a4f9e", "#5d8a3a")


def samples_figure(images: Mapping[str, Tensor], names: Sequence[str], note: str) -> Figure:
    """Draw the policies' samples side by side: one panel per policy, one column per condition name.

    Args:
        images: policy -> (R * C, c, H, W), row-major over R rows of C conditions, same noise for all
            policies.
        names: the C conditions.
        note: what the reader must know, under the panels.
    """
    columns = len(names)
    rows = len(next(iter(images.values()))) // columns
    figure = Figure(figsize=(3.3 * len(images), 3.3 * rows / columns + 0.6))
    for axis, (policy, pictures) in zip(
        np.atleast_1d(figure.subplots(1, len(images))), images.items(), strict=True
    ):
        grid = _tiled(pictures, columns)
        axis.imshow(grid, interpolation="nearest")
        size = grid.shape[1] / columns
        axis.set_xticks((np.arange(columns) + 0.5) * size, names, fontsize=7)
        axis.set_yticks([])
        axis.tick_params(length=0)
        axis.set_title(policy, fontsize=10)
        for side in axis.spines.values():
            side.set_visible(False)
    figure.text(0.5, 0.0, note, ha="center", va="top", fontsize=7, color="#555555")
    figure.tight_layout()
    return figure


def parameters_figure(frames: Mapping[str, pd.DataFrame], note: str) -> Figure:
    """Draw the policies' decoding parameters over the steps: mean, bands of 50 % and 90 % of the samples."""
    figure = Figure(figsize=(11, 2.9))
    for axis, parameter in zip(figure.subplots(1, len(PARAMETERS)), PARAMETERS, strict=True):
        for color, (policy, frame) in zip(cycle(COLORS), frames.items(), strict=False):
            # The last step reveals all, so its mask ratio and re-mask temperature decide nothing.
            idle = parameter in PARAMETERS[:2]
            shown = frame[frame["step"] < frame["step"].max()] if idle and frame["step"].max() > 0 else frame
            bands = shown.groupby("step")[parameter].quantile([0.05, 0.25, 0.75, 0.95]).unstack()
            steps = bands.index + 1
            for low, high, alpha in ((0.05, 0.95, 0.15), (0.25, 0.75, 0.3)):
                axis.fill_between(steps, bands[low], bands[high], color=color, alpha=alpha, linewidth=0)
            mean = shown.groupby("step")[parameter].mean()
            axis.plot(steps, mean, color=color, marker="o", markersize=3.5, linewidth=1.4, label=policy)
        axis.set_title(TITLES[parameter], fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.set_xticks(range(1, int(max(frame["step"].max() for frame in frames.values())) + 2))
        _plain(axis)
    figure.axes[0].legend(fontsize=7, frameon=False)
    figure.text(0.5, 0.0, note, ha="center", va="top", fontsize=7, color="#555555")
    figure.tight_layout()
    return figure


def frontier_figure(rows: Sequence[Mapping[str, Any]], note: str) -> Figure:
    """Place policies by what they cost and how far they are from real pictures; bars: 95 % t-intervals.

    Args:
        rows: of `natgym.evaluation.summarize`; points of one policy are joined.
        note: what the reader must know, under the panel.
    """
    figure = Figure(figsize=(7.2, 4.4))
    axis = figure.subplots()
    for style, (policy, own) in zip(cycle(product(MARKERS, COLORS)), _by_policy(rows).items(), strict=False):
        nfe, distance = ([row[name] for row in own] for name in ("nfe", "distance"))
        spread = [row["distance_std"] * _t_factor(row["seeds"]) for row in own]
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
    axis.set_xlabel("forward passes an image (NFE)", fontsize=8)
    axis.set_ylabel("Frechet distance", fontsize=8)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _plain(axis)
    figure.text(0.5, 0.0, note, ha="center", va="top", fontsize=7, color="#555555")
    figure.tight_layout()
    return figure


def _by_policy(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    names = dict.fromkeys(row["policy"] for row in rows)
    return {name: [row for row in rows if row["policy"] == name] for name in names}


def _t_factor(seeds: int) -> float:
    """Return the half-width of a 95 % t-interval in sample standard deviations."""
    return float(stats.t.ppf(0.975, seeds - 1) / np.sqrt(seeds)) if seeds > 1 else float("nan")


def learning_figure(metrics: pd.DataFrame, note: str) -> Figure:
    """Draw a training's distance from the select part, with the level it started from, and its moving reward.

    Args:
        metrics: metrics.csv of a training, whose `distance` is that of the last measurement.
        note: what the reader must know, under the panels.
    """
    figure = Figure(figsize=(8.4, 2.9))
    distance, reward = figure.subplots(1, 2)
    measured = metrics[metrics["distance"].ne(metrics["distance"].shift())]
    updates = measured["update"].where(measured["update"] > 1, 0)  # the first one comes before any update
    distance.plot(updates, measured["distance"], color=COLORS[2], marker="o", markersize=3.5, label="adanat")
    distance.axhline(
        measured["distance"].iloc[0], color=COLORS[1], linewidth=1.1, linestyle="--", label="start"
    )
    distance.set_ylim(0, 1.08 * measured["distance"].max())
    distance.set_title("distance from the select part", fontsize=9)
    distance.legend(fontsize=7, frameon=False)
    reward.plot(metrics["update"], metrics["reward"], color=COLORS[2], linewidth=1.2, label="reward")
    reward.plot(
        metrics["update"],
        metrics["discriminator_accuracy"],
        color=COLORS[0],
        linewidth=1.2,
        label="discriminator accuracy",
    )
    reward.set_ylim(0, 1)
    reward.set_title("adversarial reward (moving: not comparable over updates)", fontsize=9)
    reward.legend(fontsize=7, frameon=False)
    for axis in (distance, reward):
        axis.set_xlabel("update", fontsize=8)
        _plain(axis)
    figure.text(0.5, 0.0, note, ha="center", va="top", fontsize=7, color="#555555")
    figure.tight_layout()
    return figure


def training_figure(metrics: pd.DataFrame, note: str) -> Figure:
    """Draw a generator's training: loss, and where they were measured distance and accuracy of its samples.

    Args:
        metrics: metrics.csv of a training; `distance` and `sample_accuracy` are empty between measurements.
        note: what the reader must know, under the panels.
    """
    panels = {"loss": "loss a hidden token", "distance": "distance from the select part"}
    panels |= {"sample_accuracy": "share of samples of the right class"}
    shown = {name: title for name, title in panels.items() if metrics[name].notna().any()}
    figure = Figure(figsize=(3.6 * len(shown), 2.9))
    for axis, (name, title) in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown.items(), strict=True):
        measured = metrics.dropna(subset=name)
        if name == "loss":
            axis.plot(measured["update"], measured[name], color=COLORS[2], alpha=0.25, linewidth=0.7)
            smooth = measured[name].rolling(max(1, len(measured) // 50), min_periods=1).mean()
            axis.plot(measured["update"], smooth, color=COLORS[2], linewidth=1.4)
        else:
            axis.plot(measured["update"], measured[name], color=COLORS[2], marker="o", markersize=3.5)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("update", fontsize=8)
        _plain(axis)
    figure.text(0.5, 0.0, note, ha="center", va="top", fontsize=7, color="#555555")
    figure.tight_layout()
    return figure


def _tiled(pictures_NCHW: Tensor, columns: int) -> np.ndarray:
    """Return one picture (R * H, C * W, 3) uint8, a dark line between neighbours."""
    padded = np.pad(to_uint8(as_rgb(pictures_NCHW)), ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=90)
    return rearrange(padded, "(r k) h w c -> (r h) (k w) c", k=columns)


def _plain(axis: object) -> None:
    axis.tick_params(labelsize=7)  # type: ignore[attr-defined]
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)  # type: ignore[attr-defined]
    axis.grid(alpha=0.25, linewidth=0.5)  # type: ignore[attr-defined]
