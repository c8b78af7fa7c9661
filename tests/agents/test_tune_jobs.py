"""Trials as Ray Tune jobs: what they sample, and that Ray changes nothing about what they learn."""

import dataclasses
import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY

from agents.adanat.config import STOPPED, TrainingConfig
from agents.adanat.sweeps import _asha, check_rung, run_trials, sample_configs
from agents.adanat.trainable import AdaNATTrainable
from agents.adanat.trainer import train
from natgym.runs import MetricsLog, read_metrics, write_config
from natgym.settings import setting

BASE = TINY.but(updates=2, evaluate_every=10)


def test_one_sample_without_a_space_is_the_base() -> None:
    assert sample_configs(BASE, (), 1) == [BASE]


def test_samples_follow_their_laws() -> None:
    space = (
        "learning_rate=loguniform(1e-4, 1e-2)",
        "clip = uniform(0.1,0.3)",
        "epochs=choice(2,4,8)",
        "seed=choice(1,2,3,4,5)",
    )
    configs = sample_configs(BASE, space, 200)
    rates, clips = ([setting(config, name) for config in configs] for name in ("learning_rate", "clip"))
    assert 1e-4 <= min(rates) < 2e-4 and 5e-3 < max(rates) <= 1e-2
    below = sum(rate < 1e-3 for rate in rates)  # half of them in each decade
    assert 70 <= below <= 130
    assert 0.1 <= min(clips) < 0.11 and 0.29 < max(clips) <= 0.3
    assert math.isclose(sum(clips) / 200, 0.2, abs_tol=0.02)
    assert {config.adanat.epochs for config in configs} == {2, 4, 8}
    assert {config.adanat.seed for config in configs} == {1, 2, 3, 4, 5}
    assert all(type(config.adanat.epochs) is type(config.adanat.seed) is int for config in configs)
    drawn = {name: setting(BASE, name) for name in ("learning_rate", "clip", "epochs", "seed")}
    assert all(config.but(drawn) == BASE for config in configs)


def test_samples_follow_from_the_seed_alone() -> None:
    """A resumed sweep draws the same trials, and a longer one begins with those of the shorter."""
    space = ("clip=uniform(0.1,0.3)", "learning_rate=loguniform(1e-4,1e-2)")
    configs = sample_configs(BASE, space, 5)
    torch.rand(3)
    assert sample_configs(BASE, space, 8)[:5] == configs
    assert len({config.adanat.clip for config in configs}) == 5
    other = sample_configs(BASE.but(seed=1), space, 5)
    assert not {config.adanat.clip for config in configs} & {config.adanat.clip for config in other}


@pytest.mark.parametrize(
    ("space", "named"),
    [
        ("learning_rate", "choice"),
        ("learning_rate=normal(0,1)", "normal"),
        ("learning_rate=uniform()", "uniform"),
        ("learning_rate=uniform(0.1)", "uniform"),
        ("learning_rate=uniform(0.1,0.2,0.3)", "uniform"),
        ("learning_rate=loguniform(0,1)", "loguniform"),
        ("learning_rate=loguniform(-1,1)", "loguniform"),
        ("epochs=choice(two,4)", "two"),
        ("learning_rate=choice(__import__('os'),1)", "import"),
        ("rate=uniform(0,1)", "rate"),
        ("schedule=choice(1,2)", "schedule"),
        ("policy=choice(1,2)", "policy"),
        ("epochs=choice(0)", "epochs"),
    ],
)
def test_a_law_that_cannot_be_read_is_one_line(space: str, named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        sample_configs(BASE, (space,), 2)
    assert "\n" not in str(caught.value)


def test_no_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="num_samples"):
        sample_configs(BASE, (), 0)


@dataclasses.dataclass
class Sweep:
    """Two trials that learn and one that cannot, run by Ray."""

    folders: list[Path]
    reports: list[tuple[int, dict[str, Any]]]
    error: BaseException


