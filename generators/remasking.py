"""Masking again what was revealed, so that it is drawn anew: ReMDM's confidence rule (Wang et al. 2025, arXiv
2503.00307, section 4.1) with a number of tokens in place of a chance for each.

The paper masks a token again with a chance in proportion to softmax(-p), p being its probability when it was
drawn. Here floor(eta V) of V revealed tokens are drawn by these weights without replacement, so that the rest
of the step keeps its counts: a mask ratio says how many are masked after the step, of either kind. What is
given is never masked again, and a row without masks is finished.

The rate eta is a setting of the rules, or a decision for each row and step beside the others:

    from generators.parameters import register
    from generators.remasking import RATE
    register(RATE)  # before anything else of natgym is imported

Shapes: B images, L tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from generators.parameters import SIGMOID, DecodingParameter

if TYPE_CHECKING:
    from torch import Tensor

    from generators.contract import Cache
    from generators.decoding import DecodeState
    from generators.noise import Noise
    from generators.reveal import Proposal
    from generators.rules import DecodeRules
    from generators.schedules import DecodeParams

RATE = DecodingParameter(
    name="remask_rate",
    symbol=r"\eta",
    title="re-masking rate",
    high=1.0,
    neutral=0.0,
    activation=SIGMOID,
    bound=6.0,
    formula="sigmoid(logit(eta) + a)",
    idle_at_end=True,
)


def rates(params: DecodeParams, rules: DecodeRules) -> Tensor | None:
    """Return the rate of each row, (B,): that of the rules and the one decided; None if nothing says one."""
    import torch

    decided_B = getattr(params, RATE.name, None)
    if decided_B is not None:
        return (decided_B + rules.remask_rate).clamp_max(1)
    return torch.full_like(params.mask_ratio, rules.remask_rate) if rules.remask_rate else None


def wanted_counts(state: DecodeState, params: DecodeParams, rules: DecodeRules) -> Tensor:
    """Return how many revealed tokens of each row shall be masked again, (B,) int64; of finished rows 0."""
    rate_B = rates(params, rules)
    if rate_B is None:
        return state.masked_B.new_zeros(len(state.masked_B))
    return (rate_B * (state.unknown_B - state.masked_B)).floor().long() * (state.masked_B > 0)


def ranked(state: DecodeState, proposal: Proposal, noise: Noise) -> tuple[Tensor, Tensor]:
    """Return scores (B, L), the lowest of which are masked again, and of which tokens, (B, L) bool.

    By Gumbel noise the lowest are drawn by exp(-p): that of tokens whose reveal rule is done with them, which
    nothing else reads.
    """
    assert state.certainty_BL is not None
    revealed_BL, given_BL = ~proposal.masked_BL, state.condition.given_BL
    if given_BL is not None:
        revealed_BL = revealed_BL & (given_BL < 0)
    return state.certainty_BL - noise.gumbel(state.step, revealed_BL.shape[1]), revealed_BL


def remembering(state: DecodeState, proposal: Proposal, hidden_BL: Tensor) -> DecodeState:
    """Return a state that knows with which probabilities tokens were drawn, and whose records have lost what
    is masked again: drawn anew, a token may be another one.

    Args:
        hidden_BL: what is masked after the step that the proposal is of.
    """
    assert state.prediction is not None
    chance_BL = proposal.log_probs_BL.exp()
    before_BL = chance_BL if state.certainty_BL is None else state.certainty_BL
    again_BL = hidden_BL & ~proposal.masked_BL
    return replace(
        state,
        certainty_BL=chance_BL.where(proposal.masked_BL, before_BL),
        prediction=state.prediction._replace(cache=_without(state.prediction.cache, again_BL)),
        null_cache=_without(state.null_cache, again_BL),
    )


def _without(cache: Cache | None, tokens_BL: Tensor) -> Cache | None:
    if cache is None:
        return None
    if not hasattr(cache, "forget"):
        kind = type(cache).__name__
        raise ValueError(
            f"{kind} has no forget(tokens_BL), which re-masking needs: add it, or set the rate to 0"
        )
    return cache.forget(tokens_BL)
