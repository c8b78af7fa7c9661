"""The scripts themselves with tiny budgets, in this process; one is killed and goes on."""

import csv
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from generators.schedules import reference
from natgym.discovery.number import number_by_share

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
TINY = "--epochs 4 --simclr.updates 3 --views 2 --threads 1 --checkpoint-every 1".split()
Call = Callable[..., tuple[object, str, str]]

# The script is killed for good right after it wrote the metrics of an epoch, before its checkpoint.
KILLED = """
import os, runpy, signal, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import _root
from natgym.runs import MetricsLog

def append(log, row):
    whole(log, row)
    if row["epoch"] == 3 and "mm-gcd-1" in str(log.path):
        os.kill(os.getpid(), signal.SIGKILL)

sys.argv = sys.argv[1:]
whole, MetricsLog.append = MetricsLog.append, append
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> Call:
    """Return a function that runs a script in `tmp_path`: (exit code or message, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # the script changes it
    monkeypatch.syspath_prepend(str(EXPERIMENTS))

    def run(*arguments: object, script: str = "mmgcd_discover.py") -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", [str(EXPERIMENTS / script), *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def results(folder: Path) -> dict:
    return json.loads(
        (folder / "results.json").read_text(), parse_constant=lambda c: pytest.fail(f"{c} in JSON")
    )


def timeless(found: dict) -> dict:
    for row in [*found["rows"], *found["jobs"]]:
        row.pop("cpu_seconds")
    return found


def test_a_run_discovers_compares_and_leaves_everything(call: Call, folder: Path, tmp_path: Path) -> None:
    data = ["--data", folder, "--size", 16, "--methods", "all", "--splits", 3, 4]
    settings = ["--settings", "simgcd-image:epochs=2", "mm-gcd-neither:learning_rate=1e-3"]
    code, out, _ = call(*TINY, *data, *settings, "--output", "run")
    assert code == 0 and "mm-gcd minus, with paired 95 % t-intervals" in out
    found = results(tmp_path / "run")
    assert found["protocol"]["samples"] == 48 and len(found["jobs"]) == 22
    rows = {row["method"]: row for row in found["rows"]}
    assert {"k-means-text", "simgcd-joined", "mm-gcd", "mm-gcd, text branch", "mm-gcd-neither"} <= set(rows)
    for row in rows.values():
        assert row["splits"] == 2 and all(0 <= row[share] <= 1 for share in ("all", "old", "new"))
    assert "better single modality" in [row["method"] for row in found["mm_gcd_minus"]]
    jobs = tmp_path / "run" / "jobs"
    with open(jobs / "simgcd-image-3" / "metrics.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"], "a setting of its own"
    with open(jobs / "mm-gcd-3" / "metrics.csv") as file:
        last = list(csv.DictReader(file))[-1]
        assert last["epoch"] == "4" and float(last["feature_alignment"]) > 0 < float(last["output_alignment"])
    with open(jobs / "mm-gcd-neither-3" / "metrics.csv") as file:
        assert not {"feature_alignment", "output_alignment"} & set(next(csv.DictReader(file)))
    table = pd.read_csv(tmp_path / "run" / "assignments.csv", keep_default_na=False)
    assert len(table) == 48 and table["labelled"].sum() == 12
    labelled = table[table["labelled"]]
    assert set(labelled["label"]) == set(table["category"]) - {"new 1", "new 2"}
    for name in ("confusion", "map", "examples"):
        with Image.open(tmp_path / "run" / "figures" / f"{name}.png") as image:
            assert min(image.size) >= 300


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_results(call: Call, folder: Path, tmp_path: Path) -> None:
    arguments = [
        *TINY,
        "--data",
        str(folder),
        "--size",
        "16",
        "--splits",
        "0",
        "1",
        "--cache",
        str(tmp_path / "c"),
    ]
    assert call(*arguments, "--output", "whole")[0] == 0
    script = str(EXPERIMENTS / "mmgcd_discover.py")
    line = [sys.executable, "-c", KILLED, script, *arguments, "--output", "killed"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "killed" / "results.json").exists()
    first = tmp_path / "killed" / "jobs" / "mm-gcd-0" / "result.json"
    before = first.stat().st_mtime_ns
    assert call("--resume", "killed", "--threads", 1, "--cache", tmp_path / "c")[0] == 0
    assert first.stat().st_mtime_ns == before, "what was done is not done again"
    assert timeless(results(tmp_path / "killed")) == timeless(results(tmp_path / "whole"))
    for name in ("mm-gcd-0", "mm-gcd-1"):
        one, other = (tmp_path / f / "jobs" / name / "metrics.csv" for f in ("killed", "whole"))
        assert one.read_bytes() == other.read_bytes()
    assert (tmp_path / "killed" / "assignments.csv").read_bytes() == (
        tmp_path / "whole" / "assignments.csv"
    ).read_bytes()


def test_labels_that_are_missing_are_discovered_with_an_estimated_number(
    call: Call, folder: Path, edit: Callable, tmp_path: Path
) -> None:
    edit(folder, lambda rows: [row.update(label="") for row in rows if row["label"] in ("blue", "white")])
    code, out, _ = call(*TINY, "--data", folder, "--size", 16, "--output", "run")
    assert code == 0 and out.splitlines()[2].split()[:4] == ["mm-gcd", "-", "-", "-"]
    estimate = json.loads((tmp_path / "run" / "jobs" / "num_categories-0.json").read_text())
    expected = number_by_share(48, num_labelled=24, num_old=2, share=estimate["labelled_share"])
    assert results(tmp_path / "run")["jobs"][0]["num_categories"] == estimate["estimate"] == expected
    assert results(tmp_path / "run")["rows"][0]["all"] is None
    table = pd.read_csv(tmp_path / "run" / "assignments.csv", keep_default_na=False)
    assert (table["labelled"] == (table["label"] != "")).all() and table["category"].ne("").all()


def test_an_estimate_by_agreement_tries_each_number(call: Call, folder: Path, tmp_path: Path) -> None:
    tried = ["--num-categories", "agreement", "--max-categories", 6, "--methods", "k-means-joined"]
    assert call(*TINY, "--data", folder, "--size", 16, *tried, "--output", "run")[0] == 0
    estimate = json.loads((tmp_path / "run" / "jobs" / "num_categories-0.json").read_text())
    assert set(estimate["agreement"]) == {"2", "3", "4", "5", "6"}
    assert results(tmp_path / "run")["jobs"][0]["num_categories"] == estimate["estimate"]


def test_encoders_that_learn_along_and_a_missing_modality(
    call: Call, folder: Path, edit: Callable, tmp_path: Path
) -> None:
    edit(folder, lambda rows: (rows[0].update(file_name=""), rows[1].update(text="")))
    live = ["--image-encoder", "conv", "--text-encoder", "words", "--size", 16]
    assert call(*TINY, *live, "--data", folder, "--output", "run")[0] == 0
    table = pd.read_csv(tmp_path / "run" / "assignments.csv", keep_default_na=False)
    assert table["name"][0] == "row 0" and table["category"].ne("").all()
    code, _, _ = call(*TINY, "--data", folder, "--size", 16, "--methods", "simgcd-text", "--output", "other")
    assert "not every sample has the modality text" in str(code)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--epocs 3", "--epocs --epochs"),
        ("--known 1.5", "known 1.5"),
        ("--known-names zebra", "zebra blue green"),
        ("--methods mm", "mm mm-gcd simgcd-text"),
        ("--num-categories many", "many auto"),
        ("--num-categories 1", "num_categories 1 2 old"),
        ("--num-categories auto --max-categories 1", "max_categories 1 2 old"),
        ("--settings mm-gcd:speed=3", "speed learning_rate"),
        ("--text-encoder bert", "bert minilm"),
        ("--label-column kind", "kind label"),
        ("--min-members 13", "categories needs two"),
        ("--epochs 0", "epochs 0"),
        ("--resume nowhere", "nowhere config.json"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    call: Call, folder: Path, tmp_path: Path, arguments: str, words: str
) -> None:
    given = arguments.split() if "--resume" in arguments else ["--data", folder, *arguments.split()]
    code, out, err = call(*given)
    said = err or str(code)
    assert code not in (0, None) and not out and said.strip().count("\n") == 0
    assert "mmgcd_discover.py: error: " in said and all(word in said for word in words.split()), said
    assert not (tmp_path / "runs").exists()


def test_nothing_is_overwritten(call: Call, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    code, _, _ = call("--data", folder, "--output", "run")
    assert "run exists and is not overwritten" in str(code)


def test_the_audit_of_a_schedule(call: Call, tmp_path: Path) -> None:
    line = ["--policy", "maskgit", "--steps", 4, "--images", 200, "--output", "run"]
    code, out, _ = call(*line, script="audit_categories.py")
    assert code == 0 and "200 generated and 400 held-out images" in out
    rows = results(tmp_path / "run")["rows"]
    assert [row["cluster"] for row in rows] == [*"0123456789", "beyond 1", "beyond 2", "beyond 3"]
    assert sum(row["generated"] for row in rows) == pytest.approx(1)
    assert (tmp_path / "run" / "figures" / "audit.png").is_file()
    # As everywhere: names with settings, a searched strategy's folder, a policy's own steps.
    (tmp_path / "searched").mkdir()
    reference(3).save(tmp_path / "searched" / "strategy.json")
    for policy, steps in (("halton:w=2", 8), ("searched", 3)):
        code, out, err = call(
            "--policy", policy, "--images", 30, "--output", f"of-{steps}", script="audit_categories.py"
        )
        assert code == 0 and f"digits, {policy}, T = {steps}; 30 generated" in out, err
    code, _, err = call("--policy", "haltom", script="audit_categories.py")
    assert "'haltom' is not a file, no run folder" in str(code)
    code, _, err = call("--extra", 0, script="audit_categories.py")
    assert code == 2 and "extra 0: it must be at least 1" in err
