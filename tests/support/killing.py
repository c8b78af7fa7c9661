"""Scripts as processes of their own, and killed for good."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

PATIENCE = 300  # seconds for a script to end
PLACES = ("output", "resume", "address", "local", "threads")
UNLIKE = (".lock", "report.html", "README.md")  # locks, and pages that show seconds or places
EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"

# The script is killed for good right after it wrote a line of metrics.csv, before its checkpoint.
KILLED = """
import os, runpy, signal, sys
sys.path.insert(0, os.path.dirname(sys.argv[2]))
import _root
from natgym.runs import MetricsLog

def append(log, row):
    whole(log, row)
    if log.path.name == "metrics.csv" and row["update"] == last:
        os.kill(os.getpid(), signal.SIGKILL)

last, sys.argv = int(sys.argv[1]), sys.argv[2:]
whole, MetricsLog.append = MetricsLog.append, append
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(script: str, arguments: tuple[Any, ...]) -> list[str]:
    return [str(EXPERIMENTS / script), *map(str, arguments)]


def kill(folder: Path, script: str, after: int, *arguments: Any) -> None:
    line = [sys.executable, "-c", KILLED, str(after), *command(script, arguments)]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


class Victim:
    """A script in a process group of its own, to be killed at any moment."""

    def __init__(self, cwd: Path, script: str, *arguments: Any) -> None:
        line = [sys.executable, *command(script, arguments)]
        self.said = (cwd / "said.txt").open("a+")
        both: dict[str, Any] = {"stdout": self.said, "stderr": self.said}
        self.process = subprocess.Popen(line, cwd=cwd, text=True, start_new_session=True, **both)

    def killed(self, there: Callable[[], bool], seconds: float, *, alone: bool = False) -> bool:
        """Kill it so many seconds after something is there; return whether it was running till then.

        Args:
            alone: kill the process that was started and leave its children, such as Ray's, to themselves.
        """
        while not there() and self.process.poll() is None:
            time.sleep(0.02)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            (os.kill if alone else os.killpg)(self.process.pid, signal.SIGKILL)
        self.ended()
        return self.process.returncode == -signal.SIGKILL

    def ended(self) -> int:
        """Wait for its end, and return its exit code."""
        code = self.process.wait(PATIENCE)
        self.said.close()
        return code


def differences(one: Path, other: Path) -> list[str]:
    """Return the files in which two run folders differ, but for seconds, their own paths, and Ray's state."""
    ours, theirs = content(one), content(other)
    return [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]


def content(folder: Path) -> dict[str, Any]:
    found = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if {"ray", "tune"} & set(name.parts) or name.name in UNLIKE or name.match("training/figures/*"):
            continue
        if path.suffix == ".json":
            found[str(name)] = timeless(json.loads(path.read_text().replace(str(folder), "FOLDER")))
        elif path.suffix == ".pt":
            found[str(name)] = as_bytes(torch.load(path, weights_only=True))
        elif path.suffix == ".csv":  # several nodes finish in another order
            found[str(name)] = sorted(path.read_bytes().splitlines())
        else:
            found[str(name)] = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
    return found


def timeless(value: Any) -> Any:
    """Return JSON without what is measured in seconds, and without where it was written."""
    if isinstance(value, dict):
        kept = {name: part for name, part in value.items() if "second" not in name and name not in PLACES}
        return {name: timeless(part) for name, part in kept.items()}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def as_bytes(state: Any) -> Any:
    """Return a state whose tensors compare by their bytes, and whose NaN are equal."""

    def leaf_as_bytes(leaf: Any) -> Any:
        return leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else repr(leaf)

    return tree_map(leaf_as_bytes, state)
