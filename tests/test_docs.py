"""The tutorial runs as it is written, and the pages name only what exists."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import foreign
import pytest
from small_clip import small_clip

from agents.named import NAMES

ROOT = Path(__file__).resolve().parent.parent
CARDS = sorted((ROOT / "generators" / "pretrained").glob("*/README.md"))
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *CARDS, *sorted(ROOT.glob("*.md"))]
# Where the config classes stand that scripts take their flags from.
FOLDERS = ("generators", "natgym", "agents")
SOURCE = "".join(path.read_text() for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))


def test_the_tutorial_runs_with_a_tiny_budget(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT), "NATGYM_TUTORIAL_BUDGET": "0.02"}
    line = [sys.executable, str(ROOT / "docs" / "tutorial" / "tutorial.py"), "learned"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "learned"
    results = json.loads((folder / "results.json").read_text())
    rows = [row["policy"] for row in results["rows"]]
    assert {"reference", "searched", "adanat", "halton", "one-step"} < set(rows) and rows[-1].startswith(
        "real"
    )
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert figures == {"learning", "parameters", "samples", "frontier"}
    assert "data:image/png" in (folder / "report.html").read_text()
    for heading in ("tokens", "reference_distance", "best of", "parameter", "report.html"):
        assert heading in done.stdout


def test_the_tutorial_is_cells_with_words_between_them() -> None:
    text = (ROOT / "docs" / "tutorial" / "tutorial.py").read_text()
    kinds = re.findall(r"^# %%(.*)$", text, flags=re.MULTILINE)
    assert kinds[::2] == [" [markdown]"] * len(kinds[::2]) and kinds[1::2] == [""] * len(kinds[1::2])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_only_what_exists(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    for script, flags in re.findall(r"experiments/(\w+\.py)([^`\n]*)", text):
        assert (ROOT / "experiments" / script).is_file(), script
        source = SOURCE + (ROOT / "experiments" / script).read_text()
        for flag in re.findall(r"--([\w-]+)", flags):
            name = flag.removeprefix("no-").replace("-", "_")
            assert re.search(rf"\b{name}\b", source), f"{script} knows no --{flag}"


def test_pages_that_code_names_exist() -> None:
    """In comments, docstrings, messages and tests."""
    folders = (*FOLDERS, "experiments", "tests", "docs")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    named = {(path, page) for path in files for page in re.findall(r"docs/[\w./-]*\.md", path.read_text())}
    ours = {(path, page) for path, page in named if path.name not in ("test_docs.py", "test_site.py")}
    assert len(ours) > 3 and not [one for one in ours if not (ROOT / one[1]).is_file()]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "CHANGELOG.md"])
def test_files_that_the_front_door_names_exist(page: str) -> None:
    """Those of "to add X, change these" as well."""
    named = re.findall(
        r"`((?:generators|natgym|agents|experiments|tests)/[\w./]*)`", (ROOT / page).read_text()
    )
    assert all((ROOT / path).exists() for path in named), named
    assert len(named) > 10 or page != "CONTRIBUTING.md"


def test_names_that_contributors_are_sent_to_exist() -> None:
    """A registry, a table or a checker that the table names, in the file that it names beside it."""
    rows = [line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| a")]
    missing = []
    for row in rows:
        files = [ROOT / path for path in re.findall(r"`((?:generators|natgym|agents)/[\w./]+)`", row)]
        text = "".join(p.read_text() for f in files for p in ([f] if f.is_file() else f.glob("*.py")))
        for name in re.findall(r"`([A-Z][A-Z_]+|check_\w+|register)\b", row):
            source = text + (ROOT / "natgym" / "check.py").read_text()
            missing += [(row, name)] if not re.search(rf"\b{name}\b", source) else []
    assert len(rows) > 10 and not missing


def test_the_page_on_evaluation_explains_every_name() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text()
    assert all(f"`{name}`" in text for name in NAMES)


# Pages of programs, and how many each has.
PAGES_OF_PROGRAMS = {
    "extending.md": 7,
    "generators.md": 3,
    "rewards.md": 3,
    "episodes.md": 1,
    "unmasking.md": 1,
}
PROGRAMS = {
    (page, number): program
    for page in PAGES_OF_PROGRAMS
    for number, program in enumerate(
        re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    )
}
# The front door, and what starts Ray, in processes of their own; the others take turns in this one.
ALONE = {("extending.md", 0), ("extending.md", 4)}
# Two train, one imports diffusers, one sweeps, one judges.
LONG = {
    ("generators.md", 2),
    ("rewards.md", 0),
    ("extending.md", 4),
    ("unmasking.md", 0),
    ("extending.md", 0),
}
# Models that a program finds in its folder, whose they are, and what makes them.
MODELS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "models/amused": ("diffusers", foreign.pipeline),
    "models/bert": ("transformers", foreign.language_model),
    "pickscore": ("transformers", lambda folder: small_clip(folder, 32)),
}


def test_the_programs_of_pages_are_short() -> None:
    assert Counter(page for page, _ in PROGRAMS) == PAGES_OF_PROGRAMS
    assert max(len(program.splitlines()) for program in PROGRAMS.values()) <= 30


@pytest.mark.parametrize(
    "which",
    [pytest.param(which, marks=pytest.mark.slow if which in LONG else ()) for which in PROGRAMS],
    ids=lambda which: f"{which[0]}-{which[1]}",
)
def test_the_programs_of_pages_run(
    which: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, (owner, make) in MODELS.items():
        if f'"{place}"' in PROGRAMS[which]:
            pytest.importorskip(owner, reason=f"{owner} is not installed")
            make(tmp_path / place)
    if which not in ALONE:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("no_proxy", "*")
        exec(PROGRAMS[which], {"__name__": "__main__"})
        return
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    line = [sys.executable, "-c", PROGRAMS[which]]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
