"""Studies and searches beside trainings: they make small what the trainings did, and refuse what they can't
compare before they begin."""

import importlib
import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from in_process import EXPERIMENTS
from tqdm import tqdm

from agents.adanat.config import TrainingConfig
from agents.adanat.trainer import AdaNATTrainer
from agents.autonat.class_table import ClassTable
from agents.autonat.config import GridConfig, SearchConfig
from agents.studies.curves import points
from generators.noise import derive_seed
from generators.schedules import reference
from natgym.rewards import make_reward
from natgym.rollouts import rollout
from natgym.runs import Run, write_config
from natgym.task import Task

Call = Callable[..., tuple[int, str, str]]
FORMER = Path(__file__).resolve().parents[1] / "support" / "former" / "adanat_ppo"
PRICE = 0.02
# Of sudoku-4, which has one class, so that there is nothing to guide by.
PUZZLE = TrainingConfig.of(
    task="sudoku-4",
    steps=4,
    schedule="linear:sampling=.1,remask=0",
    reward="valid",
    objective="valid",
    price=PRICE,
    updates=1,
    trajectories=16,
    minibatch=64,
    evaluation_images=20,
    finalists=1,
)
SEARCH = SearchConfig(
    images_per_evaluation=10,
    race=1,
    budget=200,
    finalists=2,
    final_images=20,
    grid=GridConfig(remask=(0.0, 8.0), sampling=(0.1, 1.0), guidance=(0.0, 1.0)),
)
GRID = "--search.images-per-evaluation 10 --search.race 1 --search.finalists 2 --search.final-images 20"
GRID += " --search.grid.remask 0 8 --search.grid.sampling 0.1 1 --search.grid.guidance 0 1"


def former(folder: Path, **settings: Any) -> Path:
    """Return a copy of a finished training on the digits with other settings, which it was not made with."""
    shutil.copytree(FORMER, folder)
    told = json.loads((folder / "config.json").read_text())
    told["train"] |= settings
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def loss(task: Task, policy: Any, images: int, split: Any, seed: int) -> float:
    """What a training on the puzzle makes small, image by image."""
    condition = task.asked(images, split)
    drawn = rollout(policy, task, condition=condition, seed=seed, reward=make_reward("valid", task))
    solved = drawn.frame.groupby("sample")["reward"].sum()
    return float(np.mean([1 - solved[row] + PRICE * drawn.nfe_N[row] for row in range(images)]))


def test_curves_are_of_what_trainings_make_small(call: Call, tmp_path: Path) -> None:
    flags = f"--task sudoku-4 --steps 4 --objective valid --reward valid --price {PRICE} --methods grid"
    tiny = "--repeats 1 --images 60 --every 1000 --search.budget 200 --local --threads 1 --output curves"
    code, _, error = call("learning_curves.py", *flags.split(), *tiny.split(), *GRID.split())
    assert code == 0, error
    found = pd.read_csv("curves/curves.csv")
    *_, last = points("grid", PUZZLE, SEARCH, log=tmp_path / "log.csv")
    task = Task.load("sudoku-4")
    assert found["distance"].iloc[-1] == pytest.approx(
        loss(task, last.policy, 60, "select", derive_seed("curves"))
    )
    log = pd.read_csv(tmp_path / "log.csv")
    assert len(log) == 4 + 2 and (log[[f"guidance_scale_{step}" for step in range(4)]] == 0).all(axis=None)
    finalists = log[log["images"] == 20]
    assert finalists["distance"].between(PRICE, 1 + 4 * PRICE).all(), "shares and passes, no distance"


def test_rounds_of_autonat_leave_guidance_out_where_it_means_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    script, work = (importlib.import_module(name) for name in ("autonat_training", "_autonat_training"))
    args = script.Args(task="sudoku-4", steps=2, search=SEARCH, optimizer="grid", threads=1)
    found = work.search_schedule(args, Task.load("sudoku-4").generator, tmp_path, 0, tqdm(disable=True))
    assert len(pd.read_csv(tmp_path / "search.csv")) == 4 + 2 and (found.table_T4[:, 3] == 0).all()


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The modules of adaptivity.py."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    script, work = (importlib.import_module(name) for name in ("adaptivity", "_adaptivity"))
    return script, work


