"""Searches as Ray Tune jobs: the shell's bookkeeping without Ray; with it the same result, killed or not."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.autonat.scorer import Evaluation, Measurement, ScheduleScorer
from agents.autonat.search import Search, SearchConfig
from agents.distributed.cluster import quiet
from generators.schedules import Schedule, as_schedule, maskgit
from natgym.runs import read_metrics

quiet()
from agents.autonat import tune_search  # noqa: E402  (Ray reads its settings when it is imported)
from agents.autonat.tune_search import MANY, RETRIES, ScheduleTrial, SearchShell, run_searches  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CONFIG = SearchConfig(images_per_evaluation=20, budget=300, finalists=2, final_images=40, warm="none")
FIXED = {"task": "digits", "generator": None, "steps": 2, "device": "cpu", "rules": "confidence"}


def new_search(log: Path, seed: int = 0) -> Search:
    return Search("coordinate", CONFIG, 2, seed, log)


def measured_in_process(log: Path, seed: int = 0) -> Search:
    search, scorer = new_search(log, seed), ScheduleScorer("digits")
    while search.result is None:
        for evaluation in search.open():
            search.finish(evaluation, scorer(evaluation))
    return search


class Shell:
    """A shell over two searches, and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.searches = [new_search(folder / "a.csv"), new_search(folder / "b.csv", seed=1)]
        self.reports: list[tuple[int, int, float]] = []
        self.searcher = SearchShell(self.searches, FIXED, self.report)

    def report(self, index: int, evaluation: Evaluation, measured: Measurement) -> None:
        self.reports.append((index, evaluation.number, measured.distance))


def answer(distance: float) -> dict[str, Any]:
    """Return what a trial of one evaluation says."""
    return {"distance": distance, "error": 0.1, "measured": [[distance, 0.1]]}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_trial_is_told_all_that_it_measures(shell: Shell) -> None:
    config, evaluation = shell.searcher.suggest("t"), shell.searches[0].open()[0]
    (asked,) = config.pop("several")
    told = Schedule(torch.tensor(asked.pop("schedule"), dtype=torch.float64))
    assert torch.equal(told.table_T4, evaluation.schedule.table_T4)
    assert asked == {"images": 20, "seed": evaluation.seed, "balanced": True, "split": "train"}
    assert config == FIXED


def test_open_evaluations_are_handed_out_once(shell: Shell) -> None:
    """Those of all searches at once; when all are running, Tune is asked to come back."""
    asked = [shell.searcher.suggest(f"t{at}")["several"] for at in range(6)]
    open_ = [evaluation.seed for search in shell.searches for evaluation in search.open()]
    assert [one["seed"] for (one,) in asked] == open_
    assert shell.searcher.suggest("t6") is None
    shell.searcher.on_trial_complete("t1", answer(0.5))
    assert shell.reports == [(0, 1, 0.5)] and shell.searcher.suggest("t6") is None
    for trial in ("t0", "t2"):
        shell.searcher.on_trial_complete(trial, answer(0.7))
    (next_,) = shell.searcher.suggest("t6")["several"]
    assert next_["seed"] == shell.searches[0].open()[0].seed, "the next generation"


