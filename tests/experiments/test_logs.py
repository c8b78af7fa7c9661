"""`--log`: what a training measures stands in event files, and what can't be logged is said at once."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from natgym.runs import read_metrics

GENERATOR = """--updates 3 --batch-size 16 --warmup 2 --checkpoint-every 1 --width 16 --heads 2
    --evaluate-every 2 --evaluation-images 40 --evaluation-steps 2""".split()
TOKENIZER = """--kind vq --updates 3 --batch-size 16 --warmup 2 --checkpoint-every 2 --codebook-size 16
    --width 8 --downsampling 2 --blocks 1""".split()
RATE = "learning_rate"


@pytest.mark.parametrize(
    ("script", "flags", "metrics"),
    [
        (
            "train_generator.py",
            GENERATOR,
            {"loss", "accuracy", RATE, "distance", "sample_accuracy"},
        ),
        ("train_tokenizer.py", TOKENIZER, {"squared_error", "codes", RATE}),
    ],
)
def test_event_files_hold_metrics_and_samples(
    call: Any, tmp_path: Path, script: str, flags: list[str], metrics: set[str]
) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="event files need tensorboard"
    )
    code, _, error = call(script, *flags, "--log", "tensorboard", "--output", "run")
    assert code == 0, error
    found = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard"), {"images": 0}).Reload()
    assert set(found.Tags()["scalars"]) == metrics
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    for name in metrics:
        logged = {int(row["update"]): pytest.approx(float(row[name])) for row in rows if row[name]}
        assert {one.step: one.value for one in found.Scalars(name)} == logged
    assert [one.step for one in found.Images("samples")] == [2, 3]


def test_what_can_not_be_logged_is_said_at_once(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, error = call("train_tokenizer.py", "--kind", "kmeans", "--log", "tensorboard", "--output", "run")
    assert code == 1 and "log tensorboard: k-means has no updates to log" in error
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "_cli", raising=False)  # which has it by name
    for script in ("adanat_ppo.py", "train_generator.py", "train_tokenizer.py"):
        code, _, error = call(script, "--log", "wandb", "--output", "run")
        assert code == 2 and "log wandb: wandb is not installed; pip install natgym[wandb]" in error
    assert not list(tmp_path.iterdir())
