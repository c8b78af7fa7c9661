"""Strategy searches and sweeps over schedules as Ray Tune jobs.

Importing this imports Ray: call `agents.distributed.cluster.quiet` before, if its banners are unwanted.
Tune's own state is never read again: a search goes on from its own log (`agents.autonat.search.Search`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # paths in trials mean what they meant
from ray import tune  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from agents.autonat.scorer import Evaluation, Measurement, ScheduleScorer
from agents.autonat.search import Search
from agents.distributed.cluster import trial_cluster
from agents.distributed.jobs import RETRIES
from generators.precision import Precision
from generators.schedules import Schedule, as_schedule
from natgym.task import Task

Report = Callable[[int, Evaluation, Measurement], object]

_LOADED = (
    "task",
    "generator",
    "device",
    "precision",
    "rules",
    "objective",
    "price",
    "threads",
)  # read when an actor starts
_ASKED = ("images", "seed", "balanced", "split")
_OWN = (*_LOADED, *_ASKED, "steps", "schedule", "several")
MANY = 16  # evaluations in a trial at most: what one lost trial loses


class ScheduleTrial(tune.Trainable):
    """One trial measures one schedule or several: {"distance", "error"} from a split, those of the best.

    An actor loads the generator once, whatever the number of its trials (`reuse_actors=True`). The config:

    | key | default | meaning |
    |---|---|---|
    | task, generator | "digits", None | as everywhere |
    | steps | 8 | T |
    | schedule | "reference" | name, file, table (T, 4), or a family with parameters, "beta-cdf:a=2" |
    | images, seed | 1000, 0 | images, and their noise |
    | balanced | True | conditions in turn, or at random |
    | split | "select" | real images to compare with |
    | rules, device, precision, threads | "confidence", "cpu", "float32", 1 | how images are drawn |
    | objective | "distance" | what is made small; or "caption", "valid" |
    | price | 0.0 | added to it for each forward pass of an image |
    | several | | what differs between many measured in one trial, a list; {"measured"} is a pair for each |
    | any other | | a parameter of the family: remask, sampling, w, a, b, ... |
    """

    def setup(self, config: dict[str, Any]) -> None:
        torch.set_num_threads(1)  # sums in one order, whatever Ray's default; threads draw batches
        self.loaded: dict[str, Any] | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        loaded = {name: new_config[name] for name in _LOADED if name in new_config}
        if loaded != self.loaded:
            self.scorer, self.loaded = _meter(**loaded), loaded
        self.evaluations = [_evaluation(new_config | own) for own in new_config.get("several", [{}])]
        return True

    def step(self) -> dict[str, Any]:
        measured = [self.scorer(evaluation) for evaluation in self.evaluations]
        return {**min(measured)._asdict(), "measured": [list(pair) for pair in measured], "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial is one measurement."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as it saves nothing."""


def _meter(
    task: str = "digits",
    generator: Any = None,
    device: str = "cpu",
    precision: Precision = "float32",
    **how: Any,
) -> ScheduleScorer:
    loaded = Task.load(task, device=device, precision=precision, generator=generator)
    return ScheduleScorer(loaded, **how)


def _evaluation(config: dict[str, Any]) -> Evaluation:
    spec, steps = config.get("schedule", "reference"), config.get("steps", 8)
    if isinstance(spec, str):
        more = ",".join(f"{key}={value}" for key, value in config.items() if key not in _OWN)
        spec = as_schedule(f"{spec}{',' if ':' in spec else ':'}{more}" if more else spec, steps)
    else:
        spec = Schedule(torch.tensor(spec, dtype=torch.float64))
    images, seed = config.get("images", 1000), config.get("seed", 0)
    balanced, split = config.get("balanced", True), config.get("split", "select")
    return Evaluation(0, 0, spec, images, seed, balanced, split)


