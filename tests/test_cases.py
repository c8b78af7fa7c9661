"""Situations that people met elsewhere, each a program that ends with 0 where natgym does right by them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import ended

ROOT = Path(__file__).resolve().parent.parent
LONG = {  # trainings, Ray's starts, several processes
    "01_numeric_class_folders",
    "12_dollar_in_category_names",
    "13_ray_address_of_a_dead_cluster",
    "15_tune_relative_path",
    "35_disk_full",
    "36_ascii_terminal",
}
CASES = [
    pytest.param(case, id=case.stem, marks=[pytest.mark.slow] if case.stem in LONG else [])
    for case in sorted((ROOT / "tests" / "cases").glob("*.py"))
]
OF_ITS_OWN = re.compile(r"subprocess|os\.environ[.\[]|resource\.")  # what wants a process of its own


@pytest.mark.parametrize("case", CASES)
def test_natgym_does_right_by(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NATGYM_ROOT", str(ROOT))
    if OF_ITS_OWN.search(case.read_text().replace("os.environ.get(", "")):
        line = [sys.executable, str(case)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [])  # and put back, as the path is
    monkeypatch.setattr(sys, "path", [*sys.path])
    code = ended([str(case)])
    said = capsys.readouterr()
    assert code == 0, said.out + said.err
