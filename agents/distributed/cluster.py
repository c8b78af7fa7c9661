"""Ray clusters, joined or started on this machine, without Ray's banners, looked at before work begins."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory, gettempdir
from typing import Any, NamedTuple

# Ray reads these when it is imported.
QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a banner whatever `verbose` says
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it ends the sweep quietly, as if the trials were done
}
ROOT = Path(__file__).resolve().parents[2]  # of this code
LONGEST_SOCKET = 107  # bytes that Linux allows in a socket's path
SOCKETS = len(
    "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
)  # that Ray puts after its folder's
PATIENCE = 10  # seconds for an address to answer; Ray itself would try for a quarter of an hour


def quiet() -> None:
    """Set what Ray reads when it is imported, unless the user has."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def cluster(
    address: str | None, *, asked: str = "trials", count: int = 1, folder: Path | None = None, **each: float
) -> Iterator[int]:
    """Use the running cluster at `address`, or start one on this machine and end it afterwards.

    Yields how many have room at once.

    Workers import what this process does: its checkout is first on their PYTHONPATH, and what they would
    import in its place is refused.

    Args:
        asked: the flags that `each` and `count` come from, for errors.
        count: how many have to run at once.
        folder: that all nodes have to see, if any.
        each: what one asks of a node, such as CPU=2.

    Raises:
        ValueError: the nodes are too small, so that work would wait for ever; they have other code, or don't
            see the folder.
        ConnectionError: nothing answers at the address.
    """
    quiet()
    import ray

    on_end = signal.getsignal(signal.SIGTERM)  # which Ray takes for itself, to end without a word to anybody
    with _started() if address is None else _joined(address):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_end)
        try:
            nodes = [node for node in ray.nodes() if node["Alive"]]
            fitting, places = _fitting(nodes, each, count, asked)
            _check_looks(fitting, folder)
            yield places
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as error:
            said = f"{error}".partition("\n")[0]
            raise RuntimeError(f"Ray has lost what it ran on: {said}; go on with --resume") from error


def trial_cluster(
    address: str | None,
    cpus_per_trial: float,
    gpus_per_trial: float,
    device: str = "cpu",
    folder: Path | None = None,
) -> AbstractContextManager[int]:
    """Return the cluster for trials, as `cluster` does.

    Args:
        device: of the trials.

    Raises:
        ValueError: a GPU is used and none reserved, so that Ray puts all trials on the first one.
    """
    if device.startswith("cuda") and not gpus_per_trial:
        raise ValueError(
            f"gpus-per-trial 0: with device {device} all trials would be on one GPU; give each a GPU with "
            "--gpus-per-trial 1, or a share such as 0.5"
        )
    asked = f"cpus-per-trial {cpus_per_trial:g}, gpus-per-trial {gpus_per_trial:g}"
    return cluster(address, asked=asked, folder=folder, CPU=cpus_per_trial, GPU=gpus_per_trial)


@contextmanager
def _started() -> Iterator[None]:
    """Start a cluster on this machine, and remove its logs with it."""
    import ray

    with _short_folder() as folder:
        quietly: Any = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        local: Any = ray.init("local", _temp_dir=folder, **quietly)
        try:
            yield
        finally:
            ray.shutdown()
            shutil.rmtree(local.address_info["session_dir"], ignore_errors=True)


@contextmanager
def _joined(address: str) -> Iterator[None]:
    """Join a running cluster."""
    import ray

    _knock(address)
    ray.init(address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": _python_path()}})
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _short_folder() -> Iterator[str | None]:
    """Yield another name for the folder of Ray's files, if its sockets' paths would be too long there."""
    folder = Path(os.environ.get("RAY_TMPDIR") or gettempdir()) / "ray"
    if len(os.fsencode(folder)) + SOCKETS <= LONGEST_SOCKET:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="ray-", dir="/tmp") as short:
        link = Path(short) / "ray"
        link.symlink_to(folder)
        yield str(link)


