"""The benchmark: every second is charged once, to the innermost part; the script with a tiny budget."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import generators.parts
from generators.conditions import Labels
from generators.nat import NAT, nat_digits
from rounding import assert_rounded

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module; what it puts a watch on is put back."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    monkeypatch.setattr(generators.parts, "advance", generators.parts.advance)
    monkeypatch.setattr(generators.parts, "start", generators.parts.start)
    before = set(sys.modules)
    script: Any = importlib.import_module("benchmark")
    work: Any = importlib.import_module("_benchmark")
    yield SimpleNamespace(
        main=script.main,
        Args=script.Args,
        work=script.work,
        Bench=work.Bench,
        Stopwatch=work.Stopwatch,
        latency=importlib.import_module("_latency"),
    )
    for name in set(sys.modules) - before:
        if name in ("benchmark", "_benchmark", "_latency", "_cli", "_root"):
            del sys.modules[name]


def test_time_is_charged_to_the_innermost_watched_call(benchmark: Any) -> None:
    """A clock that only moves when told, and calls inside calls."""

    class Work:
        now = 0.0

        def outer(self) -> str:
            self.now += 1
            self.inner()
            self.now += 2
            self.inner()
            return "done"

        def inner(self) -> None:
            self.now += 10
            self.leaf()

        def leaf(self) -> None:
            self.now += 100

        def fails(self) -> None:
            self.now += 7
            raise KeyError

    work = Work()
    watch = benchmark.Stopwatch(lambda: work.now)
    for name, part in (("outer", "a"), ("leaf", "b"), ("inner", "c"), ("fails", "d")):
        watch.watch(work, name, part)
    assert work.outer() == "done"
    with pytest.raises(KeyError):
        work.fails()
    work.now += 1000
    work.leaf()
    charged = {part: seconds for part, seconds in watch.spent.items() if part}
    assert charged == {"a": 3, "b": 300, "c": 20, "d": 7}


@pytest.mark.parametrize(("first_pass", "nfe"), [(False, 15), (True, 14)])
def test_passes_of_a_guided_episode(benchmark: Any, first_pass: bool, nfe: int) -> None:
    """The measured number, and the passes that the watch has seen: rows of the generator's calls."""
    args = benchmark.Args(batch=12, steps=8, repeats=1, first_pass=first_pass)
    measured = benchmark.Bench("digits", args)
    rows: list[int] = []
    measured.env.generator.register_forward_hook(lambda _, seen, __: rows.append(len(seen[0])))
    row = measured.measure(1, "digits")
    assert row["nfe"] == nfe and row["batch"] == 12
    # Two episodes. One unconditional row guides each first step; it and the 10 classes are kept.
    assert sum(rows) == (10 + 1 + 2 * 14 * 12 if first_pass else 2 * (15 * 12 + 1))
    shares = {name: share for name, share in row.items() if name.startswith("share_")}
    assert min(shares.values()) > 0
    # Each share is a median by itself; of one episode they add up.
    assert sum(shares.values()) - shares["share_decode"] == pytest.approx(1)
    assert row["bare_forwards"] == pytest.approx(shares["share_forwards"] * row["seconds"])


