"""What is installed: the wheel holds the clone's files, and its command runs the clone's scripts."""

import ast
import configparser
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "agents": "agents",
    "experiments": "natgym_experiments",
    "generators": "generators",
    "natgym": "natgym",
}
# Trials and trainings in small, as `natgym` takes them.
POLICY = """--updates 2 --trajectories 40 --minibatch 80 --evaluate-every 1 --evaluation-images 60
    --finalists 2 --final-images 60 --images 60 --evaluation-seeds 0 1 --search.race 2 --search.finalists 2
    --search.coarse.remask 2 8 --search.coarse.sampling 1 --search.coarse.guidance 0 1 --num-samples 1
    --search.images-per-evaluation 8 --search.final-images 20 --search.budget 200""".split()
SEARCH = """--steps 2 --optimizer grid --images-per-evaluation 20 --budget 100 --finalists 2 --final-images 40
    --grid.remask 1 8 --grid.sampling 1 --grid.guidance 0 1 --images 60 --evaluation-seeds 0 1""".split()
SCRIPTS = sorted(path for path in (ROOT / "experiments").glob("*.py") if not path.name.startswith("_"))


def pins(path: str) -> dict[str, str]:
    """Name to version of a file of constraints."""
    lines = [line.strip() for line in (ROOT / path).read_text().splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def normal(pinned: dict[str, str]) -> dict[str, str]:
    return {canonicalize_name(Requirement(name).name): version for name, version in pinned.items()}


def test_the_suite_has_versions_for_both_ends_of_all_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [Requirement(line) for line in project["dependencies"]]
    extras = [Requirement(line) for lines in project["optional-dependencies"].values() for line in lines]
    newest, oldest = normal(pins("constraints.txt")), normal(pins("tests/oldest.txt"))
    for requirement in (one for one in needed + extras if one.name != "natgym"):
        assert newest[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    floors = {
        canonicalize_name(one.name): next(bound.version for bound in one.specifier if bound.operator == ">=")
        for one in needed
    }
    assert set(oldest) == set(floors)
    assert all(Version(oldest[name]) == Version(floor) for name, floor in floors.items())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build one from a copy, in which nothing lies that was built before."""
    pytest.importorskip("build", reason="wheels are built with `build` (extra `dev`)")
    source = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    line = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(line, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (source / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack it."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(line: list[str], folder: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    ours = {"PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}
    env = os.environ | ours | {"NATGYM_TUTORIAL_BUDGET": "0.02"}
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True)


def natgym(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call the command as its script in bin/ does."""
    (entries,) = installed.glob("*.dist-info/entry_points.txt")
    parser = configparser.ConfigParser()
    parser.read(entries)
    module, function = parser["console_scripts"]["natgym"].split(":")
    code = f"from {module} import {function}; {function}()"
    return run([sys.executable, "-c", code, *words], folder, installed)


def test_the_wheel_holds_the_files_of_the_clone(wheel: Path) -> None:
    ours = {
        f"{name}/{path.relative_to(ROOT / folder)}"
        for folder, name in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert len(names) == len(set(names)) and set(names) == ours


def test_the_command_lists_all_scripts_by_what_they_do(installed: Path, tmp_path: Path) -> None:
    done = natgym(installed, tmp_path, "--help")
    assert done.returncode == 0 and not done.stderr, done.stderr
    listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[2:])
    said = {path: (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0] for path in SCRIPTS}
    assert listed == {path.stem.replace("_", "-"): line for path, line in said.items()}
    assert all(line.endswith((".", "?")) for line in listed.values()), "a whole sentence"
    assert natgym(installed, tmp_path).returncode == 2


def test_a_list_that_nobody_reads_to_its_end_is_no_error(tmp_path: Path) -> None:
    """As with `natgym --help | head -1`."""
    code = "import _command; _command.main()"
    line = [sys.executable, "-c", code, "--help"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "experiments")}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(line, cwd=tmp_path, env=env, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 0 and done.stderr == ""


def test_a_script_called_by_its_name_is_the_script(installed: Path, tmp_path: Path) -> None:
    done = natgym(installed, tmp_path, "adanat-ppo", "--help")
    file = run([sys.executable, str(ROOT / "experiments" / "adanat_ppo.py"), "--help"], tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("usage: natgym adanat-ppo [-h]")
    assert done.stdout.split()[3:] == file.stdout.split()[2:]
    for words, error in (
        (("adanat-ppo", "--stepps", "4"), "natgym adanat-ppo: error: Unrecognized options: --stepps"),
        (("train_generator.py", "--size", "h"), "natgym train-generator: error: "),
        (("adanat-pop",), "natgym: error: no script 'adanat-pop' (perhaps adanat-ppo); natgym --help lists"),
    ):
        done = natgym(installed, tmp_path, *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert done.stderr.startswith(error)


@pytest.mark.parametrize("name", ["agents", "generators"])
@pytest.mark.parametrize("instead", [False, True])
def test_what_lies_over_ours_is_told(name: str, instead: bool, tmp_path: Path) -> None:
    """Found before ours, or written into its place, as OpenAI's SDK into that of `agents`."""
    (tmp_path / "site").mkdir()
    for ours in {"natgym", "agents", "generators"} - ({name} if instead else set()):
        (tmp_path / "site" / ours).symlink_to(ROOT / ours)
    planted = tmp_path / ("site" if instead else "first") / name / "__init__.py"
    planted.parent.mkdir(parents=True)
    line = [sys.executable, "-c", "import natgym; print(natgym.__version__)"]
    assert instead or not run(line, tmp_path, tmp_path / "site").stderr
    planted.write_text("FOREIGN = True\n")
    done = run(line, tmp_path, tmp_path / "first", tmp_path / "site")
    assert done.returncode == 0 and done.stdout
    assert done.stderr.count("RuntimeWarning") == 1
    assert f"{planted} is not natgym's `{name}` but another's; install natgym into an" in done.stderr


MAKE = """
import gymnasium
env = gymnasium.make("natgym:natgym/Decode-v1", steps=2)
env.reset(seed=0)
*_, terminated, truncated, info = [env.step(env.action_space.sample()) for _ in range(2)][-1]
print(terminated, info["images"].shape)
import natgym
gymnasium.register_envs(natgym)
"""


@pytest.mark.slow
@pytest.mark.ray
def test_the_commands_of_the_tutorial_run_where_the_wheel_is_installed(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment, beside the libraries of this one but none of its editable installs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    home = run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path)
    site = Path(home.stdout.strip())
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", f"--python={python}"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True, capture_output=True)
    where = run([str(python), "-c", "import natgym; print(natgym.__file__)"], tmp_path)
    assert Path(where.stdout.strip()) == site / "natgym" / "__init__.py", where.stderr
    made = run([str(python), "-c", MAKE], tmp_path)
    assert made.stdout.split(maxsplit=1) == ["True", "(1, 8, 8)\n"] and not made.stderr, made.stderr
    command = str(tmp_path / "venv" / "bin" / "natgym")

    def natgym(*words: str) -> str:
        done = run([command, *words], tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "adanat-ppo" in natgym("--help")
    natgym("generate", "--n", "4", "--policy", "adanat", "--steps", "4", "--output", "drawn.png")
    assert (tmp_path / "drawn.png").is_file()
    natgym("evaluate", "--policy", "reference", "--steps", "2", "--images", "40", "--output", "table")
    natgym("train-generator", "--updates", "2", "--evaluate-every", "0", "--workers", "2", "--output", "nat")
    natgym("adanat-ppo", *POLICY, "--log", "tensorboard", "--output", "learned")
    assert all(list((tmp_path / "learned" / name / "tensorboard").iterdir()) for name in (".", "step-only"))
    natgym("autonat-search", *SEARCH, "--output", "search")
    tutorial = tmp_path / "tutorial"
    shutil.copytree(ROOT / "docs" / "tutorial", tutorial)
    done = run([str(python), str(tutorial / "tutorial.py"), "taught"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "taught" / "results.json").read_text())["rows"]
