"""Scripts as processes of their own, and killed for good."""

import subprocess
import sys
from pathlib import Path
from typing import Any

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
