"""Figures of what policies draw, what they learned and what that is worth: a frame in, a figure out.

The frames are those of `natgym.rollouts.Rollout.frame`. Guidance is l_c + w (l_c - l_u): w = 0 is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from generators.schedules import PARAMETERS, TABLE
from natgym.figures.style import (
    COLOR_MAP,
    COLORS,
    DASHES,
    NORMAL,
    SMALL,
    finish,
    panels,
    picture,
    plain,
    tiled,
)

CROWDED = 60  # letters of names that stand side by side under a panel
Frames = Mapping[str, pd.DataFrame]
TITLES = {name: parameter.label for name, parameter in TABLE.items()}


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
    longest = max(map(len, names))
    crowded = columns * longest > CROWDED  # then names stand upright
    below = 0.7 + 0.07 * min(longest, 24) if crowded else 0.6
    figure = Figure(figsize=(3.3 * len(images), 3.3 * rows / columns + below))
    for axis, (policy, pictures) in zip(panels(figure, 1, len(images)), images.items(), strict=True):
        grid = tiled(pictures, columns)
        picture(axis, grid)
        size = grid.shape[1] / columns
        shown = [fill(name, 24) for name in names]
        axis.set_xticks((np.arange(columns) + 0.5) * size, shown, fontsize=SMALL)
        if crowded:
            axis.tick_params("x", rotation=90)
        axis.tick_params(length=0)
        axis.set_title(policy, fontsize=NORMAL + 1)
    return finish(figure, note)


def prompts_figure(images: Mapping[str, Tensor], prompts: Sequence[str], note: str) -> Figure:
    """Draw a row for each prompt and a panel for each policy.

    Args:
        images: policy -> (R * C, c, H, W), row-major over R prompts, each with C of its own.
        prompts: R texts.
        note: what the reader must know, under the panels.
    """
    rows = len(prompts)
    columns = [len(pictures) // rows for pictures in images.values()]
    figure = Figure(figsize=(2.2 + 0.5 * sum(columns), 0.5 + 0.5 * rows))
    axes = figure.subplots(1, len(images), squeeze=False, width_ratios=columns)[0]
    for place, (axis, (policy, pictures)) in enumerate(zip(axes, images.items(), strict=True)):
        grid = tiled(pictures, columns[place])
        picture(axis, grid)
        if place == 0:  # each says what the row is, and the others share it
            size = grid.shape[0] / rows
            axis.set_yticks((np.arange(rows) + 0.5) * size, [fill(text, 30) for text in prompts])
            axis.tick_params(labelsize=SMALL, length=0)
        axis.set_title(fill(policy, max(9, 6 * columns[place])), fontsize=NORMAL)
    return finish(figure, note)


def deciding(frame: pd.DataFrame, parameter: str) -> pd.DataFrame:
    """Return the rows in which a parameter decides something.

    The last step reveals all, so that some don't there; nor does anything once a sample is revealed.
    """
    shown = frame[frame["masked_before"] > 0] if "masked_before" in frame else frame
    steps = frame["step"].max() + 1
    return shown[shown["step"] < TABLE[parameter].decides(steps)] if steps > 1 else shown


def parameters_figure(frames: Frames, note: str, *, samples: int = 0) -> Figure:
    """Draw the policies' decoding parameters over the steps: mean, bands of 50 % and 90 % of the samples.

    Args:
        samples: single samples of each policy drawn as thin lines.
    """
    figure = Figure(figsize=(2.75 * len(PARAMETERS), 2.9))
    for axis, parameter in zip(panels(figure, 1, len(PARAMETERS)), PARAMETERS, strict=True):
        styles = zip(cycle(COLORS), cycle(DASHES), frames.items(), strict=False)
        for color, dash, (policy, frame) in styles:
            shown = deciding(frame, parameter)
            bands = shown.groupby("step")[parameter].quantile([0.05, 0.25, 0.75, 0.95]).unstack()
            steps = bands.index + 1
            for low, high, alpha in ((0.05, 0.95, 0.15), (0.25, 0.75, 0.3)):
                axis.fill_between(steps, bands[low], bands[high], color=color, alpha=alpha, linewidth=0)
            mean = shown.groupby("step")[parameter].mean()
            axis.plot(steps, mean, dash, color=color, marker="o", markersize=3.5, linewidth=1.4, label=policy)
            for sample in range(samples):
                rows = shown[shown["sample"] == sample]
                axis.plot(rows["step"] + 1, rows[parameter], color=color, alpha=0.5, linewidth=0.5)
        plain(axis, TITLES[parameter], "step")
        _whole_steps(axis, frames)
    figure.axes[0].legend(fontsize=SMALL, frameon=False)
    return finish(figure, note)


def by_class_figure(frame: pd.DataFrame, note: str, *, most: int = 10) -> Figure:
    """Draw the mean decoding parameters of each condition over the steps, one line per condition.

    Args:
        most: conditions shown, the first ones of the frame.
    """
    figure = Figure(figsize=(2.75 * len(PARAMETERS), 2.9))
    kind = _kind(frame)
    names = list(frame[kind].unique()[:most])
    styles = list(product(DASHES, COLORS))
    for axis, parameter in zip(panels(figure, 1, len(PARAMETERS)), PARAMETERS, strict=True):
        means = deciding(frame, parameter).groupby([kind, "step"])[parameter].mean()
        for (dash, color), name in zip(cycle(styles), names, strict=False):
            line = means[name]
            style: dict[str, Any] = {"color": color, "marker": "o", "markersize": 2.5, "linewidth": 1.1}
            axis.plot(line.index + 1, line, dash, label=name, **style)
        plain(axis, TITLES[parameter], "step")
        _whole_steps(axis, {"": frame})
    figure.axes[-1].legend(
        fontsize=SMALL,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(1, 1),
        title="class",
        title_fontsize=SMALL,
    )
    return finish(figure, note)


def _kind(frame: pd.DataFrame) -> str:
    """Return the column of classes; frames of before had the condition's name alone."""
    return "kind" if "kind" in frame else "condition"


