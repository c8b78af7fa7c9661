"""Pictures being revealed: film strips, animations, and where two policies disagree most."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from einops import rearrange
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from generators.schedules import PARAMETERS
from generators.tokenizers import Tokenizer
from natgym.analysis import TITLES, deciding
from natgym.drawing import COLORS, SMALL, finish, picture, plain
from natgym.pictures import reveal_ids


def film(tokenizer: Tokenizer, ids_TNL: Tensor, mask_id: int) -> np.ndarray:
    """Return what each step leaves to be seen, (T, N, H, W, 3) uint8; masked tokens in one colour.

    Args:
        ids_TNL: of `rollout(..., trail=True)`; the finished tokens stand under the masks, so that what is
            visible looks as it will in the end.
    """
    return np.stack([list(reveal_ids(tokenizer, ids_NL, mask_id, ids_TNL[-1])) for ids_NL in ids_TNL])


def film_figure(films: Mapping[str, np.ndarray], note: str) -> Figure:
    """Draw strips of pictures being revealed, a row per strip and a column per step.

    Args:
        films: title of the strip -> (T, H, W, 3) uint8, as of `film(...)[:, row]`.
    """
    steps = max(len(strip) for strip in films.values())
    figure = Figure(figsize=(1.05 * steps + 1.2, 1.15 * len(films) + 0.4))
    axes = figure.subplots(len(films), steps, squeeze=False)
    for place, (row, (title, strip)) in enumerate(zip(axes, films.items(), strict=True)):
        for step, axis in enumerate(row):
            if step < len(strip):
                picture(axis, strip[step], f"step {step + 1}" * (place == 0))
            else:
                axis.set_axis_off()
        row[0].set_ylabel(title, fontsize=SMALL, rotation=0, ha="right", va="center")
    return finish(figure, note)


def animation(film_TNHWC: np.ndarray, columns: int, *, seconds_per_step: float = 0.4) -> bytes:
    """Return a GIF of all pictures of a film as one grid; the finished one stays for two seconds."""
    grids = [rearrange(step, "(r k) h w c -> (r h) (k w) c", k=columns) for step in film_TNHWC]
    pages = [Image.fromarray(grid) for grid in grids]
    times = [round(1000 * seconds_per_step)] * (len(pages) - 1) + [2000]
    buffer = io.BytesIO()
    pages[0].save(
        buffer, format="GIF", save_all=True, append_images=pages[1:], duration=times, loop=0, optimize=False
    )
    return buffer.getvalue()


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
    found = pd.DataFrame(apart, index=np.sort(ours["sample"].unique())).fillna(0.0)
    return found.loc[found.sum(axis=1).sort_values(ascending=False, kind="stable").index]


def disagreement_figure(
    frames: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, np.ndarray],
    note: str,
    *,
    samples: Sequence[int],
) -> Figure:
    """Draw both pictures of some samples, and below them the parameter in which the policies differ most.

    Args:
        frames: two policies -> frames of the same samples.
        pictures: the same policies -> (N, H, W, 3) uint8, row i of sample i.
        samples: which, as the first ones of `disagreement`.
    """
    figure = Figure(figsize=(1.75 * len(samples) + 0.6, 5.0))
    axes = figure.subplots(3, len(samples), squeeze=False, height_ratios=[1, 1, 0.8])
    (first, ours), (second, theirs) = frames.items()
    apart = disagreement(ours, theirs)
    for column, sample in enumerate(samples):
        name = ours.loc[ours["sample"] == sample, "condition"].iloc[0]
        for axis, policy in zip(axes[:2, column], (first, second), strict=True):
            picture(axis, pictures[policy][sample], f"sample {sample}, class {name}" * (policy == first))
            axis.set_ylabel(policy * (column == 0), fontsize=SMALL)
        parameter = str(apart.loc[sample].idxmax())
        for color, (policy, frame) in zip(COLORS, frames.items(), strict=False):
            own = deciding(frame[frame["sample"] == sample], parameter)
            axes[2, column].plot(
                own["step"] + 1, own[parameter], "o-", color=color, markersize=3, label=policy
            )
        plain(axes[2, column], "", "step")
        axes[2, column].set_title(TITLES[parameter], fontsize=SMALL)
        axes[2, column].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[2, 0].legend(fontsize=SMALL - 1, frameon=False)
    return finish(figure, note)
