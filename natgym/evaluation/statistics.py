"""What may be said of scores over seeds: means, spreads, paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from natgym.metrics.named import NAMED


def means_by_run(frames: Sequence[pd.DataFrame], first: int = 0) -> pd.DataFrame:
    """Return one row per search or training, the mean over its evaluation seeds.

    Args:
        frames: of an `Evaluator`, one per run.
        first: `seed` of the first row; they are counted up.
    """
    means = pd.DataFrame([frame.mean() for frame in frames])
    return means.assign(seed=np.arange(first, first + len(frames)))


def t_quantile(freedom: int) -> float:
    """Return how many standard errors a 95 % t-interval goes to each side."""
    return float(stdtrit(freedom, 0.975))  # what scipy.stats, ten times slower to import, calls too


def half_width(std: float, n: int) -> float:
    """Return the half-width of the 95 % t-interval of a mean; NaN of a single number.

    Args:
        std: sample standard deviation of the numbers.
        n: how many they are.
    """
    return float(t_quantile(n - 1) * (std / np.sqrt(n))) if n > 1 else math.nan


@dataclass(frozen=True)
class Difference:
    """A paired difference of a metric: of one policy minus that of another, over common pairs.

    Attributes:
        mean: of the pairs' differences.
        half_width: of its 95 % t-interval; NaN for a single pair.
        each: the pairs' differences.
        metric: of which it is.
        policy, minus: whose; empty where that is plain.
        over: what a pair is of, such as "evaluation seeds" or "trainings".
    """

    mean: float
    half_width: float
    each: tuple[float, ...]
    metric: str = "distance"
    policy: str = ""
    minus: str = ""
    over: str = "evaluation seeds"

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.each)

    @property
    def shown(self) -> bool:
        """Whether the interval tells the sign; a single pair has none and shows nothing."""
        return abs(self.mean) > self.half_width

    def __str__(self) -> str:
        return f"{self.mean:+.3f}" + ("" if math.isnan(self.half_width) else f" ± {self.half_width:.3f}")

    def row(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"each": list(self.each), "n": self.n}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Difference:
        """Return the difference of `row`, of files of before as well, which say less."""
        labels = {name: row[name] for name in ("metric", "policy", "minus", "over") if row.get(name)}
        mean, half_width = (math.nan if row[name] is None else row[name] for name in ("mean", "half_width"))
        return cls(mean, half_width, tuple(row.get("each", ())), **labels)


def paired_difference(
    ours: pd.DataFrame, theirs: pd.DataFrame, metric: str = "distance", **labels: str
) -> Difference:
    """Return ours - theirs over common seeds.

    Args:
        ours, theirs: frames of an `Evaluator`, or of `means_by_run`.
        labels: `policy`, `minus` and `over` of the record.

    Raises:
        ValueError: the seeds differ.
    """
    if list(ours["seed"]) != list(theirs["seed"]):
        raise ValueError(
            f"seeds {list(ours['seed'])} and {list(theirs['seed'])} are not paired; use the same ones"
        )
    each = (ours[metric] - theirs[metric]).to_numpy()
    spread = each.std(ddof=1) if len(each) > 1 else math.nan
    return Difference(
        float(each.mean()), half_width(spread, len(each)), tuple(each.tolist()), metric, **labels
    )


def moments(per_seed: pd.DataFrame) -> dict[str, float]:
    """Return the mean of each metric over the seeds and, of the distances, the sample standard deviation."""
    metrics = measured(per_seed)
    spread = [name for name in metrics if name in NAMED and NAMED[name].spread]
    means = {name: float(per_seed[name].mean()) for name in metrics}
    return means | {f"{name}_std": float(per_seed[name].std(ddof=1)) for name in spread}


def measured(per_seed: pd.DataFrame) -> list[str]:
    """Return the metrics among the columns of an `Evaluator`'s frame."""
    return [name for name in per_seed if name not in ("seed", "nfe", "images_per_second")]
