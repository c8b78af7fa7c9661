"""Alarms: signs at each measurement that a policy games its reward instead of drawing better images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Alarm = Literal["divergence", "recall", "coverage", "classes", "saturation", "flat", "idle"]


@dataclass(frozen=True, kw_only=True)
class AlarmConfig:
    """Limits, most of them against the measurement before the first update; every alarm is logged."""

    stop: tuple[Alarm, ...] = ()
    """Alarms that end the training, whose policy is kept."""
    divergence: float = 0.1
    """Share by which the distance may grow while the reward claims that generated images come nearer to
    real ones of the select split. An influence can't claim this: its mean is 0."""
    recall: float = 0.1
    """How far recall may fall: a policy that gives up variety."""
    coverage: float = 0.1
    """How far coverage may fall."""
    classes: float = 0.1
    """How far the classes recognised may move from those asked for, in total variation."""
    saturation: float = 0.98
    """Share of real images of the select split and generated ones that the discriminator may tell apart;
    beyond it, its reward is flat."""
    flat: float = 0.05
    """Lead of real images of the select split over generated ones, in standard deviations, below which a
    reward that learns no longer tells them apart, and PPO learns from noise."""
    idle: float = 0.1
    """Share of steps before the last that may reveal nothing, which costs passes; under rules that let a step
    do so."""

    def __post_init__(self) -> None:
        if unknown := set(self.stop) - set(get_args(Alarm)):
            raise ValueError(f"stop {', '.join(sorted(unknown))} is not one of {', '.join(get_args(Alarm))}")


class Vitals(NamedTuple):
    """One measurement of the mean policy on the select split; the names are columns of metrics.csv.

    Attributes:
        distance: what is made small, by default the Frechet distance.
        recall, coverage: NaN where the reference is statistics alone.
        class_drift: total variation between the classes asked for and those recognised.
        reward_gap: mean reward of real images minus that of generated ones.
        told_apart: share that the discriminator judges rightly; NaN without one.
        separation: `reward_gap` in standard deviations within either; NaN if the reward does not learn.
        idle: share of steps before the last that reveal nothing.
        nfe: mean forward passes of an image; a column only where they have a price.
    """

    distance: float = math.nan
    recall: float = math.nan
    coverage: float = math.nan
    class_drift: float = math.nan
    reward_gap: float = math.nan
    told_apart: float = math.nan
    separation: float = math.nan
    idle: float = math.nan
    nfe: float = math.nan


def alarms(config: AlarmConfig, first: Vitals, now: Vitals) -> dict[Alarm, str]:
    """Return the alarms of a measurement, each with a sentence; what is NaN gives none."""
    return dict(_alarms(config, first, now))


def _alarms(config: AlarmConfig, first: Vitals, now: Vitals) -> Iterator[tuple[Alarm, str]]:
    claimed = now.reward_gap < first.reward_gap
    if claimed and now.distance > first.distance * (1 + config.divergence):
        yield (
            "divergence",
            f"real images' lead in reward fell from {first.reward_gap:.3f} to {now.reward_gap:.3f}, but "
            f"the distance rose from {first.distance:.3f} to {now.distance:.3f}",
        )
    if now.recall < first.recall - config.recall:
        yield "recall", f"recall fell from {first.recall:.3f} to {now.recall:.3f}"
    if now.coverage < first.coverage - config.coverage:
        yield "coverage", f"coverage fell from {first.coverage:.3f} to {now.coverage:.3f}"
    if now.class_drift > first.class_drift + config.classes:
        yield (
            "classes",
            f"the classes recognised moved from {first.class_drift:.3f} to {now.class_drift:.3f} away from "
            "those asked for",
        )
    if now.told_apart > config.saturation:
        yield "saturation", f"the discriminator tells {now.told_apart:.1%} of unseen images apart"
    if now.separation < config.flat:
        yield (
            "flat",
            f"the reward of unseen real images is {now.separation:.2f} standard deviations above that of "
            "generated ones: nothing is left to learn from it",
        )
    if now.idle > config.idle:
        yield "idle", f"{now.idle:.1%} of the steps before the last reveal nothing"
