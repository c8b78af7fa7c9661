"""Clusters are looked at before work begins: room, addresses, code and folders; two nodes are two raylets."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.adanat.config import TrainingConfig
from agents.adanat.sweeps import run_trials
from agents.distributed import cluster as clusters
from agents.distributed.cluster import ROOT, cluster, quiet, trial_cluster


def node(name: str, **resources: float) -> dict[str, Any]:
    return {"NodeManagerAddress": name, "Resources": resources}


SMALL = [node("a", CPU=1), node("b", CPU=1)]


@pytest.mark.parametrize(
    ("nodes", "each", "count", "expected", "room"),
    [
        (SMALL, {"CPU": 1, "GPU": 0}, 1, "ab", 2),
        (SMALL, {"CPU": 1}, 2, "ab", 2),
        ([node("a", CPU=1), node("b", CPU=4)], {"CPU": 2}, 1, "b", 2),
        ([node("a", CPU=8), node("b", CPU=8, GPU=1)], {"CPU": 1, "GPU": 0.5}, 2, "b", 2),
        ([node("a", CPU=3), node("b", CPU=5)], {"CPU": 2}, 1, "ab", 3),
        ([node("a", GPU=0.7)], {"GPU": 0.1}, 7, "a", 7),
        ([node("a")], {"CPU": 0}, 1, "a", 1),
    ],
)
def test_nodes_with_room_are_found(
    nodes: list[dict], each: dict[str, float], count: int, expected: str, room: int
) -> None:
    found, places = clusters._fitting(nodes, each, count, "asked")
    assert "".join(node["NodeManagerAddress"] for node in found) == expected and places == room


@pytest.mark.parametrize(
    ("nodes", "each", "count", "said"),
    [
        (SMALL, {"CPU": 2, "GPU": 0}, 1, "cpus 2: no node has room for that; the largest, a, has 1 CPU; ask"),
        (SMALL, {"CPU": 1}, 3, "cpus 2: the nodes have room for 2 at once"),
        ([node("a", CPU=8), node("b", GPU=1)], {"CPU": 4, "GPU": 1}, 1, "no node has room"),
        ([node("a", CPU=1), node("b", CPU=3)], {"CPU": 4}, 1, "the largest, b, has 3 CPU"),
        ([node("a", CPU=3), node("b", CPU=3)], {"CPU": 2}, 3, "room for 2 at once"),
        ([node("a", GPU=1)], {"GPU": 0.6}, 2, "room for 1 at once"),
    ],
)
def test_what_fits_no_node_is_refused_though_it_fits_their_sum(
    nodes: list[dict], each: dict[str, float], count: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        clusters._fitting(nodes, each, count, "cpus 2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_trials_on_a_gpu_that_nobody_reserves_are_refused(device: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gpus-per-trial 0: with device cuda"):
        trial_cluster(None, 1, 0.0, device)
    config = TrainingConfig.of(device=device)
    with pytest.raises(ValueError, match="gpus-per-trial 0: with device cuda"):
        run_trials([(config, tmp_path)], lambda *told: None, folder=tmp_path)


def test_an_address_where_nobody_is_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is said as it is, as Ray's client has it, or in the environment."""
    quiet()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    began = time.monotonic()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", f"ray://[::1]:{port}", "auto"):
        with pytest.raises(ConnectionError, match=f"^address {address.partition('[')[0]}.*{port}") as caught:
            with cluster(address, CPU=1):
                pass
        assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 30, "what Ray does takes 14 minutes each"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of two nodes, the second with a GPU by name, and another natgym before all that it has installed."""
    quiet()
    from ray.cluster_utils import Cluster

    planted = tmp_path_factory.mktemp("planted") / "site-packages"
    for package in ("natgym", "agents", "generators"):
        (planted / package).mkdir(parents=True)
        (planted / package / "__init__.py").write_text("PLANTED = True\n")
    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(planted))
        two.add_node(num_cpus=1, num_gpus=1)
    yield two.address
    two.shutdown()


@pytest.mark.ray
@pytest.mark.slow
def test_a_session_of_ray_that_has_ended_leaves_nothing(tmp_path: Path) -> None:
    with cluster(None, CPU=1):
        import ray

        session = Path(ray._private.worker._global_node.get_session_dir_path())
        assert session.is_dir()
    assert not session.exists() and session.parent.is_dir()


def test_sockets_get_a_short_name_for_a_long_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    for letters in range(1, 60):  # around the bound
        folder = Path("/tmp") / ("n" * letters)
        monkeypatch.setattr(clusters, "gettempdir", lambda folder=folder: str(folder))
        longest = f"{folder}/ray/session_2026-11-27_14-00-39_284410_1234567/sockets/plasma_store"
        if len(longest) <= 107:
            with clusters._short_folder() as short:
                assert short is None
    long = tmp_path / ("n" * 100)
    monkeypatch.setenv("RAY_TMPDIR", str(long))  # which Ray puts before TMPDIR
    with clusters._short_folder() as short:
        assert short is not None and len(short) < 30
        (Path(short) / "spilled").touch()
    assert (long / "ray" / "spilled").is_file() and not Path(short).parent.exists()


@pytest.mark.ray
@pytest.mark.slow
def test_a_long_folder_for_what_is_temporary_stops_nobody(tmp_path: Path) -> None:
    """As schedulers give to a job: Ray's sockets would have longer names than Linux allows."""
    long = tmp_path / ("scratch-of-the-job/" * 4)
    long.mkdir(parents=True)
    code = """
from agents.distributed.cluster import cluster
with cluster(None, CPU=1):
    import ray
    print(ray.get(ray.remote(lambda: 3).remote()), ray._private.worker._global_node.get_session_dir_path())
"""
    env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(long)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer, session = done.stdout.split()
    assert answer == "3" and len(session) < 80 and not Path(session).exists()
    assert [path.name for path in (long / "ray").iterdir()] == ["session_latest"], "its logs were here"


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_that_is_lost_while_it_is_looked_at_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet()
    from ray.cluster_utils import Cluster

    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other, fitting = two.add_node(num_cpus=1), clusters._fitting

    def lost(nodes: list[dict], *asked: Any) -> tuple[list[dict], int]:
        assert len(nodes) == 2
        two.remove_node(other, allow_graceful=False)
        return fitting(nodes, *asked)

    monkeypatch.setattr(clusters, "_fitting", lost)
    with cluster(two.address, CPU=1):
        pass
    two.shutdown()