def adaptivity(frame: pd.DataFrame) -> pd.DataFrame:
    """Return how much a policy adapts: shares of each parameter's variance, a row per parameter.

    Columns: step (between the steps: what a static schedule has), class (between the classes within a step)
    and sample (within class and step); spread is the standard deviation within a step, in the parameter's
    own unit. A static schedule has 1, 0, 0 and 0; a parameter that never moves has no shares. The shares sum
    to 1.
    """
    rows = []
    for parameter in PARAMETERS:
        shown = deciding(frame, parameter)
        values = shown[parameter]
        by_step = shown.groupby("step")[parameter].transform("mean")
        by_class = shown.groupby(["step", _kind(shown)])[parameter].transform("mean")
        parts = [(by_step - values.mean()), (by_class - by_step), (values - by_class)]
        squares = np.array([float((part**2).sum()) for part in parts])
        total = squares.sum()
        shares = squares / total if total > 1e-12 * max(1.0, float((values**2).sum())) else squares * np.nan
        spread = float(np.sqrt(squares[1:].sum() / len(values)))
        named = dict(zip(("step", "class", "sample"), shares, strict=True))
        rows.append({"parameter": parameter, **named, "spread": spread})
    return pd.DataFrame(rows)


def reveal_figure(revealed_at: Mapping[str, Tensor], grid: tuple[int, int], note: str) -> Figure:
    """Draw when the policies reveal which position: the mean step, 1..T, on the token grid.

    Args:
        revealed_at: policy -> (N, L), steps 0..T-1, as of `Rollout.revealed_at_NL`.
        grid: rows and columns of tokens.
    """
    figure = Figure(figsize=(2.9 * len(revealed_at) + 0.6, 3.1))
    maps = {name: at_NL.double().mean(0).reshape(grid).numpy() + 1 for name, at_NL in revealed_at.items()}
    low, high = min(values.min() for values in maps.values()), max(values.max() for values in maps.values())
    axes = panels(figure, 1, len(maps))
    for axis, (name, values) in zip(axes, maps.items(), strict=True):
        shown = axis.imshow(values, cmap=COLOR_MAP, vmin=low, vmax=high)
        axis.set_title(name, fontsize=NORMAL)
        axis.set_xticks(range(grid[1]))
        axis.set_yticks(range(grid[0]))
        axis.tick_params(labelsize=SMALL)
        axis.set_xlabel("token column", fontsize=SMALL + 1)
    axes[0].set_ylabel("token row", fontsize=SMALL + 1)
    finish(figure, note)
    bar = figure.colorbar(shown, ax=axes, shrink=0.75)
    bar.set_label("mean step that reveals it", fontsize=SMALL + 1)
    bar.ax.tick_params(labelsize=SMALL)
    return figure


def value_figure(frame: pd.DataFrame, note: str) -> Figure:
    """Draw what the critic expects, step by step, against the reward that came; a panel per step.

    Args:
        frame: of a rollout with a critic and a reward: `value` at each step, `reward` at the last.
    """
    reward = frame.groupby("sample")["reward"].sum()
    steps = sorted(frame["step"].unique())
    figure = Figure(figsize=(2.5 * len(steps) + 0.4, 2.8))
    for axis, step in zip(panels(figure, 1, len(steps)), steps, strict=True):
        values = frame[frame["step"] == step].set_index("sample")["value"]
        earned = reward[values.index]
        axis.scatter(values, earned, s=5, color=COLORS[0], alpha=0.35, linewidths=0)
        spread = float(values.std()) > 0 and float(earned.std()) > 0
        correlation = f"r = {np.corrcoef(values, earned)[0, 1]:+.2f}" if spread else "r not defined"
        plain(axis, f"step {step + 1}: {correlation}", "value (critic's own units)")
    figure.axes[0].set_ylabel("reward", fontsize=SMALL + 1)
    return finish(figure, note)


def _whole_steps(axis: Axes, frames: Frames) -> None:
    """Tick every step, or every few where there are many."""
    last = int(max(frame["step"].max() for frame in frames.values())) + 1
    axis.set_xticks(range(1, last + 1, max(1, last // 12)))
