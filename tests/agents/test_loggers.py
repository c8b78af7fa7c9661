"""Logs beside metrics.csv: event files are read back, and what wandb is told is what its own stub hears."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure
from tiny import TINY

from agents.adanat.log import TrainingLog
from agents.adanat.trainer import train
from agents.loggers import RunLog
from natgym.runs import read_metrics

LOGGED = TINY.but({"updates": 3, "warmup": 0})


def events(folder: Path) -> Any:
    """What TensorBoard makes of a folder."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="event files need tensorboard"
    )
    return accumulator.EventAccumulator(str(folder / "tensorboard"), {"images": 0, "scalars": 0}).Reload()


def test_a_training_is_logged_and_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    train(LOGGED, tmp_path / "plain", lambda metrics: None)
    log = TrainingLog(["tensorboard"], tmp_path / "logged")
    train(LOGGED, tmp_path / "logged", lambda metrics: None, callbacks=[log])
    for name in ("metrics.csv", "policy/model.safetensors"):
        assert (tmp_path / "logged" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    found, rows = events(tmp_path / "logged"), read_metrics(tmp_path / "plain" / "metrics.csv")
    assert set(found.Tags()["scalars"]) == set(rows[0]) - {"update"}
    for name in found.Tags()["scalars"]:
        finite = [(int(row["update"]), float(row[name])) for row in rows if math.isfinite(float(row[name]))]
        assert [(one.step, one.value) for one in found.Scalars(name)] == [
            (update, pytest.approx(value, rel=1e-6)) for update, value in finite
        ]
    assert [one.step for one in found.Images("samples")] == [2, 3], "where the policy is measured"
    assert found.Images("samples")[0].encoded_image_string.startswith(b"\x89PNG")


def test_what_is_done_again_takes_the_place_of_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    for begin, end in ((1, 6), (4, 8)):  # killed after update 5, its checkpoint after update 3
        log = RunLog(["tensorboard"], tmp_path)
        for update in range(begin, end):
            metrics = {"update": update, "loss": 10 * begin + update, "distance": None, "gap": math.nan}
            log.write(update, metrics)
        log.close()
    found = events(tmp_path)
    assert found.Tags()["scalars"] == ["loss"]
    logged = [(one.step, one.value) for one in found.Scalars("loss")]
    assert logged == [(1, 11), (2, 12), (3, 13), (4, 44), (5, 45), (6, 46), (7, 47)]


class Stub:
    """Of wandb: what is asked of `init`, of the run, and its ends."""

    Image = staticmethod(lambda figure: ("image", figure))

    def __init__(self) -> None:
        self.begun, self.heard, self.ended = list[dict[str, Any]](), list[dict[str, Any]](), 0

    def init(self, **options: Any) -> Any:
        self.begun.append(options)
        return SimpleNamespace(
            id=options["id"] or "fresh", log=self.heard.append, finish=self.finish, define_metric=self.defined
        )

    def finish(self) -> None:
        self.ended += 1

    def defined(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "update")


def test_wandb_goes_on_with_the_run_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", stub := Stub())  # type: ignore[arg-type]
    figure = Figure()
    for update in (1, 2):
        log = RunLog(["wandb"], tmp_path)
        log.write(update, {"update": update, "loss": 0.5, "distance": None}, figure if update == 2 else None)
        log.close()
    assert stub.heard == [
        {"loss": 0.5, "update": 1},
        {"loss": 0.5, "update": 2, "samples": ("image", figure)},
    ]
    assert [(one["id"], one["resume"], one["dir"]) for one in stub.begun] == [
        (None, "allow", str(tmp_path)),
        ("fresh", "allow", str(tmp_path)),
    ]
    assert stub.ended == 2 and json.loads((tmp_path / "wandb.json").read_text()) == {"id": "fresh"}


def test_without_a_name_nothing_is_logged(tmp_path: Path) -> None:
    RunLog([], tmp_path).write(1, {"loss": 1.0}, Figure())
    assert not list(tmp_path.iterdir())