CONFIGS = [
    BASE,
    BASE.but(seed=1, learning_rate=3e-3),
    BASE.but(schedule="no-such-schedule.json"),
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("sweep")
    folders = [folder / f"{index:03d}" for index in range(len(CONFIGS))]
    for trial in folders:
        trial.mkdir()
    reports: list[tuple[int, dict[str, Any]]] = []
    with pytest.raises(RuntimeError) as caught:
        run_trials(
            list(zip(CONFIGS, folders, strict=True)),
            lambda trial, metrics: reports.append((trial, dict(metrics))),
            folder=folder,
            cpus_per_trial=1,
        )
    return Sweep(folders, reports, caught.value)


@pytest.mark.ray
@pytest.mark.parametrize("trial", [0, 1])
def test_a_trial_learns_the_same_without_ray(sweep: Sweep, tmp_path: Path, trial: int) -> None:
    reported: list[dict[str, float]] = []
    train(CONFIGS[trial], tmp_path, reported.append)
    for name in ("metrics.csv", "policy/config.json", "policy/model.safetensors"):
        assert (sweep.folders[trial] / name).read_bytes() == (tmp_path / name).read_bytes(), name
    arrived = [metrics for index, metrics in sweep.reports if index == trial]
    assert len(arrived) == len(reported) == BASE.adanat.updates
    for expected, found in zip(reported, arrived, strict=True):
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=0, nan_ok=True)


@pytest.mark.ray
def test_trials_learn_on_their_own(sweep: Sweep) -> None:
    first, second = (folder / "policy" / "model.safetensors" for folder in sweep.folders[:2])
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.ray
def test_a_failing_trial_says_why_and_stops_no_other(sweep: Sweep) -> None:
    assert "1 of 3" in str(sweep.error) and "no-such-schedule.json" in str(sweep.error)
    assert not (sweep.folders[2] / "policy").exists()
    assert {index for index, _ in sweep.reports} == {0, 1}


@pytest.mark.slow
@pytest.mark.ray
def test_an_interrupt_is_not_taken_for_the_end(tmp_path: Path) -> None:
    """Tune's own handler would end quietly, and half-trained trials would go into the table."""
    interrupted: list[int] = []

    def report(trial: int, metrics: dict[str, float]) -> None:
        if not interrupted:
            interrupted.append(trial)
            os.kill(os.getpid(), signal.SIGINT)

    config = BASE.but(updates=500)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_trials([(config, tmp_path)], report, folder=tmp_path, cpus_per_trial=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "checkpoint.pt").is_file() and not (tmp_path / "policy").exists()


def rung_trials(folder: Path, count: int) -> list[tuple[TrainingConfig, Path]]:
    """Trials of 12 updates, measured at every second."""
    folders = [folder / f"{trial:03d}" for trial in range(count)]
    for own in folders:
        own.mkdir(parents=True)
    return [(BASE.but(updates=12, evaluate_every=2), own) for own in folders]


def tell(
    scheduler: Any, trials: list[tuple[TrainingConfig, Path]], told: list[tuple[int, int, float]]
) -> None:
    """Let trials report (trial, update, distance) in this order, and log what they report as trials do."""
    asked = {trial: SimpleNamespace(trial_id=f"tune-{trial}", config={"trial": trial}) for trial, *_ in told}
    for trial in sorted(asked):
        scheduler.on_trial_add(None, asked[trial])
    for trial, update, distance in told:
        MetricsLog(trials[trial][1] / "metrics.csv", "update", update).append(
            {"update": update, "distance": distance}
        )
        scheduler.on_trial_result(None, asked[trial], {"update": update, "distance": distance})


def stopped(trials: list[tuple[TrainingConfig, Path]]) -> set[int]:
    return {trial for trial, (_, own) in enumerate(trials) if (own / STOPPED).exists()}


