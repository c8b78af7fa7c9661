"""Flags and their mistakes are told before torch is imported, which takes seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from generators.config import DATA_SET_NAMES, SIZE_NAMES, Model, SplitName
from generators.data import DATA_SETS
from generators.recipes import MODELS, SIZES
from generators.schedules import PARAMETERS
from natgym.names import spaces

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
SCRIPTS = sorted(path.name for path in EXPERIMENTS.glob("[!_]*.py"))
HEAVY = {
    "matplotlib",
    "pandas",
    "ray",
    "scipy",
    "sklearn",
    "stable_baselines3",
    "timm",
    "torch",
    "torchvision",
    "transformers",
}
# Runs a script and says, on a last line of stderr, how it ended and what it has imported.
PROBE = """
import json, os, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
code = 0
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stop:
    code = stop.code
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def probe(folder: Path, script: str, *arguments: str) -> tuple[int, set[str], str]:
    """Return exit code, the packages that were imported, and what was said."""
    line = [sys.executable, "-c", PROBE, str(EXPERIMENTS / script), *arguments]
    done = subprocess.run(line, cwd=folder, env=dict(os.environ), capture_output=True, text=True)
    said, _, last = done.stderr.rstrip("\n").rpartition("\n")
    code, packages = json.loads(last)
    return code or 0, set(packages), done.stdout + said


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(tmp_path: Path, script: str) -> None:
    code, packages, said = probe(tmp_path, script, "--help")
    assert code == 0 and "--help" in said and {"natgym", "tyro"} <= packages
    assert not packages & HEAVY


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("evaluate.py", "--polices maskgit", "--polices --policy"),
        ("evaluate.py", "--rules confidnce", "confidnce entropy-bound"),
        ("adanat_ppo.py", "--reward advresarial", "advresarial feature-distance"),
        ("adanat_ppo.py", "--parameters mask_ratio temperature", "temperature guidance_scale"),
        ("adanat_ppo.py", "--preset adagen --discriminator-batch 9", "divide 4096"),
        ("autonat_search.py", "--budget 10", "budget 10"),
        ("autonat_search.py", "--price nan", "price nan"),
        ("mmgcd_discover.py", "--text-encoder bert", "bert minilm"),
        ("reward_agreement.py", "--rewards adversarial:members=0", "members 0"),
        ("train_generator.py", "--model enat --size h", "size l"),
        ("train_generator.py", "--cut both", "both masked-visible"),
        ("train_generator.py", "--model enat --cut masked-visible", "enat cuts"),
        ("train_generator.py", "--decoder-depth 2", "nat enat"),
    ],
)
def test_a_mistake_imports_nothing_heavy(tmp_path: Path, script: str, arguments: str, words: str) -> None:
    code, packages, said = probe(tmp_path, script, *arguments.split())
    assert code == 2 and said.count("\n") == 0 and said.startswith(f"{script}: error: ")
    assert all(word in said for word in words.split()), said
    assert not packages & HEAVY


def test_names_that_are_told_without_torch_are_those_that_there_are() -> None:
    assert set(get_args(Model)) == set(SIZE_NAMES) == set(SIZES) == set(MODELS)
    assert {model: tuple(sizes) for model, sizes in SIZES.items()} == SIZE_NAMES
    assert tuple(DATA_SETS) == DATA_SET_NAMES and "report" in get_args(SplitName)
    assert spaces.PARAMETERS == PARAMETERS


def test_whoever_reads_no_further_is_told_nothing() -> None:
    """As `| head -1` reads: no word of a broken pipe."""
    line = [sys.executable, str(EXPERIMENTS / "train_task.py"), "--help"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, text=True, **pipes) as script:
        assert script.stdout is not None and script.stderr is not None
        script.stdout.close()
        assert script.stderr.read() == ""


def test_a_log_that_takes_ascii_alone_gets_question_marks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path[:0] = [{str(EXPERIMENTS)!r}, {str(EXPERIMENTS.parent)!r}]\n"
        "from dataclasses import dataclass\nfrom _cli import main\n"
        "@dataclass(frozen=True)\nclass Args:\n    '''None.'''\n"
        "main(Args, lambda args: print('café ± 1'))\n"
    )
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "caf? ? 1\n"), done.stderr
