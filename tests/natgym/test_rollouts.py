"""Rollouts: the same pictures however the work is cut, and a frame whose books balance."""

from typing import Any

import numpy as np
import pytest
import torch

from agents.fixed import FixedPolicy
from generators.conditions import Labels
from generators.decoding import GUIDANCE_FLOOR
from generators.schedules import PARAMETERS, DecodeParams, reference
from natgym.env import Observation
from natgym.rollouts import Rollout, balanced, rollout

N = 23


class Jumpy:
    """A policy that answers to what it sees: every row gets parameters of its own, some are not guided."""

    steps = 4

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        assert observation["step"].tolist() == [[step]] * len(observation["step"])
        seen_B = observation["features"][:, 0, 0].double() + observation["masked"].double().mean(1)
        columns = seen_B.sigmoid(), seen_B.abs(), 0.5 + seen_B.sigmoid(), (seen_B - 1).clamp_min(0)
        return DecodeParams.from_table(torch.stack(columns, dim=-1))


@pytest.fixture(scope="module")
def drawn(digits: Any) -> Rollout:
    return draw(digits)


def draw(digits: Any, policy: Any = None, rows: int = N, **options: Any) -> Rollout:
    condition = balanced(digits.generator.conditions(), rows)
    arguments = {"seed": 5} | options
    return rollout(policy or Jumpy(), digits.generator, digits.tokenizer, condition, **arguments)


@pytest.mark.parametrize("batch_size", [1, 4, 23, 1000])
@pytest.mark.parametrize("threads", [1, 2])
def test_batches_and_threads_change_nothing(
    batch_size: int, threads: int, digits: Any, drawn: Rollout
) -> None:
    counted: list[int] = []
    other = draw(digits, batch_size=batch_size, threads=threads, progress=counted.append)
    assert sum(counted) == N and max(counted) == min(batch_size, N)
    assert torch.equal(other.tokens_NL, drawn.tokens_NL) and torch.equal(other.images_NCHW, drawn.images_NCHW)
    assert other.nfe_N.tolist() == drawn.nfe_N.tolist()
    by = ["sample", "step"]
    ours, theirs = (played.frame.sort_values(by).reset_index(drop=True) for played in (other, drawn))
    exact = ["sample", "condition", "step", "masked_before", "masked_after", "nfe"]
    assert ours[exact].equals(theirs[exact])
    np.testing.assert_allclose(ours[list(PARAMETERS)], theirs[list(PARAMETERS)], atol=1e-5)


def test_rows_follow_from_seed_plus_row_and_condition(digits: Any, drawn: Rollout) -> None:
    for row in (0, 7, 22):
        condition = Labels(torch.tensor([row % 10]), 10)
        alone = rollout(Jumpy(), digits.generator, digits.tokenizer, condition, seed=5 + row)
        assert torch.equal(alone.tokens_NL[0], drawn.tokens_NL[row])
    assert not torch.equal(draw(digits, seed=6).tokens_NL, drawn.tokens_NL)


def test_pictures_are_the_decoded_tokens(digits: Any, drawn: Rollout) -> None:
    assert drawn.tokens_NL.shape == (N, 16) and drawn.tokens_NL.max() < digits.generator.codebook_size
    assert torch.equal(drawn.images_NCHW, digits.tokenizer.decode(drawn.tokens_NL))


def test_the_frame_has_a_row_per_sample_and_step_and_its_books_balance(drawn: Rollout) -> None:
    frame, T = drawn.frame, Jumpy.steps
    assert len(frame) == N * T
    assert list(frame) == ["sample", "condition", "step", *PARAMETERS, "masked_before", "masked_after", "nfe"]
    for sample, own in frame.groupby("sample"):
        own = own.sort_values("step")
        assert own["step"].tolist() == list(range(T))
        assert set(own["condition"]) == {str(sample % 10)}
        before, after = own["masked_before"].tolist(), own["masked_after"].tolist()
        assert before == [16, *after[:-1]] and after[-1] == 0
        assert all(a < b or b == 0 for a, b in zip(after, before, strict=True))
        # One pass at the start and one more per step but the last; a guided step costs another, but for the
        # first, whose unconditional pass serves all rows.
        guided = (own["guidance_scale"] > GUIDANCE_FLOOR).tolist()
        passes = [1 + min(k + 1, T - 1) + sum(guided[1 : k + 1]) for k in range(T)]
        assert own["nfe"].tolist() == passes
        assert drawn.nfe_N[sample] == passes[-1]
    assert 0 < (frame["guidance_scale"] > GUIDANCE_FLOOR).mean() < 1, "both kinds of rows have been seen"


def test_the_books_balance_when_a_step_may_reveal_nothing(digits: Any) -> None:
    schedule = reference(6)
    schedule.table_T4[:, 0] = torch.tensor([0.9, 0.9, 1.0, 0.5, 0.5, 0.7])
    frame = draw(digits, FixedPolicy(schedule), min_reveal=0).frame
    for _, own in frame.groupby("sample"):
        assert own.sort_values("step")["masked_after"].tolist() == [14, 14, 14, 8, 8, 0]
    frame = draw(digits, FixedPolicy(schedule), min_reveal=1).frame
    for _, own in frame.groupby("sample"):
        assert own.sort_values("step")["masked_after"].tolist() == [14, 13, 12, 8, 7, 0]


@pytest.mark.parametrize("steps", [1, 4])
def test_a_schedule_is_played_to_the_digit(steps: int, digits: Any) -> None:
    schedule = reference(steps)
    frame = draw(digits, FixedPolicy(schedule)).frame
    for step, row_4 in enumerate(schedule.table_T4.numpy()):
        played = frame.loc[frame["step"] == step, list(PARAMETERS)].to_numpy()
        assert len(played) == N and (played == row_4).all()


@pytest.mark.parametrize("rows", [1, 10, 23])
def test_balanced_takes_the_pool_in_turn(rows: int) -> None:
    pool = Labels(torch.tensor([4, 2, 9]), 10)
    assert balanced(pool, rows).ids_B.tolist() == [[4, 2, 9][i % 3] for i in range(rows)]
