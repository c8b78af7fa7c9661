"""Other people's libraries on the environment: each program of docs/clients.md runs, where its library is."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
PAGE = (ROOT / "docs" / "clients.md").read_text()
# Of the page's table: program -> what `pip install` gets, as it was tried.
TRIED = {
    name: wanted.split()
    for wanted, name in re.findall(
        r"^\|[^|]*\| `([^`]+)` \| \[(\w+)\.py\]\(\.\./tests/clients/\2\.py\) \|", PAGE, re.M
    )
}
PROGRAMS = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("test_")}
QUICK = {"sb3_ppo"}  # some seconds, most of them torch's; the others are alike


def unmet(wanted: str) -> str | None:
    """Return what of a distribution and its extras is missing or of another version here; None if nothing."""
    asked = Requirement(wanted)
    try:
        needs = metadata.requires(asked.name) or []
    except metadata.PackageNotFoundError:
        return f"{asked.name} is not installed"
    for need in map(Requirement, needs):
        extras = [{"extra": extra} for extra in ("", *asked.extras)]
        if need.marker is not None and not any(map(need.marker.evaluate, extras)):
            continue
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            return f"{need.name}, which {wanted} wants, is not installed"
        if not need.specifier.contains(version, prereleases=True):
            return f"{wanted} wants {need.name}{need.specifier}, and {version} is installed"
    return None


def test_the_page_shows_every_program_as_it_is_and_says_what_it_was_tried_with() -> None:
    assert TRIED.keys() == PROGRAMS.keys() and len(PROGRAMS) > 10
    shown = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    assert sorted(shown) == sorted(path.read_text() for path in PROGRAMS.values())
    assert all(str(Requirement(one).specifier).startswith("==") for one in sum(TRIED.values(), []))


def test_versions_that_are_pinned_are_those_that_were_tried() -> None:
    pins = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    tried = [Requirement(one) for several in TRIED.values() for one in several]
    pinned = [one for one in tried if one.name in pins]
    assert len(pinned) > 5 and all(one.specifier.contains(pins[one.name]) for one in pinned)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[*[pytest.mark.slow] * (name not in QUICK), *[pytest.mark.ray] * name.startswith("rllib")],
        )
        for name in PROGRAMS
    ],
)
def test_a_program_trains_finite_weights_to_plausible_rewards(name: str, tmp_path: Path) -> None:
    """In a process of its own; rewards are log-probabilities, and images of uniform actions have -0.13."""
    if missing := next(filter(None, map(unmet, TRIED[name])), None):
        pytest.skip(missing)
    # What Ray, Minari and loggers write goes to a home of its own.
    env = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(PROGRAMS[name])]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    said = re.search(r"^(\d+) episodes, mean reward (-?\d+\.\d+)", done.stdout, re.M)
    assert said and int(said[1]) >= 20 and -1.5 < float(said[2]) <= 0, done.stdout[-2000:]
