"""Policies side by side, in images: film strips from the same noise, and where two disagree most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from generators.schedules import PARAMETERS
from natgym.figures.policies import TITLES, deciding
from natgym.figures.style import COLORS, SMALL, finish, picture, plain


def film_figure(films: Mapping[str, Sequence[np.ndarray]], note: str) -> Figure:
    """Draw strips of images being revealed, a row per strip and a column per step.

    Args:
        films: title of the strip -> images (H, W, 3) uint8, all masked at first: one row of
            `natgym.env.recorder.film`.
    """
    moments = max(len(strip) for strip in films.values())
    figure = Figure(figsize=(1.05 * moments + 1.2, 1.15 * len(films) + 0.4))
    axes = figure.subplots(len(films), moments, squeeze=False)
    for place, (row, (title, strip)) in enumerate(zip(axes, films.items(), strict=True)):
        for moment, axis in enumerate(row):
            if moment < len(strip):
                heading = f"step {moment}" if moment else "start"
                picture(axis, strip[moment], heading if place == 0 else "")
            else:
                axis.set_axis_off()
        row[0].set_ylabel(title, fontsize=SMALL, rotation=0, ha="right", va="center")
    return finish(figure, note)


def disagreement(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Return how far two policies' parameters are apart, a row per sample and a column per parameter.

    That is the mean absolute difference over the steps in which the parameter decides something, in standard
    deviations of both frames together; 0 for a parameter that never moves. Rows are sorted by their sum, the
    largest first.

    Raises:
        ValueError: the frames are not of the same samples and steps.
    """
    index = ["sample", "step"]
    if (
        not ours[index]
        .sort_values(index)
        .reset_index(drop=True)
        .equals(theirs[index].sort_values(index).reset_index(drop=True))
    ):
        raise ValueError("the frames are of different samples or steps; draw both with the same seed and T")
    apart = {}
    for parameter in PARAMETERS:
        a, b = (deciding(frame, parameter).set_index(index)[parameter] for frame in (ours, theirs))
        scale = float(np.concatenate([a, b]).std())
        # Where only one of them still decides something, they are not compared.
        distance = (a - b).abs().dropna().groupby(level="sample").mean()
        apart[parameter] = distance / scale if scale > 1e-12 else 0.0 * distance
    table = pd.DataFrame(apart, index=np.sort(ours["sample"].unique())).fillna(0.0)
    return table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]


def disagreement_figure(
    frames: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, np.ndarray],
    note: str,
    *,
    samples: Sequence[int],
) -> Figure:
    """Draw both images of some samples, and below them the parameter in which the policies differ most.

    Args:
        frames: two policies -> frames of the same samples.
        pictures: the same policies -> (N, H, W, 3) uint8, row i of sample i.
        samples: which, as the first ones of `disagreement`.
    """
    figure = Figure(figsize=(1.75 * len(samples) + 0.6, 5.0))
    axes = figure.subplots(3, len(samples), squeeze=False, height_ratios=[1, 1, 0.8])
    ours, theirs = frames.values()
    apart = disagreement(ours, theirs)
    for column, sample in enumerate(samples):
        name = ours.loc[ours["sample"] == sample, "condition"].iloc[0]
        for axis, policy in zip(axes[:2, column], frames, strict=True):
            picture(axis, pictures[policy][sample])
            axis.set_ylabel(policy if column == 0 else "", fontsize=SMALL)
        axes[0, column].set_title(f"sample {sample}, class {name}", fontsize=SMALL)
        parameter = str(apart.loc[sample].idxmax())
        for color, (policy, frame) in zip(COLORS, frames.items(), strict=False):
            rows = deciding(frame[frame["sample"] == sample], parameter)
            axes[2, column].plot(
                rows["step"] + 1, rows[parameter], "o-", color=color, markersize=3, label=policy
            )
        plain(axes[2, column], "", "step")
        axes[2, column].set_title(TITLES[parameter], fontsize=SMALL)
        axes[2, column].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[2, 0].legend(fontsize=SMALL - 1, frameon=False)
    return finish(figure, note)
