"""Families of schedules: each curve against its published formula in plain Python; names with settings."""

import math
from typing import Any

import pytest
import torch

from generators.families import GUIDANCES, PRESETS, RATIOS, parse, table
from generators.schedules import FAMILIES, Schedule, as_schedule, family, reference


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def binomial_tail(r: float, a: int, b: int) -> float:
    """F(r) of Beta(a, b) for whole a, b: at least a successes in a + b - 1 trials."""
    n = a + b - 1
    return sum(math.comb(n, i) * r**i * (1 - r) ** (n - i) for i in range(a, n + 1))


RATIO_FORMULAS: dict[str, Any] = {
    "cosine": lambda r: math.cos(math.pi * r / 2),
    "linear": lambda r: 1 - r,
    "square": lambda r: 1 - r * r,
    "root": lambda r: 1 - math.sqrt(r),
    "pow": lambda r: 1 - r**2.5,
    "pow:k=3": lambda r: 1 - r**3,
    "arccos": lambda r: math.acos(r) / (math.pi / 2),
    "exp": lambda r: 1 - 2 ** (-math.log2(256) * (1 - r)),
    "exp:tokens=49": lambda r: 1 - 2 ** (-math.log2(49) * (1 - r)),
    "log": lambda r: min(1, -math.log2(r) / math.log2(256)),
    "log:tokens=16": lambda r: min(1, -math.log2(r) / math.log2(16)),
    "sigmoid": lambda r: (logistic(3) - logistic(-3 + 6 * r)) / (logistic(3) - logistic(-3)),
    "sigmoid:low=0,high=4,tau=.5": lambda r: (logistic(8) - logistic(8 * r)) / (logistic(8) - 0.5),
    "beta-cdf": lambda r: 1 - binomial_tail(r, 2, 2),
    "beta-cdf:a=2,b=3": lambda r: 1 - binomial_tail(r, 2, 3),
    "beta-cdf:a=1,b=1": lambda r: 1 - r,
}


@pytest.mark.parametrize("spec", RATIO_FORMULAS)
@pytest.mark.parametrize("steps", [1, 3, 8, 64])
def test_mask_ratios_follow_their_formulas(spec: str, steps: int) -> None:
    ratios = family(spec, steps).table_T4[:, 0]
    expected = [RATIO_FORMULAS[spec]((k + 1 - 0.001) / steps) for k in range(steps)]
    assert ratios.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert bool((ratios.diff() <= 0).all()), "never more masked than before"


def test_every_family_has_a_formula() -> None:
    assert {spec.partition(":")[0] for spec in RATIO_FORMULAS} == set(RATIOS)
    assert set(FAMILIES) == set(RATIOS) | set(PRESETS)


GUIDANCE_FORMULAS: dict[str, Any] = {
    "": lambda s: s,
    "w=2.5": lambda s: 2.5 * s,
    "guidance=constant": lambda s: 1.0,
    "guidance=constant,w=.5": lambda s: 0.5,
    "guidance=interval": lambda s: 1.0 if 0.3 <= s <= 0.8 else 0.0,
    "guidance=interval,w=3,start=0.5,end=1": lambda s: 3.0 if s >= 0.5 else 0.0,
    "guidance=power-cosine,w=4": lambda s: 2 * (1 - math.cos(math.pi * s**3)),
    "guidance=power-cosine,power=1": lambda s: 0.5 * (1 - math.cos(math.pi * s)),
}


@pytest.mark.parametrize("settings", GUIDANCE_FORMULAS)
@pytest.mark.parametrize("steps", [1, 4, 15])
def test_guidance_follows_its_formula(settings: str, steps: int) -> None:
    found = family(f"linear:{settings}", steps).table_T4[:, 3].tolist()
    expected = [GUIDANCE_FORMULAS[settings]((k + 0.001) / steps) for k in range(steps)]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_every_guidance_has_a_formula() -> None:
    named = {item.removeprefix("guidance=").split(",")[0] for item in GUIDANCE_FORMULAS if "guidance" in item}
    assert named | {"ramp"} == set(GUIDANCES)


