"""export_episodes.py with a tiny budget: its files are read again, and what it distilled is played."""

import json
from pathlib import Path

import numpy as np
import pytest
from in_process import Call

from agents.autonat.class_table import ClassTable
from agents.named import find_policy
from generators.schedules import Schedule
from natgym.env.episodes import Episodes, replay


def test_episodes_are_written_and_distilled(call: Call, tmp_path: Path) -> None:
    budget = ["--images", 20, "--evaluation-images", 80, "--seeds", 0, 1, "--steps", 2]
    asked = ["--distill", "--reward", "classifier", "--output", "run"]
    code, out, err = call("export_episodes.py", *budget, *asked)
    assert code == 0, err
    assert "20 episodes of T = 2, read again and replayed to the bit" in out
    played = Episodes.load(tmp_path / "run" / "episodes.parquet")
    assert replay(played, "digits").shape == (20, 2, 16)
    assert played.facts["policy"] == "adanat" and (played.stacked("reward")[:, 1] < 0).all()
    schedule = Schedule.load(tmp_path / "run" / "schedule.json")
    means = [played.stacked(name).mean(0) for name in ("mask_ratio", "guidance_scale")]
    np.testing.assert_allclose(schedule.table_T4[:, [0, 3]].numpy(), np.stack(means, 1))
    assert len(ClassTable.load(tmp_path / "run" / "table.json").schedules) == 10
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert {row["policy"] for row in rows} == {"adanat", "static", "by class"}
    (static,) = [row for row in rows if row["policy"] == "static"]
    assert static["difference"]["minus"] == "adanat" and static["difference"]["n"] == 2
    assert find_policy(str(tmp_path / "run" / "schedule.json"), None, None).steps == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--action-std -1", "action_std -1.0: it must be a number from 0 on"),
        ("--policy maskgit --action-std .1", "action_std is for learned policies"),
        ("--reward nothing", "reward 'nothing' is not one of"),
        ("--policy nowhere", "nowhere"),
    ],
)
def test_it_refuses_in_one_line(call: Call, tmp_path: Path, arguments: str, said: str) -> None:
    code, _, err = call("export_episodes.py", "--images", 2, "--output", "refused", *arguments.split())
    assert code in (1, 2) and said in err.splitlines()[-1] and not (tmp_path / "refused").exists()
