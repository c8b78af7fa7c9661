"""Rollouts: the same images however the work is cut, and a frame whose books balance."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from generators.conditions import Condition, Labels
from generators.decoding import advance, start
from generators.noise import HashNoise
from generators.rules import GUIDANCE_FLOOR, DecodeRules
from generators.schedules import PARAMETERS, DecodeParams, reference
from natgym.env.vector import DecodeVectorEnv, Observation
from natgym.evaluation.evaluator import Evaluator
from natgym.policies import FixedPolicy
from natgym.rewards import make_reward
from natgym.rollouts import ACTIONS, Decision, Rollout, balanced, rollout
from natgym.task import Task
from rounding import assert_rounded

N = 23


class Jumpy:
    """A policy that answers to what it sees: every row gets parameters of its own, some are not guided."""

    steps = 4

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        assert observation["step"].tolist() == [[step]] * len(observation["step"])
        seen_B = observation["features"][:, 0, 0].double() + observation["masked"].double().mean(1)
        columns = seen_B.sigmoid(), seen_B.abs(), 0.5 + seen_B.sigmoid(), (seen_B - 1).clamp_min(0)
        return DecodeParams.from_table(torch.stack(columns, dim=-1))


def sum_of_pixels(images_BCHW: Tensor, condition: Condition) -> Tensor:
    return images_BCHW.sum((1, 2, 3))


@pytest.fixture(scope="module")
def drawn(digits: Any) -> Rollout:
    return draw(digits)


def draw(digits: Any, policy: Any = None, rows: int = N, **options: Any) -> Rollout:
    condition = balanced(digits.generator.conditions(), rows)
    arguments = {"seed": 5} | options
    return rollout(policy or Jumpy(), digits.generator, digits.tokenizer, condition, **arguments)


@pytest.mark.parametrize("batch_size", [1, 4, 23, 1000])
@pytest.mark.parametrize("threads", [1, 2])
def test_batches_and_threads_change_nothing(batch_size: int, threads: int, digits: Any) -> None:
    counted: list[int] = []
    told = {"statistics": True, "trail": True, "reward": sum_of_pixels}
    drawn = draw(digits, **told)
    other = draw(digits, batch_size=batch_size, threads=threads, progress=counted.append, **told)
    assert sum(counted) == N and max(counted) == min(batch_size, N)
    assert torch.equal(other.tokens_NL, drawn.tokens_NL) and torch.equal(other.images_NCHW, drawn.images_NCHW)
    assert other.nfe_N.tolist() == drawn.nfe_N.tolist()
    by = ["sample", "step"]
    ours, theirs = (played.frame.sort_values(by).reset_index(drop=True) for played in (other, drawn))
    assert torch.equal(other.revealed_at_NL, drawn.revealed_at_NL)
    assert torch.equal(other.ids_TNL, drawn.ids_TNL)
    exact = ["sample", "condition", "step", "masked_before", "masked_after", "nfe"]
    assert ours[exact].equals(theirs[exact])
    close = [*PARAMETERS, "confidence", "entropy", "reward"]
    assert_rounded(ours[close].to_numpy(), theirs[close].to_numpy())


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
    counts = ["masked_before", "masked_after", "nfe"]
    assert list(frame) == ["sample", "condition", "kind", "step", *ACTIONS, *PARAMETERS, *counts, "value"]
    assert frame[[*ACTIONS, "value"]].isna().all(axis=None), "Jumpy has no action and no critic"
    for sample, own in frame.groupby("sample"):
        own = own.sort_values("step")
        assert own["step"].tolist() == list(range(T))
        assert set(own["condition"]) == set(own["kind"]) == {str(sample % 10)}
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


def test_every_token_knows_the_step_that_revealed_it(digits: Any) -> None:
    drawn = draw(digits, trail=True)
    assert drawn.ids_TNL.shape == (4, N, 16) and drawn.revealed_at_NL.shape == (N, 16)
    assert torch.equal(drawn.ids_TNL[-1], drawn.tokens_NL)
    for sample in range(N):
        for token, step in enumerate(drawn.revealed_at_NL[sample].tolist()):
            history = drawn.ids_TNL[:, sample, token].tolist()
            assert history == [128] * step + [drawn.tokens_NL[sample, token].item()] * (4 - step)
        own = drawn.frame[drawn.frame["sample"] == sample]
        revealed = np.bincount(drawn.revealed_at_NL[sample], minlength=4).tolist()
        assert revealed == (own["masked_before"] - own["masked_after"]).tolist()
    assert draw(digits).ids_TNL is None


def test_confidence_and_entropy_are_those_of_the_revealed_tokens(digits: Any) -> None:
    """Each sample alone, each token from the guided logits themselves; some steps reveal nothing."""
    frame = draw(digits, rows=5, statistics=True, rules=DecodeRules(min_reveal=0)).frame.set_index(
        ["sample", "step"]
    )
    assert not {"confidence", "entropy"} & set(draw(digits).frame)
    empty = 0
    for sample in range(5):
        condition, noise = Labels(torch.tensor([sample]), 10), HashNoise(torch.tensor([5 + sample]))
        state = start(digits.generator, condition, steps=4)
        for step in range(4):
            row = frame.loc[(sample, step)]
            params = DecodeParams.from_table(torch.tensor([row[list(PARAMETERS)].tolist()]).double())
            after = advance(digits.generator, state, params, noise, DecodeRules(min_reveal=0))
            null = digits.generator(state.ids_BL, condition.null()).logits_BLV
            logits_BLV, scale = state.prediction.logits_BLV, row["guidance_scale"]
            if scale > GUIDANCE_FLOOR:
                logits_BLV = logits_BLV + scale * (logits_BLV - null)
            revealed = (state.ids_BL != after.ids_BL)[0].nonzero()[:, 0].tolist()
            laws = [torch.distributions.Categorical(logits=logits_BLV[0, token]) for token in revealed]
            confidences = [
                law.log_prob(after.ids_BL[0, token]).item() for law, token in zip(laws, revealed, strict=True)
            ]
            if revealed:
                assert row["confidence"] == pytest.approx(np.mean(confidences), abs=1e-4)
                assert row["entropy"] == pytest.approx(np.mean([law.entropy() for law in laws]), abs=1e-4)
            else:
                empty += 1
                assert np.isnan(row["confidence"]) and np.isnan(row["entropy"])
            state = after
    assert empty, "a step without a revealed token has been seen"


def test_statistics_and_trails_change_no_picture(digits: Any, drawn: Rollout) -> None:
    told = draw(digits, statistics=True, trail=True, reward=sum_of_pixels)
    assert torch.equal(told.tokens_NL, drawn.tokens_NL) and told.nfe_N.tolist() == drawn.nfe_N.tolist()


def test_the_reward_stands_at_the_last_step(digits: Any, drawn: Rollout) -> None:
    frame = draw(digits, reward=sum_of_pixels).frame
    assert "reward" not in drawn.frame
    assert not frame.loc[frame["step"] < 3, "reward"].any()
    last = frame.loc[frame["step"] == 3].set_index("sample")["reward"]
    for sample, image in enumerate(drawn.images_NCHW):
        assert last[sample] == pytest.approx(image.sum().item(), rel=1e-5)


class Telling(Jumpy):
    """A policy with two actions, a critic and a memory."""

    def decide(self, observation: Observation, step: int) -> Decision:
        B = len(observation["step"])
        assert ("previous_action" in observation) == (step > 0)
        before_B2 = observation.get("previous_action", torch.zeros(B, 2))
        assert (before_B2 == step).all()
        action_B4 = torch.full((B, 4), torch.nan)
        action_B4[:, 0], action_B4[:, 3] = 10 * step + torch.arange(B), -1.0
        return Decision(self(observation, step), action_B4, torch.full((B,), 0.5 + step), before_B2 + 1)


def test_a_policy_may_tell_action_value_and_what_it_remembers(digits: Any, drawn: Rollout) -> None:
    told = draw(digits, Telling())
    assert torch.equal(told.tokens_NL, drawn.tokens_NL)
    frame = told.frame
    assert (frame["action_mask_ratio"] == 10 * frame["step"] + frame["sample"]).all()
    assert (frame["action_guidance_scale"] == -1).all()
    assert frame[["action_remask_temperature", "action_sampling_temperature"]].isna().all(axis=None)
    assert (frame["value"] == 0.5 + frame["step"]).all()


def test_the_books_balance_when_a_step_may_reveal_nothing(digits: Any) -> None:
    schedule = reference(6)
    schedule.table_T4[:, 0] = torch.tensor([0.9, 0.9, 1.0, 0.5, 0.5, 0.7])
    frame = draw(digits, FixedPolicy(schedule), rules=DecodeRules(min_reveal=0)).frame
    for _, own in frame.groupby("sample"):
        assert own.sort_values("step")["masked_after"].tolist() == [14, 14, 14, 8, 8, 0]
    frame = draw(digits, FixedPolicy(schedule), rules=DecodeRules(min_reveal=1)).frame
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


def test_a_generator_that_is_broken_in_memory_draws_nothing(digits: Any) -> None:
    """One weight that is not a number would give images and a table all the same."""
    broken = copy.deepcopy(digits.generator)
    broken.token_embedding.norm.bias.data[0] = torch.nan
    task = digits.like(generator=broken)
    with pytest.raises(ValueError, match="the generator predicts NaN or infinity before the first step"):
        rollout(FixedPolicy(reference(2)), task, num_images=3, seed=0)
    env = DecodeVectorEnv(4, task=task, steps=2, reward="classifier")
    with pytest.raises(ValueError, match="the generator predicts NaN or infinity before the first step"):
        env.reset(seed=0)


def above_the_mean(images_BCHW: Tensor, condition: Condition) -> list[float]:
    """A reward that compares images, and says a list."""
    ink_B = images_BCHW.mean((1, 2, 3)).double()
    return (ink_B - ink_B.mean()).tolist()


above_the_mean.needs_batch = True  # type: ignore[attr-defined]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_reward_that_compares_images_sees_all_of_them(digits: Any, drawn: Rollout, threads: int) -> None:
    found = draw(digits, reward=above_the_mean, batch_size=11, threads=threads)
    ink = [image.double().mean().item() for image in drawn.images_NCHW]
    frame = found.frame
    last = frame.loc[frame["step"] == 3, "reward"]
    assert last.tolist() == pytest.approx([one - sum(ink) / N for one in ink], abs=1e-6)
    assert not frame.loc[frame["step"] < 3, "reward"].any()
    influence = make_reward("influence", digits)
    assert draw(digits, reward=influence, batch_size=N - 1).frame["reward"].any(), "the last batch is of one"


def test_a_reward_has_to_say_a_number_for_each_image(digits: Any, drawn: Rollout) -> None:
    said = draw(digits, reward=lambda images, condition: images.mean((1, 2, 3)).numpy()).frame["reward"]
    assert said[3 :: Jumpy.steps].any()
    for reward, wrong in (
        (lambda images, condition: images.mean((1, 2, 3)) * torch.nan, "the reward of row 0 is nan"),
        (lambda images, condition: images.mean(), r"the reward has shape \(\)"),
    ):
        with pytest.raises(ValueError, match=wrong):
            draw(digits, reward=reward)


def test_a_generator_on_another_tokenizer_is_refused(digits: Any) -> None:
    other = Task.load("mnist").tokenizer
    with pytest.raises(ValueError, match=r"generator has \(128, \(4, 4\)\), the tokenizer \(256, \(7, 7\)\)"):
        rollout("reference", digits.generator, other, digits.generator.conditions(), seed=0)
    with pytest.raises(ValueError, match="use a pair"):
        Evaluator(digits.like(tokenizer=other))