def _knock(address: str) -> None:
    """Raise ConnectionError if nothing answers at an address as `ray.init` takes it."""
    from ray._private.services import canonicalize_bootstrap_address

    where = address.partition("://")[2] or canonicalize_bootstrap_address(address)  # "auto" is looked up
    if where is None:
        return
    host, _, port = where.partition("/")[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except OSError as error:
        raise ConnectionError(
            f"address {address}: no Ray cluster answers at {where} ({error}); start one with `ray start "
            "--head`, or run without --address on this machine alone"
        ) from None


def _python_path() -> str:
    """Return a PYTHONPATH with this checkout first, then this process's own and the node's."""
    installed = ROOT == Path(sysconfig.get_path("purelib"))  # there it is found, and would hide the library
    paths = ["" if installed else str(ROOT), os.environ.get("PYTHONPATH", ""), "${PYTHONPATH}"]
    return os.pathsep.join(path for path in paths if path)


def _fitting(nodes: list[dict], each: dict[str, float], count: int, asked: str) -> tuple[list[dict], int]:
    """Return the nodes that have room for one, and for how many they have; ValueError if not for `count`."""

    needs = [(name, amount) for name, amount in each.items() if amount]

    def room(node: dict) -> float:
        has = node["Resources"]
        # In Ray's unit, a ten-thousandth: in seven tenths is room for seven times a tenth.
        return min((round(has.get(name, 0) * 1e4) / round(it * 1e4) for name, it in needs), default=count)

    if (places := sum(int(room(node)) for node in nodes)) >= count:
        return [node for node in nodes if room(node) >= 1], places
    if places:
        raise ValueError(f"{asked}: the nodes have room for {places} at once; ask for fewer")
    largest = max(nodes, key=room)
    has = " and ".join(f"{largest['Resources'].get(name, 0):g} {name}" for name, _ in needs)
    raise ValueError(
        f"{asked}: no node has room for that; the largest, {largest['NodeManagerAddress']}, has {has}; "
        "ask for less"
    )


class _Look(NamedTuple):
    """What a process of a node finds: the folder, and where natgym's code is, by a hash of what it says."""

    folder: bool
    place: str
    code: str


def _look_of(task: Any) -> _Look | None:
    """Return what a node finds; None if it was lost."""
    import ray

    try:
        return _Look._make(ray.get(task))
    except ray.exceptions.RayTaskError:  # of the look itself
        raise
    except ray.exceptions.RayError:
        return None


def _check_looks(nodes: list[dict], folder: Path | None) -> None:
    """Raise ValueError if a node has other code than this process, or doesn't see the folder."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def look(token: str) -> tuple[bool, str, str]:  # sent by value: the code it looks for may be another
        import hashlib
        import importlib.util
        from pathlib import Path

        specs = [importlib.util.find_spec(name) for name in ("agents", "generators", "natgym")]
        folders = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin]
        digest = hashlib.sha256()
        for path in (path for own in folders for path in sorted(own.rglob("*.py"))):
            digest.update(path.read_bytes())
        places = ", ".join(sorted({str(own.parent) for own in folders}))
        return Path(token).exists(), places, digest.hexdigest()

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(prefix=".seen-by-", dir=folder) as token:
        ours = _Look(*look(token.name))
        asked: Any = ray.remote(num_cpus=0)(look)
        homes = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        tasks = [asked.options(scheduling_strategy=home).remote(token.name) for home in homes]
        looks = [_look_of(task) for task in tasks]
    for node, found in zip(nodes, looks, strict=True):
        if found is None:  # lost meanwhile, so that nothing will run there
            continue
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        if found.code != ours.code:
            raise ValueError(
                f"node {name} would run the natgym of {found.place or 'nowhere'}, not of {ours.place}; let "
                "nodes see this checkout under one path, or send it with `ray job submit --working-dir`"
            )
        if folder is not None and not found.folder:
            raise ValueError(
                f"node {name} does not see {folder}; choose an --output on storage that all nodes share"
            )
