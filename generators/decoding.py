"""The decoding step: guide, draw, score, re-mask. Pure functions over an explicit state.

One step is AutoNAT's, AdaNAT's and ENAT's, by its `DecodeRules`. Everything is per sample: row i of the
result depends on row i of state, parameters and noise alone.

Shapes: B images, L tokens, V codes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from generators import remasking
from generators.conditions import Condition
from generators.contract import Cache, Generator, Prediction
from generators.first_pass import FirstPass
from generators.guidance import guide
from generators.noise import Noise
from generators.reveal import Proposal, entropies
from generators.rules import DecodeRules
from generators.schedules import DecodeParams

DEFAULT = DecodeRules()


@dataclass(frozen=True, eq=False)
class DecodeState:
    """Where the images of a batch stand before step `step`.

    Attributes:
        ids_BL: tokens; the mask id where not revealed. After the last step, the finished images.
        condition: what they are drawn from.
        step, steps: steps taken, and T.
        masked_B, nfe_B: masked tokens and forward passes spent so far, int64 on the host.
        unknown_B: tokens that were masked at the start, all but those that are given, int64 on the host.
        prediction: the conditional pass on `ids_BL`; None after the last step, where nobody would read it.
        null_cache: the unconditional stream's reuse state.
        drawn_BL: the tokens drawn in the step that led here, before re-masking; None at the start.
        log_probs_BL: their guided, un-tempered log-probabilities; None at the start.
        entropy_BL: of the same distributions, in nats; None unless `advance` was asked for it.
        certainty_BL: the probability, by these, with which each revealed token was drawn in the step that
            revealed it; None unless tokens may be masked again.
        first_pass: what keeps the all-masked passes, if anything does.
    """

    ids_BL: Tensor
    condition: Condition
    step: int
    steps: int
    masked_B: Tensor
    nfe_B: Tensor
    unknown_B: Tensor
    prediction: Prediction | None
    null_cache: Cache | None = None
    drawn_BL: Tensor | None = None
    log_probs_BL: Tensor | None = None
    entropy_BL: Tensor | None = None
    certainty_BL: Tensor | None = None
    first_pass: FirstPass | None = None

    @property
    def done(self) -> bool:
        return self.step == self.steps


@torch.no_grad()
def start(
    generator: Generator, condition: Condition, *, steps: int, first_pass: FirstPass | None = None
) -> DecodeState:
    """Return the state before the first step: all masked but what is given, one conditional pass spent.

    Args:
        first_pass: of this generator; its passes, one per condition and not one per row, are not counted.
            Of no use where tokens are given.

    Raises:
        ValueError: what is given is not one code for each token.
    """
    if steps < 1:
        raise ValueError(f"steps {steps}: decoding takes at least one step")
    B, L = len(condition), generator.num_tokens
    ids_BL = torch.full((B, L), generator.mask_id, device=condition.device)
    unknown_B = torch.full((B,), L)
    if condition.given_BL is not None:
        ids_BL, unknown_B = _with_given(ids_BL, condition.given_BL, generator.mask_id)
        first_pass = None
    spent_B = torch.full((B,), int(first_pass is None))
    if first_pass is None:
        prediction = predict(generator, ids_BL, condition, None, unknown_B)
    else:
        prediction = first_pass(condition)
    # With nothing visible there is nothing to reuse yet, so that both streams start from the same cache.
    null_cache = prediction.cache
    if condition.given_BL is not None and null_cache is not None:
        null_cache = _empty_cache(generator, condition)
    return DecodeState(
        ids_BL,
        condition,
        0,
        steps,
        unknown_B,
        spent_B,
        unknown_B,
        prediction,
        null_cache,
        first_pass=first_pass,
    )


def _empty_cache(generator: Generator, condition: Condition) -> Cache | None:
    """Return the record of a pass with nothing visible, for each row."""
    L = generator.num_tokens
    blank_1L = torch.full((1, L), generator.mask_id, device=condition.device)
    cache = predict(generator, blank_1L, condition[:1], None, torch.tensor([L])).cache
    return cache and cache[torch.zeros(len(condition), dtype=torch.long)]


def _with_given(ids_BL: Tensor, given_BL: Tensor, mask_id: int) -> tuple[Tensor, Tensor]:
    """Return the tokens with what is given in its places, and how many of each row are not, on the host."""
    if given_BL.shape != ids_BL.shape or bool((given_BL >= mask_id).any()):
        most = int(given_BL.max()) if given_BL.numel() else 0
        raise ValueError(
            f"given tokens {tuple(given_BL.shape)} up to {most}; the generator has {ids_BL.shape[1]} tokens "
            f"of codes below {mask_id}"
        )
    drawn_BL = given_BL < 0
    return torch.where(drawn_BL, ids_BL, given_BL.to(ids_BL)), drawn_BL.sum(1).cpu()


def refuse_not_finite(state: DecodeState) -> DecodeState:
    """Return a state as it is; ValueError if what is predicted there is not finite. Copies to the host."""
    if state.prediction is not None and not bool(state.prediction.logits_BLV.amax() < torch.inf):
        raise ValueError(  # -inf only forbids a code; the largest of what holds a NaN is NaN
            "the generator predicts NaN or infinity before the first step: its weights are not finite, or "
            "too large for its precision"
        )
    return state


@torch.no_grad()
def advance(
    generator: Generator,
    state: DecodeState,
    params: DecodeParams,
    noise: Noise,
    rules: DecodeRules = DEFAULT,
    *,
    entropy: bool = False,
) -> DecodeState:
    """Take one decoding step.

    Args:
        generator: the network; called once unconditionally for the guided rows, and once on the new tokens
            unless this was the last step. Where all it draws is of one class, no row is guided.
        state: not done.
        params: one decision per row, within the ranges of `DecodeParams`.
        noise: of the same rows.
        rules: which tokens are masked again, and the limits of how many.
        entropy: True also keeps the entropies, which cost one more pass over the logits.

    Raises:
        ValueError: the state is done.
    """
    if state.done:
        raise ValueError(f"all {state.steps} steps are taken; call start for a new image")
    guided_B = (params.guidance_scale > rules.guidance_floor) & (state.masked_B > 0) & state.condition.guides
    remask_B1, sampling_B1, scale_B1 = _on_device(params, guided_B, state.ids_BL.device)
    logits_BLV, null_cache, spent_B = _guide(generator, state, guided_B, scale_B1[..., None], rules)
    proposal = _draw(state, logits_BLV, sampling_B1[..., None], noise, generator.mask_id, entropy)
    last = state.step + 1 == state.steps
    if last:
        masked_B, ids_BL, prediction = torch.zeros_like(state.masked_B), proposal.drawn_BL, None
    else:
        ranked = rules.reveal(proposal, remask_B1, noise, state.step)
        masked_B, hidden_BL = _hidden(state, proposal, params, ranked, rules, noise)
        ids_BL = proposal.drawn_BL.masked_fill(hidden_BL, generator.mask_id)
        if remasking.rates(params, rules) is not None:
            state = remasking.remembering(replace(state, null_cache=null_cache), proposal, hidden_BL)
            null_cache = state.null_cache
        prediction = _go_on(generator, state, ids_BL, masked_B)
        spent_B = spent_B + (masked_B > 0)
    return replace(
        state,
        ids_BL=ids_BL,
        step=state.step + 1,
        masked_B=masked_B,
        nfe_B=state.nfe_B + spent_B,
        prediction=prediction,
        null_cache=null_cache,
        drawn_BL=proposal.drawn_BL,
        log_probs_BL=proposal.log_probs_BL,
        entropy_BL=proposal.entropy_BL,
        certainty_BL=state.certainty_BL,
    )


def _on_device(params: DecodeParams, guided_B: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """Return both temperatures and the guidance scale, (B, 1) each, by one copy to the device."""
    scale_B = params.guidance_scale * guided_B  # exactly 0 where not guided, whatever the other rows do
    host_3B = torch.stack([params.remask_temperature, params.sampling_temperature, scale_B])
    return host_3B.to(device, torch.float32, non_blocking=True)[..., None].unbind(0)


def _hidden(
    state: DecodeState,
    proposal: Proposal,
    params: DecodeParams,
    ranked: Tensor | tuple[Tensor, Tensor],
    rules: DecodeRules,
    noise: Noise,
) -> tuple[Tensor, Tensor]:
    """Return how many tokens of each row are masked after the step, and which: by a reveal rule's scores of
    those that were, and of those that were revealed the ones that are masked again, if any are."""
    again_B = remasking.wanted_counts(state, params, rules)
    if isinstance(ranked, tuple):
        scores_BL, wanted_B = ranked
        left_B = rules.allowed_counts(wanted_B.cpu(), state.masked_B, state.unknown_B)
        again_B = again_B * (left_B > 0)
    else:  # the ratio is that of all
        scores_BL, masked_B = ranked, state.masked_B + again_B
        masked_B = rules.mask_counts(params.mask_ratio, masked_B, state.unknown_B)
        again_B = again_B.minimum(masked_B)
        left_B = masked_B - again_B
    hidden_BL = lowest(scores_BL, proposal.masked_BL, left_B)
    if again_B.any():
        hidden_BL |= lowest(*remasking.ranked(state, proposal, noise), again_B)
    return left_B + again_B, hidden_BL


def lowest(scores_BL: Tensor, masked_BL: Tensor, counts_B: Tensor) -> Tensor:
    """Return a mask (B, L) of the `counts_B` lowest-scored masked tokens; ties go by position."""
    order_BL = ascending(scores_BL, masked_BL)
    rank_L = torch.arange(scores_BL.shape[1], device=scores_BL.device)
    chosen_BL = rank_L < counts_B.to(scores_BL.device, non_blocking=True)[:, None]
    return torch.zeros_like(masked_BL).scatter_(1, order_BL, chosen_BL)


def ascending(scores_BL: Tensor, masked_BL: Tensor) -> Tensor:
    """Return the positions (B, L) of the masked tokens by rising score, ties by position, then the others."""
    # Whatever a rule returns has to sort before the infinity of the visible tokens.
    return scores_BL.nan_to_num().masked_fill(~masked_BL, torch.inf).argsort(dim=-1, stable=True)


def _go_on(generator: Generator, state: DecodeState, ids_BL: Tensor, masked_B: Tensor) -> Prediction:
    """Return the conditional pass on the new tokens; a row without masks keeps the prediction it has."""
    kept, rows = state.prediction, masked_B.nonzero()[:, 0]
    assert kept is not None
    if len(rows) == len(masked_B):
        return predict(generator, ids_BL, state.condition, kept.cache, masked_B)
    if not len(rows):
        return kept
    at, cache = rows.to(ids_BL.device, non_blocking=True), kept.cache
    new = predict(generator, ids_BL[at], state.condition[at], cache and cache[rows], masked_B[rows])
    return Prediction(
        kept.logits_BLV.index_copy(0, at, new.logits_BLV),
        kept.features_BLD.index_copy(0, at, new.features_BLD),
        cache and cache.put(rows, new.cache),
    )


def _draw(
    state: DecodeState,
    logits_BLV: Tensor,
    temperature_B11: Tensor,
    noise: Noise,
    mask_id: int,
    entropy: bool,
) -> Proposal:
    masked_BL = state.ids_BL == mask_id
    drawn_BL = noise.categorical(logits_BLV / temperature_B11, state.step)
    drawn_BL = torch.where(masked_BL, drawn_BL, state.ids_BL)
    log_softmax_BLV = logits_BLV.log_softmax(-1)
    log_probs_BL = log_softmax_BLV.gather(-1, drawn_BL[..., None])[..., 0]
    entropy_BL = entropies(log_softmax_BLV) if entropy else None
    return Proposal(logits_BLV, drawn_BL, log_probs_BL, masked_BL, entropy_BL)


def _guide(
    generator: Generator, state: DecodeState, guided_B: Tensor, scale_B11: Tensor, rules: DecodeRules
) -> tuple[Tensor, Cache | None, Tensor]:
    """Return guided float32 logits, the unconditional cache and the passes spent per row."""
    assert state.prediction is not None
    logits_BLV = state.prediction.logits_BLV.float()
    spent_B = guided_B.long()
    if not guided_B.any():
        return logits_BLV, state.null_cache, spent_B
    null = state.condition.null()
    if state.step == 0 and state.condition.given_BL is None:
        # With everything masked the unconditional pass is one constant, so one row serves the whole batch and
        # is not counted; nor is there anything to reuse of it.
        if state.first_pass is None:
            constant = predict(generator, state.ids_BL[:1], null[:1], None, state.masked_B[:1])
        else:
            constant = state.first_pass(null[:1])
        guided_BLV = guide(logits_BLV, constant.logits_BLV.float(), scale_B11, rules)
        return guided_BLV, state.null_cache, torch.zeros_like(spent_B)
    if bool(guided_B.all()):
        free = predict(generator, state.ids_BL, null, state.null_cache, state.masked_B)
        return guide(logits_BLV, free.logits_BLV.float(), scale_B11, rules), free.cache, spent_B
    # Each row's unconditional stream goes on only where that row is guided, so that no row feels another.
    rows, cache = guided_B.nonzero()[:, 0], state.null_cache
    at = rows.to(logits_BLV.device, non_blocking=True)
    # Null conditions differ where a generator leaves out what is given.
    free = predict(generator, state.ids_BL[at], null[at], cache and cache[rows], state.masked_B[rows])
    guided_BLV = guide(logits_BLV[at], free.logits_BLV.float(), scale_B11[at], rules)
    return logits_BLV.index_copy(0, at, guided_BLV), cache and cache.put(rows, free.cache), spent_B


def predict(
    generator: Generator, ids_BL: Tensor, condition: Condition, cache: Cache | None, masked_B: Tensor
) -> Prediction:
    """Call a generator, and tell one that reuses how many tokens are masked."""
    counts = (masked_B,) if getattr(generator, "reuses", False) else ()
    return generator(ids_BL, condition, cache, *counts)
