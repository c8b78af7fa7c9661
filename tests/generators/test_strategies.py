"""AutoNAT's strategy files: the released one read, played and written; one line for whatever is wrong."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from generators.rules import DecodeRules
from generators.schedules import Schedule, as_schedule, maskgit, reference

# AutoNAT-L, T = 8, ImageNet-256.
RELEASED = """\
manual_ratios: [0.9531645174140464, 0.8795409806037042, 0.7940230737075623, 0.745995860948045, 0.6249785820461957, 0.407321956652571, 0.260658917067054]
manual_temp: [2.404912789740805, 2.477616274962803, 1.191696577294597, 0.7685444738649722, 1.0673489052089495, 0.9353720330515827, 0.7843839537838292]
manual_samp_temp: [2.8999037830310685, 1.867261830931786, 1.1443729673819831, 1.3796334226014182, 1.4699896959810144, 1.3760684112198358, 1.7082165405200722, 0.7133060703601533]
manual_cfg: [0.0001, 0.0001, 0.0001, 0.9151274967591447, 1.6160182878189675, 1.1945509026838659, 1.38322370140345, 1.22678520936251]
"""  # noqa: E501


@pytest.fixture
def released(tmp_path: Path) -> Path:
    path = tmp_path / "autonat-l.yaml"
    path.write_text(RELEASED)
    return path


def test_the_released_strategy_is_read(released: Path) -> None:
    """Column by column; what the file leaves out at the end is 0."""
    schedule = Schedule.load(released)
    assert (schedule.name, schedule.steps) == ("autonat-l", 8)
    assert schedule.table_T4.dtype == torch.float64
    for column, line in enumerate(RELEASED.splitlines()):
        numbers = [float(word) for word in line.partition(": ")[2].strip("[]").split(", ")]
        assert len(numbers) == (7 if column < 2 else 8)
        assert schedule.table_T4[:, column].tolist() == (numbers + [0.0])[:8]
    assert as_schedule(str(released), 8).steps == 8


def test_the_released_strategy_masks_the_published_counts(released: Path) -> None:
    schedule, masked_B, counts = Schedule.load(released), torch.tensor([256]), []
    rules = DecodeRules(min_masked=1)
    for step in range(7):
        masked_B = rules.mask_counts(schedule.params(step, 1).mask_ratio, masked_B, 256)
        counts.append(masked_B.item())
    assert counts == [244, 225, 203, 190, 159, 104, 66]


def test_a_strategy_survives_a_round_trip(released: Path, tmp_path: Path) -> None:
    """Also through JSON; the file is the very one that was released."""
    Schedule.load(released).save(tmp_path / "schedule.json")
    Schedule.load(tmp_path / "schedule.json").save(tmp_path / "again.yml")
    assert (tmp_path / "again.yml").read_text() == RELEASED
    assert torch.equal(Schedule.load(tmp_path / "again.yml").table_T4, Schedule.load(released).table_T4)


@pytest.mark.parametrize("schedule", [maskgit(5), reference(1), reference(40, guidance=1e-7)])
def test_only_the_last_row_loses_what_nobody_reads(tmp_path: Path, schedule: Schedule) -> None:
    schedule.save(tmp_path / "s.yaml")
    loaded = Schedule.load(tmp_path / "s.yaml")
    expected = schedule.table_T4.clone()
    expected[-1, :2] = 0
    assert torch.equal(loaded.table_T4, expected)


def test_other_readers_get_numbers(tmp_path: Path) -> None:
    """YAML 1.1 takes 1e-07 for a text; the official code reads the file with such a reader."""
    table = torch.tensor([[0.5, 1e-7, 1e16, 1e-5], [0.0, 0.0, 1.0, 3e22]], dtype=torch.float64)
    Schedule(table).save(tmp_path / "s.yaml")
    content = yaml.safe_load((tmp_path / "s.yaml").read_text())
    assert list(content) == ["manual_ratios", "manual_temp", "manual_samp_temp", "manual_cfg"]
    assert all(isinstance(value, float) for column in content.values() for value in column)
    lines = (tmp_path / "s.yaml").read_text().splitlines()
    assert len(lines) == 4 and all(line.endswith("]") for line in lines)


def test_numbers_without_a_point_are_read(tmp_path: Path) -> None:
    text = "manual_ratios: [1]\nmanual_temp: [1e-3]\nmanual_samp_temp: [1, 2]\nmanual_cfg: [0, 1e-4]\n"
    (tmp_path / "s.yaml").write_text(text)
    expected = torch.tensor([[1, 1e-3, 1, 0], [0, 0, 2, 1e-4]], dtype=torch.float64)
    assert torch.equal(Schedule.load(tmp_path / "s.yaml").table_T4, expected)


GOOD: dict[str, Any] = {
    "manual_ratios": [0.5],
    "manual_temp": [1.0],
    "manual_samp_temp": [1.0, 1.0],
    "manual_cfg": [0.0, 1.0],
}
BAD: dict[str, tuple[Any, str]] = {
    "empty": ("", "exactly these"),
    "no YAML": ("manual_ratios: [0.5", "parsing"),
    "tabs": ("a:\n\t- b", "scanning"),
    "binary": (b"\xff\xfe\x00\x81", "codec"),
    "a list": ([1, 2], "exactly these"),
    "a text": ("reference", "exactly these"),
    "a class": ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
    "no scale": ({key: value for key, value in GOOD.items() if key != "manual_cfg"}, "exactly these"),
    "one more": (GOOD | {"name": "x"}, "exactly these"),
    "a number": (GOOD | {"manual_temp": 1.0}, "manual_temp holds no list"),
    "digits": (GOOD | {"manual_ratios": "0"}, "manual_ratios holds no list"),
    "words": (GOOD | {"manual_temp": ["high"]}, "could not convert"),
    "holes": (GOOD | {"manual_temp": [None]}, "NoneType"),
    "deep": (GOOD | {"manual_temp": [[1.0]]}, "list"),
    "T ratios": (
        GOOD | {"manual_ratios": [0.5, 0.0]},
        "2 manual_ratios, 1 manual_temp, .* T - 1, T - 1, T and T",
    ),
    "short": (GOOD | {"manual_cfg": [0.0]}, "2 manual_samp_temp, 1 manual_cfg don't fit"),
    "nothing": (dict.fromkeys(GOOD, []), "0 manual_cfg don't fit"),
    "not finite": (GOOD | {"manual_temp": [math.nan]}, "finite"),
    "above 1": (GOOD | {"manual_ratios": [1.5]}, "mask_ratio"),
    "negative": (GOOD | {"manual_cfg": [0.0, -1.0]}, "guidance_scale"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_gives_one_line(tmp_path: Path, what: str) -> None:
    content, message = BAD[what]
    path = tmp_path / "bad.yaml"
    if not isinstance(content, str | bytes):
        content = yaml.safe_dump(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    pattern = f"bad.yaml is not an AutoNAT strategy: .*{message}.*; expected manual_ratios, manual_temp"
    with pytest.raises(ValueError, match=pattern) as caught:
        Schedule.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no schedule file .*absent.yaml"):
        Schedule.load(tmp_path / "absent.yaml")
