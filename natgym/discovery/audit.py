"""A category audit: which categories of the real data do a generator's images cover, and which cluster of
them is nobody's?

Generalized category discovery turned on a generator: the real categories are the old ones, with labels; the
generated images are unlabelled, and what they fill beside the old categories would be new ones. Clusters
beyond the categories always find something to split off, so that real images that were held out are
clustered along as the control: a cluster is nobody's only if they are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import fisher_exact
from torch import Tensor

from natgym.discovery.kmeans import semi_supervised_kmeans
from natgym.figures.style import COLORS, FAINT, SMALL, annotate, plain, show_image

# Column of a row -> header and format in the printed table.
COLUMNS = {
    "cluster": ("cluster", "{}"),
    "generated": ("generated", "{:.3f}"),
    "real": ("real", "{:.3f}"),
    "verdict": ("verdict", "{}"),
}


@dataclass(frozen=True, eq=False)
class Audit:
    """Clusters of generated and held-out real images: K categories first, then the clusters beyond them.

    Attributes:
        names: of the K + extra clusters.
        generated_C, control_C: their shares, each summing to 1.
        covered_K: whether a category gets at least `least` times the share that it has among real images.
        nobodys_C: whether real images shun a cluster that generated ones fill: their share is below
            `foreign` times the generated one, and not by chance (Fisher's exact test at 1 % over all extra
            clusters). False for the categories.
        clusters_M: of the M generated images.
    """

    names: tuple[str, ...]
    generated_C: np.ndarray
    control_C: np.ndarray
    covered_K: np.ndarray
    nobodys_C: np.ndarray
    clusters_M: np.ndarray

    def rows(self) -> list[dict[str, Any]]:
        """Return one table row per cluster."""
        K = len(self.covered_K)
        categories = ["covered" if covered else "missing" for covered in self.covered_K]
        beyond = ["nobody's" if nobodys else "real as well" for nobodys in self.nobodys_C[K:]]
        verdicts = categories + beyond
        shares = zip(self.names, self.generated_C, self.control_C, verdicts, strict=True)
        return [
            {"cluster": name, "generated": float(g), "real": float(r), "verdict": verdict}
            for name, g, r, verdict in shares
        ]


def audit(
    real_ND: np.ndarray,
    labels_N: np.ndarray,
    control_RD: np.ndarray,
    generated_MD: np.ndarray,
    *,
    names: tuple[str, ...],
    extra: int = 3,
    least: float = 0.5,
    foreign: float = 0.25,
    seed: int = 0,
) -> Audit:
    """Cluster generated and held-out real images together around the categories of labelled real ones.

    Args:
        real_ND: features of labelled real images, such as a classifier's or an encoder's.
        labels_N: their categories 0..K-1, each of which occurs.
        control_RD: features of other real images, whose labels are not looked at.
        generated_MD: features of generated images.
        names: of the K categories.
        extra: clusters beyond the categories.
        least: a category is covered from this ratio of generated to real share on.
        foreign: a cluster beyond them is nobody's below this ratio of real to generated share.
        seed: of the clusters' starts.

    Raises:
        ValueError: a category has no labelled image, or there is nothing to compare.
    """
    K = len(names)
    M = len(generated_MD)
    R = len(control_RD)
    if not M or not R or extra < 0:
        raise ValueError(f"{M} generated images, {R} real ones, {extra} extra clusters: give some of each")
    if sorted(set(labels_N.tolist())) != list(range(K)):
        raise ValueError(f"labels {sorted(set(labels_N.tolist()))}: each of the {K} categories needs some")
    features = np.concatenate([real_ND, control_RD, generated_MD])
    targets = np.concatenate([labels_N, np.full(R + M, -1)])
    clusters = semi_supervised_kmeans(features, targets, K + extra, seed=seed)
    _, control_R, generated_M = np.split(clusters, [len(real_ND), len(real_ND) + R])
    control_C = np.bincount(control_R, minlength=K + extra) / R
    generated_C = np.bincount(generated_M, minlength=K + extra) / M
    nobodys_C = control_C < foreign * generated_C
    nobodys_C[:K] = False
    for cluster in np.flatnonzero(nobodys_C):
        inside_2 = np.array([(generated_M == cluster).sum(), (control_R == cluster).sum()])
        counts = np.stack([inside_2, [M, R] - inside_2], axis=1)
        # 1 % over all extra clusters: each is tested, and one of many would pass by chance (Bonferroni).
        nobodys_C[cluster] = fisher_exact(counts, alternative="greater").pvalue < 0.01 / extra
    return Audit(
        names=(*names, *(f"beyond {i + 1}" for i in range(extra))),
        generated_C=generated_C,
        control_C=control_C,
        covered_K=generated_C[:K] >= least * control_C[:K],
        nobodys_C=nobodys_C,
        clusters_M=generated_M,
    )


def audit_figure(audit: Audit, generated_MCHW: Tensor, note: str, columns: int = 8) -> Figure:
    """Draw the shares of each cluster, and generated images of it.

    Args:
        audit: the clusters.
        generated_MCHW: its generated images, in [0, 1].
        note: what the reader must know, under the image.
        columns: images per cluster.
    """
    C = len(audit.names)
    figure = Figure(figsize=(9, 0.42 * C + 1))
    layout = figure.add_gridspec(
        C, columns + 1, width_ratios=[columns, *[1] * columns], wspace=0.05, hspace=0.1
    )
    axis = figure.add_subplot(layout[:, 0])
    place_C = np.arange(C)
    axis.barh(place_C - 0.2, audit.generated_C, 0.4, color=COLORS[0], label="generated")
    axis.barh(place_C + 0.2, audit.control_C, 0.4, color=FAINT, label="real, held out")
    plain(axis, x="share of the images")
    axis.set_yticks(place_C, [f"{row['cluster']}: {row['verdict']}" for row in audit.rows()])
    axis.set_ylim(C - 0.5, -0.5)  # the first cluster on top, beside its images
    axis.legend(fontsize=SMALL, frameon=False)
    for cluster in range(C):
        members = np.flatnonzero(audit.clusters_M == cluster)
        for column in range(columns):
            cell = figure.add_subplot(layout[cluster, column + 1])
            cell.axis("off")
            if column < len(members):
                show_image(cell, generated_MCHW[members[column]])
    return annotate(figure, note)
