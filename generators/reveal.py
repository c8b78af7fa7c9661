"""Which tokens a step reveals: MaskGIT's confidence, orders, and rules that count by themselves.

A rule returns scores (B, L), of which the lowest masked ones are masked again, as many as the mask ratio
says. `Threshold`, `Sure` and `EntropyBound` also return how many, so that each row takes the steps it needs.

Shapes: B images, L tokens, V codes.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:  # names and settings are checked without torch, so that flags are quick
    from torch import Tensor

    from generators.noise import Noise


class Proposal(NamedTuple):
    """What one step drew, before some of it is masked again."""

    logits_BLV: Tensor
    drawn_BL: Tensor
    log_probs_BL: Tensor
    masked_BL: Tensor
    entropy_BL: Tensor | None = None


class RevealRule(Protocol):
    """Score the tokens of a step, (B, L); the lowest-scored masked ones are masked again.

    A rule that also decides how many are masked again returns scores and counts (B,) in place of the mask
    ratio; the counts are copied to the host, once a step.
    """

    def __call__(
        self, proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int
    ) -> Tensor | tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Confidence:
    """MaskGIT's rule: log-probability of the drawn token plus tau_2 times Gumbel noise."""

    def __call__(self, proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int) -> Tensor:
        return proposal.log_probs_BL + remask_temperature_B1 * noise.gumbel(step, proposal.drawn_BL.shape[1])


@dataclass(frozen=True)
class Margin:
    """Reveal where the likeliest code leads the second by most probability (guided, un-tempered); plus tau_2
    times Gumbel noise, like those of `Confidence` (Kim et al. 2025, arXiv 2502.06768)."""

    def __call__(self, proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int) -> Tensor:
        first_BL2 = proposal.logits_BLV.softmax(-1).topk(2).values
        margin_BL = first_BL2[..., 0] - first_BL2[..., 1]
        return margin_BL + remask_temperature_B1 * noise.gumbel(step, margin_BL.shape[1])


@dataclass(frozen=True)
class Entropy:
    """Reveal where the distribution has the least entropy, in nats; minus it, plus tau_2 times Gumbel noise
    (Dream, arXiv 2508.15487)."""

    def __call__(self, proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int) -> Tensor:
        entropy_BL = entropies(proposal.logits_BLV.log_softmax(-1))
        return remask_temperature_B1 * noise.gumbel(step, entropy_BL.shape[1]) - entropy_BL


@dataclass(frozen=True)
class RandomOrder:
    """Reveal uniformly random tokens, another order for each row."""

    def __call__(self, proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int) -> Tensor:
        import torch

        shape = proposal.drawn_BL.shape
        return torch.as_tensor(noise.gumbel(step, shape[1]), device=proposal.drawn_BL.device).expand(shape)


@dataclass(frozen=True)
class Halton:
    """Reveal along the Halton sequence of the grid, the same far-apart places for every row (Besnier et al.,
    ICLR 2025, without their optional roll)."""

    grid: tuple[int, int]

    @cached_property
    def _rank_L(self) -> Tensor:
        return halton_order(self.grid).argsort()

    def __call__(self, proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int) -> Tensor:
        return -self._rank_L.to(proposal.drawn_BL.device).expand_as(proposal.drawn_BL).float()


def halton_order(grid: tuple[int, int]) -> Tensor:
    """Return the L positions in the order in which the sequence of bases 2 (row), 3 (column) meets them."""
    import torch

    rows, columns = grid
    positions: dict[int, None] = {}
    index = 1  # the sequence begins with 1; 0 would put the corner first
    while len(positions) < rows * columns:
        row, column = int(_inverse(index, 2) * rows), int(_inverse(index, 3) * columns)
        positions.setdefault(row * columns + column)
        index += 1
    return torch.tensor(list(positions))


def _inverse(index: int, base: int) -> float:
    """Return the radical inverse: the digits of `index` mirrored behind the point."""
    value = 0.0
    weight = 1.0
    while index:
        index, digit = divmod(index, base)
        weight /= base
        value += weight * digit
    return value


@dataclass(frozen=True)
class Threshold:
    """Reveal every token drawn with a probability of at least theta (Fast-dLLM, arXiv 2505.22618), and the
    least that the step has to; the probability is the guided, un-tempered one."""

    theta: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.theta <= 1:
            raise ValueError(f"theta {self.theta}: it must be in (0, 1]")

    def __call__(
        self, proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int
    ) -> tuple[Tensor, Tensor]:
        unsure_BL = proposal.masked_BL & (proposal.log_probs_BL.exp() < self.theta)
        return proposal.log_probs_BL, unsure_BL.sum(-1)


