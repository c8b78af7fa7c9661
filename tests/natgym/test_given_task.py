"""A task whose images are begun: SPEC#given=REGION, in environments, searches, trainings and tables."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch

import natgym
from agents.adanat.config import TrainingConfig
from agents.adanat.trainer import AdaNATTrainer
from agents.autonat.scorer import Evaluation, ScheduleScorer
from generators.files import PRETRAINED
from generators.given import hidden_region
from generators.schedules import as_schedule
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.policies import FixedPolicy
from natgym.task import Task

RIGHT = hidden_region("right", (4, 4))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of splits are kept there."""
    monkeypatch.setenv("NATGYM_CACHE", str(tmp_path / "cache"))


def test_each_image_gives_its_own_tokens_and_class() -> None:
    task, plain = Task.load("digits#given=right"), Task.load("digits")
    real, begun = plain.split("train"), task.begun("train")
    ids_NL = plain.tokenizer.encode(real.images_NCHW)
    assert begun.names == real.condition.names
    assert torch.equal(begun.tokens_BL, ids_NL.masked_fill(RIGHT, -1))
    rows = {tuple(row) for row in begun.tokens_BL.tolist()}
    assert {tuple(row) for row in task.pool.given_BL.tolist()} == rows, "in an order of their own"
    assert plain.pool.given_BL is None
    assert torch.equal(plain.asked(50, "select").values, plain.asked(50).values)
    select = set(map(tuple, task.begun("select").given_BL.tolist()))  # type: ignore[union-attr]
    assert set(map(tuple, task.asked(50, "select").given_BL.tolist())) <= select  # type: ignore[union-attr]


def test_it_is_found_again_by_what_it_says(tmp_path: Path) -> None:
    shutil.copytree(PRETRAINED / "digits", tmp_path / "numerals")
    for spec in ("digits#given=right=0.25", f"{tmp_path / 'numerals'}#given=center"):
        task = Task.load(spec)
        crossed, changed = pickle.loads(pickle.dumps(task)), task.like(generator=task.generator)
        for again in (crossed, changed, Task.load(task.home)):
            assert (again.name, again.given) == (task.name, task.given) and task.given in spec
    assert Task.load("digits#given=left").name == "digits#given=left"


@pytest.mark.parametrize(
    ("spec", "said"),
    [("digits#given=middle", "'middle' is not one of top"), ("nowhere#given=left", "'nowhere'")],
)
def test_what_can_not_be_begun_is_told(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _ = Task.load(spec).pool


def test_tables_complete_the_split_that_they_judge_by() -> None:
    task = Task.load("digits#given=right")
    evaluator = Evaluator(task, EvaluationConfig(images=450, seeds=(0,), split="report"))

    policy = FixedPolicy(as_schedule("reference", 2))
    condition = evaluator.conditions(0)
    assert condition.given_BL is not None
    report_NL = task.tokenizer.encode(task.split("report").images_NCHW)
    expected_NL = report_NL[torch.arange(450) % 400].masked_fill(RIGHT, -1)
    assert torch.equal(condition.given_BL, expected_NL)
    images = natgym.rollout(policy, task, condition=condition, seed=0)
    drawn = images.tokens_NL[:, ~RIGHT]
    assert torch.equal(drawn, expected_NL[:, ~RIGHT])
    assert (images.revealed_at_NL[:, ~RIGHT] == -1).all() and (images.revealed_at_NL[:, RIGHT] >= 0).all()
    row = evaluator(policy).iloc[0]
    plain = Evaluator(Task.load("digits"), EvaluationConfig(images=450, seeds=(0,)))(policy).iloc[0]
    assert row["distance"] < plain["distance"], "half of each image is real"
    assert evaluator.manifest()["task"] == "digits#given=right"
    with pytest.raises(ValueError, match="conditions random: task .* draws the split"):
        Evaluator(task, EvaluationConfig(images=450, conditions="random"))


def test_all_that_is_drawn_of_it_is_begun() -> None:
    """Also where nobody says what to draw: rollouts, environments, samples that are shown."""
    task = Task.load("digits#given=right")
    policy = FixedPolicy(as_schedule("reference", 2))
    drawn = natgym.rollout(policy, task, num_images=20, seed=0)
    assert (drawn.revealed_at_NL[:, ~RIGHT] == -1).all()
    for conditions in (None, "balanced", "random"):
        env = natgym.DecodeVectorEnv(6, task=task, steps=2, conditions=conditions)
        observation, _ = env.reset(seed=0)
        assert observation["masked"].sum(1).tolist() == [8] * 6
    shown, select = task.examples(10), task.begun("select")
    assert torch.equal(shown.given_BL, select.tokens_BL[:10]) and shown.names == select.names[:10]  # type: ignore[arg-type]
    named = natgym.rollout(policy, task, condition=["3", "7"], seed=0)
    assert named.condition.names == ["3", "7"] and (named.revealed_at_NL[:, ~RIGHT] == -1).all()


def test_a_search_and_a_training_begin_with_images_of_train(tmp_path: Path) -> None:
    scorer, schedule = ScheduleScorer("digits#given=right"), as_schedule("reference", 2)
    measured = [scorer(Evaluation(0, 0, schedule, 100, seed, True, "train")).distance for seed in (0, 0, 1)]
    assert measured[0] == measured[1] != measured[2] and measured[0] > 0
    few = {"updates": 1, "evaluate_every": 1, "evaluation_images": 64, "final_images": 64}
    trainer = AdaNATTrainer.of(TrainingConfig.of(task="digits#given=right", trajectories=64, **few))
    trainer.fit(tmp_path / "run")
    finished = trainer.env.finished
    assert finished is not None and finished.condition.given_BL is not None
    known_BL = finished.condition.given_BL >= 0
    assert known_BL.any() and not known_BL.all()
    assert torch.equal(finished.ids_BL[known_BL], finished.condition.given_BL[known_BL])
