"""`natgym.discovery` is a leaf: of natgym it imports only itself, and nothing of what comes after."""

import ast
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "natgym" / "discovery"


def test_discovery_imports_generators_and_itself() -> None:
    found = {
        node.module
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    ours = {name for name in found if name.split(".")[0] in ("natgym", "agents", "experiments", "generators")}
    assert "natgym.discovery.losses" in ours and "generators.noise" in ours
    assert all(name.startswith(("natgym.discovery", "generators.")) for name in ours), ours
