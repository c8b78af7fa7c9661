"""Stateless noise: its hash is random enough, draws follow the law, and nothing else decides them."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from generators import noise
from generators.noise import (
    CoupledNoise,
    HashNoise,
    Purpose,
    RecordedNoise,
    derive_seed,
    hash_uniform,
    next_episode,
    seeded,
)

PURPOSES = [Purpose.TOKEN, Purpose.GUMBEL]
SMALLEST, LARGEST = 2.0**-24, 1 - 2.0**-24  # the ends of what 23 bits and half a step give


def rows(count: int, first: int = 0) -> Tensor:
    return first + torch.arange(count)


def fits(counts: Tensor, probabilities: Tensor) -> bool:
    """Chi-square test at 1e-3; rare classes are pooled until 5 are expected."""
    expected = probabilities.double() / probabilities.double().sum() * counts.sum()
    order = expected.argsort()
    expected, counts = expected[order].numpy(), counts[order].numpy()
    pooled = int(np.searchsorted(np.cumsum(expected), 5.0)) + 1
    expected = np.concatenate([[expected[:pooled].sum()], expected[pooled:]])
    counts = np.concatenate([[counts[:pooled].sum()], counts[pooled:]])
    expected *= counts.sum() / expected.sum()
    return len(counts) == 1 or bool(chisquare(counts, expected).pvalue > 1e-3)


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize(
    "values",
    [
        lambda purpose: hash_uniform(rows(50_000), 3, 1, purpose),
        lambda purpose: torch.stack([hash_uniform(rows(1), step, 1, purpose) for step in range(5_000)]),
        lambda purpose: hash_uniform(rows(1), 0, 50_000, purpose),
        lambda purpose: hash_uniform(rows(200, -100), 1, 250, purpose),
        lambda purpose: hash_uniform(rows(2_000) << 32, 1, 25, purpose),
    ],
    ids=["rows", "steps", "tokens", "around zero", "high bits"],
)
def test_uniforms_are_uniform(values: object, purpose: Purpose) -> None:
    """Equally many in each of 64 bins, and in each of 64 bins of the low-order bits."""
    uniform = values(purpose).flatten().double()  # type: ignore[operator]
    for part in (uniform, (uniform * 2**17) % 1):
        counts = (part * 64).long().bincount(minlength=64)
        assert fits(counts, torch.ones(64))


def test_neighbours_are_uncorrelated() -> None:
    """Seeds, steps, tokens and purposes next to each other, and one row's successive episodes."""
    base = hash_uniform(rows(400), 2, 250, Purpose.TOKEN)
    others = {
        "seed": hash_uniform(rows(400, 1), 2, 250, Purpose.TOKEN),
        "step": hash_uniform(rows(400), 3, 250, Purpose.TOKEN),
        "purpose": hash_uniform(rows(400), 2, 250, Purpose.GUMBEL),
        "next step's other purpose": hash_uniform(rows(400), 3, 250, Purpose.GUMBEL),
        "token": base.roll(1, 1),
        "seed and token": hash_uniform(rows(400, 1), 2, 250, Purpose.TOKEN).roll(1, 1),
        "episode": hash_uniform(next_episode(rows(400), 1), 2, 250, Purpose.TOKEN),
        "later episode": hash_uniform(next_episode(rows(400), 2), 2, 250, Purpose.TOKEN),
        "negated seed": hash_uniform(-rows(400, 1), 2, 250, Purpose.TOKEN),
    }
    for name, other in others.items():
        correlation = torch.corrcoef(torch.stack([base.flatten(), other.flatten()]))[0, 1]
        assert abs(float(correlation)) < 5 / math.sqrt(base.numel()), name
        assert int((base == other).sum()) < 10, name  # 0.01 expected of 2^23 values


def test_no_two_numbers_share_their_input() -> None:
    """Over many rows, steps and tokens, repeated values are as rare as chance makes them."""
    values = torch.cat([hash_uniform(rows(20, -10), step, 64, p) for step in range(40) for p in Purpose])
    repeated = values.numel() - values.unique().numel()
    expected = values.numel() ** 2 / 2**24  # pairs times 2^-23
    assert abs(repeated - expected) < 6 * math.sqrt(expected)


@pytest.mark.parametrize(
    ("bits", "expected"), [(-(2**63), SMALLEST), (2**63 - 1, LARGEST), (0, 0.5 + SMALLEST)]
)
def test_the_interval_is_open(monkeypatch: pytest.MonkeyPatch, bits: int, expected: float) -> None:
    """The most extreme hash values still give a number in (0, 1), a finite Gumbel and a valid code."""
    monkeypatch.setattr(noise, "mix", lambda x: torch.full_like(x, bits))
    source = HashNoise.from_seed(0, 2)
    assert hash_uniform(rows(2), 0, 3, Purpose.TOKEN).unique().tolist() == [expected]
    assert source.gumbel(0, 3).isfinite().all()
    logits_BLV = torch.tensor([-torch.inf, 1.0, 0.0, -torch.inf]).expand(2, 3, 4)
    likely, less_likely = 1, 2
    assert source.categorical(logits_BLV, 0).unique().tolist() == [less_likely if expected > 0.75 else likely]


