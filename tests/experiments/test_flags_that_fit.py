"""Flags of adanat_ppo.py that go together or don't: what follows from others, and what is refused before
anything is searched or a folder made."""

import copy
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import EXPERIMENTS

from agents.adanat import plan
from agents.adanat.config import AdaNATConfig, TrainingConfig
from agents.adanat.critic import load_discriminator
from agents.adanat.folders import TRAINING, claim, manifest
from agents.adanat.presets import preset
from agents.adanat.trainings import read_training
from generators.files import read_json, write_atomic
from natgym.rewards.adversarial import AdversarialReward
from natgym.rewards.config import AdversarialConfig, RewardOptions
from natgym.task import Task

Call = Callable[..., tuple[int, str, str]]
FORMER = Path(__file__).resolve().parents[1] / "support" / "former" / "adanat_ppo"
SEEN = "--observation statistics"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], TrainingConfig]:
    """What a command line means."""
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # the script changes it
    monkeypatch.syspath_prepend(EXPERIMENTS)
    script: Any = importlib.import_module("adanat_ppo")
    parse: Any = importlib.import_module("_cli").parse

    def training(flags: str) -> TrainingConfig:
        monkeypatch.setattr(sys, "argv", ["adanat_ppo.py", *flags.split()])
        return parse(script.Args, "adanat_ppo.py", script.defaults).train

    return training


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--actions reveal --observation features", "observation features: to choose tokens"),
        (
            "--schedule static-search --kl-weight .1 --reference runs/x",
            "--schedule runs/x/static-search.json",
        ),
        ("--kl-weight .1 --reference runs/x", "runs/x holds no saved module"),
        ("--tokens.sharpness 2", "tokens.sharpness 2.0: agents.adanat.network:AdaNATPolicy does not read it"),
        (
            f"--actions reveal {SEEN} --tokens.order sure",
            "tokens.order sure: agents.adanat.tokens",
        ),
        (f"--actions tokens {SEEN} --tokens.slope 1", "tokens.slope 1.0: agents.adanat.orders:OrderPolicy"),
        (f"--actions tokens {SEEN} --policy.width 8", "config.policy has AdaNAT's widths"),
        ("--adversarial.channels 8", "options of 'adversarial', but the reward is mmd"),
        ("--num-samples 2 --space mmd.window=choice(3,4) --reward influence", "options of 'mmd'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_made(
    call: Call, flags: str, words: str
) -> None:
    code, said, error = call("adanat_ppo.py", *flags.split(), "--local", "--output", "run")
    assert code == 1 and words in error and error.count("\n") == 1 and not said, error
    assert not Path("run").exists()


def test_what_is_studied_is_refused_as_early(call: Call) -> None:
    code, _, error = call("learning_curves.py", "--tokens.depth", 2, "--output", "run")
    assert code == 1 and "tokens.depth 2" in error and not Path("run").exists()
    code, _, error = call("learning_curves.py", "--adversarial.backbone", "no/such", "--output", "run")
    assert code == 2 and "backbone 'no/such' is not small" in error and not Path("run").exists()


def test_choosing_tokens_needs_no_flag_beside(parsed: Any, call: Call) -> None:
    """The README's command; and what is said is not changed."""
    found = parsed("--task sudoku-4 --actions reveal")
    assert found == TrainingConfig.of(
        task="sudoku-4", actions="reveal", observation="statistics", reward="valid", objective="valid"
    )
    found = parsed("--actions=tokens --task=sudoku-6#given=unique --reward held --objective distance")
    assert (found.env.observation, found.env.reward, found.adanat.objective) == (
        "statistics",
        "held",
        "distance",
    )
    assert parsed("--actions reveal") == TrainingConfig.of(actions="reveal", observation="statistics")
    assert parsed("--task sudoku-4") == TrainingConfig.of(task="sudoku-4"), (
        "with decoding parameters, as ever"
    )
    with pytest.raises(SystemExit):
        parsed("--preset paper --actions reveal")
    code, _, error = call("adanat_ppo.py", *"--task sudoku-4 --actions reveal --search.budget 9".split())
    assert code == 2 and "budget 9" in error, "of the search: nothing else is in the way"


def test_options_of_a_preset_are_those_of_its_reward(parsed: Any) -> None:
    paper = parsed("--preset adanat_paper --reward mmd")
    assert paper == preset("adanat_paper").but(reward="mmd", rewards=RewardOptions())
    sum_ = parsed("--preset adanat_paper --reward adversarial=1,mmd=.5 --rewards.mmd.window 3")
    assert set(sum_.env.rewards.changed) == {"adversarial", "mmd"}
    with pytest.raises(ValueError, match="options of 'adversarial', but the reward is live; leave them out"):
        TrainingConfig.of(**{"adversarial.channels": 8}).env.build(lambda images, _: images.mean((1, 2, 3)))


def test_a_plan_is_of_the_schedule_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that a reference, which learned around it, is not refused on a GPU."""
    built = []
    monkeypatch.setattr(plan, "memory_plan", lambda env, config: plan.Plan((plan.Need("rollout", "all", 0),)))
    monkeypatch.setattr(plan, "free_bytes", lambda device: 1)
    env = TrainingConfig().env.build()
    monkeypatch.setattr(type(TrainingConfig().env), "build", lambda self: built.append(self.schedule) or env)
    for schedule in ("maskgit", "static-search"):
        plan.refuse_too_large(TrainingConfig.of(schedule=schedule, device="cuda"))
    assert built == ["maskgit", "reference"]


def test_paths_hold_where_a_run_did_not_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "there" / "judge").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "there")
    judged = AdversarialConfig(backbone="judge")
    held = AdaNATConfig(kl_weight=0.1, reference="judge")
    assert judged.backbone == held.reference == str(tmp_path / "there" / "judge")
    assert AdversarialConfig(backbone="dino").backbone == "dino" and AdaNATConfig().reference == "start"
    # One that was begun when paths stood there as they were said goes on.
    env = TrainingConfig().env.build()
    told = manifest(env, held)
    before = copy.deepcopy(told)
    before["adanat"]["reference"] = "judge"
    del before["adanat"]["alarms"]["flat"]
    write_atomic(tmp_path / TRAINING, json.dumps(before))
    claim(tmp_path, told)
    with pytest.raises(ValueError, match=r"adanat.kl_weight 0\.1, this one has 0\.2"):
        claim(tmp_path, manifest(env, AdaNATConfig(kl_weight=0.2, reference="judge")))


def test_a_run_is_read_where_its_weights_are_not(tmp_path: Path) -> None:
    shutil.copytree(FORMER, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"backbone": "small"', '"backbone": "/elsewhere/judge"'))
    config = read_training(tmp_path / "run").env.rewards.adversarial
    assert config.backbone == "/elsewhere/judge"
    with pytest.raises(ValueError, match="backbone '/elsewhere/judge' is not small"):
        AdversarialReward((1, 8, 8), 10, config)
    with pytest.warns(UserWarning, match="run: its discriminator judges nothing here: backbone '/elsewhere"):
        assert load_discriminator(tmp_path / "run", Task.load("digits")) is None
    assert read_json(path)["train"]["adversarial"]["backbone"] == "/elsewhere/judge", "it is not changed"
