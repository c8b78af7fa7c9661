"""Command lines that nobody means: each ends in one line before anything is made, or the script begins."""

import importlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from attacks import ODD_WORDS, Attack, forms, same_type, with_odd_value
from in_process import EXPERIMENTS, Call
from PIL import Image

from generators import files
from generators.schedules import reference
from natgym import runs
from natgym.settings import defaults, groups

NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e30",
    "-1e30",
    "2.5",
    "1" + 19 * "0",
    "-1" + 19 * "0",
    "1,2",
    "0x1",
]
# Enough to begin with, and little to do for those that begin by doing it.
SCRIPTS: dict[str, list[str]] = {
    "adanat_ppo.py": ["--local", "--threads", "1"],
    "adaptivity.py": ["nowhere", "--local"],
    "analyze_policies.py": ["maskgit", "--samples", "4", "--films", "1"],
    "audit_categories.py": [],
    "autonat_search.py": ["--local", "--threads", "1"],
    "autonat_training.py": [],
    "claims.py": ["--list"],
    "convert_checkpoint.py": ["schedule.json", "schedule.yaml"],
    "evaluate.py": ["--images", "100"],
    "evaluate_captions.py": [],
    "export_episodes.py": ["--images", "2", "--steps", "2"],
    "explore.py": ["maskgit", "--images", "2", "--steps", "2"],
    "generate.py": ["--n", "2", "--steps", "2"],
    "learning_curves.py": ["--local"],
    "mmgcd_discover.py": [],
    "reward_agreement.py": [],
    "train_classifier.py": ["--output", "classifier", "--updates", "1", "--channels", "4"],
    "train_generator.py": ["--width", "16", "--heads", "2"],
    "train_task.py": ["images", "--output", "task", "--dry-run"],
    "train_tokenizer.py": ["--output", "tokenizer", "--kind", "vq", "--width", "8"],
    "unmasking.py": [],
}


# Scripts that resume, and what their settings have no default for.
RESUMED: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("adanat_ppo", "adaptivity", "autonat_search", "autonat_training", "evaluate"), {}),
    **dict.fromkeys(("learning_curves", "mmgcd_discover", "train_generator", "train_tokenizer"), {}),
    "train_task": {"images": "images", "output": Path("task")},
}


class Begun(BaseException):
    """A script is about to make its folder: everything before was to its liking."""


def begin(*arguments: Any) -> None:
    raise Begun


def settings(config_class: type, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the flags of a config class, as `_cli` names them, and their types."""
    inner, hints = groups(config_class), get_type_hints(config_class, include_extras=True)
    for name in defaults(config_class):
        flag = above + name.replace("_", "-")
        if name not in inner:
            yield flag, hints[name]
            continue
        unnamed = "" in [getattr(extra, "name", None) for extra in getattr(hints[name], "__metadata__", ())]
        yield from settings(inner[name], above if unnamed else f"{flag}.")


@pytest.fixture
def start(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a script until it makes its folder; then it counts as done."""
    reference(4).save(tmp_path / "schedule.json")
    for row in range(24):
        (folder := tmp_path / "images" / str(row % 2)).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * row).save(folder / f"{row}.png")
    monkeypatch.setattr(files, "hold", begin)
    monkeypatch.setattr(runs.Run, "create", begin)

    def run(script: str, *arguments: Any) -> tuple[int, str, str]:
        try:
            return call(script, *arguments)
        except Begun:
            return 0, "", ""

    return run


@pytest.mark.parametrize("count", forms(24, 700))
def test_odd_values_of_flags_are_refused_in_one_line(count: int, start: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    with Attack("command lines") as attack:
        for number in range(count):
            script = [*SCRIPTS][number % len(SCRIPTS)]
            known = [*settings(importlib.import_module(script.removesuffix(".py")).Args)]
            flag, kind = known[rng.integers(len(known))]
            odd = [*NUMBERS, *ODD_WORDS] if number % 3 else NUMBERS
            value = odd[rng.integers(len(odd))]
            case = f"{number}: {script} --{flag}={value:.20}"
            ours = [word.replace("classifier", f"classifier{number}") for word in SCRIPTS[script]]
            if attack.script(case, partial(start, script, *ours, f"--{flag}={value}")):
                attack.check(case, not ("float" in str(kind) and value in ("nan", "inf", "-inf")), "taken")


@pytest.mark.parametrize("count", forms(5, 60))
def test_settings_of_odd_values_are_no_run_to_resume(count: int, call: Call, tmp_path: Path) -> None:
    rng, path = np.random.default_rng(7), tmp_path / "config.json"
    with Attack("settings of runs") as attack:
        for script in RESUMED:
            args = importlib.import_module(script).Args
            runs.write_config(path, args(**RESUMED[script]))
            whole = json.loads(path.read_text())
            for _ in range(count):
                content, place, before, after = with_odd_value(whole, rng)
                path.write_text(json.dumps(content))
                case = f"{script} {'.'.join(map(str, place))} {before!r:.40} -> {after!r:.30}"
                if attack.load(case, partial(runs.read_config, path, args), path):
                    attack.check(case, same_type(before, after), "taken for a value of its type")


def test_every_script_is_attacked() -> None:
    """But the benchmark, whose generators are measured in processes of their own."""
    every = {path.name for path in EXPERIMENTS.glob("[!_]*.py")}
    assert every - set(SCRIPTS) == {"benchmark.py"}