def test_a_study_searches_what_the_trainings_make_small(study: Any, tmp_path: Path) -> None:
    script, work = study
    run = former(tmp_path / "run", task="sudoku-4", objective="valid", price=[0.01, 0.04])
    args = script.Args(runs=(run,), images=80, optimizer="grid", search=SEARCH, threads=1)
    trained, scorer, *_, shuffled = work.load(args)
    assert scorer.objective.price == pytest.approx(0.03 / np.log(4)), "evenly on a logarithmic scale"
    assert shuffled == ["shuffled in class", "shuffled"]
    controls = work.Controls(defaultdict(list), defaultdict(list), [])
    work.search_equal(args, Run(tmp_path), trained, scorer, controls, tqdm(disable=True))
    log = pd.read_csv(tmp_path / "searches" / "000.csv")
    assert log["distance"].between(0, 1.1).all() and (log["guidance_scale_0"] == 0).all()
    assert controls.spent[work.EQUAL] == [log["images"].sum()]


def test_who_is_alone_in_a_batch_is_told_and_left_out(study: Any, tmp_path: Path) -> None:
    """The last batch of 255 images has five, each the only one of its class."""
    script, work = study
    run = former(tmp_path / "run")
    for images, shuffled in ((250, ["shuffled in class", "shuffled"]), (255, ["shuffled"]), (251, [])):
        assert work.load(script.Args(runs=(run,), images=images, equal=False)).shuffled == shuffled
        assert [said.partition(":")[0] for said in work.left_out(shuffled)] == [
            name for name in ("shuffled in class", "shuffled") if name not in shuffled
        ]


def test_what_can_not_be_compared_is_refused_before_a_folder_is_made(call: Call, tmp_path: Path) -> None:
    plain = former(tmp_path / "plain")
    short, few = tmp_path / "short.json", tmp_path / "few.json"
    ClassTable((reference(3),), (0,) * 10).save(short)
    ClassTable((reference(2),), (0,) * 9).save(few)
    learned = {"updates": 4, "learning_rate": 1e-3, "masks": "visited"}
    for arguments, words in (
        ([former(tmp_path / "aim", objective="caption")], "differ in objective (distance, caption)"),
        ([former(tmp_path / "dear", price=0.1)], "differ in price (0.0, 0.1)"),
        ([former(tmp_path / "half", precision="bfloat16")], "differ in precision (float32, bfloat16)"),
        ([former(tmp_path / "trained", cotraining=learned)], "trained: the generator learned, too"),
        ([former(tmp_path / "bits", actions="reveal")], "policy chooses tokens"),
        (["--table", short], "short.json has 3 steps, the trainings 2"),
        (["--table", few], "few.json is of 9 classes, task 'digits' has 10"),
        (["--images", 5, "--no-equal"], "images 5"),
        ([], "cma takes 1,800 images for its first generation"),
    ):
        code, _, error = call("adaptivity.py", plain, *arguments, "--output", "study")
        assert code == 1 and words in error and error.count("\n") == 1, (words, error)
        assert not Path("study").exists()


@pytest.mark.slow
def test_a_priced_training_is_studied_and_its_images_end_early(call: Call, tmp_path: Path) -> None:
    config = PUZZLE.but(price=(0.01, 0.04), observation="statistics", trajectories=64, evaluation_images=40)
    AdaNATTrainer.of(config).fit(tmp_path / "run")
    write_config(tmp_path / "run" / "config.json", config)
    tiny = "--images 251 --evaluation-seeds 0 --samples 20 --optimizer grid --local --threads 1"
    code, said, error = call("adaptivity.py", "run", *tiny.split(), *GRID.split(), "--output", "study")
    assert code == 0, error
    rows = {row["policy"] for row in json.loads(Path("study/results.json").read_text())["rows"]}
    assert {"static, equal images", "step-only", "mean schedule", "policy"} < rows
    assert said.count("shuffled in class: left out; in a batch of at most 250 an image is the only one") == 2
    assert "shuffled in class: left out" in Path("study/report.html").read_text()
    code, said, error = call(
        "adaptivity.py", "run", *tiny.replace("251", "80").split(), "--no-equal", "--output", "again"
    )
    assert code == 0, error
    rows = {row["policy"] for row in json.loads(Path("again/results.json").read_text())["rows"]}
    assert {"shuffled", "shuffled in class"} < rows and "left out" not in said
