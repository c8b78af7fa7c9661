"""Spaces of any size, and the action map: zero is the schedule, each number moves its own parameter."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from torch import Tensor

from generators.schedules import FAMILIES, PARAMETERS, TABLE, Schedule, reference
from natgym.observations import Observer
from natgym.spaces import (
    ACTION_BOUND,
    EXPONENTIAL,
    SIGMOID,
    SOFTPLUS,
    ActionMap,
    Activation,
    BatchedBox,
    action_space,
    batched,
)
from rounding import assert_rounded

ROOT = Path(__file__).resolve().parents[2]
ZEROS = Schedule(
    torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.5, 0.0, 0.7, 2.0], [0.0, 3.0, 1.0, 0.0]], dtype=torch.float64)
)


def column(number: int, values: Any) -> Tensor:
    """Actions that are zero but for one column."""
    actions = torch.zeros(len(values), 4, dtype=torch.float64)
    actions[:, number] = torch.as_tensor(values)
    return actions


@pytest.mark.parametrize("preset", ["default", "paper", "paper-no-residual"])
@pytest.mark.parametrize("parameters", [PARAMETERS, ["sampling_temperature"]])
def test_an_episode_is_its_steps_to_the_bit(preset: Any, parameters: list[str]) -> None:
    """At lengths at which processors take several numbers at once, and not."""
    for steps in (1, 3, 16, 37):
        actions = ActionMap.preset(preset, reference(steps), parameters=parameters)
        rng = np.random.default_rng(steps)
        actions_Tk = torch.from_numpy(rng.normal(scale=3, size=(steps, len(parameters))))
        actions_Tk[1::3] = 0
        rows = [actions(action_k[None], step).table for step, action_k in enumerate(actions_Tk)]
        assert torch.equal(actions.episode(actions_Tk), torch.cat(rows))


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("family", [*FAMILIES, "zeros"])
def test_zero_action_is_exactly_the_schedule(family: str, preset: Any) -> None:
    zeros = torch.tensor([[0.0] * 4, [-0.0] * 4])
    for steps in range(1, 65) if family == "reference" else (1, 3, 20):
        schedule = ZEROS if family == "zeros" else FAMILIES[family](steps)
        actions = ActionMap.preset(preset, schedule)
        for step in range(schedule.steps):
            assert torch.equal(actions(zeros, step).table, schedule.params(step, 2).table)


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_zero_beside_other_numbers_is_still_exact(preset: Any) -> None:
    schedule = reference(8)
    table = ActionMap.preset(preset, schedule)(torch.ones(4, 4) - torch.eye(4), 3).table
    for row in range(4):
        for parameter in range(4):
            assert (table[row, parameter] == schedule.table_T4[3, parameter]) == (row == parameter)


@pytest.mark.golden
@pytest.mark.parametrize(("heuristic", "preset"), [(0, "paper-no-residual"), (1, "paper")])
def test_the_paper_presets_are_the_official_ones(heuristic: int, preset: Any, golden: Any) -> None:
    tensors, meta = golden("policy_tiny")
    assert meta["action_order"] == ["manual_gen_ratios", "manual_temp", "manual_samp_temp", "manual_cfg"]
    lengths = {int(found[1]) for key in tensors if (found := re.match(r"biasact\.T(\d+)\.", key))}
    assert lengths
    for steps in lengths:
        assert_official(ActionMap.preset(preset, reference(steps)), tensors, heuristic, meta["action_order"])


def assert_official(actions: ActionMap, tensors: Any, heuristic: int, order: list[str]) -> None:
    """The recorded parameters of all steps, which upstream computes in float32."""
    steps = actions.schedule.steps
    evaluated_B4T = tensors[f"biasact.T{steps}.noT.actions"]
    for step in range(steps):
        inputs = {
            "": tensors[f"biasact.T{steps}.actions"][step : step + 1],
            ".zero_action": torch.zeros(1, evaluated_B4T.shape[1]),
            ".noT": evaluated_B4T[:, :, step],
        }
        for form, action_B4 in inputs.items():
            for name, found in zip(order, actions(action_B4, step), strict=True):
                recorded = tensors[f"biasact.T{steps}.heu{heuristic}{form}.{name}"][..., step]
                size = max(1.0, float(recorded.abs().max()))
                assert_rounded(
                    found, recorded.reshape(-1), size=size, roundings=16
                )  # no sums, few operations


def test_the_default_map_is_the_one_in_the_table_of_the_environment() -> None:
    """Closed forms with plain floats, away from zero and from the floors."""
    schedule, generator = reference(8), torch.Generator().manual_seed(0)
    actions = ActionMap.preset("default", schedule)
    for step in range(1, 7):
        m, tau2, tau1, w = schedule.table_T4[step].tolist()
        for row in torch.randn(20, 4, generator=generator).tolist():
            expected = [
                1 / (1 + math.exp(-(math.log(m / (1 - m)) + row[0] / 2))),
                tau2 * math.exp(row[1]),
                tau1 * math.exp(row[2] / 4),
                math.log1p(math.exp(math.log(math.exp(w) - 1) + row[3])),
            ]
            # Actions are float32, as a network's are.
            found = actions(torch.tensor([row]), step).table[0].tolist()
            assert found == pytest.approx(expected, rel=1e-6)


def test_without_residual_the_schedule_does_not_matter() -> None:
    maps = [ActionMap.preset("paper-no-residual", schedule) for schedule in (reference(3), ZEROS)]
    random_B4 = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for step in range(3):
        zero = maps[0](torch.zeros(1, 4), step).table[0].tolist()
        assert zero == pytest.approx([0.5, *[math.log(2)] * 3])
        assert torch.equal(maps[0](random_B4, step).table, maps[1](random_B4, step).table)


@pytest.mark.parametrize("preset", ["default", "paper", "paper-no-residual"])
@pytest.mark.parametrize("number", range(4))
def test_each_column_moves_only_its_parameter_and_monotonically(number: int, preset: Any) -> None:
    schedule = reference(8)
    actions = ActionMap.preset(preset, schedule)
    for step in range(8):
        zero = actions(torch.zeros(1, 4), step).table[0]
        # Zero itself plays the schedule also below the floor, where its neighbors play the floor.
        table = actions(column(number, [a for a in np.linspace(-10, 10, 101) if abs(a) > 1e-9]), step).table
        assert (table[:, number].diff() > 0).all()
        others = [at for at in range(4) if at != number]
        assert (table[:, others] == zero[others]).all()
        if preset == "paper-no-residual" or zero[number] > actions.floor:
            assert table[49, number] < zero[number] < table[50, number]


@pytest.mark.parametrize("preset", ["default", "paper", "paper-no-residual"])
@pytest.mark.parametrize("schedule", [reference(8), ZEROS], ids=["reference", "zeros"])
def test_every_action_of_the_space_gives_legal_parameters(schedule: Schedule, preset: Any) -> None:
    actions = ActionMap.preset(preset, schedule)
    high = actions.action_space.high
    assert (actions.action_space.low == -high).all()
    bounds = [3.0, 5.0, 3.5, 3.5] if preset == "default" else [ACTION_BOUND] * 4
    assert high.tolist() == bounds
    corners = torch.cartesian_prod(*[torch.tensor([-bound, 0.0, bound]) for bound in bounds])
    for step in range(schedule.steps):
        table = actions(corners, step).table  # checks the ranges itself
        assert table.dtype == torch.float64 and table.device.type == "cpu"
        assert (table[:, 0] >= 0).all() and (table[:, 0] <= 1).all()
        assert (table[:, 1] >= 0).all() and (table[:, 2] > 0).all() and (table[:, 3] >= 0).all()


def test_an_action_can_leave_zero() -> None:
    table = ActionMap.preset("default", ZEROS)(torch.full((1, 4), 0.5), 0).table[0].tolist()
    assert table[1] == pytest.approx(0.01 * math.exp(0.5))
    assert table[3] == pytest.approx(math.log1p(math.exp(math.log(math.exp(0.01) - 1) + 0.5)))
    assert 0.999 < table[0] < 1, "and a mask ratio of 1 can be left, too"


@pytest.mark.parametrize(
    ("activation", "values"),
    [
        (SIGMOID, [1e-6, 0.01, 0.5, 0.99, 1 - 1e-6]),
        (EXPONENTIAL, [1e-6, 0.01, 1.0, 20.0, 1e4]),
        (SOFTPLUS, [1e-6, 0.01, 1.0, 20.0, 1e4]),
    ],
    ids=["sigmoid", "exponential", "softplus"],
)
def test_an_activation_undoes_its_inverse(activation: Activation, values: list[float]) -> None:
    values_N = torch.tensor(values, dtype=torch.float64)
    there = activation.inverse(values_N)
    assert torch.isfinite(there).all() and (there.diff() > 0).all()
    torch.testing.assert_close(activation.forward(there), values_N, rtol=1e-8, atol=0)


@pytest.mark.parametrize(
    ("action", "step", "said"),
    [
        (torch.zeros(4), 0, r"shape \(4,\); expected \(rows, 4\)"),
        (torch.zeros(2, 3), 0, r"shape \(2, 3\)"),
        (torch.zeros(2, 4), 8, "step 8 is not one of the schedule's 8"),
        (torch.zeros(2, 4), -1, "step -1"),
        (torch.tensor([[0.0, math.nan, 0.0, 0.0]]), 0, "finite"),
        (torch.tensor([[0.0, 0.0, math.inf, 0.0]]), 0, "finite"),
    ],
)
def test_a_wrong_action_is_a_value_error(action: Tensor, step: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ActionMap.preset("default", reference(8))(action, step)


def test_an_unknown_preset_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="'nonsense' is not one of default, paper, paper-no-residual"):
        ActionMap.preset("nonsense", reference(8))  # type: ignore[arg-type]
    for name in ("reveal", "tokens"):
        with pytest.raises(ValueError, match=f"actions '{name}' choose tokens; make a TokenMap"):
            ActionMap.preset(name, reference(8))  # type: ignore[arg-type]


def test_the_action_columns_are_the_parameters() -> None:
    assert action_space().shape == (len(PARAMETERS),) == (4,)


@pytest.mark.parametrize("single", [spaces.Box(-np.inf, np.inf, (3, 2), np.float16), action_space()])
def test_a_batched_box_is_gymnasiums(single: spaces.Box) -> None:
    ours, theirs = BatchedBox(single, 5, seed=0), batch_space(single, 5)
    assert ours == theirs and ours.shape == theirs.shape and ours.dtype == theirs.dtype
    sample = ours.sample()
    assert sample.shape == theirs.shape and ours.contains(sample) and theirs.contains(sample)
    assert not ours.contains(sample[1:])
    assert str(ours) == str(theirs)
    assert (sample == BatchedBox(single, 5, seed=0).sample()).all()


def test_the_spaces_of_4096_large_images_hold_one_copy_of_the_bounds() -> None:
    single = Observer((16, 16), 768, 1024).space(8)
    space = batched(single, 4096)
    assert space["features"].shape == (4096, 256, 768) and list(space) == list(single)
    for key, box in space.items():
        for bound in (box.low, box.high, box.bounded_below, box.bounded_above):
            assert bound.strides[0] == 0
            owner = bound
            while owner.base is not None:
                owner = owner.base
            assert owner.nbytes <= single[key].low.nbytes


def test_observations_are_described_as_they_are() -> None:
    space = Observer((3, 5), 7, 99, dtype="float16").space(4)
    legal = {
        "features": np.zeros((15, 7), np.float16),
        "masked": np.ones(15, np.uint8),
        "step": np.full(1, 4, np.float32),
    }
    assert space.contains(legal)
    for key, wrong in (
        ("features", np.zeros((15, 7), np.float32)),
        ("masked", np.full(15, 2, np.uint8)),
        ("step", np.full(1, 5, np.float32)),
    ):
        assert not space.contains(legal | {key: wrong})


def test_the_default_box_holds_the_shipped_schedules_and_exploration_around_them() -> None:
    shipped = sorted((ROOT / "generators" / "pretrained").rglob("autonat-T*.json"))
    assert len(shipped) >= 6
    for path in shipped:
        found = Schedule.load(path)
        actions = ActionMap.preset("default", reference(found.steps))
        for parameter, values_T, bound in zip(TABLE.values(), found.table_T4.T, actions.bounds, strict=True):
            for step in range(parameter.decides(found.steps)):
                room = torch.full((2, 4), bound - 3 * 0.6) * torch.tensor([[-1.0], [1.0]])
                low, high = getattr(actions(room, step), parameter.name)
                # A schedule's zero, such as no guidance, is below the floor, which no action but zero plays.
                assert low <= max(values_T[step], actions.floor) <= high, (path, parameter.name, step)


def test_an_action_outside_is_clipped_and_one_inside_keeps_its_bits() -> None:
    actions = ActionMap.preset("default", reference(4), parameters=PARAMETERS[1:3], smoothing=0.5)
    given = torch.tensor([[1.3, -2.1], [5.0, 3.5], [9.0, 0.1], [0.0, -7.0]])
    assert actions.outside(given).tolist() == [False, False, True, True]
    clipped = actions.clip(given)
    assert torch.equal(clipped[:2], given[:2]) and clipped[2:].tolist() == [[5.0, given[2, 1]], [0.0, -3.5]]
    assert torch.equal(actions.smooth(given, torch.zeros(4, 2), 0), clipped)
    assert torch.equal(actions.smooth(given, torch.zeros(4, 2), 1), clipped / 2)
    doubled = given.double()
    assert actions.clip(doubled).dtype == torch.float64
    assert actions.clip(torch.tensor([[torch.nan, torch.inf]])).isfinite().sum() == 0
