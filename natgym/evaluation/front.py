"""Quality against passes: the front of some policies, and how far another one lies beyond it.

Playing one policy for some images and another one for the rest gives all that lies between the two; of
Frechet distances, which are convex in what is drawn, that or less. So what a new policy is set against is
the convex hull of the others at its own mean number of passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from natgym.evaluation.statistics import Difference, paired_difference


def hull(passes: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Return which points are the corners of the upper convex hull, by rising passes, up to the best one."""
    order = sorted(range(len(passes)), key=lambda point: (passes[point], -quality[point]))
    corners: list[int] = []
    for point in order:
        if corners and quality[point] <= quality[corners[-1]]:
            continue  # as good for fewer passes
        while len(corners) > 1 and _below(*(np.array([passes, quality])[:, [*corners[-2:], point]])):
            corners.pop()
        corners.append(point)
    return corners


def _below(passes: np.ndarray, quality: np.ndarray) -> bool:
    """Tell whether the second of three points is not above the line through the others."""
    share = (passes[1] - passes[0]) / (passes[2] - passes[0])
    return bool(quality[1] <= quality[0] + share * (quality[2] - quality[0]))


def beyond(ours: pd.DataFrame, corners: Sequence[pd.DataFrame], metric: str, **labels: str) -> Difference:
    """Return how much a policy has beyond the front at as many passes, paired over the seeds: less than
    nothing is better for a metric that is the better the lower.

    Where it takes fewer passes than any corner, it is set against the first one, and where it takes more,
    against the last.

    Args:
        ours, corners: frames of an `Evaluator`, the corners by rising passes.
        metric: a column.
        labels: `policy` and `minus` of the record.
    """
    passes = [frame["nfe"].mean() for frame in corners]
    place = float(np.interp(ours["nfe"].mean(), passes, range(len(corners))))
    low, share = min(int(place), len(corners) - 1), place % 1
    high = min(low + 1, len(corners) - 1)
    between = (1 - share) * corners[low][metric] + share * corners[high][metric]
    return paired_difference(ours, ours[["seed"]].assign(**{metric: between}), metric, **labels)
