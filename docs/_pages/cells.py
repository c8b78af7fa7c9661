"""The tutorial as a page: its cells with what they printed and drew when it was last run as a whole.

    python docs/_pages/cells.py "2 cores of an AMD EPYC"

runs it (minutes) and writes that down, in docs/tutorial/printed.json and docs/figures/tutorial-*.png. A cell
that has changed since, or comes after one that has, is shown without, and a test says so.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "tutorial.py"
PRINTED = TUTORIAL.with_name("printed.json")
FIGURES = ROOT / "docs" / "figures"


class Cell(NamedTuple):
    """Words, as markdown, or code."""

    code: bool
    text: str


def cells(text: str) -> list[Cell]:
    """Split a script at its `# %%` lines; words lose their `# `."""
    found = []
    for mark, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", text, flags=re.MULTILINE):
        if mark.strip():
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        found.append(Cell(code=not mark.strip(), text=body.strip("\n")))
    return found


def keys(found: list[Cell]) -> list[str]:
    """Return for each cell of code a hash of its statements and all before, imports apart."""
    done, hashes = "", []
    for cell in (cell for cell in found if cell.code):
        for line in ast.parse(cell.text).body:
            if not isinstance(line, ast.Import | ast.ImportFrom):
                done += f"{ast.get_source_segment(cell.text, line)}\n"
        hashes.append(hashlib.sha256(done.encode()).hexdigest()[:16])
    return hashes


def page(found: list[Cell], recorded: dict[str, Any]) -> str:
    """Return the page.

    Args:
        recorded: of a run of all cells the `machine`, the `seconds`, and as `cells` for the key of each the
            `text` that it printed and the names of its `figures`.
    """
    minutes = f"{recorded['seconds'] / 60:.1f} minutes on {recorded['machine']}"
    note = (
        f"[The script](tutorial.py){{ download }} took {minutes} when it printed what stands below its cells."
    )
    parts, left = [], keys(found)
    for at, cell in enumerate(found):
        if not cell.code:
            parts += [cell.text, *([note] if at == 0 else [])]
            continue
        parts.append(f"```python\n{cell.text}\n```")
        shown = recorded["cells"].get(left.pop(0), {"text": "", "figures": []})
        if shown["text"]:
            parts.append(f'```text title="prints"\n{shown["text"].rstrip()}\n```')
        parts += [f"![{name}](../figures/{name}.png)" for name in shown["figures"]]
    return "\n\n".join(parts) + "\n"


def record(machine: str) -> None:
    """Run the tutorial cell by cell and keep what it prints and draws."""
    began = time.perf_counter()
    found = cells(TUTORIAL.read_text())
    printed: dict[str, dict[str, Any]] = {}
    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(TUTORIAL)}
    left, drawn = keys(found), set()
    sys.argv[:] = [str(TUTORIAL), "runs/tutorial"]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for cell in (cell for cell in found if cell.code):
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(compile(cell.text, str(TUTORIAL), "exec"), names)
            new = set(Path("runs/tutorial/figures").glob("*.png")) - drawn
            drawn |= new
            for path in new:
                shutil.copy(path, FIGURES / f"tutorial-{path.name}")
            figures = [f"tutorial-{path.stem}" for path in sorted(new, key=os.path.getmtime)]
            printed[left.pop(0)] = {"text": said.getvalue(), "figures": figures}
            print(said.getvalue(), end="", flush=True)
    recorded = {"machine": machine, "seconds": round(time.perf_counter() - began), "cells": printed}
    PRINTED.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    record(*sys.argv[1:])