def test_asha_stops_what_is_worse_than_the_median_of_its_rung(tmp_path: Path) -> None:
    """At 2, 4 and 8 updates, the distances that came before counting; at the end nothing is stopped."""
    rng = np.random.default_rng(0)
    trials = rung_trials(tmp_path, 8)
    going, told = set(range(8)), []
    rungs: dict[int, list[float]] = {2: [], 4: [], 8: []}
    for update in range(1, 13):
        for trial in rng.permutation(8).tolist():
            if trial not in going:
                continue
            distance = rng.random()
            told.append((trial, update, distance))
            if update in rungs:
                if rungs[update] and distance > np.median(rungs[update]):
                    going.remove(trial)
                rungs[update].append(distance)
    assert 1 <= len(going) <= 4, "else this shows nothing"
    tell(_asha(trials, 2), trials, told)
    assert stopped(trials) == set(range(8)) - going


def test_a_resumed_sweep_counts_what_its_trials_measured_before(tmp_path: Path) -> None:
    trials = rung_trials(tmp_path, 5)
    tell(_asha(trials, 2), trials, [(0, 2, 0.5), (1, 2, 0.4), (2, 2, 0.6), (0, 3, 0.5), (3, 1, 0.1)])
    assert stopped(trials) == {2}
    # The driver was killed before it heard of a measurement that trial 4 had logged.
    MetricsLog(trials[4][1] / "metrics.csv", "update", 1).append({"update": 2, "distance": 0.7})
    again = _asha(trials, 2)
    tell(again, trials, [(0, 4, 0.9), (1, 4, 0.8), (2, 2, 0.6), (3, 2, 0.6), (4, 2, 0.7)])
    assert stopped(trials) == {2, 3, 4}, "0 had passed the first rung, and was the first at the second"


@pytest.mark.parametrize(("rung", "updates", "every"), [(0, 12, 1), (3, 12, 2), (12, 12, 2), (-2, 12, 2)])
def test_a_rung_without_a_measurement_is_refused(rung: int, updates: int, every: int) -> None:
    config = BASE.but(updates=updates, evaluate_every=every)
    check_rung([config], 2 * every)
    with pytest.raises(ValueError, match=f"asha-rung {rung}"):
        check_rung([config], rung)


def test_a_stopped_trial_stays_stopped(tmp_path: Path) -> None:
    """It tells what it told last, for table and progress, and learns no more."""
    [(config, own)] = trials = rung_trials(tmp_path, 1)
    (own / STOPPED).touch()
    write_config(own / "config.json", config)
    (own / "metrics.csv").write_text("update,distance\n2,1.5\n")
    trainable = AdaNATTrainable.__new__(AdaNATTrainable)  # without a Ray cluster
    trainable.setup({"trial": 0}, trainings=trials)
    assert trainable.step() == {"update": 2.0, "distance": 1.5, "done": True}
    assert not (own / "checkpoint.pt").exists() and not (own / "policy").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_a_trial_that_is_behind_ends_at_its_rung(tmp_path: Path) -> None:
    """One trial after the other: the first can't be stopped, and the second, of 40 images with too little
    variety, is far behind it."""
    good = BASE.but(updates=4, evaluate_every=2, schedule="random-order")
    configs = [good, good.but(schedule="maskgit")]
    trials = [(config, tmp_path / f"{index}") for index, config in enumerate(configs)]
    for _, own in trials:
        own.mkdir()
    reports: list[tuple[int, int]] = []
    cpus = os.cpu_count() or 1
    run_trials(
        trials,
        lambda trial, told: reports.append((trial, int(told["update"]))),
        folder=tmp_path,
        rung=2,
        cpus_per_trial=cpus,
    )
    assert reports == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2)]
    assert [(own / "policy").exists() for _, own in trials] == [True, False]
    assert stopped(trials) == {1} and len(read_metrics(trials[1][1] / "metrics.csv")) == 2
