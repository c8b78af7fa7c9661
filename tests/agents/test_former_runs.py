"""Run folders of before: a finished one is read, an unfinished one goes on."""

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.adanat.config import STOPPED
from agents.adanat.critic import load_critic, load_discriminator
from agents.adanat.trainer import AdaNATTrainer
from agents.adanat.trainings import finished_trainings, read_training
from agents.named import find_policies, load_policy
from natgym.rollouts import rollout
from natgym.runs import read_metrics
from natgym.task import Task

FORMER = Path(__file__).resolve().parents[1] / "support" / "former"
EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # the scripts change it
    monkeypatch.syspath_prepend(EXPERIMENTS)

    def run(name: str, *flags: str) -> None:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *flags])
        script: Any = importlib.import_module(name)
        importlib.import_module("_cli").main(script.Args, script.work, getattr(script, "defaults", None))

    return run


def test_the_settings_of_before_mean_what_they_meant() -> None:
    config = read_training(FORMER / "adanat_ppo")
    assert (config.env.steps, config.env.trajectories, config.adanat.updates) == (2, 32, 3)
    assert config.env.rewards.adversarial.channels == 2 and config.adanat.policy.width == 16
    assert config.env.extractor == "score", "the only one that there was"


def test_a_finished_run_is_read(tmp_path: Path) -> None:
    run, task = FORMER / "adanat_ppo", Task.load("digits")
    (training,) = finished_trainings(run)
    assert training.spent == 60 + int(read_metrics(run / "metrics.csv")[-1]["images_spent"])
    ((label, policy),) = find_policies(str(run), [2], task.generator)
    assert label == "adanat_ppo" and load_policy(run, task).steps == policy.steps == 2
    drawn = rollout(
        load_critic(run, policy), task, num_images=10, seed=0, reward=load_discriminator(run, task)
    )
    assert drawn.frame["value"].notna().all() and 0 < drawn.frame["reward"].max() < 1


def test_trials_that_asha_stopped_are_no_trainings(tmp_path: Path) -> None:
    shutil.copy(FORMER / "adanat_ppo" / "config.json", tmp_path)
    shutil.copy(FORMER / "adanat_ppo" / "search.csv", tmp_path)
    whole, part = tmp_path / "trials" / "001", tmp_path / "trials" / "000"
    shutil.copytree(FORMER / "adanat_ppo", whole)
    shutil.copytree(FORMER / "unfinished", part)
    with pytest.raises(ValueError, match=f"000 holds no policy; finish it .* --resume {tmp_path}"):
        finished_trainings(tmp_path)
    (part / STOPPED).touch()
    (training,) = finished_trainings(tmp_path)
    assert training.folder == whole and training.spent == finished_trainings(FORMER / "adanat_ppo")[0].spent


def test_an_unfinished_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """Its lines stay, the third is added; that the numbers are the same is seen where the weights are."""
    shutil.copytree(FORMER / "unfinished", tmp_path / "run")
    before = read_metrics(tmp_path / "run" / "metrics.csv")
    config = read_training(tmp_path / "run").but(schedule=str(tmp_path / "run" / "static-search.json"))
    trainer = AdaNATTrainer.of(config)
    trainer.fit(tmp_path / "run")
    after = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [{name: row[name] for name in before[0]} for row in after[:-1]] == before and len(after) == 3
    assert after[0].keys() - before[0].keys() == {"separation"} and after[0]["separation"] == ""
    finished, ours = (
        read_metrics(run / "metrics.csv")[-1] for run in (FORMER / "adanat_ppo", tmp_path / "run")
    )
    assert (
        finished.keys() | {"separation"} == ours.keys() and finished["images_spent"] == ours["images_spent"]
    )
    for name in ("distance", "reward", "discriminator_loss"):  # from weights of another processor, perhaps
        assert float(ours[name]) == pytest.approx(float(finished[name]), rel=0.02), name


def test_the_script_resumes_it_and_tables_read_it(tmp_path: Path, scripts: Any, capsys: Any) -> None:
    shutil.copytree(FORMER / "unfinished", tmp_path / "run")
    scripts("adanat_ppo", "--resume", str(tmp_path / "run"), "--local", "--threads", "1")
    said = capsys.readouterr().out
    assert "static-search" in said and "adanat " in said
    assert (tmp_path / "run" / "policy" / "model.safetensors").is_file()
