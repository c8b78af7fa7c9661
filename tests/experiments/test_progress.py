"""A bar in a file is a few lines; on a terminal it is tqdm's."""

import importlib
import io
import sys
from pathlib import Path
from typing import Any

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("_progress").progress


def test_a_file_gets_a_line_now_and_then(progress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    with progress(total=1000, unit="img") as bar:
        for _ in range(1000):
            bar.update()
            bar.set_postfix(loss=1.0)
    assert list(progress(range(3))) == [0, 1, 2]
    lines = file.getvalue().splitlines()
    assert "\r" not in file.getvalue() and 2 <= len(lines) <= 6
    assert any("1000/1000" in line and "img" in line for line in lines)


def test_a_terminal_gets_a_bar(progress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", file := Terminal())
    with progress(total=10, mininterval=0) as bar:
        for _ in range(10):
            bar.update()
    assert file.getvalue().count("\r") > 3
