"""Ray clusters, joined or started on this machine, without Ray's banners."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Ray reads these when it is imported.
QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a banner whatever `verbose` says
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it ends the sweep quietly, as if the trials were done
}


def quiet() -> None:
    """Set what Ray reads when it is imported, unless the user has."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def cluster(address: str | None, **wanted: float) -> Iterator[None]:
    """Use the running cluster at `address`, or start one on this machine and end it afterwards.

    Args:
        wanted: what a single trial or all workers together ask for, such as CPU=2.

    Raises:
        ValueError: the cluster is too small, so that they would wait for ever.
    """
    quiet()
    import ray

    if address is None:
        ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(address=address, log_to_driver=False)
    try:
        for resource, amount in wanted.items():
            if amount > (there := ray.cluster_resources().get(resource, 0)):
                raise ValueError(
                    f"{amount:g} {resource}s are asked for; the cluster has {there:g}: ask for fewer"
                )
        yield
    finally:
        ray.shutdown()
