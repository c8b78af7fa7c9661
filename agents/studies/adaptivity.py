"""Does a policy adapt? What it would do without knowing the sample: controls made of the policy itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.studies.distilled import mean_table
from generators.conditions import Condition
from generators.noise import derive_seed
from generators.rules import DecodeRules
from generators.schedules import DecodeParams, Schedule
from natgym.names.prices import Price
from natgym.observations import Observation
from natgym.rollouts import BATCH, Decision, Rollout

# What a row keeps of its observation; everything else is another row's, whatever an observation holds.
OWN = ("condition", "kind", "step", "previous_action", "price", "row_seeds")


def mean_schedule(drawn: Rollout, steps: int) -> Schedule:
    """Return what a policy of some steps played on average: one schedule for all samples, the means over
    those that a step decided something of."""
    return Schedule(mean_table(drawn.frame, steps), "mean")


@dataclass(frozen=True)
class Shuffled:
    """A learned policy in which every row decides by the features of another row of its batch.

    Attributes:
        policy: has `steps` and `decide`.
        within_class: the other row has a condition of the same kind, its class, so that only what is known
            beyond it is lost; else it is any row.
        seed: of who gets whose; anew at each step.
    """

    policy: Any
    within_class: bool
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.policy.steps

    @property
    def rules(self) -> DecodeRules | None:
        return getattr(self.policy, "rules", None)

    @property
    def price(self) -> Price | None:
        return getattr(self.policy, "price", None)

    @property
    def draws(self) -> bool:
        return getattr(self.policy, "draws", False)

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        return self.decide(observation, step).params

    def decide(self, observation: Observation, step: int) -> Decision:
        """Decide by others' features; the action played before and the price stay the row's own.

        Raises:
            ValueError: a condition has a single row in the batch, which leaves nothing to shuffle.
        """
        kinds_B = observation["kind"].cpu()
        groups_B = kinds_B if self.within_class else torch.zeros_like(kinds_B)
        source_B = others(groups_B, derive_seed(self.seed, "shuffle", step))
        source_B = source_B.to(observation["features"].device)
        taken = {name: values[source_B] for name, values in observation.items() if name not in OWN}
        return self.policy.decide(observation | taken, step)


def can_shuffle(condition: Condition, within_class: bool) -> bool:
    """Whether no row is alone, or alone in its class, in the batches in which conditions are drawn."""
    groups_N = condition.kinds_B.cpu() if within_class else torch.zeros(len(condition))
    counts = [groups_B.unique(return_counts=True)[1] for groups_B in groups_N.split(BATCH)]
    return bool((torch.cat(counts) > 1).all())


def others(groups_B: Tensor, seed: int) -> Tensor:
    """Return a permutation (B,) that gives every row another row of its group, at random.

    Raises:
        ValueError: a group has a single row.
    """
    source_B = torch.arange(len(groups_B))
    random = torch.Generator().manual_seed(seed % 2**63)
    for group in groups_B.unique():
        rows = (groups_B == group).nonzero()[:, 0]
        if len(rows) == 1:
            raise ValueError(
                f"a condition has a single row in a batch of {len(groups_B)}, so that its features can't be "
                "shuffled within it; give fewer conditions"
            )
        rows = rows[torch.randperm(len(rows), generator=random)]
        source_B[rows] = rows.roll(1)  # round the shuffled group: nobody gets its own
    return source_B
