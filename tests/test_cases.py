"""Situations that people met elsewhere: those that natgym does right by stay right, the others are known."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CASES = sorted((ROOT / "tests" / "cases").glob("*.py"))
RIGHT = {
    *("01", "02", "03", "04", "05", "07", "08", "10", "11", "13", "14", "15", "16", "17", "19", "20", "30"),
    *("34", "36", "39", "42", "43"),
}  # by number


def run(case: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"NATGYM_ROOT": str(ROOT)}
    line = [sys.executable, str(case)]
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name[:2] in RIGHT], ids=lambda case: case.stem
)
def test_what_is_right_stays_right(case: Path) -> None:
    done = run(case)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name[:2] not in RIGHT], ids=lambda case: case.stem
)
def test_what_is_not_right_yet_is_known(case: Path) -> None:
    """Once it is, it belongs to RIGHT."""
    assert run(case).returncode != 0
