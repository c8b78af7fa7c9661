"""The scripts themselves with tiny budgets, from a folder outside the repository."""

import csv
import importlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import EXPERIMENTS, KILLED, command, kill
from PIL import Image

from agents.adanat.actor import Actor
from agents.adanat.trainings import kept_policy
from generators.checkpoints import from_pretrained
from generators.schedules import Schedule, random_order
from natgym.runs import read_metrics

SCRIPTS = sorted(path.name for path in EXPERIMENTS.glob("[!_]*.py"))
POLICIES = ["reference", "maskgit", "autonat-T4", "static-search", "adanat"]
TINY = """--preset small_adversarial --optimizer grid --no-step-only --search.race 1 --evaluation-seeds 0 1 2
    --updates 3 --trajectories 32 --discriminator-batch 16 --minibatch 64 --warmup 1 --steps 2
    --evaluate-every 2 --evaluation-images 60 --images 120 --search.grid.remask 1 8 --search.grid.sampling 1
    --search.grid.guidance 1 --search.images-per-evaluation 50 --search.final-images 50
    --search.budget 350""".split()
# The defaults, made small: from the hand-made schedule, a control beside it, and a search afterwards.
PAIRED = """--updates 3 --trajectories 40 --minibatch 80 --evaluate-every 1 --evaluation-images 60
    --finalists 2 --final-images 60 --images 120 --evaluation-seeds 0 1 --search.images-per-evaluation 48
    --search.coarse.remask 2 8 --search.coarse.sampling 1 --search.coarse.guidance 0 1 --search.finalists 2
    --search.final-images 60 --search.budget 700""".split()
LOCAL = ["--local", "--threads", "1"]
TINY_GENERATOR = """--updates 7 --batch-size 16 --warmup 2 --checkpoint-every 2 --width 16 --heads 2
    --evaluate-every 3 --evaluation-images 40 --evaluation-steps 2""".split()

# One interpreter for many command lines, each of which would pay seconds of imports.
CONSOLE = """
import contextlib, io, json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path[:0] = sys.argv[1:]
from in_process import ended
for line in sys.stdin:
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = ended(json.loads(line))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 1
    said = [stream.seek(0) or stream.read() for stream in (out, err)]
    print(json.dumps([code, *said]), file=answers, flush=True)
"""


@dataclass
class Done:
    code: int
    out: str
    err: str


Console = Callable[..., Done]


def run(folder: Path, *arguments: Any, script: str = "adanat_ppo.py") -> Done:
    """Run a script in a process of its own."""
    line = [sys.executable, *command(script, arguments)]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outside")


