"""Puzzles through the scripts: a policy that chooses tokens, and the front that it is set against."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from in_process import EXPERIMENTS
from PIL import Image

import natgym
from agents import load_policy
from agents.named import find_policies
from generators.noise import HashNoise
from generators.puzzles.data import PUZZLES
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.evaluation.front import beyond, hull
from natgym.rollouts import play

Call = Callable[..., tuple[int, str, str]]
POLICY = """--task sudoku-4 --steps 6 --schedule linear:sampling=.1,remask=0 --actions reveal
    --observation statistics --reward valid --objective valid --price 0.02 0.2 --updates 2 --trajectories 24
    --minibatch 48 --evaluate-every 1 --evaluation-images 70 --final-images 70 --images 80
    --evaluation-seeds 0 1 --search.images-per-evaluation 8 --search.race 2 --search.coarse.remask 2 8
    --search.coarse.sampling 1 --search.finalists 2 --search.final-images 70 --search.budget 300 --local
    --threads 1""".split()
FRONT = """--task sudoku-4 --steps 2 13 --theta 0.9 --epsilon 0.5 --sampling 0.1 --images 80 --seeds 0 1
    --threads 1""".split()


def test_a_policy_that_chooses_tokens_is_learned_and_set_against_rules(call: Call, tmp_path: Path) -> None:
    code, said, error = call("adanat_ppo.py", *POLICY, "--output", "run")
    assert code == 0, error
    assert "valid" in said and "adanat - static-search" in said
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert {row["policy"] for row in rows} >= {"reference", "maskgit", "static-search", "step-only", "adanat"}
    for name in ("samples", "parameters", "learning"):
        assert Image.open(tmp_path / "run" / "figures" / f"{name}.png").size[0] > 300
    policies = ["run", "blind=run/step-only", "blind=run", "near=run/last@price=.1"]
    asked = ["--policy", *policies, "--price", ".05", ".2", "--choose-images", "70"]
    code, said, error = call("unmasking.py", *FRONT, *asked, "--oracle", "--output", "front")
    assert code == 0, error
    results = json.loads((tmp_path / "front" / "results.json").read_text())
    assert Image.open(tmp_path / "front" / "figures" / "front.png").size[0] > 300
    found = {row["policy"]: row for row in results["differences"]}
    assert set(found) == {
        "oracle",
        "near",
        *(f"{kind}@price={price}" for kind in ("run", "blind") for price in (0.05, 0.2)),
    }
    assert found["blind@price=0.2"]["over"] == "trainings" and found["blind@price=0.2"]["n"] == 2
    assert "run@price=0.2 - front of rules at as many passes: " in said
    # By hand: the corners' own frames, and the policy's.
    task = natgym.Task.load("sudoku-4")
    evaluator = Evaluator(task, EvaluationConfig(images=80, seeds=(0, 1)))
    ours = evaluator(load_policy(f"{tmp_path}/run@price=.2", task))
    corners = [
        pd.DataFrame(row["per_seed"]).assign(nfe=row["nfe"])
        for row in results["rows"]
        if not row["policy"].startswith(("run", "oracle"))  # the folders of the policies
    ]
    points = [[corner[name].mean() for corner in corners] for name in ("nfe", "valid")]
    assert points[0] == sorted(points[0])
    expected = beyond(ours, [corners[place] for place in hull(*points)], "valid")
    assert found["run@price=0.2"]["each"] == pytest.approx(list(expected.each))
    chooser = Evaluator(task, EvaluationConfig(images=70, seeds=(0,), split="select"))
    bounded = "entropy-bounded:epsilon=0.5,sampling=0.1,remask=0"
    (policy,) = (policy for _, policy in find_policies(bounded, (), task.generator))
    (seen,) = (row for row in results["select"] if row["policy"] == bounded)
    assert seen["valid"] == pytest.approx(chooser(policy)["valid"].mean())


def test_what_is_asked_for_wrongly_is_told(call: Call, tmp_path: Path) -> None:
    code, _, error = call("unmasking.py", *FRONT, "--choose-images", "5", "--output", "few")
    assert code == 1 and "images 5: the extractor has" in error and not (tmp_path / "few").exists()
    code, _, error = call("unmasking.py", *FRONT, "--metric", "accuracy")
    assert code == 1 and "metric accuracy: task 'sudoku-4' has" in error
    code, _, error = call("unmasking.py", "--task", "chain", "--oracle")
    assert code == 1 and "oracle: it knows the rules of sudokus, and task 'chain' is none" in error
    code, _, error = call("adanat_ppo.py", *POLICY, "--observation", "features", "--output", "run")
    assert code == 1 and "observation features: to choose tokens" in error and not Path("run").exists()
    code, _, error = call("adanat_ppo.py", *POLICY, "--tokens.start", "halton", "--output", "run")
    assert code == 2 and "start 'halton' is no rule that counts by itself" in error


def test_an_oracle_reveals_all_that_leaves_a_grid_to_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all 288 grids: no token more could have been revealed as what is likeliest."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    from _oracle import Oracle

    task, rows = natgym.Task.load("sudoku-4"), 24
    every_GL = np.unique(PUZZLES["sudoku-4"].answers(20_000, np.random.default_rng(0)), axis=0)
    noise, steps = HashNoise.from_seed(3, rows, task.place), 0
    for move in play(Oracle.of(task), task.generator, task.begun("select")[:rows], noise):
        likeliest_BL = move.before.prediction.logits_BLV.argmax(-1).numpy()  # type: ignore[union-attr]
        steps += bool(move.before.masked_B.any())
        for row in range(rows):
            before_L, after_L = move.before.ids_BL[row].numpy(), move.after.ids_BL[row].numpy()
            shown_L, hidden_L = (before_L == 4) & (after_L != 4), after_L == 4
            assert (after_L == likeliest_BL[row])[shown_L].all()
            fits_G = ((every_GL == after_L) | hidden_L).all(1)
            if fits_G.any():
                assert not (every_GL[fits_G] == likeliest_BL[row])[:, hidden_L].any()
            else:
                assert shown_L.sum() <= 1, "the rule's choice, where nothing fits"
    assert steps < 6
