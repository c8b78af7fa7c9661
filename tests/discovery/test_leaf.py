"""`natgym.discovery` is a leaf: it looks through natgym's figures, metrics and statistics, and of natgym and
agents nothing looks at it.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = ("generators", "natgym.discovery", "natgym.evaluation.", "natgym.figures.", "natgym.metrics.")


def imported(folder: Path) -> dict[Path, set[str]]:
    """The first-party modules that each file of a folder imports."""
    modules: dict[Path, set[str]] = {}
    for path in folder.rglob("*.py"):
        nodes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
        names = {node.module for node in nodes if node.module}
        modules[path] = {name for name in names if name.split(".")[0] in ("generators", "natgym", "agents")}
    return modules


def test_discovery_imports_what_lies_below_it() -> None:
    ours = set().union(*imported(ROOT / "natgym" / "discovery").values())
    assert {"natgym.discovery.losses", "generators.noise", "natgym.figures.style"} <= ours
    assert all(name.startswith(MAY_IMPORT) for name in ours), ours


def test_nothing_of_the_house_imports_discovery() -> None:
    for package in ("generators", "natgym", "agents"):
        for path, names in imported(ROOT / package).items():
            if (ROOT / "natgym" / "discovery") not in path.parents:
                assert not [name for name in names if name.startswith("natgym.discovery")], path