def test_rounding_pushes_no_draw_past_the_last_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 probabilities may sum to less than 1; the largest uniform has to stay inside even then."""
    monkeypatch.setattr(noise, "hash_uniform", lambda rows_B, _, L, __: torch.full((len(rows_B), L), LARGEST))
    logits_BLV = torch.randn(16, 8, 1000, generator=torch.Generator().manual_seed(0))
    logits_BLV[..., 990:] = -torch.inf
    assert (logits_BLV.softmax(-1).cumsum(-1)[..., -1] < LARGEST).any()
    assert HashNoise.from_seed(0, 16).categorical(logits_BLV, 0).max() < 990


def test_draws_and_gumbels_of_all_steps_are_independent() -> None:
    source, flat_BLV = HashNoise.from_seed(0, 300), torch.zeros(300, 300, 64)
    streams = [source.categorical(flat_BLV, step).float() for step in (0, 1)]
    streams += [source.gumbel(step, 300) for step in (0, 1)]
    correlations = torch.corrcoef(torch.stack([stream.flatten() for stream in streams])) - torch.eye(4)
    assert correlations.abs().max() < 5 / 300


def test_extremes_in_a_long_stream() -> None:
    uniform = hash_uniform(rows(1000), 0, 1000, Purpose.GUMBEL)
    assert uniform.dtype == torch.float32 and 0 < uniform.min() < 1e-5 and 1 - 1e-5 < uniform.max() < 1


def draw(
    logits_V: Tensor, num_rows: int, num_tokens: int, step: int = 0, kind: type[HashNoise] = HashNoise
) -> Tensor:
    logits_BLV = logits_V.expand(num_rows, num_tokens, -1)
    return kind.from_seed(17, num_rows).categorical(logits_BLV, step)


LAWS = {
    "flat": torch.zeros(8),
    "two": torch.tensor([0.0, 2.0]),
    "one": torch.zeros(1),
    "peaked": torch.tensor([12.0, 0.0, 1.0, 2.0, 3.0, -1.0, 0.5, 5.0]),
    "rare last": torch.tensor([1.0 - 3e-5, 1e-5, 1e-5, 1e-5]).log(),
    "rare first": torch.tensor([1e-5, 1e-5, 1e-5, 1.0 - 3e-5]).log(),
    "holes": torch.tensor([-math.inf, 0.0, -math.inf, -math.inf, 1.0, 2.0, -math.inf]),
    "shifted": torch.tensor([1e4, 1e4 + 1, 1e4 - 2]),
}


@pytest.mark.parametrize("kind", [HashNoise, CoupledNoise])
@pytest.mark.parametrize("name", LAWS)
def test_draws_follow_the_softmax(name: str, kind: type[HashNoise]) -> None:
    """A million draws; a code of probability zero never comes."""
    logits_V = LAWS[name]
    counts = draw(logits_V, 1000, 1000, kind=kind).flatten().bincount(minlength=len(logits_V))
    law = logits_V.double().softmax(0)
    assert len(counts) == len(logits_V) and (counts[law == 0] == 0).all()
    assert fits(counts[law > 0], law[law > 0])


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_draws_follow_the_softmax_over_a_whole_codebook(spread: float) -> None:
    """1,024 codes, some of which have probabilities below 1e-5, some none at all."""
    logits_V = spread * torch.randn(1024, generator=torch.Generator().manual_seed(0))
    logits_V[::7] = -math.inf
    drawn = torch.cat([draw(logits_V, 64, 64, step) for step in range(30)])
    counts, law = drawn.flatten().bincount(minlength=1024), logits_V.double().softmax(0)
    assert (counts[law == 0] == 0).all() and fits(counts[law > 0], law[law > 0])


def test_coupled_draws_of_all_steps_are_independent() -> None:
    source, flat_BLV = CoupledNoise.from_seed(0, 300), torch.zeros(300, 300, 8)
    streams = torch.stack([source.categorical(flat_BLV, step).float().flatten() for step in (0, 1)])
    assert torch.corrcoef(streams)[0, 1].abs() < 5 / 300
    alone = source[torch.tensor([7])].categorical(flat_BLV[:1], 1)
    assert torch.equal(alone[0], source.categorical(flat_BLV, 1)[7])


def test_coupled_draws_move_less_with_the_temperature() -> None:
    """No coupling of two distributions moves less than their total variation; Gumbel-max comes near."""
    logits_V = torch.randn(64, generator=torch.Generator().manual_seed(0))
    near_V = logits_V / 1.1
    moved = {}
    for kind in (HashNoise, CoupledNoise):
        pair = draw(logits_V, 100, 100, kind=kind), draw(near_V, 100, 100, kind=kind)
        moved[kind] = (pair[0] != pair[1]).double().mean().item()
    variation = (logits_V.softmax(0) - near_V.softmax(0)).abs().sum().item() / 2
    assert 0.8 * variation < moved[CoupledNoise] < 2 * variation
    assert moved[HashNoise] > 3 * moved[CoupledNoise]


def test_rows_of_a_group_share_their_noise() -> None:
    grouped, alone = HashNoise.from_seed(5, 12, group=4), HashNoise.from_seed(5, 3)
    assert torch.equal(grouped.gumbel(1, 9), alone.gumbel(1, 9).repeat_interleave(4, 0))


def test_gumbel_moments() -> None:
    values = HashNoise.from_seed(3, 1000).gumbel(1, 1000).double()
    assert abs(float(values.mean()) - np.euler_gamma) < 5 * math.pi / math.sqrt(6 * values.numel())
    # The fourth central moment of the law is 27/5 of the squared variance.
    variance, spread = math.pi**2 / 6, math.sqrt((5.4 - 1) / values.numel())
    assert abs(float(values.var()) / variance - 1) < 5 * spread


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**62, 2**63 - 1, 2**63 + 5, 2**64 + 7, 3 * 10**30])
def test_any_integer_is_a_seed(seed: int) -> None:
    """Also where seed + row passes the end of int64."""
    values = HashNoise.from_seed(seed, 100).gumbel(0, 100)
    assert values.isfinite().all() and values.unique().numel() > 9_900
    assert not torch.equal(values, HashNoise.from_seed(seed + 1, 100).gumbel(0, 100))


def test_a_row_has_its_noise_alone_or_in_a_batch() -> None:
    """Bit for bit, whatever the batch and however many tokens are asked for."""
    whole, order = HashNoise.from_seed(5, 12), torch.tensor([7, 0, 3])
    logits_BLV = torch.randn(12, 9, 30, generator=torch.Generator().manual_seed(1))
    for index in (slice(4, 5), slice(2, 9), order):
        part = whole[index]
        assert torch.equal(part.gumbel(2, 9), whole.gumbel(2, 9)[index])
        assert torch.equal(part.categorical(logits_BLV[index], 2), whole.categorical(logits_BLV, 2)[index])
    assert torch.equal(whole.gumbel(2, 4), whole.gumbel(2, 9)[:, :4])
    assert torch.equal(HashNoise.from_seed(8, 1).gumbel(2, 9), whole.gumbel(2, 9)[3:4]), "row i has seed + i"


def test_the_hash_never_changes() -> None:
    """Published numbers depend on these, and so does every comparison on the same noise."""
    values = hash_uniform(torch.tensor([0, -7, 2**40]), 5, 3, Purpose.GUMBEL)
    assert (values * 2**24).long().tolist() == [
        [7596591, 6504209, 2650927],
        [10386961, 13971853, 4971639],
        [6761885, 4824233, 8806553],
    ]
    assert next_episode(torch.tensor([0, 1]), 3).tolist() == [-7139356981108613887, 9072880683267609038]
    assert derive_seed(0, 12, "batch") == 3661335067214999574


def test_a_new_purpose_changes_no_other() -> None:
    """Purposes fit into the room the hash leaves between two steps."""
    assert all(0 < purpose < noise._PURPOSES for purpose in Purpose)


def test_seeded_blocks_repeat_and_leave_the_global_state_alone() -> None:
    before, drawn = torch.get_rng_state(), []
    for seed in (3, 3, 2**62 - 1):
        with pytest.raises(KeyError), seeded(seed):
            drawn.append(torch.rand(4).tolist())
            raise KeyError  # put back on the way out of an error, too
    assert drawn[0] == drawn[1] != drawn[2] and torch.equal(torch.get_rng_state(), before)


def test_episodes_of_a_row() -> None:
    seeds = rows(50)
    assert torch.equal(next_episode(seeds, 0), seeds)
    later = torch.cat([next_episode(seeds, episode) for episode in range(200)])
    assert later.unique().numel() == later.numel(), "no episode of a row is one of another row"


def test_derived_seeds_differ_by_every_part() -> None:
    variants = [
        (0, 1, "a"),
        (1, 0, "a"),
        (0, 1, "b"),
        (0, 1),
        (0, "1", "a"),
        (0, 1, "a", 0),
        (-1, 1, "a"),
        ("0, 1",),
    ]
    variants += [(update, purpose) for update in range(100) for purpose in ("batch", "dropout")]
    seeds = [derive_seed(*parts) for parts in variants]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**62 for seed in seeds)
    assert derive_seed(np.int64(3), "a") == derive_seed(3, "a"), "the integer counts, not its type"


def test_recorded_noise_replays() -> None:
    logits_BLV = torch.tensor([[[0.0, 1.0, 3.0]]]).expand(2, 4, 3)
    assert RecordedNoise().categorical(logits_BLV, 0).eq(2).all() and RecordedNoise().gumbel(0, 4) == 0
    codes_TBL, gumbel_TBL = torch.tensor([[0], [1]])[..., None].expand(2, 2, 4), torch.randn(2, 2, 4)
    recorded = RecordedNoise(100.0 * torch.nn.functional.one_hot(codes_TBL, 3), gumbel_TBL)
    for step in range(2):
        assert torch.equal(recorded.categorical(logits_BLV, step), codes_TBL[step])
        assert torch.equal(recorded.gumbel(step, 4), gumbel_TBL[step])