@pytest.fixture(scope="session")
def console(outside: Path) -> Iterator[Console]:
    """Run scripts in one process, in `outside`, one after the other."""
    support = Path(__file__).resolve().parents[1] / "support"
    line = [sys.executable, "-c", CONSOLE, str(EXPERIMENTS), str(support)]
    env = os.environ | {"COLUMNS": "120"}
    with subprocess.Popen(
        line, cwd=outside, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def call(script: str, *arguments: Any) -> Done:
            print(json.dumps(command(script, arguments)), file=process.stdin, flush=True)
            return Done(*json.loads(process.stdout.readline()))

        yield call
        process.stdin.close()


@pytest.fixture(scope="session")
def reference(outside: Path) -> tuple[Path, Done]:
    """An uninterrupted run, in a process of its own."""
    done = run(outside, *LOCAL, *TINY, "--output", "reference")
    assert done.code == 0, done.err
    return outside / "reference", done


def results(folder: Path) -> dict[str, Any]:
    """Read results.json as strict readers do, to whom NaN is no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {folder}/results.json")

    return json.loads((folder / "results.json").read_text(), parse_constant=refuse)


def timeless(folder: Path) -> dict[str, Any]:
    """The results without the one number that a clock makes."""
    found = results(folder)
    for row in found["rows"]:
        row.pop("images_per_second", None)
    return found


def assert_same_run(one: Path, other: Path) -> None:
    assert timeless(one) == timeless(other)
    for name in ("metrics.csv", "search.csv", "static-search.json", "policy/model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_prints_its_table(reference: tuple[Path, Done]) -> None:
    _, done = reference
    words = [line.split() for line in done.out.splitlines()]
    header = next(at for at, line in enumerate(words) if line[:3] == ["policy", "T", "distance"])
    assert [line[0] for line in words[header + 2 : header + 7]] == POLICIES
    assert words[header + 7][0] == "real,"
    assert "nan" not in done.out and not re.search("Warning|Traceback", done.err)


@pytest.mark.slow
def test_an_alarm_ends_a_run_whose_table_tells_it(outside: Path, console: Console) -> None:
    strict = ["--alarms.stop", "coverage", "--alarms.coverage", -1]
    done = console("adanat_ppo.py", *LOCAL, *TINY, *strict, "--output", "alarmed")
    assert done.code == 0, done.err
    said = [line for line in done.out.splitlines() if line.startswith("adanat: alarm at update 2: coverage")]
    rows = read_metrics(outside / "alarmed" / "metrics.csv")
    assert len(said) == 1 and [row["update"] for row in rows] == ["1", "2"]
    assert said[0] in (outside / "alarmed" / "report.html").read_text()
    adanat = next(row for row in results(outside / "alarmed")["rows"] if row["policy"] == "adanat")
    assert adanat["distance"] > 0


def test_a_run_leaves_everything_behind(reference: tuple[Path, Done]) -> None:
    folder, _ = reference
    config = json.loads((folder / "config.json").read_text())
    assert config["train"]["env"]["steps"] == 2 and config["search"]["grid"]["remask"] == [1.0, 8.0]
    assert config["train"]["adanat"]["clip"] == 0.2, "what was not asked for is written down too"
    with open(folder / "metrics.csv") as file:
        assert [row["update"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    policy = from_pretrained(folder / "policy")
    assert isinstance(policy, Actor) and policy.steps == 2
    assert sorted(path.name for path in (folder / "figures").iterdir()) == [
        "by-class.png",
        "learning.png",
        "parameters.png",
        "samples.png",
    ]
    for path in (folder / "figures").iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) >= 300, path.name
            assert len(picture.convert("L").getcolors()) > 20, f"{path.name} shows nothing"  # type: ignore
    assert not [name for name in files(folder) if name.endswith(".part")]


def test_the_results_keep_their_schema(reference: tuple[Path, Done]) -> None:
    found = results(reference[0])
    protocol, rows = found["protocol"], found["rows"]
    assert protocol["task"] == "digits" and protocol["split"] == "report"
    assert (protocol["images"], protocol["seeds"], protocol["reference_images"]) == (120, [0, 1, 2], 400)
    assert [row["policy"] for row in rows[:-1]] == POLICIES and rows[-1]["policy"].startswith("real")
    for row in rows[:-1]:
        assert row["seeds"] == 3 and row["steps"] == (4 if row["policy"] == "autonat-T4" else 2)
        assert row["distance"] > 0 and row["distance_std"] > 0 and row["images_per_second"] > 0
        assert all(0 <= row[share] <= 1 for share in ("accuracy", "recall", "precision", "coverage"))
        assert row["steps"] <= row["nfe"] <= 2 * row["steps"]
    spent = {row["policy"]: row["images_spent"] for row in rows[:-1]}
    search, learning = (2 + 2) * 50, (1 + 2 * 3) * 32 + (1 + 2) * 60
    found_by = {"static-search": search, "adanat": search + learning, "autonat-T4": None}
    assert spent == dict.fromkeys(POLICIES, 0) | found_by
    pairs = [(pair["minus"], pair["metric"]) for pair in found["differences"]]
    assert pairs[:4] == [(name, "distance") for name in POLICIES if name != "adanat"]
    assert pairs[4:] == [("static-search", name) for name in ("accuracy", "recall", "pixel_distance")]
    by_name = {row["policy"]: row for row in rows}
    for difference in found["differences"]:
        ours, theirs = (by_name[name][difference["metric"]] for name in ("adanat", difference["minus"]))
        assert difference["policy"] == "adanat" and difference["mean"] == pytest.approx(ours - theirs)
        assert difference["half_width"] > 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_results(
    reference: tuple[Path, Done], console: Console, outside: Path
) -> None:
    """On any number of threads."""
    done = console("adanat_ppo.py", "--local", "--threads", 2, *TINY, "--output", "again")
    assert done.code == 0, done.err
    assert_same_run(outside / "again", reference[0])


@pytest.mark.slow
def test_another_seed_gives_other_results(
    reference: tuple[Path, Done], console: Console, outside: Path
) -> None:
    done = console("adanat_ppo.py", *LOCAL, *TINY, "--seed", 1, "--output", "other")
    assert done.code == 0, done.err
    found, expected = (results(folder)["rows"] for folder in (outside / "other", reference[0]))
    assert found[-2]["distance"] != expected[-2]["distance"]
    assert found[0]["distance"] == expected[0]["distance"], "evaluation has seeds of its own"
    for name in ("metrics.csv", "search.csv", "policy/model.safetensors"):
        assert (outside / "other" / name).read_bytes() != (reference[0] / name).read_bytes()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_results(
    reference: tuple[Path, Done], console: Console, outside: Path
) -> None:
    kill(outside, "adanat_ppo.py", 2, *LOCAL, *TINY, "--output", "killed")
    assert not {"results.json", "policy/config.json"} & files(outside / "killed").keys()
    with open(outside / "killed" / "metrics.csv") as file:
        assert len(file.readlines()) == 3
    done = console("adanat_ppo.py", *LOCAL, "--resume", "killed")
    assert done.code == 0, done.err
    assert_same_run(outside / "killed", reference[0])


@pytest.fixture(scope="session")
def paired(console: Console, outside: Path) -> tuple[Path, Done]:
    """An uninterrupted run of the defaults, made small."""
    done = console("adanat_ppo.py", *LOCAL, *PAIRED, "--output", "paired")
    assert done.code == 0, done.err
    return outside / "paired", done


def test_the_policy_meets_its_control_and_a_search_of_its_price(paired: tuple[Path, Done]) -> None:
    folder, done = paired
    found = results(folder)
    rows = {row["policy"]: row for row in found["rows"]}
    learned = ["step-only", "adanat"]
    assert list(rows)[:-1] == [*POLICIES[:-1], *learned]
    spent = {name: row["images_spent"] for name, row in list(rows.items())[:-1]}
    cost = 3 * 40 + 4 * 60 + 2 * 60
    assert spent["step-only"] == spent["adanat"] == cost and 0 < spent["static-search"] <= 700
    policies: list[Any] = [from_pretrained(path / "policy") for path in (folder / "step-only", folder)]
    assert [policy.config.policy["blind"] for policy in policies] == [True, False]
    settings = json.loads((folder / "step-only" / "config.json").read_text())
    ours = json.loads((folder / "config.json").read_text())["train"]
    assert settings["adanat"]["policy"].pop("blind") and not ours["adanat"]["policy"].pop("blind")
    assert settings == ours, "the control is trained alike"
    for kind, path in zip(learned, (folder / "step-only", folder), strict=True):
        kept = kept_policy(path)
        assert kept is not None and f"{kind}: the policy after {kept.update} of 3 updates" in done.out
        assert (f"{kind}: no update was better than the start." in done.out) == (kept.update == 0)
    for pair in found["differences"]:
        (line,) = [
            line
            for line in done.out.splitlines()
            if line.startswith(f"adanat - {pair['minus']} ")
            and (pair["metric"] == "distance") == ("(" not in line)
            and (pair["metric"] == "distance" or f"({pair['metric']})" in line)
        ]
        assert line.endswith("not shown") == (abs(pair["mean"]) <= pair["half_width"])


def test_a_killed_pair_resumes_to_the_same_results(
    paired: tuple[Path, Done], console: Console, outside: Path
) -> None:
    """Killed in the control's training, which comes first."""
    kill(outside, "adanat_ppo.py", 2, *LOCAL, *PAIRED, "--output", "killed-pair")
    assert not {"metrics.csv", "search.csv"} & files(outside / "killed-pair").keys()
    done = console("adanat_ppo.py", *LOCAL, "--resume", "killed-pair")
    assert done.code == 0, done.err
    for part in (".", "step-only"):
        for name in ("metrics.csv", "policy/model.safetensors", "last/model.safetensors"):
            one, other = (folder / part / name for folder in (outside / "killed-pair", paired[0]))
            assert one.read_bytes() == other.read_bytes(), (part, name)
    assert_same_run(outside / "killed-pair", paired[0])


@pytest.mark.slow
@pytest.mark.ray
def test_ray_changes_nothing(reference: tuple[Path, Done], outside: Path) -> None:
    """The default mode, one Tune job, ends as the same run without Ray."""
    threads = min(2, os.cpu_count() or 1)
    done = run(outside, *TINY, "--threads", threads, "--output", "by-ray")
    assert done.code == 0, done.err
    assert_same_run(outside / "by-ray", reference[0])


def test_a_sweep_keeps_its_best_trial(console: Console, outside: Path) -> None:
    """Each trial has its folder; the one with the smallest last distance gets into the table."""
    space = ["--num-samples", 2, "--space", "learning_rate=loguniform(1e-3,1e-1)"]
    options = [*space, "--schedule", "reference", "--evaluation-seeds", 7]
    done = console("adanat_ppo.py", *LOCAL, *TINY, *options, "--output", "sweep")
    assert done.code == 0, done.err
    last = []
    for trial in ("000", "001"):
        with open(outside / "sweep" / "trials" / trial / "metrics.csv") as file:
            last.append([float(row["distance"]) for row in csv.DictReader(file)][-1])
    assert last[0] != last[1]
    row = results(outside / "sweep")["rows"][-2]
    learning = (1 + 2 * 3) * 32 + (1 + 2) * 60
    assert row["policy"] == "adanat" and row["images_spent"] == 2 * learning, "no search went before"
    assert row["seeds"] == 1 and row["distance_std"] is None


@pytest.mark.slow
def test_cotraining_sets_three_generators_side_by_side(
    reference: tuple[Path, Done], console: Console, outside: Path
) -> None:
    """The frozen one as without co-training; of the others evaluate.py says what the table says."""
    options = ["--cotraining.updates", 2, "--evaluation-seeds", 0, 1]
    done = console("adanat_ppo.py", *LOCAL, *TINY, *options, "--output", "cotrained")
    assert done.code == 0, done.err
    rows = {row["policy"]: row for row in results(outside / "cotrained")["rows"][:-1]}
    arms = [f"{arm} {name}" for arm in ("fine-tuned", "co-trained") for name in POLICIES[-2:]]
    assert list(rows) == POLICIES + arms
    hashes = [row["protocol"]["generator"] for row in rows.values()]
    assert len(set(hashes[:5])) == 1 and len(set(hashes)) == 3, "one generator for each arm"
    assert hashes[5] == hashes[6] and hashes[7] == hashes[8]
    policy = Path("policy", "model.safetensors")
    assert (outside / "cotrained" / "frozen" / policy).read_bytes() == (reference[0] / policy).read_bytes()
    folder = outside / "cotrained" / "co-trained"
    scorer = ["--policy", folder.parent / "static-search.json", folder, "--steps", 2, "--images", 120]
    scorer += ["--generators", folder / "generator", "--seeds", 0, 1, "--output", "rejudged"]
    done = console("evaluate.py", *scorer)
    assert done.code == 0, done.err
    judged = {row["policy"]: row["distance"] for row in results(outside / "rejudged")["rows"]}
    assert judged["static-search"] == rows["co-trained static-search"]["distance"]
    assert judged["co-trained"] == rows["co-trained adanat"]["distance"]


def explanations(text: str) -> dict[str, str]:
    """Return what a help page says about each flag, without defaults."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = line.strip("│╭╮╰╯─ ")
        if line.startswith("│") and words.startswith("-"):
            flag, _, said = words.partition("  ")
            found[flag] = said
        elif line.startswith("│") and found:
            found[list(found)[-1]] += " " + words
        elif line.startswith("╭"):
            found[line] = ""  # what follows belongs to a heading
    return {
        flag: re.sub(r"\(default:.*?\)|\(required\)", "", said).strip()
        for flag, said in found.items()
        if flag.startswith("-")
    }


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_every_flag(console: Console, script: str) -> None:
    done = console(script, "--help")
    assert done.code == 0 and not done.err and script in done.out
    explained = explanations(done.out)
    assert "-h, --help" in explained
    if script != "convert_checkpoint.py":  # it takes two paths, and draws nothing
        own_seeds = script == "claims.py"  # a row says of itself which seeds it has
        assert own_seeds or any(
            flag.startswith(("--seed ", "--seeds ", "--evaluation-seeds ")) for flag in explained
        )
        assert ("--json" if script == "benchmark.py" else "--output") in " ".join(explained)
    silent = [flag for flag, said in explained.items() if not said]
    assert not silent, f"{script} --help says nothing about {', '.join(silent)}"


def assert_one_line(done: Done, script: str, *words: str) -> None:
    assert done.code in (1, 2) and not done.out
    assert done.err.count("\n") == 1 and done.err.startswith(f"{script}: error: "), done.err
    assert all(word in done.err for word in words), done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--updats 3", "--updats --updates"),
        ("--update 3", "--update"),
        ("--updates three", "--updates three"),
        ("--updates 0", "updates 0"),
        ("--evaluate-every 0", "evaluate_every"),
        ("--trajectories 100", "discriminator_batch 100"),
        ("--preset paper", "paper adanat_paper"),
        ("--adversarial.backbone no/such", "no/such dino"),
        ("--images 0", "images"),
        ("--rules halton,theta=1", "'theta' in 'halton,theta=1' is not one of min_reveal"),
        ("--search.final-images 0", "final_images 0"),
        ("--search.grid.sampling 0", "sampling"),
        ("--actions papr", "papr default"),
        ("--task faces", "faces digits"),
        ("--generator no/such", "no/such"),
        ("--schedule no-such.json", "no-such.json reference"),
        ("--space learning_rate=normal(0,1)", "learning_rate=normal(0,1)"),
        ("--asha-rung 2 --num-samples 2", "asha-rung 2 --local"),
        ("--cotraining.updates -1", "cotraining.updates -1"),
        ("--cotraining.updates 2 --num-samples 2", "num-samples 2 co-training"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    console: Console, tmp_path: Path, arguments: str, words: str
) -> None:
    done = console("adanat_ppo.py", *LOCAL, *TINY, *arguments.split(), "--output", tmp_path / "mistake")
    assert_one_line(done, "adanat_ppo.py", *words.split())
    assert not (tmp_path / "mistake").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--output reference", "reference --resume"),
        ("--resume no-such-run", "no-such-run --resume"),
        ("--resume reference --updates 5", "--resume updates"),
        ("--resume reference --search.budget 90000", "--resume search"),
    ],
)
def test_a_run_is_neither_overwritten_nor_changed(
    reference: tuple[Path, Done], console: Console, arguments: str, words: str
) -> None:
    before = files(reference[0])
    assert_one_line(console("adanat_ppo.py", *LOCAL, *arguments.split()), "adanat_ppo.py", *words.split())
    assert files(reference[0]) == before


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr(sys, "argv", ["script.py"])
    return importlib.import_module("_cli")


@dataclass(frozen=True)
class NoFlags:
    """Nothing to set."""


@dataclass(frozen=True)
class Resumes:
    """A script that keeps where it is."""

    resume: str | None = None


def raising(error: BaseException) -> Callable[[Any], None]:
    def work(config: Any) -> None:
        raise error

    return work


@pytest.mark.parametrize("error", [ValueError, RuntimeError, OSError])
def test_a_failure_is_one_line(cli: Any, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    """Unless NATGYM_TRACEBACK asks where it came from."""
    with pytest.raises(SystemExit) as caught:
        cli.main(NoFlags, raising(error("first\n  second")))
    assert caught.value.code == "script.py: error: first second"
    monkeypatch.setenv("NATGYM_TRACEBACK", "1")
    with pytest.raises(error):
        cli.main(NoFlags, raising(error("first\n  second")))


def test_a_full_gpu_is_one_line_with_the_flags_that_take_less(cli: Any) -> None:
    @dataclass(frozen=True)
    class Sizes:
        micro_batch: int = 1
        trajectories: int = 8
        width: int = 2

    def work(config: Sizes) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(SystemExit) as caught:
        cli.main(Sizes, work)
    said = "CUDA out of memory. Less at once takes less: --micro-batch, --trajectories"
    assert caught.value.code == f"script.py: error: {said}"


@pytest.mark.parametrize(
    ("flags", "onward"),
    [(Resumes, "--resume FOLDER goes on, if it kept anything"), (NoFlags, "it has to begin anew")],
)
def test_an_interrupt_says_how_to_go_on(
    flags: Any, onward: str, cli: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(flags, raising(KeyboardInterrupt()))
    assert caught.value.code == 130
    assert capsys.readouterr().err == f"\nscript.py: interrupted; {onward}\n"


def test_an_interrupt_while_torch_writes_is_no_error(cli: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """torch closes its file on the way out, and raises its own error for a half one."""

    class Interrupted(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 0:  # the archive has begun
                raise KeyboardInterrupt
            return super().write(data)

    def work(config: NoFlags) -> None:
        torch.save({"weights": torch.zeros(1000)}, Interrupted())

    with pytest.raises(SystemExit) as caught:
        cli.main(NoFlags, work)
    assert isinstance(caught.value.__context__, RuntimeError)
    assert caught.value.code == 130 and "script.py: interrupted" in capsys.readouterr().err


def test_a_mistake_in_the_code_is_not_hidden(cli: Any) -> None:
    with pytest.raises(TypeError):
        cli.main(NoFlags, raising(TypeError("one argument too many")))


def test_train_tokenizer(console: Console, outside: Path) -> None:
    for name, seed in (("tokenizer", 0), ("tokenizer-again", 0), ("tokenizer-other", 1)):
        done = console("train_tokenizer.py", "--codebook-size", 8, "--seed", seed, "--output", name)
        assert done.code == 0 and done.out.startswith(f"{name}: 8 codes used"), done.err
    found = files(outside / "tokenizer")
    assert found == files(outside / "tokenizer-again") != files(outside / "tokenizer-other")
    tokenizer: Any = from_pretrained(outside / "tokenizer")
    assert tokenizer.config.codebook_size == 8
    done = console("train_tokenizer.py", "--output", "tokenizer")
    assert_one_line(done, "train_tokenizer.py", "tokenizer exists")
    assert_one_line(console("train_tokenizer.py", "--patch", 3, "--output", "t"), "train_tokenizer.py", "3")
    assert files(outside / "tokenizer") == found and not (outside / "t").exists()


TINY_TOKENIZER = """--kind vq --updates 7 --batch-size 16 --warmup 2 --checkpoint-every 2 --codebook-size 16
    --width 8 --downsampling 2 --blocks 1""".split()


@pytest.mark.slow
def test_a_killed_train_tokenizer_resumes_to_the_same_weights(console: Console, outside: Path) -> None:
    """Killed after update 5, one after the last checkpoint."""
    done = console("train_tokenizer.py", *TINY_TOKENIZER, "--output", "vq")
    assert done.code == 0, done.err
    said = r"vq: \d+ codes used \(\d+\.\d%\), squared error \d\.\d+, distance \d+\.\d+ on the select split"
    assert re.fullmatch(said, done.out.strip())
    kill(outside, "train_tokenizer.py", 5, *TINY_TOKENIZER, "--output", "vq-killed")
    assert not (outside / "vq-killed" / "config.json").exists()
    done = console("train_tokenizer.py", "--resume", "vq-killed")
    assert done.code == 0, done.err
    whole, resumed = files(outside / "vq"), files(outside / "vq-killed")
    for name in ("metrics.csv", "model.safetensors", "config.json"):
        assert resumed[name] == whole[name], name
    assert whole["metrics.csv"].count(b"\n") == 8
    tokenizer: Any = from_pretrained(outside / "vq")
    assert tokenizer.grid == (4, 4) and tokenizer.codebook_size == 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--resume tokenizer --updates 3", "--resume --updates"),
        ("--resume no-such-folder", "no-such-folder training.json"),
        ("--codebook-size 0 --output t", "codebook_size 0"),
        ("--kind vq --downsampling 3 --output t", "downsampling 3"),
        ("--updates 0 --output t", "updates 0"),
        ("--task faces --output t", "faces digits mnist cifar10"),
        ("", "--output --resume"),
    ],
)
def test_train_tokenizer_refuses_the_impossible(
    console: Console, outside: Path, arguments: str, words: str
) -> None:
    done = console("train_tokenizer.py", *arguments.split())
    assert_one_line(done, "train_tokenizer.py", *words.split())
    assert not (outside / "t").exists()


def test_an_image_folder_is_a_task(console: Console, outside: Path) -> None:
    for number in range(60):
        (folder := outside / "squares" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (4 * number, 100, 255 * (number % 2))).save(folder / f"{number}.png")
    options = ["--task", "squares", "--updates", 30, "--output", "squares-classifier"]
    done = console("train_classifier.py", *options)
    assert done.code == 0 and "accuracy 1.0000" in done.out, done.err
    tiny = [*TINY_TOKENIZER[2:], "--downsampling", 4]
    with_distance = ["--classifier", "squares-classifier"]
    for name, more in (("squares-vq", []), ("squares-distance", with_distance)):
        done = console("train_tokenizer.py", "--task", "squares", *tiny, *more, "--output", name)
        assert done.code == 0 and ("distance" in done.out) == bool(more), done.err
    for number in range(10):
        (outside / "squares" / "ab"[number % 2] / f"{number}.png").unlink()
    done = console("train_tokenizer.py", "--task", "squares", *tiny, *with_distance, "--output", "few")
    assert_one_line(done, "train_tokenizer.py", "5 real images are too few to judge by")
    tokenizer: Any = from_pretrained(outside / "squares-vq")
    assert tokenizer.image_shape == (3, 16, 16) and tokenizer.grid == (4, 4)


def test_train_classifier(console: Console, outside: Path) -> None:
    for name, seed in (("classifier", 0), ("classifier-again", 0), ("classifier-other", 1)):
        options = ["--updates", 30, "--features", 8, "--seed", seed, "--output", name]
        done = console("train_classifier.py", *options)
        assert done.code == 0, done.err
        accuracy = re.search(r"accuracy (\d\.\d+) on the select split", done.out)
        assert accuracy is not None and float(accuracy[1]) > 0.2, "ten classes"
    found = files(outside / "classifier")
    assert found == files(outside / "classifier-again") != files(outside / "classifier-other")
    done = console("train_classifier.py", "--output", "classifier")
    assert_one_line(done, "train_classifier.py", "classifier exists")
    assert files(outside / "classifier") == found


def test_a_killed_train_generator_resumes_to_the_same_weights(console: Console, outside: Path) -> None:
    """Killed after update 5, one after the last checkpoint."""
    done = console("train_generator.py", *TINY_GENERATOR, "--output", "generator")
    assert done.code == 0 and done.out.startswith("generator/generator: "), done.err
    kill(outside, "train_generator.py", 5, *TINY_GENERATOR, "--output", "generator-killed")
    assert not (outside / "generator-killed" / "generator").exists()
    assert console("train_generator.py", "--resume", "generator-killed").code == 0
    whole, resumed = files(outside / "generator"), files(outside / "generator-killed")
    for name in ("metrics.csv", "generator/model.safetensors", "generator/config.json"):
        assert resumed[name] == whole[name], name
    assert whole["metrics.csv"].count(b"\n") == 8
    generator: Any = from_pretrained(outside / "generator" / "generator")
    assert generator.grid == (4, 4) and generator.width == 16
    done = console("train_generator.py", "--resume", "generator", "--updates", 9)
    assert_one_line(done, "train_generator.py", "--resume", "updates")
    assert files(outside / "generator") == whole


@pytest.mark.parametrize("arguments", ["--updates 0", "--batch-size 0", "--checkpoint-every 0"])
def test_train_generator_refuses_the_impossible(console: Console, tmp_path: Path, arguments: str) -> None:
    flag = arguments.split()[0].strip("-").replace("-", "_")
    output = ["--output", tmp_path / "impossible"]
    done = console("train_generator.py", "--updates", 1, *arguments.split(), *output)
    assert_one_line(done, "train_generator.py", flag)
    assert not (tmp_path / "impossible").exists()


def losses(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in read_metrics(folder / "metrics.csv")]


def test_train_generator_trains_an_enat_and_shows_it(console: Console, outside: Path) -> None:
    """With reuse by default; distances and a grid where they are due, and at the end."""
    blocks = ("--depth", 1, "--decoder-depth", 2)
    done = console("train_generator.py", "--model", "enat", *TINY_GENERATOR, *blocks, "--output", "enat")
    assert done.code == 0, done.err
    folder = outside / "enat"
    generator: Any = from_pretrained(folder / "generator")
    assert type(generator).__name__ == "ENAT"
    assert (generator.config.encoder_depth, generator.config.decoder_depth) == (1, 2)
    assert json.loads((folder / "config.json").read_text())["train"]["reuse"] == 0.5
    rows = read_metrics(folder / "metrics.csv")
    assert [row["update"] for row in rows if row["distance"]] == ["3", "6", "7"]
    assert all(0 <= float(row["sample_accuracy"]) <= 1 for row in rows if row["distance"])
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert figures == {"training.png", *(f"samples-{update:06}.png" for update in (3, 6, 7))}


@pytest.mark.slow
def test_two_processes_of_torchrun_train_as_one(console: Console, outside: Path) -> None:
    settings = [*TINY_GENERATOR, "--dropout", 0, "--evaluate-every", 0]
    assert console("train_generator.py", *settings, "--output", "single").code == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line = [*launch, *command("train_generator.py", (*settings, "--output", "ranked"))]
    done = subprocess.run(line, cwd=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert losses(outside / "ranked") == pytest.approx(losses(outside / "single"), rel=1e-4)
    assert (outside / "ranked" / "generator" / "model.safetensors").is_file()


@pytest.mark.slow
def test_workers_of_ray_train_as_one(console: Console, outside: Path) -> None:
    settings = [*TINY_GENERATOR, "--dropout", 0, "--evaluate-every", 0]
    assert console("train_generator.py", *settings, "--output", "alone").code == 0
    done = run(outside, *settings, "--workers", 2, "--output", "workers", script="train_generator.py")
    assert done.code == 0, done.err
    assert losses(outside / "workers") == pytest.approx(losses(outside / "alone"), rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--size b", "size 'b': nat has digits, mnist, small, shapes, sudoku-4, sudoku-6, chain, cifar10, l"),
        ("--data nowhere", "'nowhere'"),
        ("--reuse 0.5", "reuse 0.5: NAT reuses nothing"),
        ("--tokenizer nowhere", "'nowhere' is neither a folder with a saved tokenizer"),
        ("--evaluation-schedule nowhere", "schedule 'nowhere'"),
    ],
)
def test_train_generator_explains_what_it_refuses(console: Console, arguments: str, said: str) -> None:
    done = console("train_generator.py", "--updates", 1, *arguments.split(), "--output", "refused")
    assert_one_line(done, "train_generator.py", said)


def test_evaluate_makes_one_table_of_several_generators(console: Console, outside: Path) -> None:
    """Rows by generator and passes; a file is played at its own number of steps."""
    random_order(2).save(outside / "two.json")
    names = ["--generators", "digits", "digits/nat", "--policy", "maskgit", "two.json"]
    sizes = ["--steps", 1, 2, "--images", 60, "--seeds", 0, 1, "--output", "judged"]
    done = console("evaluate.py", *names, *sizes)
    assert done.code == 0, done.err
    results = json.loads((outside / "judged" / "results.json").read_text())
    rows = [(row["policy"], row.get("steps")) for row in results["rows"]]
    assert rows[:3] == [("digits maskgit", 1), ("digits random-order", 2), ("digits maskgit", 2)]
    assert rows[6][0] == "real, n=60" and len(rows) == 7
    same = [[row["distance"] for row in results["rows"][at : at + 3]] for at in (0, 3)]
    assert same[0] == same[1], "one generator under two names"
    assert results["rows"][2]["gflop"] > results["rows"][0]["gflop"] > 0
    assert results["rows"][1]["difference"]["minus"] == "digits maskgit"
    assert "GFLOP" in done.out and len(list((outside / "judged" / "figures").iterdir())) == 7
    assert_one_line(console("evaluate.py", "--generators", "nowhere"), "evaluate.py", "nowhere")


TINY_SEARCH = """--steps 2 --optimizer paper grid coordinate --images-per-evaluation 30 --budget 400
    --finalists 2 --final-images 40 --grid.remask 1 8 --grid.sampling 1 --grid.guidance 0 1 --coarse.remask 4
    --coarse.sampling 1 --coarse.guidance 0 1 --table.candidates 3 --table.images-per-class 6 --images 60
    --evaluation-seeds 0 1""".split()


def test_autonat_search_makes_table_figures_and_strategies(console: Console, outside: Path) -> None:
    done = console("autonat_search.py", *TINY_SEARCH, *LOCAL, "--output", "searched")
    assert done.code == 0, done.err
    folder = outside / "searched"
    results = json.loads((folder / "results.json").read_text())
    rows = {row["policy"]: row for row in results["rows"]}
    searched = ["paper", "grid", "coordinate", "class-table", "shuffled-table"]
    hand_made = ["reference", "one-step", "maskgit", "random-order"]
    assert list(rows)[:-1] == [*hand_made, *searched]
    for name in ("paper", "grid", "coordinate"):
        spent = sum(int(row["images"]) for row in read_metrics(folder / "searches" / f"{name}-0.csv"))
        assert rows[name]["images_spent"] == spent <= 400
        assert rows[name]["to_reference"] == rows[name]["distance"] / rows["reference"]["distance"]
    best = max(rows[name]["images_spent"] for name in searched[:3])
    assert 3 * 6 * 10 < rows["class-table"]["images_spent"] <= best + 3 * 6 * 10
    one, other = Schedule.load(folder / "strategy.json"), Schedule.load(folder / "strategy.yaml")
    assert one.steps == 2 and torch.equal(one.table_T4[:-1], other.table_T4[:-1])
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "schedules.png",
        "search.png",
        "samples.png",
    }
    assert f"strategy.json is of {results['strategy']}" in done.out and " ratio " in done.out


@pytest.mark.slow
def test_a_killed_autonat_search_resumes_to_the_same_table(console: Console, outside: Path) -> None:
    """Killed after six evaluations of the first search; what was measured stands as it was."""
    arguments = [*TINY_SEARCH, *LOCAL, "--output", "searched-killed"]
    killed = KILLED.replace('log.path.name == "metrics.csv" and row["update"]', 'row["evaluation"]')
    line = [sys.executable, "-c", killed, "5", *command("autonat_search.py", tuple(arguments))]
    assert subprocess.run(line, cwd=outside, capture_output=True).returncode == -9
    before = (outside / "searched-killed" / "searches" / "paper-0.csv").read_bytes()
    assert len(before.splitlines()) == 7
    done = console("autonat_search.py", "--resume", "searched-killed", *LOCAL)
    assert done.code == 0, done.err
    if not (outside / "searched").exists():
        assert console("autonat_search.py", *TINY_SEARCH, *LOCAL, "--output", "searched").code == 0
    whole, resumed = files(outside / "searched"), files(outside / "searched-killed")
    assert resumed["searches/paper-0.csv"].startswith(before)
    for name in whole:
        if name.endswith(("csv", "strategy.json", "strategy.yaml", "class-table.json")):
            assert resumed[name] == whole[name], name
    done = console("autonat_search.py", "--resume", "searched", "--budget", 90000)
    assert_one_line(done, "autonat_search.py", "--resume", "budget")


def test_autonat_search_repeats_searches(console: Console, outside: Path) -> None:
    """The spread is over searches; without a class table there are no rows of it."""
    options = ["--optimizer", "coordinate", "--repeats", 2, "--table.candidates", 0, "--output", "repeated"]
    done = console("autonat_search.py", *TINY_SEARCH, *LOCAL, *options)
    assert done.code == 0 and "mean and spread over 2 searches" in done.out, done.err
    rows = {row["policy"]: row for row in json.loads((outside / "repeated/results.json").read_text())["rows"]}
    assert list(rows)[4:-1] == ["coordinate"] and rows["coordinate"]["seeds"] == 2
    assert len(list((outside / "repeated" / "searches").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--optimizer adam", "optimizer"),
        ("--optimizer grid grid", "optimizer none twice"),
        ("--budget 300", "budget 300 finalists"),
        ("--budget 1000 --optimizer cma", "budget 1000 cma first generation"),
        ("--task faces", "faces"),
        ("--generator nowhere", "nowhere"),
        ("--start nowhere --warm none", "nowhere"),
        ("--resume nowhere", "nowhere config.json"),
        ("--table.candidates -1", "candidates -1"),
        ("--optimiser cma", "--optimiser"),
    ],
)
def test_autonat_search_refuses_the_impossible(
    console: Console, outside: Path, arguments: str, words: str
) -> None:
    done = console("autonat_search.py", *arguments.split(), "--output", "not-searched")
    assert_one_line(done, "autonat_search.py", *words.split())
    assert not (outside / "not-searched").exists()


TINY_LAWS = """--updates 4 --rounds 1 --laws.laws 3 --laws.rung 2 --laws.images 40 --steps 2 --images 60
    --search.images-per-evaluation 30 --search.budget 1000 --search.final-images 40
    --evaluation-seeds 0 1""".split()


@pytest.mark.ray
@pytest.mark.slow
def test_autonat_training_alternates(outside: Path) -> None:
    """Laws under ASHA, a schedule for the best generator, and a table of three laws trained anew."""
    done = run(outside, *TINY_LAWS, "--output", "laws", script="autonat_training.py")
    assert done.code == 0, done.err
    rows = list(csv.DictReader((outside / "laws" / "laws.csv").open()))
    assert [row["law"] for row in rows][:2] == ["cosine", "beta(12, 3)"] and len(rows) == 3
    (best,) = [row for row in rows if row["best"] == "True"]
    assert float(best["distance"]) == min(float(row["distance"]) for row in rows if row["updates"] == "4")
    results = json.loads((outside / "laws" / "results.json").read_text())
    assert len(results["rows"]) == 6 and (outside / "laws" / "figures" / "laws.png").is_file()
    assert Schedule.load(outside / "laws" / "strategy.json").steps == 2
    done = run(outside, "--resume", "laws", "--steps", 9, script="autonat_training.py")
    assert_one_line(done, "autonat_training.py", "--resume", "steps")
