"""Policies that learn nothing: schedules, and rules that reveal what they are sure of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from generators.families import OFFSET, columns
from generators.rules import DecodeRules
from generators.schedules import DecodeParams, Schedule, maskgit, random_order, reference
from natgym.observations import Observation


@dataclass(frozen=True)
class FixedPolicy:
    """Play a schedule, whatever is observed, by rules of its own or by those of whoever plays it."""

    schedule: Schedule
    rules: DecodeRules | None = None

    @property
    def steps(self) -> int:
        return self.schedule.steps

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        return self.schedule.params(step, len(observation["masked"]))


@dataclass(frozen=True)
class AdaptivePolicy:
    """Let a rule decide how many tokens each row reveals, so that each row takes the steps it needs.

    Temperatures and guidance follow the share of the row's tokens that are revealed, in place of the share of
    steps taken; the mask ratio is 0, since the rule alone decides.

    Attributes:
        rules: whose reveal rule returns scores and counts.
        curves: of `generators.families.columns`.
        steps: at most; the last one reveals everything.
    """

    rules: DecodeRules
    curves: Mapping[str, Any]
    steps: int

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        share_B = 1 - observation["masked"].cpu().double().mean(1)
        curves = {**self.curves, "ratio": torch.zeros_like}
        return DecodeParams.from_table(columns(share_B.clamp_min(OFFSET), share_B, **curves))


def baselines(steps: int) -> dict[str, FixedPolicy]:
    """Return the hand-made rows of every table; `one-step` is the reference at T = 1."""
    return {
        "reference": FixedPolicy(reference(steps)),
        "one-step": FixedPolicy(reference(1)),
        "maskgit": FixedPolicy(maskgit(steps)),
        "random-order": FixedPolicy(random_order(steps)),
    }
