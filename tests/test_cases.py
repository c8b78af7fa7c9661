"""Situations that people met elsewhere, each a program that ends with 0 where natgym does right by them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRAINS = "01_numeric_class_folders"  # for the better part of a minute
CASES = [
    pytest.param(case, id=case.stem, marks=[pytest.mark.slow] if case.stem == TRAINS else [])
    for case in sorted((ROOT / "tests" / "cases").glob("*.py"))
]


def run(case: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"NATGYM_ROOT": str(ROOT)}
    line = [sys.executable, str(case)]
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("case", CASES)
def test_natgym_does_right_by(case: Path) -> None:
    done = run(case)
    assert done.returncode == 0, done.stdout + done.stderr
