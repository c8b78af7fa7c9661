"""The rules of the house: which way imports point, how long things get, what the README promises."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ORDER = ["generators", "natgym", "agents", "experiments", "tests"]  # each may import what stands before it
SOURCE = ORDER[:-1]
NOT_IN_GENERATORS = {"gymnasium", "stable_baselines3", "ray", "pandas", "matplotlib", "tyro"}
HOMES = {  # the only places where a library may be imported: folders or single files
    "gymnasium": ["natgym", "agents/sb3.py"],
    "stable_baselines3": ["agents"],
    "ray": ["agents"],
}
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_ARGUMENTS = 8
MOST_MODULES = {"natgym": 10, "agents": 6}  # that lie directly in these


def sources(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    for folder in SOURCE:
        for path in sorted((root / folder).rglob("*.py")):
            yield path.relative_to(root), ast.parse(path.read_text(), filename=str(path))


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every absolute import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def import_violations(root: Path) -> list[str]:
    found = []
    for path, tree in sources(root):
        package = path.parts[0]
        later = ORDER[ORDER.index(package) + 1 :]
        for line, module in imported_modules(tree):
            if module in later:
                found.append(f"{path}:{line} imports {module}: imports point {' <- '.join(ORDER)}")
            elif package == "generators" and module in NOT_IN_GENERATORS:
                found.append(f"{path}:{line} imports {module}: generators draws images and needs none of it")
            elif module in HOMES and not any(path.is_relative_to(home) for home in HOMES[module]):
                found.append(f"{path}:{line} imports {module}: only {' and '.join(HOMES[module])} may")
    return found


def size_violations(root: Path) -> list[str]:
    found = []
    for path, tree in sources(root):
        lines = len((root / path).read_text().splitlines())
        if lines > MAX_FILE_LINES:
            found.append(f"{path} has {lines} lines, more than {MAX_FILE_LINES}: split it, one idea per file")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    allowed = f"more than {MAX_FUNCTION_LINES}: name its parts and move them out"
                    found.append(f"{path}:{node.lineno} {node.name} has {lines} lines, {allowed}")
    return found


def wide_constructors(root: Path) -> list[str]:
    """Constructors with more than MAX_ARGUMENTS, but for the environment's; dataclasses are their fields."""
    found = []
    for path, tree in sources(root):
        if path.parts[0] not in ("natgym", "agents"):
            continue
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            if (
                node.name.endswith(("Config", "Options", "Protocol", "Description"))
                or node.name == "DecodeVectorEnv"
            ):
                continue
            count = 0
            if any("dataclass" in ast.dump(decorator) for decorator in node.decorator_list):
                fields = (line for line in node.body if isinstance(line, ast.AnnAssign))
                count = sum("init=False" not in ast.unparse(line) for line in fields)
            for line in node.body:
                if isinstance(line, ast.FunctionDef) and line.name == "__init__":
                    count = len(line.args.args) + len(line.args.kwonlyargs) - 1
            if count > MAX_ARGUMENTS:
                found.append(f"{path}:{node.lineno} {node.name} takes {count} arguments")
    return found