def test_temperatures_are_linear_between_two_numbers() -> None:
    found = family("linear:remask=9~1,sampling=1.3~0.5", 5).table_T4
    for k, row in enumerate(found.tolist()):
        left = 1 - (k + 1 - 0.001) / 5
        assert row[1:3] == pytest.approx([1 + 8 * left, 0.5 + 0.8 * left])
    single = family("linear:remask=9,sampling=0.7", 5).table_T4
    assert single[:, 2].tolist() == [0.7] * 5, "a single sampling temperature stays"
    assert single[:, 1].tolist() == pytest.approx([9 * (1 - (k + 1 - 0.001) / 5) for k in range(5)])


@pytest.mark.parametrize("steps", [*range(1, 17), 32, 64])
def test_the_first_families_keep_their_numbers_to_the_last_bit(steps: int) -> None:
    k = torch.arange(steps, dtype=torch.float64)
    r = (k + 1 - 1e-3) / steps
    for name, remask, guidance in (
        ("reference", 1.0, 1.0),
        ("maskgit", 4.5, 1.0),
        ("random-order", 15.0, 0.0),
    ):
        columns = (
            torch.cos(math.pi / 2 * r),
            remask * (1 - r),
            torch.ones_like(r),
            guidance * (k + 1e-3) / steps,
        )
        assert torch.equal(family(name, steps).table_T4, torch.stack(columns, -1))
    assert torch.equal(family("cosine", steps).table_T4, reference(steps).table_T4)


def test_a_preset_takes_settings_too() -> None:
    changed = as_schedule("maskgit:w=3,sampling=0.9", 6)
    assert changed.name == "maskgit:w=3,sampling=0.9"
    expected = reference(6, remask=4.5, sampling=0.9, guidance=3.0).table_T4
    torch.testing.assert_close(changed.table_T4, expected, rtol=1e-15, atol=0)
    assert torch.equal(as_schedule("linear:", 6).table_T4, family("linear", 6).table_T4)


def test_a_schedule_can_be_made_of_any_curves() -> None:
    made = Schedule(table(3, lambda r: 1 - r**4, remask=(2, 2), guidance=lambda s: s**2), "mine")
    assert made.table_T4[1].tolist() == pytest.approx(
        [1 - (1.999 / 3) ** 4, 2.0, 1.0, (1.001 / 3) ** 2], rel=1e-12
    )
    assert torch.equal(table(4, **parse("pow:k=3,w=2")), family("pow:k=3,w=2", 4).table_T4)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("linear:k=2", "'k' in 'linear:k=2' is not one of remask, sampling, guidance, w"),
        ("square:k=2", "'k' in 'square:k=2' is not one of"),
        ("pow:k=0", "schedule 'pow:k=0': k 0.0: it must be positive"),
        ("beta-cdf:a=-1", "a -1.0, b 2.0: both must be positive"),
        ("exp:tokens=1", "tokens 1.0: it must be above 1"),
        ("sigmoid:low=4", "low 4.0, high 3.0"),
        ("linear:guidance=rmp", "guidance 'rmp' in .* is not one of ramp, constant, interval, power-cosine"),
        ("linear:guidance=constant,start=.1", "'start' in .* is not one of"),
        ("linear:guidance=interval,start=.9", "start 0.9, end 0.8"),
        ("linear:w=much", "w='much' in 'linear:w=much' is not a number"),
        ("linear:w=nan", "w='nan' in 'linear:w=nan' is not a number"),
        ("linear:remask=1~", "remask='' in 'linear:remask=1~' is not a number"),
        ("linear:remask", "'remask' in 'linear:remask' is not of the form key=value"),
        ("linear:w=1,w=2", "'w' comes twice in 'linear:w=1,w=2'; say each setting once"),
        ("linear:w=-1", "schedule 'linear:w=-1': guidance_scale spans"),
        ("linear:sampling=0", "sampling_temperature"),
    ],
)
def test_mistakes_are_named_in_one_line(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        as_schedule(spec, 4)
    assert "\n" not in str(caught.value)
