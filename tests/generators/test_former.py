"""Files of before are read as what they meant, and former flags as what they are today."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.adanat.actor import Actor, ActorConfig
from agents.adanat.config import TrainingConfig
from agents.adanat.network import PolicyConfig
from generators.checkpoints import from_pretrained, save_pretrained
from generators.rules import DecodeRules
from natgym.evaluation.comparison import compare
from natgym.runs import read_config

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.mark.parametrize("least", [0, 1, 2])
def test_a_policy_folder_has_its_rules_in_its_metadata(tmp_path: Path, least: int) -> None:
    widths = vars(PolicyConfig(width=8, channels=4, hidden=(8, 8), frequencies=8))
    config = ActorConfig(
        policy=widths, grid=(4, 4), features_width=8, steps=3, actions="default", schedule_name="x"
    )
    save_pretrained(Actor(config), tmp_path, task="digits", min_reveal=least)
    content = json.loads((tmp_path / "config.json").read_text())
    del content["config"]["rules"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    actor: Any = from_pretrained(tmp_path)
    assert actor.rules == DecodeRules(min_reveal=least)


@pytest.mark.parametrize("least", [0, 1])
def test_a_run_folder_has_them_among_its_settings(tmp_path: Path, least: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"train": {"steps": 3, "min_reveal": least}}))
    config = read_config(tmp_path / "config.json", TrainingConfig, "train").env
    assert (
        config.steps == 3
        and config.extractor == "score"
        and DecodeRules.of(config.rules, (4, 4)) == DecodeRules(min_reveal=least)
    )


def test_a_table_has_them_in_its_protocol() -> None:
    assert compare({"images": 3, "min_reveal": 0}, {"images": 3}).forbidding == []


def test_a_former_flag_is_said_in_todays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the scripts' root puts itself first
    renamed = importlib.import_module("_cli").renamed
    for line in (["--min-reveal", "0"], ["--min-reveal=0"]):
        assert renamed(["--steps", "4", *line, "--seed=1"]) == [
            "--steps",
            "4",
            "--rules=min_reveal=0",
            "--seed=1",
        ]
        assert capsys.readouterr().err == "--min-reveal is now --rules=min_reveal=0\n"
    assert renamed(["--min-reveal"]) == ["--min-reveal"], "nothing is said of a flag without a value"
