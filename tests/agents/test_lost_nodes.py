"""A process, a node or the head is killed in the middle: what comes out is what comes out of a quiet run."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY

from agents.adanat.trainer import train
from agents.autonat.scorer import ScheduleScorer
from agents.autonat.search import Search, SearchConfig
from agents.distributed.cluster import quiet

ROOT = Path(__file__).resolve().parents[2]
SEARCH = SearchConfig(images_per_evaluation=20, budget=300, finalists=2, final_images=40, warm="none")
SWEEP = [TINY.but(updates=4, evaluate_every=2), TINY.but(updates=4, evaluate_every=2, seed=1)]
pytestmark = [pytest.mark.ray, pytest.mark.slow]

# A driver whose trial kills its process, or waits for its node to be killed, the first time it is there.
DRIVER = """
import os, signal, sys, time
from pathlib import Path
from agents.distributed.cluster import quiet
quiet()
import ray
from agents.adanat import trainable
from agents.autonat import tune_search
from agents.autonat.search import Search
from tests.agents.test_lost_nodes import SEARCH, SWEEP

what, victim, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
address = sys.argv[4] if len(sys.argv) > 4 else None
mark = folder / "in-the-middle"

def mortal(trial, late):
    class Mortal(trial):
        def step(self):
            here = victim in ("process", ray.get_runtime_context().get_node_id())
            if here and late(self) and not mark.exists():
                mark.touch()
                if victim == "process":
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(600)
            while victim != "nobody" and late(self) and not mark.exists():
                time.sleep(0.1)  # for the victim, which would be left out if the others did all the work
            return super().step()
    return Mortal

if what == "search":
    search = Search("coordinate", SEARCH, 2, 0, folder / "log.csv")
    tune_search.ScheduleTrial = mortal(tune_search.ScheduleTrial, lambda trial: len(search_rows()) > 3)
    search_rows = lambda: (folder / "log.csv").read_text().splitlines()
    fixed = {"task": "digits", "generator": None, "steps": 2, "device": "cpu", "rules": "confidence"}
    tune_search.run_searches([search], fixed, lambda *told: None, folder=folder, address=address)
else:
    from agents.adanat.sweeps import run_trials
    trainable.AdaNATTrainable = mortal(trainable.AdaNATTrainable, lambda trial: trial.trainer.done == 2)
    trials = [(config, folder / str(index)) for index, config in enumerate(SWEEP)]
    run_trials(trials, lambda *told: None, folder=folder, address=address)
"""


@pytest.fixture(scope="module")
def quiet_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What search and sweep come to without Ray, where nothing is lost."""
    folder = tmp_path_factory.mktemp("quiet")
    Search("coordinate", SEARCH, 2, 0, folder / "log.csv").run(ScheduleScorer("digits"))
    for index, config in enumerate(SWEEP):
        train(config, folder / str(index), lambda metrics: None)
    return folder


@pytest.fixture
def two() -> Iterator[Any]:
    quiet()
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes
    nodes.shutdown()


def drive(*arguments: Any) -> subprocess.Popen:
    command = [sys.executable, "-c", DRIVER, *map(str, arguments)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    # A driver gives its head up after a minute; here after seconds.
    env = os.environ | {"PYTHONPATH": paths, "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    return subprocess.Popen(
        command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(there: Callable[[], bool], process: subprocess.Popen) -> None:
    while not there():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def assert_as_quiet(what: str, folder: Path, quiet_runs: Path) -> None:
    if what == "search":
        rows = (folder / "log.csv").read_text().splitlines()
        assert sorted(rows) == sorted((quiet_runs / "log.csv").read_text().splitlines())
        return
    for index in range(len(SWEEP)):
        for name in ("metrics.csv", "policy/model.safetensors"):
            ours, theirs = folder / str(index) / name, quiet_runs / str(index) / name
            assert ours.read_bytes() == theirs.read_bytes(), (index, name)


@pytest.mark.parametrize("what", ["search", "sweep"])
def test_a_process_that_is_killed_in_a_trial_is_replaced(
    what: str, two: Any, tmp_path: Path, quiet_runs: Path
) -> None:
    driver = drive(what, "process", tmp_path, two.address)
    said = driver.communicate()[0]
    assert driver.returncode == 0 and (tmp_path / "in-the-middle").exists(), said
    assert_as_quiet(what, tmp_path, quiet_runs)


@pytest.mark.parametrize("what", ["search", "sweep"])
def test_a_node_that_is_lost_costs_its_trials_alone(
    what: str, two: Any, tmp_path: Path, quiet_runs: Path
) -> None:
    [lost] = two.worker_nodes
    driver = drive(what, lost.node_id, tmp_path, two.address)
    wait_for((tmp_path / "in-the-middle").exists, driver)
    two.remove_node(lost, allow_graceful=False)
    said = driver.communicate()[0]
    assert driver.returncode == 0, said
    assert_as_quiet(what, tmp_path, quiet_runs)


@pytest.mark.parametrize("what", ["search", "sweep"])
def test_a_run_whose_head_is_lost_goes_on_elsewhere(
    what: str, two: Any, tmp_path: Path, quiet_runs: Path
) -> None:
    [other] = two.worker_nodes
    driver = drive(what, other.node_id, tmp_path, two.address)
    wait_for((tmp_path / "in-the-middle").exists, driver)
    two.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
    driver.communicate()
    assert driver.returncode not in (0, None)
    again = drive(what, "nobody", tmp_path)
    said = again.communicate()[0]
    assert again.returncode == 0, said
    assert_as_quiet(what, tmp_path, quiet_runs)
