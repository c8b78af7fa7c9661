"""Figures of a discovery: confusion after matching, a map of the features, examples of new categories."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from natgym.discovery.accuracy import Accuracy
from natgym.discovery.pairs import Pairs

NOTE: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 7, "color": "#555555"}


def confusion_figure(accuracy: Accuracy, class_names: Sequence[str], num_old: int, note: str) -> Figure:
    """Draw which share of each category went to which cluster, the matched clusters on the diagonal.

    Args:
        accuracy: of the unlabelled samples, their categories ordered old ones first.
        class_names: of the K categories, in that order.
        num_old: how many are old; lines part them from the new ones.
        note: what the reader must know, under the image.
    """
    K, counts_CK = len(class_names), accuracy.counts_CK
    place_C = np.where(accuracy.category_C >= 0, accuracy.category_C, np.iinfo(int).max)
    order_C = np.argsort(place_C, kind="stable")  # clusters without a category come last
    share_KC = (counts_CK / np.maximum(counts_CK.sum(0), 1))[order_C].T
    side = min(max(0.33 * K, 3.6), 11)
    figure = Figure(figsize=(side + 1.8, side))
    axis = figure.subplots()
    picture = axis.imshow(share_KC, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.axhline(num_old - 0.5, color="#c8762b", linewidth=1)
    axis.axvline(num_old - 0.5, color="#c8762b", linewidth=1)
    size = 8 if K <= 12 else 5
    matched = [class_names[c] if c >= 0 else "-" for c in accuracy.category_C[order_C]]
    axis.set_yticks(range(K), class_names, fontsize=size)
    axis.set_xticks(range(len(matched)), matched, rotation=90, fontsize=size)
    axis.set_ylabel("category (old ones above the line)", fontsize=8)
    axis.set_xlabel("cluster, named after the category it is matched with", fontsize=8)
    for row, column in np.argwhere(share_KC >= 0.05) if K <= 12 else ():
        shade = "white" if share_KC[row, column] > 0.5 else "black"
        axis.text(
            column,
            row,
            f"{100 * share_KC[row, column]:.0f}",
            ha="center",
            va="center",
            fontsize=7,
            color=shade,
        )
    figure.colorbar(picture, ax=axis, fraction=0.04, label="share of the category")
    figure.text(0.5, 0.0, note, **NOTE)
    figure.tight_layout()
    return figure


def plane(features_ND: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a map (N, 2) of features by t-SNE after principal components; read neighbors, not distances."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    N, D = features_ND.shape
    reduced = PCA(min(30, N, D), random_state=seed).fit_transform(features_ND)
    return TSNE(perplexity=min(30, (N - 1) / 3), init="pca", random_state=seed).fit_transform(reduced)


def map_figure(
    points_N2: np.ndarray,
    colorings: Sequence[tuple[str, np.ndarray]],
    names: Sequence[str],
    labelled_N: np.ndarray,
    note: str,
) -> Figure:
    """Draw the same map once per coloring.

    Args:
        points_N2: positions.
        colorings: (title, category of each sample, -1 for none).
        names: of the categories.
        labelled_N: labelled samples, which are drawn as crosses.
        note: what the reader must know, under the image.
    """
    figure = Figure(figsize=(5 * len(colorings) + 1.6, 4.6))
    axes = figure.subplots(1, len(colorings), squeeze=False)[0]
    for axis, (title, category_N) in zip(axes, colorings, strict=True):
        for category, name in enumerate(names):
            for rows, marker in (
                ((category_N == category) & ~labelled_N, "o"),
                ((category_N == category) & labelled_N, "x"),
            ):
                label = name if marker == "o" else None
                axis.scatter(
                    *points_N2[rows].T,
                    s=9,
                    marker=marker,
                    linewidths=0.7,
                    color=_color(category, len(names)),
                    label=label,
                )
        axis.scatter(*points_N2[category_N < 0].T, s=4, color="#bbbbbb")
        axis.set_title(title, fontsize=9)
        _bare(axis)
    if len(names) <= 20:
        axes[-1].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.text(0.5, 0.0, note, **NOTE)
    figure.tight_layout()
    return figure


def examples_figure(
    pairs: Pairs, rows_of: Sequence[tuple[str, np.ndarray]], note: str, columns: int = 6
) -> Figure:
    """Draw samples of categories, images above their texts.

    Args:
        pairs: images and texts.
        rows_of: (title, rows of its samples, the best first) of each category.
        note: what the reader must know, under the image.
        columns: samples shown per category.
    """
    figure = Figure(figsize=(1.5 * columns + 1.3, 1.75 * len(rows_of) + 0.3))
    grid = figure.subplots(len(rows_of), columns, squeeze=False)
    for axes, (title, rows) in zip(grid, rows_of, strict=True):
        for axis in axes:
            axis.axis("off")
        for axis, row in zip(axes, rows[:columns], strict=False):
            if pairs.has_image_N[row]:
                show_picture(axis, pairs.images(np.array([row]))[0])
            said = textwrap.shorten(pairs.texts[row] or "(no text)", 56, placeholder="...")
            axis.text(
                0.5,
                -0.04,
                textwrap.fill(said, 22),
                transform=axis.transAxes,
                ha="center",
                va="top",
                fontsize=5.5,
            )
        axes[0].text(
            -0.1,
            0.5,
            textwrap.fill(title, 18),
            transform=axes[0].transAxes,
            ha="right",
            va="center",
            fontsize=8,
        )
    figure.text(0.5, 0.0, note, **NOTE)
    figure.subplots_adjust(left=0.16, right=0.99, top=0.98, bottom=0.06, hspace=0.5)
    return figure


def show_picture(axis: Axes, image_CHW: Tensor) -> None:
    """Draw one image in [0, 1], grey or RGB."""
    picture = (
        image_CHW.permute(1, 2, 0).expand(-1, -1, 3) if len(image_CHW) == 1 else image_CHW.permute(1, 2, 0)
    )
    axis.imshow(picture.clamp(0, 1).numpy(), interpolation="nearest")


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)


def _color(category: int, number: int) -> tuple[float, ...]:
    return colormaps["tab10"](category) if number <= 10 else colormaps["turbo"](category / (number - 1))