def test_the_script_with_a_tiny_budget(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, but for the one that it starts by itself for each generator."""
    command = ["benchmark.py", "--quick", "--profile", "--generators", "digits", "nat-l", "--batch", "3"]
    monkeypatch.setattr(sys, "argv", [*command, "--steps", "2", "--json", str(tmp_path / "out.json")])
    benchmark.main(benchmark.Args, benchmark.work)
    out = capsys.readouterr().out
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (row["generator"], row["batch"], row["nfe"], row["repeats"]) == ("digits", 3, 3.0, 2)
    (line,) = [line for line in out.splitlines() if line.startswith("| digits")]
    assert line.split(" | ")[1:3] == ["3", "3.00"]
    assert out.count(" calls  ") == 16 and "nat-l" not in out


def test_a_wait_is_between_two_looks_at_the_clock(benchmark: Any) -> None:
    """A clock that only a draw moves: the first ten draws, which take longest, are not measured."""
    now, drawn = [0.0], []

    def draw(seed: int) -> None:
        drawn.append(seed)
        now[0] += 1000.0 if len(drawn) <= 10 else float(seed)

    seconds = benchmark.latency.waits(draw, 40, lambda: now[0], "draws")
    assert drawn == [*range(50)] and seconds == [float(seed) for seed in range(10, 50)]
    # 38 of 40 are 95 %; of fewer than 20, all.
    assert benchmark.latency.most(seconds) == 47.0 and benchmark.latency.most([3.0, 1.0, 2.0]) == 3.0
    few = benchmark.latency.waits(draw, 3, lambda: now[0], "draws")
    assert drawn[50:] == [*range(6)] and few == [3.0, 4.0, 5.0]


def test_latency_is_of_one_image_at_a_time(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw is of one image, then of a batch; a clock that ticks once a look gives the figures."""
    ticks, rows = iter(range(10_000)), []
    monkeypatch.setattr(benchmark.latency, "clock_of", lambda device: lambda: float(next(ticks)))
    whole = benchmark.latency.rollout

    def watched(policy: Any, generator: Any, tokenizer: Any, condition: Any, *, seed: int) -> Any:
        drawn = whole(policy, generator, tokenizer, condition, seed=seed)
        rows.append((len(drawn.images_NCHW), seed))
        return drawn

    monkeypatch.setattr(benchmark.latency, "rollout", watched)
    args = benchmark.Args(batch=5, steps=3, repeats=2, latency=12, seed=7)
    row = benchmark.latency.latency("digits", args)
    assert rows == [(1, 7 + seed) for seed in range(22)] + [(5, 7 + seed) for seed in range(4)]
    assert row == {
        "generator": "digits",
        "steps": 3,
        "nfe": 5.0,
        "images": 12,
        "median_seconds": 1.0,
        "most_seconds": 1.0,
        "batch": 5,
        "repeats": 2,
        "images_per_second": 5.0,
    }
    line = benchmark.latency.format_rows([row]).splitlines()[-1]
    assert line == "| digits | 3 | 5.00 | 12 | 1,000.0 | 1,000.0 | 5 | 5.00 |"


def test_the_script_says_latency(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["benchmark.py", "--quick", "--latency", "2", "--generators", "digits", "nat-l", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--json", str(tmp_path / "out.json")])
    here = lambda measure, names, args: (measure(name, args) for name in names)  # noqa: E731
    monkeypatch.setattr(benchmark.latency, "in_processes", here)
    benchmark.main(benchmark.Args, benchmark.work)
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (row["generator"], row["images"], row["batch"], row["nfe"]) == ("digits", 2, 64, 3.0)
    assert 0 < row["median_seconds"] <= row["most_seconds"] and row["images_per_second"] > 0
    assert "| digits | 2 | 3.00 | 2 |" in capsys.readouterr().out


def test_no_file_is_overwritten(benchmark: Any, tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(ValueError, match=r"out.json exists and is not overwritten; choose another --json"):
        benchmark.work(benchmark.Args(json=tmp_path / "out.json"))
    assert (tmp_path / "out.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"steps": 0}, "steps 0"),
        ({"latency": 0}, "latency 0"),
        ({"repeats": 0}, "repeats 0"),
        ({"generators": ()}, "generators is empty"),
    ],
)
def test_wrong_settings_are_told(benchmark: Any, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        benchmark.Args(**arguments)


def test_a_plan_takes_no_time(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints a table for each generator, for more rows than anybody draws here."""
    benchmark.work(benchmark.Args(plan=True, generators=("digits", "mnist/enat"), batch=100_000, steps=2))
    said = capsys.readouterr().out
    assert "digits, 100,000 rows of T = 2" in said and "mnist/enat, 100,000 rows" in said
    for phase in ("rollout", "reward", "gradient", "measurement"):
        assert said.count(f"\n{phase} ") >= 2


def test_ratios_are_of_the_same_network(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A pass that is written down plainly gives the same logits, so that the two may be set side by side."""
    plain = importlib.import_module("_ratios")
    torch.manual_seed(0)
    nat = NAT(nat_digits()).eval()
    for parameter in nat.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ids_BL, labels_B = torch.randint(129, (3, 16)), torch.tensor([0, 9, 10])
    with torch.no_grad():
        expected = nat(ids_BL, Labels(labels_B, 10)).logits_BLV
    assert_rounded(plain.plain_logits(nat.state_dict(), ids_BL, labels_B, nat.config.heads), expected)
    benchmark.work(benchmark.Args(ratios=True, quick=True, batch=2))
    said = capsys.readouterr().out
    for name in ("loop", "loop, first pass kept", "pass"):
        (line,) = [line for line in said.splitlines() if line.startswith(f"{name}  ")]
        ratio, lowest, highest = (float(one) for one in re.findall(r"\d\.\d+", line)[:3])
        assert 0 < lowest <= highest and ratio > 0 and "n = 2" in line and "floor" in line
