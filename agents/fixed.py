"""Schedules as policies: the baselines every table needs."""

from __future__ import annotations

from dataclasses import dataclass

from generators.schedules import DecodeParams, Schedule, maskgit, random_order, reference
from natgym.env import Observation


@dataclass(frozen=True)
class FixedPolicy:
    """Play a schedule, whatever is observed."""

    schedule: Schedule

    @property
    def steps(self) -> int:
        return self.schedule.steps

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        return self.schedule.params(step, len(observation["masked"]))


def baselines(steps: int) -> dict[str, FixedPolicy]:
    """Return the hand-made rows of every table; `one-step` is the reference at T = 1."""
    return {
        "reference": FixedPolicy(reference(steps)),
        "one-step": FixedPolicy(reference(1)),
        "maskgit": FixedPolicy(maskgit(steps)),
        "random-order": FixedPolicy(random_order(steps)),
    }
