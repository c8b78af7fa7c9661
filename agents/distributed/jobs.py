"""Numbered jobs as Ray Tune trials, as many at once as a cluster has room for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.distributed.cluster import quiet, trial_cluster

RETRIES = 2  # of what fails, since a node or a process may be lost


def run_jobs(
    work: Callable[[int, Callable[[dict[str, Any]], object]], object],
    count: int,
    report: Callable[[int, dict[str, Any]], object],
    **where: Any,
) -> list[dict[str, Any]]:
    """Run numbered jobs as Ray Tune trials, as many at once as the cluster has room for.

    Args:
        work: (number, tell) -> does job 0..count-1 in a process of its own and tells metrics as it goes on.
        report: called in the driver with the job's number and whatever it told.
        where: other arguments of `run_trainable`.

    Returns:
        What each job told last, by number.

    Raises:
        ValueError, RuntimeError: see `run_trainable`.
    """
    quiet()
    from ray import tune

    def job(choice: dict[str, int]) -> None:
        import torch

        torch.set_num_threads(1)  # as everywhere: sums in one order, whatever Ray's default
        work(choice["trial"], tune.report)

    return run_trainable(job, count, report, **where)


def run_trainable(
    trainable: Any,
    count: int,
    report: Callable[[int, dict[str, Any]], object],
    *,
    folder: Path,
    cpus_per_trial: int = 1,
    gpus_per_trial: float = 0.0,
    device: str = "cpu",
    address: str | None = None,
    scheduler: Any = None,
) -> list[dict[str, Any]]:
    """Run trials whose config is {"trial": 0..count-1}, as many at once as the cluster has room for.

    A trial that fails begins again; it goes on from what it wrote itself, since Tune keeps nothing of it.

    Args:
        trainable: of Ray Tune, a class or a function.
        report: called in the driver with the trial's number and each of its results.
        folder: for Ray's own files; all nodes have to see it.
        cpus_per_trial, gpus_per_trial: what a trial asks of the cluster; shares of a GPU below 1, too.
        device: of the trials.
        address: of a running cluster; None starts one on this machine and ends it afterwards.
        scheduler: a Tune scheduler that may stop trials; by default all run to their ends.

    Returns:
        Each trial's last result, by number.

    Raises:
        ValueError, ConnectionError: see `agents.distributed.cluster.trial_cluster`.
        RuntimeError: a trial failed again after RETRIES further tries.
    """
    from ray import tune

    class Listener(tune.Callback):
        def on_trial_result(
            self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
        ) -> None:
            report(trial.config["trial"], result)

    with trial_cluster(address, cpus_per_trial, gpus_per_trial, device, folder):
        results = tune.Tuner(
            tune.with_resources(trainable, {"cpu": cpus_per_trial, "gpu": gpus_per_trial}),
            param_space={"trial": tune.grid_search(list(range(count)))},
            tune_config=tune.TuneConfig(scheduler=scheduler),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder.resolve()),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
                callbacks=[Listener()],
            ),
        ).fit()
    if results.errors:
        reason = str(results.errors[0]).strip().splitlines()[-1]
        raise RuntimeError(f"{len(results.errors)} of {count} trials failed; the first: {reason}")
    ended = (results[number] for number in range(count))
    last = {one.config["trial"]: one.metrics for one in ended if one.config and one.metrics}
    return [last[number] for number in range(count)]
