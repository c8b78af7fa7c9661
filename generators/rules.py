"""Rules for which tokens a step reveals, beside `confidence`: orders, and rules that count by themselves.

A rule returns scores (B, L), of which the lowest masked ones are masked again, as many as the mask ratio
says. `threshold` and `entropy_bound` also return how many, so that each row takes the steps it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from generators.decoding import Proposal, RevealRule, confidence, entropies
from generators.noise import Noise


def random(proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int) -> Tensor:
    """Reveal uniformly random tokens, another order for each row."""
    shape = proposal.drawn_BL.shape
    return torch.as_tensor(noise.gumbel(step, shape[1]), device=proposal.drawn_BL.device).expand(shape)


def halton(grid: tuple[int, int]) -> RevealRule:
    """Reveal along the Halton sequence of the grid, the same far-apart places for every row (Besnier et al.,
    ICLR 2025, without their optional roll)."""
    rank_L = halton_order(grid).argsort()

    def rule(proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int) -> Tensor:
        return -rank_L.to(proposal.drawn_BL.device).expand_as(proposal.drawn_BL).float()

    return rule


def halton_order(grid: tuple[int, int]) -> Tensor:
    """Return the L positions in the order in which the sequence of bases 2 (row), 3 (column) meets them."""
    rows, columns = grid
    found: dict[int, None] = {}
    index = 1
    while len(found) < rows * columns:
        row, column = int(_inverse(index, 2) * rows), int(_inverse(index, 3) * columns)
        found.setdefault(row * columns + column)
        index += 1
    return torch.tensor(list(found))


def _inverse(index: int, base: int) -> float:
    """Return the radical inverse: the digits of `index` mirrored behind the point."""
    value, weight = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        weight /= base
        value += weight * digit
    return value


def threshold(*, theta: float = 0.9) -> RevealRule:
    """Reveal every token drawn with a probability of at least theta (Fast-dLLM, arXiv 2505.22618), at least
    `min_reveal`; the probability is the guided, un-tempered one."""
    if not 0 < theta <= 1:
        raise ValueError(f"theta {theta}: it must be in (0, 1]")

    def rule(
        proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int
    ) -> tuple[Tensor, Tensor]:
        unsure_BL = proposal.masked_BL & (proposal.log_probs_BL.exp() < theta)
        return proposal.log_probs_BL, unsure_BL.sum(-1)

    return rule


def entropy_bound(*, epsilon: float = 1.0) -> RevealRule:
    """Reveal the most tokens, by rising entropy, whose entropies without the largest sum to at most epsilon
    nats (EB-sampler, arXiv 2505.24857): a bound on how far they depend on one another."""
    if not epsilon >= 0:
        raise ValueError(f"epsilon {epsilon}: it must be at least 0")

    def rule(
        proposal: Proposal, remask_temperature_B1: Tensor, noise: Noise, step: int
    ) -> tuple[Tensor, Tensor]:
        entropy_BL = entropies(proposal.logits_BLV.log_softmax(-1))
        rising_BL = entropy_BL.masked_fill(~proposal.masked_BL, torch.inf).sort(-1).values
        # The sum without the largest of the first k is the sum of the first k - 1.
        before_BL = rising_BL.cumsum(-1) - rising_BL
        revealed_BL = (before_BL <= epsilon) & rising_BL.isfinite()
        return -entropy_BL, proposal.masked_BL.sum(-1) - revealed_BL.sum(-1)

    return rule


# By name, from their own parameters; "halton" takes the grid.
RULES: Mapping[str, Callable[..., RevealRule]] = {
    "confidence": lambda: confidence,
    "random": lambda: random,
    "halton": halton,
    "threshold": threshold,
    "entropy-bound": entropy_bound,
}
