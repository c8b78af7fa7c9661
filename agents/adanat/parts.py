"""Settings of AdaNAT's parts: the policy network and the generator's learning; read without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from generators.checks import at_least
from generators.reveal import counts
from generators.rules import DecodeRules

Baseline = Literal["critic", "rloo", "grpo"]


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Widths of the policy network; the defaults are the paper's.

    Attributes:
        width: of the token features inside the network.
        channels: after the strided convolution.
        hidden: of the two linear layers.
        frequencies: width of the sinusoid of the step.
        blind: hide the features from the actor, so that the step alone decides: the control of what
            adapting is worth. Its critic still sees, like any policy's: it decides nothing, and what it
            explains is no noise in the gradient.
    """

    width: int = 512
    channels: int = 128
    hidden: tuple[int, int] = (1024, 512)
    frequencies: int = 256
    blind: bool = False

    def __post_init__(self) -> None:
        at_least(1, self, "width", "channels", "frequencies")


@dataclass(frozen=True, kw_only=True)
class TokenPolicyConfig:
    """The network of a policy that chooses tokens, and the rule that it starts as.

    Attributes:
        width: of a token inside the network.
        depth: blocks of attention over the tokens.
        start: the rule that it starts as, one that counts by itself (generators.rules).
        sharpness: log-odds of what that rule reveals, and minus those of the rest: the larger, the less the
            policy explores.
        slope: log-odds for each place of the rule's order, counted from where it stops, up to the sharpness,
            so that the policy explores where the rule stops; None has the sharpness at all places.
        order: rule whose scores, times the sharpness, are the logits that a policy of orders starts with:
            confidence, or one that counts by itself.
        blind: hide the features from the actor, which sees the masks, the step and the rule it started as.
    """

    width: int = 32
    depth: int = 1
    start: str = "entropy-bound,epsilon=0.5"
    sharpness: float = 3.0
    slope: float | None = None
    order: str = "confidence"
    blind: bool = False

    def __post_init__(self) -> None:
        at_least(1, self, "width", "depth")
        if not 0 < self.sharpness < math.inf:
            raise ValueError(f"sharpness {self.sharpness}: it must be positive and finite")
        if self.slope is not None and not self.slope > 0:
            raise ValueError(f"slope {self.slope}: it must be positive; None is a step")
        if not counts(DecodeRules.of(self.start, (1, 1)).reveal):
            raise ValueError(f"start {self.start!r} is no rule that counts by itself, such as threshold")
        if self.order != "confidence" and not counts(DecodeRules.of(self.order, (1, 1)).reveal):
            raise ValueError(f"order {self.order!r} is not confidence or a rule that counts by itself")


def small_policy() -> PolicyConfig:
    """Size the network for the small tasks."""
    return PolicyConfig(width=64, channels=32, hidden=(128, 64), frequencies=32)


@dataclass(frozen=True, kw_only=True)
class CotrainingConfig:
    """How the generator learns beside the policy; the rest is the task's recipe (`generators.recipes`)."""

    updates: int = 0
    """Updates of the generator after each update of the policy; 0 leaves it frozen."""
    learning_rate: float = 3e-4
    """Of the generator, constant (AdamW)."""
    masks: Literal["visited", "usual"] = "visited"
    """Mask ratios: those of the policy's last rollout, or the recipe's law, which knows no policy."""

    def __post_init__(self) -> None:
        if self.updates < 0:
            raise ValueError(f"cotraining.updates {self.updates}: it must be at least 0")
        if not self.learning_rate > 0:
            raise ValueError(f"cotraining.learning_rate {self.learning_rate}: it must be positive")