def test_of_many_open_evaluations_a_trial_measures_several(tmp_path: Path) -> None:
    """The more are left the more, so that trials end together; a lost one's are all asked for again."""
    grid = replace(CONFIG, budget=4000, race=1)
    search = Search("grid", grid, 2, 0, tmp_path / "log.csv")
    shell = SearchShell([search], FIXED, lambda *said: None, room=2)
    many, shares = len(search.open()), {}
    while (config := shell.suggest(f"t{len(shares)}")) is not None:
        shares[f"t{len(shares)}"] = config["several"]
    sizes = [len(share) for share in shares.values()]
    assert sum(sizes) == many > 10 and sizes[0] == min(MANY, many // 4) > 1 == sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
    shell.on_trial_complete("t0", error=True)
    again = shell.suggest("again")["several"]
    assert again == shares["t0"][: len(again)]
    shell.on_trial_complete("again", {"measured": [[at / 10, 0.1] for at in range(len(again))]})
    assert search.known == {at: Measurement(at / 10, 0.1) for at in range(len(again))}


def test_a_completion_that_nobody_waits_for_is_nothing(shell: Shell) -> None:
    shell.searcher.suggest("t")
    shell.searcher.on_trial_complete("t", answer(0.5))
    shell.searcher.on_trial_complete("t", answer(0.4))
    shell.searcher.on_trial_complete("stranger", answer(0.4))
    assert len(shell.searches[0].known) == 1 and len(shell.reports) == 1


@pytest.mark.parametrize("result", [None, {}, {"training_iteration": 1}])
def test_a_failed_trial_is_tried_again_and_then_no_more(shell: Shell, result: Any) -> None:
    """With the same noise; after the last try nothing more is asked."""
    first = shell.searcher.suggest("t0")
    for attempt in range(RETRIES):
        shell.searcher.on_trial_complete(f"t{attempt}", result, error=True)
        assert shell.searcher.suggest(f"t{attempt + 1}") == first
    shell.searcher.on_trial_complete(f"t{RETRIES}", result)
    assert shell.searcher.given_up and shell.searcher.suggest("more") == SearchShell.FINISHED
    assert shell.searches[0].known == {} and not shell.reports


def test_finished_searches_finish_the_shell(tmp_path: Path) -> None:
    search = measured_in_process(tmp_path / "log.csv")
    shell = SearchShell([search], FIXED, lambda *said: None)
    assert shell.suggest("t") == SearchShell.FINISHED
    run_searches([search], FIXED, lambda *said: None, folder=tmp_path / "nothing")  # starts no cluster
    assert not (tmp_path / "nothing").exists()


def test_a_trial_measures_as_the_search_does_in_this_process() -> None:
    """The actor keeps its generator from trial to trial, unless it is another one."""
    scorer, schedule = ScheduleScorer("digits"), maskgit(2)
    expected = scorer(Evaluation(0, 0, schedule, 30, 9, True))
    config = {**FIXED, "schedule": schedule.table_T4.tolist(), "images": 30, "seed": 9, "balanced": True}
    trial = ScheduleTrial(config)
    alone = trial.step()
    assert alone == {**expected._asdict(), "measured": [list(expected)], "done": True}
    kept = trial.scorer
    assert trial.reset_config(config | {"seed": 10}) and trial.scorer is kept
    assert trial.step()["distance"] == scorer(Evaluation(0, 0, schedule, 30, 10, True)).distance
    assert trial.reset_config(config | {"several": [{"seed": 10}, {}]})
    assert trial.step()["measured"][1] == list(expected), "each of several as if it were alone"
    assert trial.reset_config(config | {"threads": 2}) and trial.scorer is not kept


@pytest.mark.parametrize(
    ("config", "spec"),
    [
        ({}, "reference"),
        ({"schedule": "maskgit"}, "maskgit"),
        ({"schedule": "beta-cdf", "a": 1.5, "b": 0.8, "remask": 6.0}, "beta-cdf:a=1.5,b=0.8,remask=6.0"),
        ({"schedule": "pow:k=2", "w": 3.0}, "pow:k=2,w=3.0"),
    ],
)
def test_a_sweep_names_families_and_their_parameters(config: dict[str, Any], spec: str) -> None:
    evaluation = tune_search._evaluation({"task": "digits", "steps": 4, **config})
    assert torch.equal(evaluation.schedule.table_T4, as_schedule(spec, 4).table_T4)
    assert (evaluation.images, evaluation.seed, evaluation.balanced) == (1000, 0, True)


def test_a_sweep_over_nothing_known_says_so() -> None:
    with pytest.raises(ValueError, match="remsk"):
        tune_search._evaluation({"schedule": "cosine", "remsk": 2.0})


# A driver that is killed for good when it has written a number of lines; or a worker, at its first trial.
DRIVER = """
import os, signal, sys
from pathlib import Path
from agents.distributed.cluster import quiet
quiet()
from agents.autonat import tune_search
from agents.autonat.search import Search, SearchConfig
folder, lines, worker = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "worker"
config = SearchConfig(images_per_evaluation=20, budget=300, finalists=2, final_images=40, warm="none")
search = Search("coordinate", config, 2, 0, folder / "log.csv")

def report(index, evaluation, measured):
    if len(search.known) == lines:
        os.kill(os.getpid(), signal.SIGKILL)

class Mortal(tune_search.ScheduleTrial):
    def step(self):
        if not (mark := folder / "killed").exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step()

if worker:
    tune_search.ScheduleTrial = Mortal
fixed = {"task": "digits", "generator": None, "steps": 2, "device": "cpu", "rules": "confidence"}
tune_search.run_searches([search], fixed, report, folder=folder)
"""


def drive(folder: Path, lines: int, victim: str) -> int:
    command = [sys.executable, "-c", DRIVER, str(folder), str(lines), victim]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True).returncode


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_whose_driver_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """In mid-generation; no finished evaluation is repeated, and the log is the one of a quiet run."""
    whole = measured_in_process(tmp_path / "whole.csv")
    assert drive(tmp_path, 4, "driver") == -signal.SIGKILL
    before = (tmp_path / "log.csv").read_text().splitlines()
    assert len(before) == 5
    assert drive(tmp_path, -1, "driver") == 0
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert rows[:5] == before and len(rows) == len(set(rows))
    assert sorted(rows) == sorted((tmp_path / "whole.csv").read_text().splitlines())
    again = new_search(tmp_path / "log.csv")
    assert again.result is not None and whole.result is not None
    assert torch.equal(again.result.table_T4, whole.result.table_T4)


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    measured_in_process(tmp_path / "whole.csv")
    assert drive(tmp_path, -1, "worker") == 0 and (tmp_path / "killed").exists()
    rows = sorted((tmp_path / "log.csv").read_text().splitlines())
    assert rows == sorted((tmp_path / "whole.csv").read_text().splitlines())


@pytest.mark.ray
def test_ray_changes_nothing(tmp_path: Path) -> None:
    """Two searches at once."""
    searches = [new_search(tmp_path / "a.csv"), new_search(tmp_path / "b.csv", seed=1)]
    spent = [0, 0]

    def report(index: int, evaluation: Evaluation, measured: Measurement) -> None:
        spent[index] += evaluation.images

    run_searches(searches, FIXED, report, folder=tmp_path)
    for index, search in enumerate(searches):
        alone = measured_in_process(tmp_path / f"alone-{index}.csv", seed=index)
        assert search.result is not None and alone.result is not None
        assert torch.equal(search.result.table_T4, alone.result.table_T4) and spent[index] == alone.spent
        assert search.known == alone.known


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_that_cannot_go_on_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator is not there; the reason is in the error."""
    broken = new_search(tmp_path / "c.csv", seed=2)
    # One trial at a time, tried twice: each that fails costs a process that starts anew.
    monkeypatch.setattr(tune_search, "RETRIES", 1)
    alone = {"folder": tmp_path, "cpus_per_trial": os.cpu_count()}
    with pytest.raises(RuntimeError, match=r"failed 2 times.*nowhere"):
        run_searches([broken], FIXED | {"generator": "nowhere"}, lambda *said: None, **alone)
    assert read_metrics(tmp_path / "c.csv") == []
