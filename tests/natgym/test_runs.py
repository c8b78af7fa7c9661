"""Run folders: never overwritten, configs that come back, logs that survive a crash."""

import dataclasses
import errno
import json
import math
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from agents.adanat.config import TrainingConfig
from generators import files
from generators.checks import taken
from generators.config import VQTrainingConfig
from generators.training import TrainingConfig as GeneratorTraining
from natgym.runs import MetricsLog, Run, read_config, read_metrics

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "train_generator.py"


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, int] = (3, 4)
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    inner: Inner = field(default_factory=lambda: Inner(rate=0.2))
    plain: Inner = Inner(rate=0.3)
    maybe: float | None = None
    words: tuple[str, ...] = ()


CONFIGS = [
    Outer(),
    Outer("y", Inner((5, 6), 0.7), Inner((7, 8)), 1.5, ("a", "b")),
    TrainingConfig.of(steps=7, action_std=(0.5, 0.1)),
    GeneratorTraining(updates=3),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_config_comes_back_with_its_nested_parts(config: Any, tmp_path: Path) -> None:
    run = Run.create("script", tmp_path / "run", config)
    assert Run.open(run.folder).config(type(config)) == config
    assert json.loads((run.folder / "config.json").read_text())  # plain JSON for other readers


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    run = Run.create("script", tmp_path / "deep" / "run", Outer())
    with pytest.raises(ValueError, match=f"{re.escape(str(run.folder))} exists.*--output.*--resume"):
        Run.create("script", run.folder, Outer("other"))
    assert run.config(Outer) == Outer()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="exists"):
        Run.create("script", tmp_path / "empty", Outer())


def test_by_default_a_run_goes_to_runs_with_its_script_and_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.create("script", None, Outer())
    assert re.fullmatch(r"runs/script-\d{8}-\d{6}", run.folder.as_posix()) and run.config(Outer) == Outer()