def _asked(evaluation: Evaluation) -> dict[str, Any]:
    """Return what a trial is told of one of the evaluations that it measures."""
    asked = {name: getattr(evaluation, name) for name in _ASKED}
    return asked | {"schedule": evaluation.schedule.table_T4.tolist()}


class SearchShell(Searcher):
    """Hands the open evaluations of searches to Tune, and what they measured back to the searches.

    A trial costs Tune some hundredths of a second, so that it measures many where many are open.

    Args:
        searches: all advance at once, so that one with a small generation leaves no core idle.
        fixed: config of every trial.
        report: called with the search's index after each finished evaluation.
        room: trials that run at once; each of them gets two or more of a large generation.
    """

    def __init__(
        self, searches: Sequence[Search], fixed: dict[str, Any], report: Report, room: int = 1
    ) -> None:
        super().__init__(metric="distance", mode="min")
        self.searches, self.fixed, self.report, self.room = searches, fixed, report, room
        self.running: dict[str, tuple[int, list[Evaluation]]] = {}
        self.failures: Counter[tuple[int, int]] = Counter()
        self.given_up = False

    def suggest(self, trial_id: str) -> Any:
        if self.given_up or all(search.result is not None for search in self.searches):
            return Searcher.FINISHED
        taken = {(index, one.number) for index, several in self.running.values() for one in several}
        for index, search in enumerate(self.searches):
            if left := [one for one in search.open() if (index, one.number) not in taken]:
                share = left[: min(MANY, max(1, len(left) // (2 * self.room)))]
                self.running[trial_id] = index, share
                return {**self.fixed, "several": [_asked(evaluation) for evaluation in share]}
        return None  # all open ones are running: ask again later

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        if (running := self.running.pop(trial_id, None)) is None:
            return
        index, several = running
        if error or not result or "measured" not in result:
            self.failures.update((index, evaluation.number) for evaluation in several)
            self.given_up |= max(self.failures.values()) > RETRIES
            return
        for evaluation, pair in zip(several, result["measured"], strict=True):
            measured = Measurement(*pair)
            self.searches[index].finish(evaluation, measured)
            self.report(index, evaluation, measured)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles what it is given, a running search can't be, and nobody reads it again

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()  # Tune wants a file

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search goes on from its own log")


def run_searches(
    searches: Sequence[Search],
    fixed: dict[str, Any],
    report: Report,
    *,
    folder: Path,
    cpus_per_trial: int = 1,
    gpus_per_trial: float = 0.0,
    address: str | None = None,
) -> None:
    """Run searches to their ends, in as many trials at once as the cluster has room for.

    Args:
        searches: those that are done already cost nothing.
        fixed: task, generator, device, rules and objective of all trials.
        report: called in the driver with the search's index after each finished evaluation.
        folder: for Ray's own files and this process; other nodes need not see it.
        cpus_per_trial, gpus_per_trial: what a trial asks of the cluster; shares of a GPU below 1, too.
        address: of a running cluster; None starts one on this machine and ends it afterwards.

    Raises:
        ValueError, ConnectionError: see `agents.distributed.cluster.trial_cluster`.
        RuntimeError: an evaluation failed again after RETRIES further tries.
    """
    if all(search.result is not None for search in searches):
        return
    with trial_cluster(address, cpus_per_trial, gpus_per_trial, fixed.get("device", "cpu")) as room:
        shell = SearchShell(searches, fixed | {"threads": cpus_per_trial}, report, room)
        results = tune.Tuner(
            tune.with_resources(ScheduleTrial, {"cpu": cpus_per_trial, "gpu": gpus_per_trial}),
            tune_config=tune.TuneConfig(search_alg=shell, num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder.resolve()),
                # A trial saves nothing, for which all nodes would have to see the folder.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()
    if shell.given_up:
        reason = str(results.errors[-1]).strip().splitlines()[-1]
        raise RuntimeError(f"an evaluation failed {RETRIES + 1} times, the last time with: {reason}")
