"""Spaces of strategies: where they start, and that their numbers mean what they say."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from agents.autonat.strategies import Around, Family, Parameters, Scales
from generators.schedules import Schedule, maskgit, reference
from natgym.spaces import ActionMap
from rounding import assert_rounded


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_autonat_s_numbers_and_its_start(steps: int) -> None:
    """4T - 2 of them, in its order; every other entry of the table is 0, since the last step reveals all."""
    space = Parameters(steps)
    assert len(space.start) == len(space.step) == len(space.rate) == 4 * steps - 2
    table_T4 = space.schedule(space.start).table_T4
    for k in range(steps):
        ratio, remask = math.cos(math.pi / 2 * (k + 1) / steps), 1 - k / steps
        last = k + 1 == steps
        expected = [0.0 if last else ratio, 0.0 if last else remask, 1.0, (k + 1) / steps]
        assert table_T4[k].tolist() == pytest.approx(expected)


def test_autonat_s_constants() -> None:
    space = Parameters(3)
    assert space.step.tolist() == [0.01] * 2 + [0.1] * 8 and space.rate.tolist() == [1e-3] * 2 + [0.1] * 8
    assert space.low.tolist() == [0] * 2 + [1e-4] * 8 and space.high.tolist() == [0.99] * 2 + [math.inf] * 8


def test_a_ratio_beyond_1_is_1() -> None:
    space = Parameters(40)
    vector = space.start + space.step
    assert vector[0] > 1 and space.schedule(vector).table_T4[0, 0] == 1


@pytest.mark.parametrize("base", [reference(4), maskgit(3), reference(1), reference(2, guidance=0)])
def test_zero_is_the_schedule_around_which_is_searched(base: Schedule) -> None:
    space = Around(base)
    assert len(space.start) == 4 * base.steps - 2
    assert torch.equal(space.schedule(space.start).table_T4, base.table_T4)


def test_around_is_the_environment_s_action_map() -> None:
    """Coordinate by coordinate; each moves one entry of the table, and together all but two are reached."""
    base, moved = reference(3), set()
    space, action_map = Around(base), ActionMap.preset("default", base)
    for at in range(10):
        table_T4 = space.schedule(np.eye(10)[at]).table_T4
        changed = (table_T4 != base.table_T4).nonzero().tolist()
        assert len(changed) == 1
        step, column = changed[0]
        action = torch.zeros(1, 4, dtype=torch.float64)
        action[0, column] = 1
        assert torch.equal(table_T4[step], action_map(action, step).table[0])
        moved.add((step, column))
    assert moved == {(step, column) for step in range(3) for column in range(4)} - {(2, 0), (2, 1)}


@pytest.mark.parametrize("steps", [1, 4])
def test_a_family_begins_at_the_reference(steps: int) -> None:
    """But for the guidance of a single step, of which the reference has a thousandth."""
    space = Family(steps)
    expected = reference(steps).table_T4.clone()
    if steps == 1:
        expected[:, 3] = 1
    assert torch.allclose(space.schedule(space.start).table_T4, expected, rtol=0, atol=1e-12)
    close = Family(steps, "beta-cdf")
    found = close.schedule(close.start).table_T4
    assert torch.allclose(found, expected, rtol=0, atol=0.02) and len(close.start) == 6


def test_the_numbers_of_a_family() -> None:
    """Each against its formula at T = 4."""
    r, s = ((torch.arange(4) + at) / 4 for at in (1 - 1e-3, 1e-3))
    table_T4 = Family(4).schedule(np.array([1.0, -2.0, 0.7, 1.2, 0.6])).table_T4
    assert_rounded(table_T4[:, 0], torch.cos(math.pi / 2 * r.double() ** math.exp(0.3)))
    assert_rounded(table_T4[:, 1], math.e * (1 - r.double()))
    assert torch.allclose(table_T4[:, 2], torch.full((4,), math.exp(-0.5), dtype=torch.float64))
    scale = math.log1p(math.exp(0.7 + math.log(math.e - 1)))
    assert_rounded(table_T4[:, 3], scale * ((s.double() - 0.3) / 0.7).clamp_min(0))


@pytest.mark.parametrize("space", [Around(reference(4)), Family(4), Family(4, "beta-cdf")])
def test_any_vector_is_a_schedule(space: Any) -> None:
    """An optimizer that runs away still asks for something that can be drawn."""
    for size in (1.0, 30.0, 1e6):
        for seed in range(20):
            vector = size * np.random.default_rng(seed).normal(size=len(space.start))
            assert space.schedule(vector).steps == 4


def test_scales_are_those_of_the_reference() -> None:
    space = Scales(5)
    expected = reference(5, remask=8, sampling=0.9, guidance=2).table_T4
    assert torch.equal(space.schedule(np.array([8, 0.9, 2])).table_T4, expected)
    assert torch.equal(space.schedule(space.start).table_T4, reference(5).table_T4)
    once = Scales(1).schedule(np.array([8, 0.9, 2])).table_T4
    assert_rounded(once[0], torch.tensor([*reference(1, remask=8).table_T4[0, :2], 0.9, 2.0]))