def test_only_a_run_folder_can_be_resumed(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=f"{re.escape(str(folder))} is not a run folder"):
            Run.open(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"nmae": "x"}', "has no nmae; it has name, inner"),
        ('{"inner": {"rtae": 1}}', "Inner has no rtae; it has sizes, rate"),
        ('{"plain": {"rtae": 1}}', "Inner has no rtae"),
        ('{"inner": 3}', "does not fit Outer"),
        ("[1]", "does not fit Outer"),
        ('{"name": ', "is not JSON"),
    ],
)
def test_a_config_that_does_not_fit_names_the_file(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        read_config(path, Outer)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def rows(*updates: int) -> list[dict[str, Any]]:
    return [{"update": update, "loss": update / 4} for update in updates]


def read(path: Path) -> list[tuple[int, float]]:
    return [(int(row["update"]), float(row["loss"])) for row in read_metrics(path)]


def expected(*updates: int) -> list[tuple[int, float]]:
    return [(update, update / 4) for update in updates]


def test_a_log_that_goes_on_drops_the_rows_still_to_come(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path, "update", 1)
    for row in rows(1, 2, 3, 4):
        log.append(row)
    assert read(path) == expected(1, 2, 3, 4)
    log = MetricsLog(path, "update", 3)
    assert read(path) == expected(1, 2), "before anything is written again"
    log.append({"loss": 0.75, "update": 3})  # by name, not by position
    assert read(path) == expected(1, 2, 3)
    MetricsLog(path, "update", 1)
    assert read(path) == []
    MetricsLog(path, "update", 1).append({"other": 1, "update": 1})
    assert list(read_metrics(path)[0]) == ["other", "update"], "an empty log takes new columns"


@pytest.mark.parametrize("torn", range(1, 12))
def test_a_half_written_line_is_dropped(torn: int, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path, "update", 1)
    for row in rows(1, 2, 300):
        log.append(row)
    whole = path.read_bytes()
    assert whole.endswith(b"300,75.0\r\n")
    path.write_bytes(whole[:-torn])
    kept = expected(1, 2) if torn > 1 else expected(1, 2, 300)  # the last byte ends the line but for \r
    assert read(path) == kept
    MetricsLog(path, "update", 301).append({"update": 301, "loss": 75.25})
    assert read(path) == [*kept, *expected(301)]


def test_a_log_torn_in_its_header_starts_anew(tmp_path: Path) -> None:
    (path := tmp_path / "metrics.csv").write_text("upda")
    assert read(path) == [] == read_metrics(tmp_path / "missing.csv")
    MetricsLog(path, "update", 1).append(rows(1)[0])
    assert read(path) == expected(1)


def test_opening_a_log_to_go_on_never_loses_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kept rows are replaced in one step: a crash while opening leaves all of them."""
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path, "update", 1)
    for row in rows(1, 2, 3):
        log.append(row)
    sizes: list[int] = []

    def watched(path: Path, data: str) -> None:
        sizes.append(len(data.splitlines()))
        path.write_text(data)

    monkeypatch.setattr("natgym.runs.write_atomic", watched)
    monkeypatch.setattr(MetricsLog, "append", lambda self, row: sizes.append(-1))
    MetricsLog(path, "update", 3)
    assert sizes == [3], "header and two rows, written at once"


def test_an_unknown_column_is_an_error_and_a_missing_one_stays_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path, "update", 1)
    log.append(rows(1)[0])
    with pytest.raises(ValueError, match="surprise"):
        log.append({"update": 2, "surprise": 1})
    log.append({"update": 2})
    assert read_metrics(path)[1] == {"update": "2", "loss": ""} and len(read_metrics(path)) == 2


def test_a_log_of_before_gets_the_columns_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    MetricsLog(path, "update", 1).append({"update": 1, "loss": 0.5})
    log = MetricsLog(path, "update", 2)
    log.append({"update": 2, "loss": 0.25, "later": 3})
    assert read_metrics(path) == [
        {"update": "1", "loss": "0.5", "later": ""},
        {"update": "2", "loss": "0.25", "later": "3"},
    ]
    with pytest.raises(ValueError, match="surprise"):
        log.append({"update": 3, "surprise": 1})
    assert len(read_metrics(path)) == 2


def test_results_are_strict_json(tmp_path: Path) -> None:
    run = Run.create("script", tmp_path / "run", Outer())
    rows = [{"policy": "a", "distance": 0.5, "distance_std": math.nan}, {"policy": "b", "steps": None}]
    run.write_results({"seeds": (0, 1)}, rows, differences={"a": {"half_width": math.inf}})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    read = json.loads((run.folder / "results.json").read_text(), parse_constant=refuse)
    assert read == {
        "protocol": {"seeds": [0, 1]},
        "rows": [{"policy": "a", "distance": 0.5, "distance_std": None}, {"policy": "b", "steps": None}],
        "differences": {"a": {"half_width": None}},
    }
    assert math.isnan(rows[0]["distance_std"]), "what the caller holds stays as it is"


def test_figures_become_pngs_and_may_be_written_again(tmp_path: Path) -> None:
    run = Run.create("script", tmp_path / "run", Outer())
    for width in (2, 3):
        figure = Figure(figsize=(width, 1))
        figure.subplots().plot([1, 2])
        path = run.write_figure("curve", figure)
        assert path == run.folder / "figures" / "curve.png"
        with Image.open(path) as picture:
            assert picture.format == "PNG" and abs(picture.width - 160 * width) < 80
    assert [file.name for file in path.parent.iterdir()] == ["curve.png"], "no temporary file is left"


def test_a_run_leaves_no_other_files(tmp_path: Path) -> None:
    run = Run.create("script", tmp_path / "run", Outer())
    run.write_results({}, [])
    MetricsLog(run.folder / "metrics.csv", "update", 1).append({"update": 1})
    assert sorted(file.name for file in run.folder.iterdir()) == [
        ".lock",
        "config.json",
        "metrics.csv",
        "results.json",
    ]
    assert dataclasses.asdict(Outer()).keys() == json.loads((run.folder / "config.json").read_text()).keys()


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    """Another process that goes on with a run, or makes its folder, is told who has it, until it ends."""
    program = """
import sys
from pathlib import Path
from generators.config import VQTrainingConfig
from natgym.runs import Run
Run.create("x", Path(sys.argv[1]), VQTrainingConfig())
print("made", flush=True)
sys.stdin.read()
"""
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "made\n"
    assert Run.open(folder).config(VQTrainingConfig) == VQTrainingConfig(), "reading is free"
    with pytest.raises(
        ValueError, match=f"run is being written by process {other.pid} on .*; wait for its end"
    ):
        Run.resume(folder)
    with pytest.raises(ValueError, match="exists and is not overwritten"):
        Run.create("x", folder, VQTrainingConfig())
    other.kill()
    other.wait()
    for _ in range(2):  # this process may come back to what it has
        assert Run.resume(folder).folder == folder
    again = subprocess.run(
        [sys.executable, str(SCRIPT), "--resume", str(folder)], capture_output=True, text=True
    )
    assert again.returncode == 1 and f"is being written by process {os.getpid()}" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1


def test_what_killed_processes_left_half_written_goes_away(tmp_path: Path) -> None:
    """Of this host, and of nobody who lives; nothing else is touched."""
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    (tmp_path / "last").mkdir()
    host, dead = socket.gethostname(), int(ended.stdout)
    left = [
        tmp_path / f".checkpoint.pt.{host}-{dead}-0.part",
        tmp_path / "last" / f".config.json.{host}-{dead}-3.part",
        tmp_path / "last" / ".tmpGZ0JR9",
    ]
    kept = [
        tmp_path / f".checkpoint.pt.{host}-{os.getppid()}-0.part",
        tmp_path / f".checkpoint.pt.elsewhere-{dead}-0.part",
        tmp_path / "mine.part",
        tmp_path / ".tmp",
    ]
    for path in (*left, *kept):
        path.touch()
    files.hold(tmp_path)
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def test_where_there_are_no_locks_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", none)
    with pytest.warns(UserWarning, match="can't be locked .*No locks available.* one process writes"):
        files.hold(tmp_path)


@pytest.mark.parametrize("rows", [[1, 2, 4, 5], [1, 2, 2, 3, 4, 5], [2, 1, 3, 4, 5], [1, 2, 3, 4], []])
def test_a_log_that_does_not_fit_its_checkpoint_is_told(tmp_path: Path, rows: list[int]) -> None:
    """Cut, with a row doubled, edited or missing: after five updates there are five rows, and no others."""
    log = MetricsLog(tmp_path / "metrics.csv", "update", 10)
    for update in rows:
        log.append({"update": update, "loss": 0.5})
    before = (tmp_path / "metrics.csv").read_bytes()
    with pytest.raises(ValueError, match=rf"metrics.csv has {len(rows)} rows up to update 5, after which"):
        MetricsLog(tmp_path / "metrics.csv", "update", 6, whole=True)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    MetricsLog(tmp_path / "metrics.csv", "update", 1, whole=True)  # a run that begins anew


@pytest.mark.parametrize("done", [-5, 10**9, 2.0, "3", None])
def test_a_counter_that_can_not_be_is_of_another_run(done: Any) -> None:
    assert [taken(step, 4) for step in (0, 4)] == [0, 4]
    with pytest.raises(ValueError, match=f"the checkpoint says that {done} of 4 steps are taken"):
        taken(done, 4)
