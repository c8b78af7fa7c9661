"""The metrics of every table, each described once: what scorer, statistics, tables and reports read.

A further one is one more entry, at the place where its column is to stand.

Shapes: N images judged, M real ones, d features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from generators.conditions import Condition
from natgym.metrics.kernel import cmmd, kernel_distance
from natgym.metrics.manifold import drawn, precision_recall_density_coverage
from natgym.metrics.reference import Reference
from natgym.metrics.score import SPLITS, inception_score, total_variation


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Images as the networks see them, and the real ones that they are compared with.

    Attributes:
        features_Nd: of the extractor.
        logits_NK: of the extractor; None if it has none.
        classes_NK: logits of the classifier; None without one.
        condition: that the images were asked for by.
        reference: the real images.
        clip_Nd: the features, if they are CLIP's vectors of length 1; else None.
        told: shares of images that are as asked, by name, where the extractor reads images: as their
            captions say, or by the rules of a puzzle; None where it does not.
    """

    features_Nd: Tensor
    logits_NK: Tensor | None
    classes_NK: Tensor | None
    condition: Condition
    reference: Reference
    clip_Nd: Tensor | None = None
    told: Mapping[str, float] | None = None

    @property
    def real_Md(self) -> Tensor | None:
        """Features of the real images; None if there are but statistics of them."""
        return self.reference.features_Nd

    @property
    def scored_NK(self) -> Tensor | None:
        """The logits, if they are enough for each part of the Inception score; else None."""
        return None if self.logits_NK is None or len(self.logits_NK) < SPLITS else self.logits_NK

    @cached_property
    def neighborhoods(self) -> dict[str, float]:
        """Precision, recall, density and coverage, which come of the same distances and are taken at once;
        of larger sets, of `manifold.MOST` images."""
        assert self.reference.neighborhoods is not None, "they are computed only where real images are"
        points_Md, radii_M = self.reference.neighborhoods
        return precision_recall_density_coverage(drawn(self.features_Nd), points_Md, radii_M=radii_M)


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedMetric:
    """What there is to know of one metric.

    Attributes:
        name: its key in rows, files and frames.
        compute: the number, of images for which all that it needs is there.
        needs: fields of `Judged` that are not None; without one of them the metric is left out.
        better: which of two policies is the better one.
        spread: its standard deviation over the seeds stands in the row, too.
        header, format: of its column; without a header it stands in files and in no printed table.
        brief: it is in the short table, too, not in the full one alone.
    """

    name: str
    compute: Callable[[Judged], float]
    needs: tuple[Literal["real_Md", "scored_NK", "classes_NK", "clip_Nd", "told"], ...] = ()
    better: Literal["lower", "higher"]
    spread: bool = False
    header: str | None = None
    format: str = "{:.3f}"
    brief: bool = False

    def applies(self, judged: Judged) -> bool:
        """Tell whether all that it needs is there."""
        if "told" in self.needs and self.name not in (judged.told or {}):
            return False  # no caption asked for it
        return all(getattr(judged, need) is not None for need in self.needs)

    @property
    def best(self) -> Callable[..., float]:
        """The best of several values: `min` or `max`."""
        return min if self.better == "lower" else max


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "a metric is computed only where what it needs is there"
    return tensor


def _distance(judged: Judged) -> float:
    return judged.reference.distance(judged.features_Nd)


def _kernel_distance(judged: Judged) -> float:
    return kernel_distance(judged.features_Nd, _there(judged.real_Md), within=judged.reference.kernel_within)


def _cmmd(judged: Judged) -> float:
    return cmmd(_there(judged.clip_Nd), _there(judged.real_Md), within=judged.reference.gaussian_within)


def _accuracy(judged: Judged) -> float:
    asked_N, seen_N = _asked_and_seen(judged)
    return (asked_N == seen_N).double().mean().item()


def _class_drift(judged: Judged) -> float:
    """Return the total variation between the classes asked for and those recognized."""
    asked_N, seen_N = _asked_and_seen(judged)
    num_classes = _there(judged.classes_NK).shape[1]
    return total_variation(asked_N.bincount(minlength=num_classes), seen_N.bincount(minlength=num_classes))


def _told(name: str, **more: Any) -> NamedMetric:
    """Return the metric of what an extractor reads in images."""
    return NamedMetric(
        name=name,
        compute=lambda judged: (judged.told or {})[name],
        needs=("told",),
        better="higher",
        header=name,
        **more,
    )


def _asked_and_seen(judged: Judged) -> tuple[Tensor, Tensor]:
    return judged.condition.vectors.argmax(-1), _there(judged.classes_NK).argmax(-1)


_ENTRIES = (
    NamedMetric(
        name="distance",
        compute=_distance,
        better="lower",
        spread=True,
        header="distance",
        brief=True,
    ),
    NamedMetric(
        name="kernel_distance",
        compute=_kernel_distance,
        needs=("real_Md",),
        better="lower",
        spread=True,
        header="kernel",
        format="{:.4f}",
        brief=True,
    ),
    NamedMetric(
        name="cmmd",
        compute=_cmmd,
        needs=("real_Md", "clip_Nd"),
        better="lower",
        spread=True,
        header="CMMD",
        brief=True,
    ),
    NamedMetric(
        name="score",
        compute=lambda judged: inception_score(_there(judged.scored_NK)),
        needs=("scored_NK",),
        better="higher",
        header="score",
        format="{:.2f}",
    ),
    NamedMetric(
        name="accuracy",
        compute=_accuracy,
        needs=("classes_NK",),
        better="higher",
        header="accuracy",
        brief=True,
    ),
    _told("caption", brief=True),
    _told("objects"),
    _told("colors", brief=True),
    _told("counts"),
    _told("relations", brief=True),
    _told("valid", brief=True, spread=True),
    _told("held"),
    NamedMetric(name="class_drift", compute=_class_drift, needs=("classes_NK",), better="lower"),
    NamedMetric(
        name="precision",
        compute=lambda judged: judged.neighborhoods["precision"],
        needs=("real_Md",),
        better="higher",
        header="precision",
    ),
    NamedMetric(
        name="recall",
        compute=lambda judged: judged.neighborhoods["recall"],
        needs=("real_Md",),
        better="higher",
        header="recall",
        brief=True,
    ),
    NamedMetric(
        name="density",
        compute=lambda judged: judged.neighborhoods["density"],
        needs=("real_Md",),
        better="higher",
        header="density",
    ),
    NamedMetric(
        name="coverage",
        compute=lambda judged: judged.neighborhoods["coverage"],
        needs=("real_Md",),
        better="higher",
        header="coverage",
        brief=True,
    ),
)
NAMED = {metric.name: metric for metric in _ENTRIES}
METRICS = tuple(NAMED)
"""Of a row of scores, in this order; reference and extractor may allow only some."""