@dataclass(frozen=True)
class Sure:
    """Reveal every token drawn with a probability of at least theta, and `extra` of the others: the least
    uncertain ones, or with `most` = 1 the most uncertain; or, the larger `noise`, the more any of them, by
    that many times Gumbel noise on their probabilities.

    While a symmetric choice is open nothing is sure, and `Threshold` goes on one token a step; an uncertain
    token beside the sure ones makes the choice.
    """

    theta: float = 0.9
    extra: float = 1
    most: float = 0
    noise: float = 0

    def __post_init__(self) -> None:
        if not 0 < self.theta <= 1:
            raise ValueError(f"theta {self.theta}: it must be in (0, 1]")
        if self.extra < 0 or self.extra % 1:
            raise ValueError(f"extra {self.extra}: it is a number of tokens, a whole one of at least 0")
        if self.most not in (0, 1):
            raise ValueError(f"most {self.most}: 0 reveals the least uncertain beside, 1 the most")
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise {self.noise}: it must be at least 0 and finite")

    def __call__(
        self, proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int
    ) -> tuple[Tensor, Tensor]:
        chance_BL = proposal.log_probs_BL.exp()
        sure_BL = chance_BL >= self.theta
        others_BL = -chance_BL if self.most else chance_BL
        if self.noise and noise is not None:  # None asks what is likeliest
            others_BL = others_BL + self.noise * noise.gumbel(step, chance_BL.shape[1])
            others_BL = others_BL / (1 + others_BL.abs())  # below 1, where those that are sure begin
        unsure_B = (proposal.masked_BL & ~sure_BL).sum(-1)
        scores_BL = sure_BL * (1 + chance_BL) + ~sure_BL * others_BL
        return scores_BL, unsure_B - int(self.extra)


@dataclass(frozen=True)
class EntropyBound:
    """Reveal the most tokens, by rising entropy, whose entropies without the largest sum to at most epsilon
    nats (EB-sampler, arXiv 2505.24857): a bound on how far they depend on one another."""

    epsilon: float = 1.0

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise ValueError(f"epsilon {self.epsilon}: it must be at least 0")

    def __call__(
        self, proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int
    ) -> tuple[Tensor, Tensor]:
        entropy_BL = proposal.entropy_BL
        if entropy_BL is None:
            entropy_BL = entropies(proposal.logits_BLV.log_softmax(-1))
        rising_BL = entropy_BL.masked_fill(~proposal.masked_BL, math.inf).sort(-1).values
        # The sum without the largest of the first k is the sum of the first k - 1.
        before_BL = rising_BL.cumsum(-1) - rising_BL
        revealed_BL = (before_BL <= self.epsilon) & rising_BL.isfinite()
        return -entropy_BL, proposal.masked_BL.sum(-1) - revealed_BL.sum(-1)


@dataclass(frozen=True, eq=False)
class Chosen:
    """Reveal the tokens that somebody has chosen; where fewer than a step has to, also those that come first
    by a rule.

    Attributes:
        tokens_BL: bool, the chosen ones.
        rule: of all others.
    """

    tokens_BL: Tensor
    rule: RevealRule

    def __call__(
        self, proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int
    ) -> tuple[Tensor, Tensor]:
        ranked = self.rule(proposal, remask_temperature_B1, noise, step)
        scores_BL = ranked[0] if isinstance(ranked, tuple) else ranked
        wanted_B = (proposal.masked_BL & ~self.tokens_BL).sum(-1)
        return scores_BL.masked_fill(self.tokens_BL, math.inf), wanted_B


@dataclass(frozen=True, eq=False)
class Ordered:
    """Reveal by scores that somebody gives, the highest first, plus tau_2 times Gumbel noise.

    Attributes:
        scores_BL: of all tokens, finite.
        rule: in whose place they stand; where it counts by itself, its count is kept.
    """

    scores_BL: Tensor
    rule: RevealRule

    def __call__(
        self, proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int
    ) -> Tensor | tuple[Tensor, Tensor]:
        scores_BL = self.scores_BL + remask_temperature_B1 * noise.gumbel(step, self.scores_BL.shape[1])
        ranked = self.rule(proposal, remask_temperature_B1, noise, step)
        return (scores_BL, ranked[1]) if isinstance(ranked, tuple) else scores_BL


def entropies(log_probs_BLV: Tensor) -> Tensor:
    """Return the entropy (B, L), in nats, of each token's distribution; what is impossible adds nothing."""
    terms_BLV = log_probs_BLV.exp() * log_probs_BLV
    return -terms_BLV.masked_fill_(log_probs_BLV.isneginf(), 0).sum(-1)  # where 0 times -inf is NaN


# By name; the fields of each are its settings, but for a grid, which is the generator's.
REVEAL: dict[str, Any] = {
    "confidence": Confidence,
    "margin": Margin,
    "entropy": Entropy,
    "random": RandomOrder,
    "halton": Halton,
    "threshold": Threshold,
    "sure": Sure,
    "entropy-bound": EntropyBound,
}


COUNTING = (Threshold, Sure, EntropyBound)


def counts(rule: Any) -> bool:
    """Tell whether a shipped rule says by itself how many tokens a step reveals."""
    return isinstance(rule, COUNTING)


def register(name: str, rule_class: Any) -> None:
    """Make a reveal rule known by a name: in the text of rules, and so in policies that are saved.

    Args:
        name: without "," and "=".
        rule_class: a dataclass of numbers, with a default each; a field `grid` gets the generator's.

    Raises:
        ValueError: the name is taken or can't be part of a text, or the class is no dataclass.
    """
    if name in REVEAL or set(name) & set(",= "):
        raise ValueError(f"rule {name!r}: the name is taken, or has one of ',= ' in it; choose another")
    if not dataclasses.is_dataclass(rule_class):
        raise ValueError(f"rule {name!r} is a {rule_class!r}; its settings have to be fields of a dataclass")
    REVEAL[name] = rule_class
