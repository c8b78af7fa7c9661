"""Scripts in this process."""

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
Call = Callable[..., tuple[int, str, str]]


def ended(line: list[str]) -> Any:
    """Run a script with its arguments as the interpreter does; return its exit code."""
    sys.argv = line
    try:
        runpy.run_path(line[0], run_name="__main__")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0
    return 0


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a script from an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))

    def run(script: str, *arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [])  # and put back
        sys.modules.pop(f"_{Path(script).stem}", None)  # what it does is read anew, as it is itself
        code = ended([str(EXPERIMENTS / script), *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
