"""Cards for the Hub: what a folder holds, how it is loaded, a table, and all that its numbers depend on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generators.files import read_description, saved
from natgym.evaluation.tables import format_table
from natgym.names.tasks import TASK_FILE, read_task

STRATEGY = "strategy.json"
HEAD = "---\nlibrary_name: natgym\ntags: [natgym, masked-image-modeling, {kind}]\n---\n\n"


def kind_of(folder: Path) -> str:
    """Return what a folder holds: task, strategy, or the name of a module's class; ValueError if nothing."""
    if (folder / TASK_FILE).is_file():
        return "task"
    if (folder / STRATEGY).is_file():
        return "strategy"
    if saved(folder):
        return str(read_description(folder)["type"])
    raise ValueError(f"{folder} holds no task, strategy, policy or saved network")


def card(folder: Path, name: str, results: Mapping[str, Any] | None = None) -> str:
    """Return a README for a folder, which begins with its own if it has one.

    Args:
        name: of the repository, user/name.
        results: as in results.json: `rows` for the table, `protocol` with what they depend on.
    """
    kind = kind_of(folder)
    parts = [f"# {name.partition('/')[2]}", _said(folder, kind), f"```python\n{_loaded(kind, name)}\n```"]
    if (own := folder / "README.md").is_file():
        parts = [re.sub(r"^!\[.*\]\(.*\)\n", "", own.read_text(), flags=re.MULTILINE).strip()]  # figures stay
    if results and results["rows"]:
        table, protocol = format_table(results["rows"]), json.dumps(results["protocol"], indent=2)
        parts += [] if table in parts[0] else [f"```\n{table}\n```"]
        parts += [f"The numbers depend on:\n\n```json\n{protocol}\n```"]
    head = "" if parts[0].startswith("---") else HEAD.format(kind=kind.lower())
    return head + "\n\n".join(parts) + "\n"


def _said(folder: Path, kind: str) -> str:
    if kind == "task":
        task = read_task(folder)
        return f"A task of natgym. Source and licence of its images: {task.source or 'not noted'}."
    if kind == "strategy":
        return "A schedule of decoding parameters for natgym, one row a step."
    metadata = read_description(folder).get("metadata", {})
    made_for = f", for the task {metadata['task']}" if metadata.get("task") else ""
    return f"Weights of natgym's {kind}{made_for}."


def _loaded(kind: str, name: str) -> str:
    """Return the program that loads it."""
    if kind == "task":
        return f'import natgym\n\ntask = natgym.Task.load("hf://{name}")'
    if kind == "strategy" or kind in ("Actor", "SB3Policy"):
        return f'from agents import load_policy\n\npolicy = load_policy("hf://{name}")'
    return f'import natgym\n\nnetwork = natgym.from_pretrained("hf://{name}")'