def first_party_imports(path: Path) -> set[str]:
    """The first-party modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in SOURCE:
            inside = (ROOT / node.module.replace(".", "/")).is_dir()
            found |= {f"{node.module}.{name.name}" for name in node.names} if inside else {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in SOURCE}
    return found


def plant(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_imports_point_one_way() -> None:
    assert not (found := import_violations(ROOT)), "\n".join(found)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("generators/nat.py", "import natgym"),
        ("generators/nat.py", "import torch, agents.sb3 as bridge"),
        ("generators/deep/nat.py", "from natgym.env import DecodeEnv"),
        ("generators/nat.py", "def late():\n    from agents import policy\n"),
        ("generators/nat.py", "def late():\n    import matplotlib.pyplot as plt\n"),
        ("generators/nat.py", "from gymnasium import spaces"),
        ("generators/data.py", "import pandas as pd"),
        ("natgym/env.py", "class Env:\n    def late(self):\n        import agents.named\n"),
        ("natgym/env.py", "from experiments import evaluate"),
        ("natgym/env.py", "import tests.helpers"),
        ("natgym/env.py", "from stable_baselines3.common.vec_env import VecEnv"),
        ("natgym/runs.py", "import ray"),
        ("agents/named.py", "from gymnasium import spaces"),
        ("agents/named.py", "import experiments"),
        ("experiments/evaluate.py", "from ray import tune"),
        ("experiments/evaluate.py", "import gymnasium as gym"),
    ],
)
def test_a_planted_import_is_caught(tmp_path: Path, path: str, text: str) -> None:
    plant(tmp_path, path, text)
    assert len(import_violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("generators/nat.py", "import torch\nfrom generators.layers import Block"),
        ("natgym/env.py", "import gymnasium\nimport generators\nfrom .agents import x"),
        ("agents/sb3.py", "import gymnasium\nimport stable_baselines3\nimport natgym"),
        ("agents/tune_jobs.py", "from ray import tune"),
        ("experiments/evaluate.py", "import natgym.policies, natgym, generators, tyro, pandas"),
    ],
)
def test_an_allowed_import_passes(tmp_path: Path, path: str, text: str) -> None:
    plant(tmp_path, path, text)
    assert import_violations(tmp_path) == []


def test_files_and_functions_stay_readable() -> None:
    assert not (found := size_violations(ROOT)), "\n".join(found)


def test_planted_long_file_and_function_are_caught(tmp_path: Path) -> None:
    plant(tmp_path, "natgym/fits.py", "def f():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1))
    plant(tmp_path, "agents/fits.py", "x = 1\n" * MAX_FILE_LINES)
    assert size_violations(tmp_path) == []
    plant(tmp_path, "natgym/long.py", "class A:\n    def f(self):\n" + "        x = 1\n" * MAX_FUNCTION_LINES)
    plant(tmp_path, "agents/long.py", "x = 1\n" * (MAX_FILE_LINES + 1))
    assert [message.split(" has ")[0] for message in size_violations(tmp_path)] == [
        "natgym/long.py:2 f",
        "agents/long.py",
    ]


def test_every_package_folder_has_an_init() -> None:
    """A folder without one would work here and be missing from the wheel."""
    folders = {path.parent for path, _ in sources(ROOT) if path.parts[0] != "experiments"}
    assert {"generators", "natgym", "agents"} <= {str(folder) for folder in folders}
    missing = [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").is_file()]
    assert not missing, f"no __init__.py in {missing}"


def test_scripts_import_root_first() -> None:
    for path, tree in sources(ROOT):
        if path.parts[0] == "experiments" and not path.name.startswith("_"):
            nodes = (node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
            imports = [line for line in map(ast.unparse, nodes) if not line.startswith("from __future__")]
            assert imports[:1] == ["import _root"], f"{path} has to `import _root` before anything else"


SCRIPT = f"""\
import subprocess, sys
sys.path[0] = {str(ROOT / "experiments")!r}
import _root, agents
import importlib, os
once = os.environ["PYTHONPATH"], list(sys.path)
importlib.reload(_root)
assert once == (os.environ["PYTHONPATH"], sys.path), "not idempotent"
print(agents.__file__, flush=True)
subprocess.run([sys.executable, "-c", "import agents; print(agents.__file__)"], check=True)
"""


@pytest.mark.parametrize("root_already_listed", [False, True])
def test_a_foreign_package_named_agents_does_not_win(tmp_path: Path, root_already_listed: bool) -> None:
    plant(tmp_path, "site/agents/__init__.py", "FOREIGN = True\n")
    plant(tmp_path, "work/script.py", SCRIPT)
    plant(tmp_path, "work/naive.py", "import agents; print(agents.FOREIGN)")
    listed = [str(tmp_path / "site")] + [str(ROOT)] * root_already_listed

    def run(script: str) -> list[str]:
        env = os.environ | {"PYTHONPATH": os.pathsep.join(listed)}
        command = [sys.executable, script]
        done = subprocess.run(command, cwd=tmp_path / "work", env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]

    assert run("naive.py") == ["True"], "the plant has to win where nobody defends"
    assert run("script.py") == [str(ROOT / "agents" / "__init__.py")] * 2


def readme_command(heading: str) -> str:
    """The one line of the fenced bash block in a README section: what a reader (and .ci/run) will run."""
    sections = re.split(r"^## ", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    bodies = {title.strip(): body for title, _, body in (part.partition("\n") for part in sections)}
    assert heading in bodies, f"README.md needs a section headed `## {heading}`"
    blocks = re.findall(r"^```bash\n(.*?)^```", bodies[heading], flags=re.MULTILINE | re.DOTALL)
    assert blocks, f"README.md: no fenced bash block under `## {heading}`"
    lines = blocks[0].splitlines()
    assert len(lines) == 1, f"README.md: the block under `## {heading}` has to be one line, not {len(lines)}"
    return lines[0]


def test_readme_says_how_to_run_it() -> None:
    command = readme_command("Run it")
    scripts = re.findall(r"experiments/\w+\.py", command)
    assert scripts, f"`{command}` runs no script of experiments/"
    for script in scripts:
        assert (ROOT / script).is_file(), f"README.md runs {script}, which does not exist"


def test_readme_says_how_to_run_the_tests() -> None:
    command = readme_command("Run the tests")
    assert "-c constraints.txt" in command and "[dev]" in command
    assert command.endswith(".venv/bin/python -m pytest")


def test_the_limits_of_a_step_are_named_where_rules_are() -> None:
    """Everybody else carries `DecodeRules` or their text."""
    named = {str(path) for path, _ in sources(ROOT) if "min_reveal" in (ROOT / path).read_text()}
    assert named == {"generators/rules.py", "generators/former.py", "experiments/_cli.py"}


def test_constructors_take_few_arguments(tmp_path: Path) -> None:
    assert not (found := wide_constructors(ROOT)), "\n".join(found)
    arguments = ", ".join(f"a{number}" for number in range(MAX_ARGUMENTS))
    plant(tmp_path, "natgym/fits.py", f"class A:\n    def __init__(self, {arguments}): ...\n")
    assert wide_constructors(tmp_path) == []
    plant(tmp_path, "natgym/wide.py", f"class A:\n    def __init__(self, {arguments}, *, b=1): ...\n")
    fields = "".join(f"    a{number}: int\n" for number in range(MAX_ARGUMENTS + 1))
    plant(tmp_path, "agents/wide.py", f"@dataclass(frozen=True)\nclass B:\n{fields}")
    plant(tmp_path, "agents/config.py", f"@dataclass\nclass BConfig:\n{fields}")
    assert [line.split(" ", 1)[1] for line in wide_constructors(tmp_path)] == [
        "A takes 9 arguments",
        "B takes 9 arguments",
    ]


def test_few_modules_lie_outside_of_a_folder() -> None:
    for package, most in MOST_MODULES.items():
        found = sorted(path.name for path in (ROOT / package).glob("*.py") if path.name != "__init__.py")
        assert len(found) <= most, f"{package} has {', '.join(found)}: give them a folder"


def circles(root: Path) -> list[str]:
    """Folders and single modules of natgym and agents that import one another in a circle."""
    edges: dict[str, set[str]] = {}
    for path, tree in sources(root):
        if path.parts[0] not in MOST_MODULES or path.name == "__init__.py":
            continue
        here = ".".join(path.with_suffix("").parts[:2])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in MOST_MODULES:
                words = node.module.split(".")
                there = [words[0] + "." + words[1]] if len(words) > 1 else []
                there = there or [f"{words[0]}.{name.name}" for name in node.names]
                edges.setdefault(here, set()).update(name for name in there if name != here)
    found = []
    for start in edges:
        reached, open_ = set(), [start]
        while open_:
            new = edges.get(open_.pop(), set()) - reached
            reached |= new
            open_ += new
        found += [start] if start in reached else []
    return sorted(found)


def test_folders_do_not_import_one_another_in_a_circle(tmp_path: Path) -> None:
    assert circles(ROOT) == []
    plant(tmp_path, "natgym/env/vector.py", "from natgym.rewards.named import make_reward")
    plant(tmp_path, "natgym/rewards/named.py", "from natgym.task import Task")
    plant(tmp_path, "natgym/task.py", "def late():\n    from natgym.env import DecodeVectorEnv\n")
    plant(tmp_path, "natgym/runs.py", "from natgym.task import Task")
    assert circles(tmp_path) == ["natgym.env", "natgym.rewards", "natgym.task"]


# Which loader reads a data set, and what pairs are drawn for discovery.
LOADERS = {"generators/data.py", "natgym/discovery/pairs.py"}
TASK_NAMES = {"digits", "mnist", "cifar10"}


def questions_of_names(root: Path) -> list[str]:
    """Comparisons with a task's name, written out or as a constant, outside of what loads data."""
    found = []
    constants = set()
    for _, tree in sources(root):
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.value, "value", None) in TASK_NAMES:
                constants |= {name.id for name in node.targets if isinstance(name, ast.Name)}
    for path, tree in sources(root):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Compare | ast.MatchValue) or str(path) in LOADERS:
                continue
            values = {
                getattr(part, "value", None) for part in ast.walk(node) if isinstance(part, ast.Constant)
            }
            names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            if values & TASK_NAMES or names & constants:
                found.append(f"{path}:{node.lineno} asks for a task's name: let its task.json say it")
    return found


def test_nobody_asks_which_task_it_is(tmp_path: Path) -> None:
    """Digits and MNIST are made as any other folder of images is."""
    assert not (found := questions_of_names(ROOT)), "\n".join(found)
    plant(tmp_path, "natgym/a.py", 'DIGITS = "digits"\n\ndef f(task):\n    return task == DIGITS\n')
    plant(tmp_path, "agents/b.py", 'def f(task):\n    return task in ("mnist", "other")\n')
    plant(tmp_path, "agents/c.py", 'def f(task="digits"):\n    return {"mnist": 1}\n')
    assert [line.split(":")[0] for line in questions_of_names(tmp_path)] == ["natgym/a.py", "agents/b.py"]


def test_the_trainer_knows_few_modules() -> None:
    found = first_party_imports(ROOT / "agents" / "adanat" / "trainer.py")
    assert {"agents.adanat.folders", "agents.adanat.teacher", "natgym.env.vector"} <= found, (
        "they are counted"
    )
    assert len(found) <= 8, sorted(found)
