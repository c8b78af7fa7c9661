"""How jobs end: SIGTERM, with which clusters end them, keeps the last checkpoint and says how to go on."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
POLICY = """--steps 2 --updates 60 --trajectories 16 --minibatch 16 --evaluate-every 60 --evaluation-images 40
    --final-images 40 --images 40 --evaluation-seeds 0 1 --search.images-per-evaluation 8 --search.race 2
    --search.coarse.remask 2 8 --search.coarse.sampling 1 --search.coarse.guidance 0 1 --search.finalists 2
    --search.final-images 20 --search.budget 200""".split()
SCRIPTS = {
    "train_generator.py": ["--evaluate-every", "0", "--checkpoint-every", "1", "--updates", "2000"],
    "adanat_ppo.py": [*POLICY, "--local"],
}


def started(script: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    words = [sys.executable, str(EXPERIMENTS / script), *arguments, "--output", str(folder)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def terminated(process: subprocess.Popen[str], log: Path) -> str:
    """Send SIGTERM once a log has some rows; return what was said on stderr in the end."""
    deadline = time.monotonic() + 240
    while not (log.is_file() and len(log.read_text().splitlines()) > 3):
        assert process.poll() is None and time.monotonic() < deadline, "it ended before, or never began"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=120)[1]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_terminated_run_says_so_and_keeps_its_checkpoint(script: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = started(script, folder, *SCRIPTS[script])
    log = folder / ("metrics.csv" if script == "train_generator.py" else "step-only/metrics.csv")
    error = terminated(process, log)
    assert process.returncode == 143
    assert error.splitlines()[-1] == f"{script}: terminated; --resume FOLDER goes on, if it kept anything"
    assert "Traceback" not in error
    assert (log.parent / "checkpoint.pt").is_file() and not list(folder.rglob("*.part"))
    assert pd.read_csv(log)["update"].is_monotonic_increasing


@pytest.mark.slow
@pytest.mark.ray
def test_so_does_one_whose_trials_are_rays(tmp_path: Path) -> None:
    process = started("adanat_ppo.py", tmp_path / "run", *POLICY)
    error = terminated(process, tmp_path / "run" / "step-only" / "metrics.csv")
    assert process.returncode == 143
    assert error.splitlines()[-1] == "adanat_ppo.py: terminated; --resume FOLDER goes on, if it kept anything"
    assert "Traceback" not in error and "SIGTERM" not in error


def test_a_script_that_keeps_nothing_says_that_it_begins_anew(tmp_path: Path) -> None:
    words = "--task sudoku-4 --images 100 --seeds 0 --threads 1 --steps 1 2".split()
    process = started("unmasking.py", tmp_path / "run", *words)
    while not (tmp_path / "run" / "config.json").is_file():  # then it draws for minutes
        assert process.poll() is None, "it ended before"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 143
    assert error.splitlines()[-1] == "unmasking.py: terminated; it has to begin anew"
