"""Figures of a discovery: confusion after matching, a map of the features, examples of new categories."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from natgym.discovery.accuracy import Accuracy
from natgym.discovery.pairs import Pairs
from natgym.figures.style import (
    COLOR_MAP,
    COLORS,
    FAINT,
    NORMAL,
    SMALL,
    annotate,
    bare,
    color_of,
    finish,
    panels,
    show_image,
)

READABLE = 12  # categories up to which a confusion's cells hold their numbers
NAMED = 20  # categories up to which a map has a legend


def confusion_figure(accuracy: Accuracy, class_names: Sequence[str], num_old: int, note: str) -> Figure:
    """Draw which share of each category went to which cluster, the matched clusters on the diagonal.

    Args:
        accuracy: of the unlabelled samples, their categories ordered old ones first.
        class_names: of the K categories, in that order.
        num_old: how many are old; lines separate them from the new ones.
        note: what the reader must know, under the image.
    """
    K = len(class_names)
    place_C = np.where(accuracy.category_C >= 0, accuracy.category_C, np.iinfo(int).max)
    order_C = np.argsort(place_C, kind="stable")  # clusters without a category come last
    share_KC = (accuracy.counts_CK / np.maximum(accuracy.counts_CK.sum(0), 1))[order_C].T
    side = min(max(0.33 * K, 3.6), 11)
    figure = Figure(figsize=(side + 1.8, side))
    axis = figure.subplots()
    cells = axis.imshow(share_KC, cmap=COLOR_MAP, vmin=0, vmax=1, aspect="auto")
    for line in (axis.axhline, axis.axvline):
        line(num_old - 0.5, color=COLORS[1], linewidth=1)
    size = SMALL + 1 if K <= READABLE else SMALL - 2
    matched = [class_names[c] if c >= 0 else "-" for c in accuracy.category_C[order_C]]
    axis.set_yticks(range(K), class_names, fontsize=size)
    axis.set_xticks(range(len(matched)), matched, rotation=90, fontsize=size)
    axis.set_ylabel("category (old ones above the line)", fontsize=SMALL + 1)
    axis.set_xlabel("cluster, named after the category it is matched with", fontsize=SMALL + 1)
    middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL}
    for row, column in np.argwhere(share_KC >= 0.05) if K <= READABLE else ():
        shade = "black" if share_KC[row, column] > 0.5 else "white"  # the color map ends bright
        axis.text(column, row, f"{100 * share_KC[row, column]:.0f}", color=shade, **middle)
    figure.colorbar(cells, ax=axis, fraction=0.04, label="share of the category")
    return finish(figure, note)


def plane(features_ND: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a map (N, 2) of features by t-SNE after principal components; read neighbors, not distances."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    N, D = features_ND.shape
    reduced = PCA(min(30, N, D), random_state=seed).fit_transform(features_ND)
    # t-SNE needs a perplexity below N - 1, and three times as many neighbors as it.
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
        labelled_N: labelled samples, which become crosses.
        note: what the reader must know, under the image.
    """
    x_N, y_N = points_N2.T
    figure = Figure(figsize=(5 * len(colorings) + 1.6, 4.6))
    axes = panels(figure, 1, len(colorings))
    for axis, (title, category_N) in zip(axes, colorings, strict=True):
        axis.set_title(title, fontsize=NORMAL)
        for category, name in enumerate(names):
            style: dict[str, Any] = {"s": 9, "linewidths": 0.7, "color": color_of(category, len(names))}
            members_N = category_N == category
            axis.scatter(x_N[members_N & ~labelled_N], y_N[members_N & ~labelled_N], label=name, **style)
            axis.scatter(x_N[members_N & labelled_N], y_N[members_N & labelled_N], marker="x", **style)
        axis.scatter(x_N[category_N < 0], y_N[category_N < 0], s=4, color=FAINT)
        bare(axis)
    if len(names) <= NAMED:
        axes[-1].legend(fontsize=SMALL, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return finish(figure, note)


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
                show_image(axis, pairs.images(np.array([row]))[0])
            caption = textwrap.shorten(pairs.texts[row] or "(no text)", 56, placeholder="...")
            below: dict[str, Any] = {
                "transform": axis.transAxes,
                "ha": "center",
                "va": "top",
                "fontsize": SMALL - 1.5,
            }
            axis.text(0.5, -0.04, textwrap.fill(caption, 22), **below)
        beside: dict[str, Any] = {
            "transform": axes[0].transAxes,
            "ha": "right",
            "va": "center",
            "fontsize": SMALL + 1,
        }
        axes[0].text(-0.1, 0.5, textwrap.fill(title, 18), **beside)
    annotate(figure, note)
    # A tight layout would make room for the texts, which are to hang between the rows.
    figure.subplots_adjust(left=0.16, right=0.99, top=0.98, bottom=0.06, hspace=0.5)
    return figure
