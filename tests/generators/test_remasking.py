"""Tokens that are masked again: counts and choice by a loop over rows, records by a replay of each row."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from generators import remasking
from generators.conditions import Condition, Labels
from generators.decoding import DecodeState, advance, start
from generators.enat import ENAT, Reuse, enat_digits
from generators.given import Given
from generators.nat import NAT, nat_digits
from generators.noise import HashNoise
from generators.reveal import Proposal, Threshold
from generators.rules import DecodeRules
from generators.schedules import DecodeParams
from rounding import assert_rounded

ROOT = Path(__file__).resolve().parents[2]
B, L, T, MASK = 7, 16, 6, 128
Networks = NAT | ENAT


def spread(model: Networks) -> Any:
    """Weights with nothing at zero and logits that spread as if trained."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


@pytest.fixture(scope="module", params=["nat", "enat", "once"])
def model(request: Any) -> Any:
    if request.param == "nat":
        return spread(NAT(nat_digits()))
    return spread(ENAT(enat_digits(reproject=request.param == "enat")))


def tables(num_rows: int = B) -> Tensor:
    """Decoding parameters (T, B, 4) of each row and step, some without guidance."""
    table = torch.rand(T, num_rows, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    table[..., 2] += 0.5
    table[..., 3] = (3 * table[..., 3] - 1).clamp_min(0)
    return table


def decode(
    model: Any, rules: DecodeRules, rows: list[int], condition: Condition | None = None
) -> list[DecodeState]:
    condition = Labels(torch.arange(B) % 10, 10) if condition is None else condition
    noise = HashNoise(100 + torch.tensor(rows))
    states = [start(model, condition[rows], steps=T)]
    for table_B4 in tables()[:, rows]:
        states.append(advance(model, states[-1], DecodeParams.from_table(table_B4), noise, rules))
    return states


def masked_again(before: DecodeState, after: DecodeState) -> Tensor:
    return (before.ids_BL != MASK) & (after.ids_BL == MASK)


@pytest.mark.parametrize("rule", ["confidence", "threshold,theta=0.02"])
def test_as_many_as_the_rate_says_and_those_that_were_least_sure(model: Any, rule: str) -> None:
    """By a loop over rows that remembers with which probability each token was drawn."""
    rules = DecodeRules.of(f"{rule},remask_rate=0.4", (4, 4))
    states = decode(model, rules, list(range(B)))
    total = 0
    for row in range(B):
        chance: dict[int, float] = {}
        noise = HashNoise(torch.tensor([100 + row]))
        for step in range(T - 1):
            before, after = states[step], states[step + 1]
            masked = set((before.ids_BL[row] == MASK).nonzero()[:, 0].tolist())
            hidden = set((after.ids_BL[row] == MASK).nonzero()[:, 0].tolist())
            again = hidden - masked
            count = int(0.4 * (L - len(masked))) if masked else 0
            if rule == "confidence":
                ratio = float(tables()[step, row, 0])
                count = max(0, min(count, int(ratio * L), L - 1, len(masked) + count - 1))
            elif not hidden & masked:
                count = 0
            assert len(again) == count
            gumbel_L = noise.gumbel(step, L)[0].tolist()
            order = sorted(set(range(L)) - masked, key=lambda token: chance[token] - gumbel_L[token])
            assert again == set(order[:count])
            assert not masked or len(masked - hidden) >= 1, "each step reveals"
            chance |= {token: float(after.log_probs_BL[row, token].exp()) for token in masked - hidden}
            total += count
        assert after.masked_B[row] == len(hidden)
    assert total > B
    assert not (states[-1].ids_BL == MASK).any()


def test_the_draw_is_by_how_unsure_a_token_was() -> None:
    """One of four tokens is masked again with a chance in proportion to exp(-p)."""
    N = 40_000
    chance_L = torch.tensor([0.05, 0.3, 0.9, 1.0])
    ids_BL = torch.zeros(N, 4, dtype=torch.long)
    counts = torch.zeros(N, dtype=torch.long)
    labels = Labels(torch.zeros(N, dtype=torch.long), 10)
    state = DecodeState(
        ids_BL, labels, 1, 4, counts, counts, counts, None, certainty_BL=chance_L.expand(N, 4)
    )
    nothing = torch.zeros(0)
    proposal = Proposal(nothing, nothing, nothing, torch.zeros(N, 4, dtype=torch.bool))
    scores_BL, revealed_BL = remasking.ranked(state, proposal, HashNoise.from_seed(0, N))
    assert revealed_BL.all()
    found = scores_BL.argmin(1).bincount(minlength=4).double()
    expected = (-chance_L.double()).softmax(0) * N
    assert float(((found - expected) ** 2 / expected).sum()) < 16.3  # chi square of 3 degrees, p = .001


def test_without_a_rate_nothing_is_masked_again(model: Any) -> None:
    states = decode(model, DecodeRules(), list(range(B)))
    assert not any(masked_again(*pair).any() for pair in pairwise(states))
    assert all(state.certainty_BL is None for state in states)


def test_what_is_given_stays_and_finished_rows_are_finished(model: Any) -> None:
    given_BL = torch.full((B, L), -1)
    given_BL[:, :4] = torch.arange(4)
    given_BL[0] = torch.arange(L)
    given_BL[0, -1] = -1  # one token to draw: after it there is nothing left
    condition = Given(Labels(torch.arange(B) % 10, 10), given_BL)
    states = decode(model, DecodeRules(remask_rate=0.9), list(range(B)), condition)
    changed = 0
    for before, after in pairwise(states):
        assert torch.equal(after.ids_BL[given_BL >= 0], given_BL[given_BL >= 0])
        finished_B = before.masked_B == 0
        assert torch.equal(after.ids_BL[finished_B], before.ids_BL[finished_B])
        assert torch.equal(after.nfe_B[finished_B], before.nfe_B[finished_B])
        changed += int(masked_again(before, after).sum())
    assert changed > B and (states[1].masked_B[0], states[1].nfe_B[0]) == (0, 1)


def test_rows_don_t_feel_one_another(model: Any) -> None:
    rules = DecodeRules(remask_rate=0.4)
    together = decode(model, rules, list(range(B)))
    for row in range(B):
        for many, one in zip(together, decode(model, rules, [row]), strict=True):
            assert torch.equal(many.ids_BL[row], one.ids_BL[0]) and many.nfe_B[row] == one.nfe_B[0]


@pytest.mark.parametrize("reproject", [True, False], ids=["reproject", "once"])
def test_what_is_masked_again_leaves_the_record_and_is_encoded_anew(reproject: bool) -> None:
    """Each row's chain of passes, replayed alone with records from which the tokens are taken by hand."""
    model = spread(ENAT(enat_digits(reproject=reproject)))
    states = decode(model, DecodeRules(remask_rate=0.5), list(range(B)))
    assert sum(int(masked_again(*pair).sum()) for pair in pairwise(states)) > 2 * B

    def less(cache: Reuse, again_BL: Tensor) -> Reuse:
        visible_BL = cache.visible_BL & ~again_BL
        return Reuse(cache.features_BLD, visible_BL, visible_BL.sum(1))

    for row in range(B):
        condition = Labels(torch.tensor([row % 10]), 10)
        record = free = model(states[0].ids_BL[[row]], condition).cache
        for step in range(T - 2):
            before, after = states[step], states[step + 1]
            if not after.masked_B[row]:  # finished: no more passes
                break
            ids_1L, again_1L = after.ids_BL[[row]], masked_again(before, after)[[row]]
            if step and tables()[step, row, 3] > 0:
                free = model(before.ids_BL[[row]], condition.null(), free).cache
            record, free = less(record, again_1L), less(free, again_1L)
            with torch.no_grad():
                alone = model(ids_1L, condition, record)
            record = alone.cache
            assert after.prediction is not None and after.null_cache is not None
            assert_rounded(after.prediction.features_BLD[row], alone.features_BLD[0])
            assert torch.equal(after.null_cache.visible_BL[row], free.visible_BL[0])
            seen_L = free.visible_BL[0]
            assert_rounded(after.null_cache.features_BLD[row][seen_L], free.features_BLD[0][seen_L])


def test_a_record_that_can_t_forget_is_refused() -> None:
    state = start(spread(ENAT(enat_digits())), Labels(torch.arange(2), 10), steps=3)
    assert state.prediction is not None
    state = replace(state, prediction=state.prediction._replace(cache=("a", "b")), null_cache=None)
    nothing = torch.zeros(2, L)
    proposal = Proposal(nothing, nothing, nothing, nothing.bool())
    with pytest.raises(ValueError, match="tuple has no forget"):
        remasking.remembering(state, proposal, nothing.bool())


def test_the_rate_is_a_setting_of_rules() -> None:
    rules = DecodeRules.of("threshold,theta=0.7,remask_rate=0.25", (4, 4))
    assert rules == DecodeRules(Threshold(0.7), remask_rate=0.25)
    assert DecodeRules.of(rules.text, (4, 4)) == rules
    for rate, said in ((1.5, "a share"), (-0.1, "at least 0"), (float("nan"), "at least 0")):
        with pytest.raises(ValueError, match=said):
            DecodeRules(remask_rate=rate)


PROGRAM = """
from generators.parameters import register
from generators.remasking import RATE
register(RATE)

import numpy as np
import torch
from natgym import DecodeVectorEnv

env = DecodeVectorEnv(20, steps=4)
assert env.single_action_space.shape == (5,)
masked = []
for action in (0.0, 6.0):
    observation, _ = env.reset(seed=0)
    again = 0
    for step in range(3):
        before = env.state.ids_BL
        info = env.step(np.full((20, 5), [0, 0, 0, 0, action], np.float32))[-1]
        again += int(((before < 128) & (env.state.ids_BL == 128)).sum())
    masked.append(again)
    print(again, info["remask_rate"].max())
assert masked[0] == 0 < masked[1], masked
"""


def test_the_rate_is_an_action_where_it_is_registered(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
