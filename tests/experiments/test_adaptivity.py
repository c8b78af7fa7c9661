"""adaptivity.py and reward_agreement.py with tiny budgets."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from agents.autonat.scorer import ScheduleScorer
from agents.named import load_policy
from natgym.runs import read_metrics

Call = Callable[..., tuple[int, str, str]]
TRAINING = ["--preset", "small_adversarial", "--no-step-only", "--optimizer", "grid", "--search.race", 1]
TRAINING += ["--steps", 2, "--local", "--updates", 2, "--trajectories", 64, "--discriminator-batch", 64]
TRAINING += ["--minibatch", 64, "--evaluation-images", 40, "--warmup", 1, "--images", 40, "--threads", 1]
TRAINING += ["--evaluation-seeds", 0, "--search.images-per-evaluation", 10, "--search.final-images", 20]
TRAINING += ["--search.grid.remask", 1, 8, "--search.grid.sampling", 1, "--search.grid.guidance", 1]
TRAINING += ["--search.budget", 200, "--num-samples", 2, "--output", "trained"]
STUDY = ["--images", 40, "--evaluation-seeds", 0, 1, "--samples", 40, "--local", "--threads", 1]
STUDY += ["--search.images-per-evaluation", 10, "--search.final-images", 20]
ROWS = [
    "start",
    "static, equal images",
    "step-only",
    "mean schedule",
    "shuffled",
    "shuffled in class",
    "policy",
]


@pytest.mark.slow
def test_trained_policies_meet_their_controls_and_a_stopped_study_goes_on(call: Call) -> None:
    code, _, err = call("adanat_ppo.py", *TRAINING)
    assert code == 0, err
    code, out, err = call("adaptivity.py", "trained", *STUDY, "--output", "study")
    assert code == 0, err
    study = Path("study")
    found = json.loads((study / "results.json").read_text())
    rows = {row["policy"]: row for row in found["rows"]}
    assert list(rows)[:-1] == ROWS and found["protocol"]["split"] == "report"
    trials = [read_metrics(Path("trained") / "trials" / name / "metrics.csv")[-1] for name in ("000", "001")]
    searched = sum(int(row["images"]) for row in read_metrics(Path("trained/search.csv")))
    cost = searched + sum(int(row["images_spent"]) for row in trials) / 2
    assert rows["policy"]["images_spent"] == rows["step-only"]["images_spent"] == round(cost)
    assert rows["start"]["images_spent"] == searched
    assert cost - 500 < rows["static, equal images"]["images_spent"] <= cost
    blind = [json.loads(path.read_text()) for path in sorted(study.glob("step-only/*/config.json"))]
    seen = [json.loads(path.read_text()) for path in sorted(Path("trained").glob("trials/*/config.json"))]
    for ours, theirs in zip(blind, seen, strict=True):
        assert ours["adanat"]["policy"].pop("blind") and not theirs["adanat"]["policy"].pop("blind")
        assert ours == theirs, "the control is trained alike"
    pair = next(p for p in found["differences"] if p["minus"] == "start" and p["metric"] == "recall")
    policy, start = (pd.DataFrame(rows[name]["per_seed"]) for name in ("policy", "start"))
    assert pair["each"] == pytest.approx((policy["recall"] - start["recall"]).tolist())
    assert "step-only" in out and "shuffled in class" in out
    assert (study / "report.html").read_text().count("policy - start") == 1, "the report is of distances"
    for name in ("differences", "parameters", "by-class"):
        assert (study / "figures" / f"{name}.png").stat().st_size > 5000
    (study / "results.json").unlink()
    code, _, err = call("adaptivity.py", "--resume", "study", "--local", "--threads", 1)
    assert code == 0, err
    again = json.loads((study / "results.json").read_text())
    for before, after in zip(found["rows"], again["rows"], strict=True):
        assert before.get("per_seed") == after.get("per_seed")


@pytest.mark.slow
def test_controls_that_a_run_has_are_not_trained_again(call: Call) -> None:
    paired = [argument for argument in TRAINING if argument not in ("--no-step-only", "trained")]
    code, _, err = call("adanat_ppo.py", *paired, "paired")
    assert code == 0, err
    code, _, err = call("adaptivity.py", "paired", *STUDY, "--no-equal", "--output", "study")
    assert code == 0, err
    assert not Path("study/step-only").exists()
    rows = {row["policy"]: row for row in json.loads(Path("study/results.json").read_text())["rows"]}
    trials = [load_policy(Path("paired/step-only") / name, "digits") for name in ("000", "001")]
    scorer = ScheduleScorer("digits").evaluator(40, (0, 1))
    assert rows["step-only"]["per_seed"]["distance"] == pytest.approx(
        [scorer(policy)["distance"].mean() for policy in trials]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no run is given"),
        (["nothing"], "nothing is not a run folder"),
        (["nothing", "--table", "none.json"], "none.json is no file"),
        (["nothing", "--images", 0], "images"),
    ],
)
def test_mistakes_are_one_line(call: Call, arguments: list[str], said: str) -> None:
    code, out, err = call("adaptivity.py", *arguments)
    assert code and said in err and not out and "Traceback" not in err


def test_rewards_are_compared_before_training(call: Call) -> None:
    rewards = ["influence", "adversarial:backbone=classifier,mismatched=0.5"]
    tiny = ["--train.steps", 2, "--train.trajectories", 50, "--train.discriminator-batch", 50]
    tiny += ["--train.warmup", 2, "--episodes", 100, "--images", 40, "--seeds", 1, "--sizes", 0.1]
    code, out, err = call("reward_agreement.py", "--rewards", *rewards, *tiny, "--output", "run")
    assert code == 0, err
    table = pd.read_csv("run/agreement.csv", index_col="reward")
    assert list(table.index) == rewards and (table["all 0.1"] > 0).all()
    assert table["static cosine"].between(-1, 1).all() and rewards[1] in out
    assert Path("run/figures/agreement.png").stat().st_size > 5000
    for spec, said in (
        ("influense", "influense"),
        ("influence:members=2", "members is no setting of influence"),
        ("adversarial:member=2", "member is no setting"),
        ("adversarial:members=two", "is not a number"),
    ):
        code, _, err = call("reward_agreement.py", "--rewards", spec, *tiny)
        assert code and said in err and "Traceback" not in err


def test_curves_of_trainings_and_searches(call: Call) -> None:
    tiny = ["--updates", 2, "--trajectories", 40, "--minibatch", 80, "--evaluate-every", 1, "--local"]
    tiny += ["--evaluation-images", 40, "--final-images", 40, "--images", 40, "--repeats", 2, "--threads", 1]
    tiny += ["--search.images-per-evaluation", 24, "--search.race", 2, "--search.final-images", 40]
    tiny += ["--search.finalists", 2, "--search.coarse.remask", 1, 8, "--search.coarse.sampling", 1]
    tiny += ["--search.coarse.guidance", 0, "--every", 30, "--methods", "step-only", "raced cma"]
    code, out, err = call("learning_curves.py", *tiny, "--output", "curves")
    assert code == 0, err
    curves = pd.read_csv("curves/curves.csv")
    assert list(curves["method"].unique()) == ["step-only", "raced cma"] and set(curves["seed"]) == {0, 1}
    assert (curves["distance"] > 0).all() and curves["images"].max() <= 2 * 40 + 3 * 40 + 3 * 40
    assert "step-only" in out and Path("curves/figures/curves.png").stat().st_size > 5000
    before = Path("curves/curves.csv").read_text()
    Path("curves/curves/raced-cma-1.csv").unlink()
    code, _, err = call("learning_curves.py", "--resume", "curves", "--local", "--threads", 1)
    assert code == 0, err
    again = pd.read_csv("curves/curves.csv")
    assert again.drop(columns="seconds").equals(curves.drop(columns="seconds"))
    assert len(before.splitlines()) == len(again) + 1
    code, _, err = call("learning_curves.py", "--methods", "grid", "grid")
    assert code and "none twice" in err
