"""Several processes that train one generator together: torchrun's, or Ray Train's on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from agents.distributed.cluster import cluster, quiet
from agents.distributed.jobs import RETRIES

# Ranks wait for what the first does alone, a search perhaps; a dead one is noticed by who started it.
PATIENCE = timedelta(days=1)


def own_device(device: str) -> torch.device:
    """Return this process's device, and make it the current one if it is a GPU.

    Args:
        device: "cuda" without a number gives each process of a machine a GPU of its own.

    Raises:
        ValueError: there is no such GPU.
    """
    chosen = torch.device(device)
    if chosen.type != "cuda":
        return chosen
    index = _told("LOCAL_RANK") if chosen.index is None else chosen.index
    if index >= (count := torch.cuda.device_count()):
        raise ValueError(
            f"device {device}: GPU {index} is asked for, torch finds {count} here; "
            "ask for fewer processes, or for cpu"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextmanager
def process_group(device: str = "cpu") -> Iterator[None]:
    """Join the group that torchrun's environment variables speak of; do nothing without them.

    Args:
        device: where the group's tensors will be, as for `own_device`.
    """
    if _alone() or dist.is_initialized():
        yield
        return
    if (own := own_device(device)).type == "cuda":
        # The device, since NCCL would guess it from the global rank.
        dist.init_process_group("nccl", device_id=own, timeout=PATIENCE)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield
        dist.barrier()  # gloo's threads abort a process that leaves while another still talks to it
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Return how many processes torchrun or Ray started to train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Return this process's rank; 0, which alone writes files, if there is but one."""
    return dist.get_rank() if dist.is_initialized() else _told("RANK")


def agree(what: str, value: int) -> None:
    """Raise ValueError on all ranks unless all have the same value, as those that see the same files have."""
    if not dist.is_initialized():
        return
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    if len(set(values)) > 1:
        raise ValueError(f"{what} differs from rank to rank, {values}: let all nodes see the same files")


def _alone() -> bool:
    """Whether nobody started other processes beside this one."""
    return world_size() == 1


def _told(name: str) -> int:
    """Return what torchrun or Ray tell a process; alone, it means nothing that a shell holds such a name."""
    return 0 if _alone() else int(os.environ.get(name, 0))


def run_workers(
    work: Callable[[], object], workers: int, folder: Path, device: str = "cpu", address: str | None = None
) -> None:
    """Call `work` in several processes of a Ray cluster, joined in one group; if one fails, all begin again.

    Args:
        work: what a single process does; it asks `rank` which it is, and goes on from what it wrote.
        workers: number of processes.
        folder: for Ray's own files; all nodes have to see it, and all that `work` reads.
        device: a device beginning with "cuda" gives each process a GPU of its own.
        address: of a running cluster; None starts one on this machine and ends it afterwards.

    Raises:
        ValueError, ConnectionError: see `agents.distributed.cluster.cluster`.
        RuntimeError: processes failed again after RETRIES further tries.
    """
    quiet()
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def loop() -> None:
        work()

    use_gpu = device.startswith("cuda")
    asked = f"workers {workers}"
    with cluster(address, asked=asked, count=workers, folder=folder, **{"GPU" if use_gpu else "CPU": 1}):
        TorchTrainer(
            loop,
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            run_config=RunConfig(
                name="ray",
                storage_path=str(folder.resolve()),
                failure_config=FailureConfig(max_failures=RETRIES),
            ),
        ).fit()
