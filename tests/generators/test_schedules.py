"""Schedules: the published formulas in plain Python, exact files, one clear line for whatever is wrong."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from generators.schedules import (
    CONVENTION,
    FAMILIES,
    PARAMETERS,
    DecodeParams,
    Schedule,
    as_schedule,
    maskgit,
    random_order,
    reference,
)


@pytest.mark.parametrize("steps", range(1, 65))
def test_reference_follows_its_formula(steps: int) -> None:
    """AdaNAT's hand-made schedule with the official offsets of 0.001."""
    for k, row in enumerate(reference(steps).table_T4.tolist()):
        r = (k + 1 - 0.001) / steps
        expected = [math.cos(math.pi / 2 * r), 1 - r, 1.0, (k + 0.001) / steps]
        assert row == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("steps", [1, 4, 15])
def test_families_scale_the_reference(steps: int) -> None:
    """Name by name: what is multiplied, what stays."""
    factors = {"reference": (1, 1, 1, 1), "maskgit": (1, 4.5, 1, 1), "random-order": (1, 15, 1, 0)}
    for name, factor in factors.items():
        schedule = FAMILIES[name](steps)
        expected = reference(steps).table_T4 * torch.tensor(factor, dtype=torch.float64)
        torch.testing.assert_close(schedule.table_T4, expected, rtol=1e-12, atol=0)
        assert (schedule.name, schedule.steps) == (name, steps)
        assert schedule.table_T4.dtype == torch.float64
    scaled = reference(steps, remask=2, sampling=3, guidance=4).table_T4 / reference(steps).table_T4
    torch.testing.assert_close(scaled, torch.tensor([1.0, 2, 3, 4]).double().expand(steps, 4))


@pytest.mark.parametrize("family", [reference, maskgit, random_order])
@pytest.mark.parametrize("steps", [0, -1])
def test_no_schedule_without_steps(family: Any, steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps {steps}"):
        family(steps)


def test_params_are_one_row_for_every_sample() -> None:
    schedule = maskgit(6)
    params = schedule.params(2, 3)
    assert len(params) == len(PARAMETERS)
    assert torch.equal(params.table, schedule.table_T4[[2, 2, 2]])
    assert torch.equal(DecodeParams.from_table(params.table).table, params.table)


@pytest.mark.parametrize(
    "schedule", [reference(7), random_order(1), reference(3, sampling=1 / 3, name='a "b"\n')]
)
def test_files_are_exact(tmp_path: Path, schedule: Schedule) -> None:
    schedule.save(tmp_path / "schedule.json")
    loaded = Schedule.load(tmp_path / "schedule.json")
    assert torch.equal(loaded.table_T4, schedule.table_T4) and loaded.name == schedule.name
    text = json.loads((tmp_path / "schedule.json").read_text())
    assert text["guidance"] == CONVENTION, "a number is never printed without its convention"


GOOD = {"name": "x", "parameters": PARAMETERS, "guidance": CONVENTION, "table": [[0.5, 1.0, 1.0, 0.0]]}
BAD_FILES: dict[str, Any] = {
    "empty": "",
    "no JSON": "ratio: 0.5",
    "binary": b"\xff\xfe\x00\x81",
    "a list": [1, 2],
    "a number": 3,
    "null": None,
    "no table": {key: value for key, value in GOOD.items() if key != "table"},
    "no name": {key: value for key, value in GOOD.items() if key != "name"},
    "other columns": GOOD | {"parameters": PARAMETERS[::-1]},
    "columns are a number": GOOD | {"parameters": 4},
    "other guidance": GOOD | {"guidance": "s = w + 1"},
    "three columns": GOOD | {"table": [[0.5, 1.0, 1.0]]},
    "ragged": GOOD | {"table": [[0.5, 1.0, 1.0, 0.0], [0.5]]},
    "no rows": GOOD | {"table": []},
    "flat": GOOD | {"table": [0.5, 1.0, 1.0, 0.0]},
    "deep": GOOD | {"table": [[[0.5, 1.0, 1.0, 0.0]]]},
    "table of text": GOOD | {"table": [["a", "b", "c", "d"]]},
    "table is text": GOOD | {"table": "reference"},
    "table is null": GOOD | {"table": None},
    "holes": GOOD | {"table": [[0.5, None, 1.0, 0.0]]},
    "not a number": GOOD | {"table": [[0.5, math.nan, 1.0, 0.0]]},
    "infinite": GOOD | {"table": [[0.5, 1.0, math.inf, 0.0]]},
    "enormous": GOOD | {"table": [[0.5, 10**400, 1.0, 0.0]]},
    "ratio above 1": GOOD | {"table": [[1.5, 1.0, 1.0, 0.0]]},
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_bad_file_gives_one_line(tmp_path: Path, what: str) -> None:
    content, path = BAD_FILES[what], tmp_path / "bad.json"
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match="bad.json is not a natgym schedule") as caught:
        Schedule.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no schedule file .*absent.json"):
        Schedule.load(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="not a natgym schedule"):
        Schedule.load(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, -0.01, r"mask_ratio spans \[-0.01, 0.5\]; it must be in \[0, 1\]"),
        (0, 1.01, "mask_ratio"),
        (1, -1e-9, "remask_temperature"),
        (2, 0.0, "sampling_temperature .* must be > 0"),
        (2, -1.0, "sampling_temperature"),
        (3, -0.5, "guidance_scale"),
        (0, math.nan, "finite"),
        (1, math.inf, "finite"),
        (3, -math.inf, "finite"),
    ],
)
def test_values_out_of_range_are_named(column: int, value: float, message: str) -> None:
    table = torch.tensor([0.5, 1.0, 1.0, 0.0]).repeat(3, 1)
    Schedule(table)
    table[1, column] = value
    for build in (Schedule, DecodeParams.from_table):
        with pytest.raises(ValueError, match=message):
            build(table)


def test_bounds_themselves_are_allowed() -> None:
    Schedule(torch.tensor([[0.0, 0.0, 1e-6, 0.0], [1.0, 100.0, 100.0, 100.0]]))


def test_as_schedule_takes_name_file_and_object(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    found = reference(5, remask=3.0, name="found")
    found.save(path)
    assert torch.equal(as_schedule("maskgit", 5).table_T4, maskgit(5).table_T4)
    for given in (path, str(path), found):
        assert torch.equal(as_schedule(given, 5).table_T4, found.table_T4)
        with pytest.raises(ValueError, match="'found' has 5 steps, not the 4 asked for"):
            as_schedule(given, 4)
    with pytest.raises(
        ValueError, match="'masgit' is neither a file nor one of reference, maskgit, random-order, cosine"
    ):
        as_schedule("masgit", 5)