@pytest.mark.ray
@pytest.mark.slow
def test_what_ray_has_lost_is_one_line() -> None:
    with pytest.raises(RuntimeError, match="Ray has lost what it ran on: The actor.*; go on with --resume"):
        with cluster(None, CPU=1):
            import ray

            raise ray.exceptions.ActorDiedError()


@pytest.mark.ray
@pytest.mark.slow
def test_workers_run_this_code_though_their_node_has_another(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # Ray puts it on the workers' path
    import ray

    def look() -> tuple[str, str]:  # by value, as it is of no module that a worker could import
        from pathlib import Path

        import natgym

        return str(Path(str(natgym.__file__)).parent.parent), os.environ["CUDA_VISIBLE_DEVICES"]

    with cluster(address, folder=tmp_path, CPU=0, GPU=0.5):
        halves = ray.remote(num_cpus=0, num_gpus=0.5)(look)
        assert ray.get([halves.remote(), halves.remote()]) == [(str(ROOT), "0")] * 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
@pytest.mark.slow
def test_other_code_a_hidden_folder_and_too_much_are_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="node .* does not see /proc/self/cwd; choose an --output"):
        with cluster(address, folder=Path("/proc/self/cwd"), CPU=1):  # of each process its own
            pass
    with pytest.raises(ValueError, match="cpus-per-trial 2, gpus-per-trial 0: no node .* has 1 CPU"):
        with trial_cluster(address, 2, 0.0):
            pass
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").touch()
    with pytest.raises(ValueError, match=f"would run the natgym of {tmp_path}, .*, not of {ROOT};"):
        with cluster(address, CPU=1):
            pass
