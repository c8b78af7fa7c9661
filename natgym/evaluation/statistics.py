"""What may be said of scores over seeds: means, spreads, paired differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats


def means_by_run(frames: Sequence[pd.DataFrame], first: int = 0) -> pd.DataFrame:
    """Return one row per search or training, the mean over its evaluation seeds.

    Args:
        frames: of an `Evaluator`, one per run.
        first: `seed` of the first row; they are counted up.
    """
    means = pd.DataFrame([frame.mean() for frame in frames])
    return means.assign(seed=np.arange(first, first + len(frames)))


def paired_difference(
    ours: pd.DataFrame, theirs: pd.DataFrame, metric: str = "distance"
) -> tuple[float, float]:
    """Return the mean of ours - theirs over common seeds and the half-width of its 95 % t-interval.

    Raises:
        ValueError: the seeds differ.
    """
    if list(ours["seed"]) != list(theirs["seed"]):
        raise ValueError(
            f"seeds {list(ours['seed'])} and {list(theirs['seed'])} are not paired; use the same ones"
        )
    difference = (ours[metric] - theirs[metric]).to_numpy()
    if len(difference) < 2:
        return float(difference.mean()), float("nan")
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean()), float(stats.t.ppf(0.975, len(difference) - 1) * error)


def moments(per_seed: pd.DataFrame) -> dict[str, float]:
    """Return the mean of each metric over the seeds and, of the distances, the sample standard deviation."""
    metrics = measured(per_seed)
    spread = [name for name in ("distance", "kernel_distance") if name in metrics]
    means = {name: float(per_seed[name].mean()) for name in metrics}
    return means | {f"{name}_std": float(per_seed[name].std(ddof=1)) for name in spread}


def measured(per_seed: pd.DataFrame) -> list[str]:
    """Return the metrics among the columns of an `Evaluator`'s frame."""
    return [name for name in per_seed if name not in ("seed", "nfe", "images_per_second")]
