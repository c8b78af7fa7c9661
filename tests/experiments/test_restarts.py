"""Ranks of a training that are killed begin again, by torchrun or by Ray, and end where quiet ones end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from killing import EXPERIMENTS, command

from natgym.runs import read_metrics

SETTINGS = """--updates 7 --batch-size 16 --warmup 2 --checkpoint-every 2 --width 16 --heads 2 --dropout 0
    --evaluate-every 0""".split()
POLICY = """--updates 7 --trajectories 32 --minibatch 64 --evaluate-every 2 --evaluation-images 64
    --final-images 64 --images 64 --evaluation-seeds 0 1 --no-step-only --threads 1 --search.budget 512
    --search.images-per-evaluation 32 --search.finalists 2 --search.final-images 64""".split()
pytestmark = pytest.mark.slow

# Rank 0 is killed the first time that it has written the line of update 5, after that update's checkpoint or
# before it.
MORTAL = f"""
import os, runpy, signal, sys
sys.path.insert(0, {str(EXPERIMENTS)!r})
import _root
from natgym.runs import MetricsLog

def append(log, row):
    whole(log, row)
    if row.get("update") == 5 and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

whole, MetricsLog.append = MetricsLog.append, append
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def torchrun(
    folder: Path,
    *arguments: Any,
    script: str = "train_generator.py",
    restarts: int = 1,
    shared: bool = False,
) -> subprocess.CompletedProcess[str]:
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", 2, "--max-restarts", restarts]
    line = [
        sys.executable,
        "-m",
        *map(str, launch),
        "mortal.py",
        str(EXPERIMENTS / script),
        *map(str, arguments),
    ]
    (folder / "mortal.py").write_text(MORTAL)
    env = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": str(int(not shared))}
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True)


def same(one: Path, other: Path) -> bool:
    names = "metrics.csv", "generator/model.safetensors"
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_torchrun_goes_on_with_what_it_began(tmp_path: Path) -> None:
    (tmp_path / "killed").touch()
    done = torchrun(tmp_path, *SETTINGS, "--output", "quiet")
    assert done.returncode == 0, done.stderr
    (tmp_path / "killed").unlink()
    done = torchrun(tmp_path, *SETTINGS, "--output", "restarted")
    assert done.returncode == 0 and (tmp_path / "killed").exists(), done.stderr
    assert same(tmp_path / "quiet", tmp_path / "restarted")
    before = (tmp_path / "quiet" / "metrics.csv").read_bytes()
    done = torchrun(tmp_path, *SETTINGS, "--seed", 1, "--output", "quiet", restarts=0)
    assert done.returncode != 0 and "quiet exists and is not overwritten" in done.stderr, "another run"
    done = torchrun(tmp_path, *SETTINGS)
    assert done.returncode != 0 and "max-restarts without --output" in done.stderr
    done = torchrun(tmp_path, *SETTINGS, "--output", "shared", shared=True)
    assert done.returncode != 0 and "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in done.stderr
    assert not (tmp_path / "shared").exists()
    assert (tmp_path / "quiet" / "metrics.csv").read_bytes() == before and not (tmp_path / "runs").exists()


def test_torchrun_goes_on_with_a_policy_that_it_began(tmp_path: Path) -> None:
    """Found by all ranks from the schedule on that the first searches; the run is that of one process."""
    (tmp_path / "killed").touch()
    settings = [*POLICY, "--schedule", "static-search"]
    for name in ("quiet", "restarted"):
        done = torchrun(tmp_path, *settings, "--output", name, script="adanat_ppo.py")
        assert done.returncode == 0, done.stderr
        (tmp_path / "killed").unlink(missing_ok=name == "quiet")
    same_policy(tmp_path / "quiet", tmp_path / "restarted")
    line = [sys.executable, *command("adanat_ppo.py", (*settings, "--local", "--output", "alone"))]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    alone, ranked = (read_metrics(tmp_path / name / "metrics.csv") for name in ("alone", "quiet"))
    assert all(set(row) == set(other) for row, other in zip(alone, ranked, strict=True))
    for name in ("images_spent", "reward", "distance"):
        expected = [float(row[name]) for row in alone]
        assert [float(row[name]) for row in ranked] == pytest.approx(expected, rel=1e-3)
    done = torchrun(tmp_path, *settings, script="adanat_ppo.py", restarts=0)
    assert done.returncode != 0 and "give --output" in done.stderr


def same_policy(one: Path, other: Path) -> None:
    for name in ("metrics.csv", "policy/model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.ray
def test_workers_of_ray_go_on_with_a_policy(tmp_path: Path) -> None:
    settings = [*POLICY, "--updates", 60, "--workers", 2, "--evaluate-every", 30]
    killed_worker("adanat_ppo.py", settings, tmp_path)
    same_policy(tmp_path / "quiet", tmp_path / "killed")


@pytest.mark.ray
def test_workers_of_ray_begin_again_with_their_checkpoint(tmp_path: Path) -> None:
    killed_worker("train_generator.py", [*SETTINGS, "--updates", 400, "--workers", 2], tmp_path)
    assert same(tmp_path / "quiet", tmp_path / "killed")


def killed_worker(script: str, settings: list[Any], folder: Path) -> None:
    """Run a script twice, and kill one of its workers the second time, while they train."""
    quiet = [sys.executable, *command(script, (*settings, "--output", "quiet"))]
    subprocess.run(quiet, cwd=folder, check=True, capture_output=True)
    line = [sys.executable, *command(script, (*settings, "--output", "killed"))]
    both: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(line, cwd=folder, text=True, **both)
    while len(read_metrics(folder / "killed" / "metrics.csv")) < 20:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    workers = [number for number in descendants(process.pid) if "RayTrainWorker" in title(number)]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    done = len(read_metrics(folder / "killed" / "metrics.csv"))
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert done < len(read_metrics(folder / "quiet" / "metrics.csv")), said


def descendants(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task").glob("*/children")
    own = [int(child) for file in children for child in file.read_text().split()]
    return own + [below for child in own for below in descendants(child)]


def title(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:  # it has ended
        return ""
