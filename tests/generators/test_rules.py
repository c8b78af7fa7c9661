"""Rules that choose tokens and their number, each against a loop over rows that recomputes its choice."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from generators.conditions import Labels
from generators.decoding import DecodeState, advance, start
from generators.enat import ENAT, ENATConfig
from generators.nat import NAT, NATConfig
from generators.noise import HashNoise, seeded
from generators.reveal import (
    Entropy,
    EntropyBound,
    Halton,
    Margin,
    Proposal,
    RandomOrder,
    RevealRule,
    Sure,
    Threshold,
    halton_order,
)
from generators.rules import DecodeRules
from generators.schedules import Schedule

B, GRID = 6, (3, 4)


@pytest.fixture(scope="module")
def model() -> NAT:
    """A network whose predictions are far from uniform and differ from token to token."""
    config = NATConfig(codebook_size=5, grid=GRID, num_classes=10, width=16, depth=2, heads=2)
    with seeded(3):
        network = NAT(config).eval()
        for parameter in network.parameters():
            parameter.data += 0.4 * torch.randn_like(parameter)
    return network.requires_grad_(False)


def play(
    model: Any, rule: RevealRule, *, scale: float = 1.0, steps: int = 12, rows: list[int] | None = None
) -> tuple[list[DecodeState], list[Proposal]]:
    """Return the states of a run and what the rule saw at each step but the last."""
    rows = list(range(B)) if rows is None else rows
    seen: list[Proposal] = []

    def watched(proposal: Proposal, *more: Any) -> Any:
        seen.append(proposal)
        return rule(proposal, *more)

    noise = HashNoise(50 + torch.tensor(rows))
    states = [start(model, Labels(torch.tensor(rows), 10), steps=steps)]
    schedule = Schedule(torch.tensor([[0.5, 1.0, 1.0, scale]], dtype=torch.float64).expand(steps, 4))
    while not states[-1].done:
        params = schedule.params(states[-1].step, len(rows))
        states.append(advance(model, states[-1], params, noise, DecodeRules(watched)))
    return states, seen


def revealed(before: DecodeState, after: DecodeState, row: int, mask_id: int) -> set[int]:
    was, is_now = (state.ids_BL[row] == mask_id for state in (before, after))
    return set((was & ~is_now).nonzero()[:, 0].tolist())


def masked(state: DecodeState, row: int, mask_id: int) -> list[int]:
    return (state.ids_BL[row] == mask_id).nonzero()[:, 0].tolist()


def mirrored(index: int, base: int) -> float:
    """Write the index in a base and read its digits backwards behind the point."""
    digits = []
    while index:
        digits.append(index % base)
        index //= base
    return sum(digit * base ** -(place + 1) for place, digit in enumerate(digits))


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (3, 5), (1, 6), (16, 16)])
def test_the_halton_order_is_that_of_the_first_visits(grid: tuple[int, int]) -> None:
    points = [(mirrored(i, 2), mirrored(i, 3)) for i in range(1, 5000)]
    visits = [int(y * grid[0]) * grid[1] + int(x * grid[1]) for y, x in points]
    order = halton_order(grid).tolist()
    assert sorted(order) == list(range(grid[0] * grid[1]))
    assert order == sorted(order, key=visits.index)


def test_halton_reveals_along_its_order_in_every_row(model: NAT) -> None:
    order = halton_order(GRID).tolist()
    states, _ = play(model, Halton(GRID), steps=4)
    for state in states[1:]:
        for row in range(B):
            count = state.masked_B[row]
            assert masked(state, row, model.mask_id) == sorted(order[12 - count :])


def test_random_orders_are_uniform_and_differ_by_row_and_step() -> None:
    N, L = 4000, 6
    proposal = Proposal(*(torch.zeros(N, L) for _ in range(4)))
    scores = RandomOrder()(proposal, torch.ones(N, 1), HashNoise.from_seed(0, N), 0)
    first = scores.argmax(1).bincount(minlength=L)
    chi_square = ((first - N / L) ** 2 / (N / L)).sum()
    assert chi_square < 20.5, "0.1 % of draws of five degrees of freedom are above"
    again = RandomOrder()(proposal, torch.ones(N, 1), HashNoise.from_seed(0, N), 1)
    assert 0.1 < (scores.argmax(1) == again.argmax(1)).float().mean() < 0.23


@pytest.mark.parametrize("theta", [0.1, 0.25, 0.5])
def test_threshold_reveals_what_is_sure_and_at_least_one(model: NAT, theta: float) -> None:
    states, seen = play(model, Threshold(theta=theta))
    sizes = set()
    for before, after, proposal in zip(states, states[1:], seen, strict=False):
        for row in range(B):
            open_tokens = masked(before, row, model.mask_id)
            if not open_tokens:
                continue
            chance = {token: math.exp(proposal.log_probs_BL[row, token]) for token in open_tokens}
            sure = {token for token in open_tokens if chance[token] >= theta}
            expected = sure or {max(open_tokens, key=chance.__getitem__)}
            assert revealed(before, after, row, model.mask_id) == expected
            sizes.add(len(expected))
    assert len(sizes) > 1, "rows and steps have differed"


@pytest.mark.parametrize("most", [0, 1])
@pytest.mark.parametrize("extra", [0, 1, 3])
def test_sure_reveals_some_uncertain_tokens_beside(model: NAT, extra: int, most: int) -> None:
    states, seen = play(model, Sure(theta=0.3, extra=extra, most=most))
    beside = set()
    for before, after, proposal in zip(states, states[1:], seen, strict=False):
        for row in range(B):
            open_tokens = masked(before, row, model.mask_id)
            chance = {token: math.exp(proposal.log_probs_BL[row, token]) for token in open_tokens}
            unsure = sorted((token for token in open_tokens if chance[token] < 0.3), key=chance.__getitem__)
            sure = set(open_tokens) - set(unsure)
            taken = max(extra, 0 if sure else 1)  # a step reveals something
            chosen = unsure[:taken] if most else unsure[::-1][:taken]
            assert revealed(before, after, row, model.mask_id) == sure | set(chosen)
            beside.add(bool(sure) and bool(chosen))
    assert beside == {True, False} or extra == 0


def test_with_noise_sure_ones_come_first_and_any_of_the_others_beside() -> None:
    N, L = 3000, 6
    chance_L = torch.tensor([0.95, 0.92, 0.3, 0.4, 0.5, 0.6])
    nothing_NL, open_NL = torch.zeros(N, L), torch.ones(N, L, dtype=torch.bool)
    proposal = Proposal(nothing_NL, nothing_NL, chance_L.log().expand(N, L), open_NL)
    for temperature in (9.0, 0.1):
        rule = Sure(extra=1, most=1, noise=temperature)
        scores_NL, masked_N = rule(proposal, torch.zeros(N, 1), HashNoise.from_seed(0, N), 0)
        assert (masked_N == 3).all()
        first_N3 = scores_NL.argsort(dim=1, descending=True)[:, :3]
        assert torch.equal(first_N3[:, :2], torch.tensor([0, 1]).expand(N, 2))
        shares = (first_N3[:, 2].bincount(minlength=L)[2:] / N).tolist()
        assert shares == pytest.approx(torch.softmax(-chance_L[2:] / temperature, 0).tolist(), abs=0.03)


@pytest.mark.parametrize("rule", [Margin(), Entropy()])
def test_margin_and_entropy_reveal_by_their_measure(model: NAT, rule: RevealRule) -> None:
    """With Gumbel noise of the row, as much as the temperature says."""
    _, seen = play(model, rule)
    noise = HashNoise(50 + torch.arange(B))
    for step, proposal in enumerate(seen):
        scores_BL = rule(proposal, torch.full((B, 1), 0.5), noise, step)
        gumbel_BL = noise.gumbel(step, scores_BL.shape[1])
        for row in range(B):
            for token in range(scores_BL.shape[1]):
                shares = sorted(proposal.logits_BLV[row, token].double().softmax(-1).tolist())
                entropy = -sum(share * math.log(share) for share in shares)
                measure = shares[-1] - shares[-2] if isinstance(rule, Margin) else -entropy
                expected = measure + 0.5 * gumbel_BL[row, token].item()
                assert scores_BL[row, token].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sure,theta=0", "theta 0"),
        ("sure,extra=0.5", "extra 0.5"),
        ("sure,most=2", "most 2"),
        ("sure,noise=-1", "noise -1"),
    ],
)
def test_settings_of_sure_are_looked_at(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DecodeRules.of(text, GRID)
    assert DecodeRules.of("sure,extra=2,most=1", GRID).reveal == Sure(extra=2, most=1)


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 2.0])
def test_entropy_bound_reveals_the_longest_allowed_prefix(model: NAT, epsilon: float) -> None:
    states, seen = play(model, EntropyBound(epsilon=epsilon))
    for before, after, proposal in zip(states, states[1:], seen, strict=False):
        for row in range(B):
            open_tokens = masked(before, row, model.mask_id)
            if not open_tokens:
                continue
            shares = proposal.logits_BLV[row].double().softmax(-1)
            entropy = {token: -(shares[token] * shares[token].log()).sum().item() for token in open_tokens}
            rising = sorted(open_tokens, key=entropy.__getitem__)
            longest = 1
            for k in range(1, len(rising) + 1):
                values = [entropy[token] for token in rising[:k]]
                if sum(values) - max(values) <= epsilon:
                    longest = k
            assert revealed(before, after, row, model.mask_id) == set(rising[:longest])


def enat() -> ENAT:
    config = ENATConfig(codebook_size=5, grid=GRID, num_classes=10, width=16, encoder_depth=1, heads=2)
    with seeded(4):
        network = ENAT(config).eval()
        for parameter in network.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return network.requires_grad_(False)


@pytest.mark.parametrize("kind", ["nat", "enat"])
@pytest.mark.parametrize("scale", [0.0, 1.5])
def test_a_finished_row_costs_nothing_and_no_row_feels_another(model: NAT, kind: str, scale: float) -> None:
    """Each row decoded alone gives the same tokens and spends the same passes, which stop when it is done."""
    network = model if kind == "nat" else enat()
    rule = Threshold(theta=0.45)
    states, _ = play(network, rule, scale=scale)
    passes = set()
    for row in range(B):
        alone, _ = play(network, rule, scale=scale, rows=[row])
        assert torch.equal(alone[-1].ids_BL[0], states[-1].ids_BL[row])
        needed = next(k for k, state in enumerate(alone) if state.masked_B[0] == 0)
        expected = needed + (needed - 1) * (scale > 0)
        assert alone[-1].nfe_B[0] == states[-1].nfe_B[row] == expected
        passes.add(expected)
    assert len(passes) > 1


def test_a_rule_cannot_mask_what_is_visible_or_stand_still(model: NAT) -> None:
    def greedy(proposal: Proposal, *_: Any) -> tuple[Tensor, Tensor]:
        return proposal.log_probs_BL, torch.full((len(proposal.drawn_BL),), 99)

    states, _ = play(model, greedy, steps=5)
    assert [state.masked_B.tolist() for state in states] == [[12 - k] * B for k in range(5)] + [[0] * B]
    for before, after in zip(states, states[1:], strict=False):
        visible = before.ids_BL != model.mask_id
        assert torch.equal(after.ids_BL[visible], before.ids_BL[visible])


@pytest.mark.parametrize("theta", [0.0, -1.0, 1.5, math.nan])
def test_no_threshold_outside_its_range(theta: float) -> None:
    with pytest.raises(ValueError, match="theta"):
        Threshold(theta=theta)


@pytest.mark.parametrize("epsilon", [-0.1, math.nan])
def test_no_negative_bound(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        EntropyBound(epsilon=epsilon)
