"""Several processes that train one generator together: torchrun's, or Ray Train's on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed as dist

from agents.cluster import cluster, quiet


@contextmanager
def process_group() -> Iterator[None]:
    """Join the group that torchrun's environment variables speak of; do nothing without them."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        dist.barrier()  # gloo's threads abort a process that leaves while another still talks to it
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's rank; 0, which alone writes files, if there is but one."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))


def run_workers(
    work: Callable[[], object], workers: int, folder: Path, device: str = "cpu", address: str | None = None
) -> None:
    """Call `work` in several processes of a Ray cluster, joined in one group.

    Args:
        work: what a single process does; it asks `rank` which it is.
        workers: number of processes.
        folder: for Ray's own files; on a cluster it must be on shared storage, as must all that `work` reads.
        device: a device beginning with "cuda" gives each process a GPU of its own.
        address: of a running cluster; None starts one on this machine and ends it afterwards.

    Raises:
        ValueError: the cluster is too small, so that the processes would wait for ever.
        RuntimeError: a process failed.
    """
    quiet()
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def loop() -> None:
        work()

    use_gpu = device.startswith("cuda")
    with cluster(address, **{"GPU" if use_gpu else "CPU": workers}):
        TorchTrainer(
            loop,
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            run_config=RunConfig(name="ray", storage_path=str(folder.resolve())),
        ).fit()
