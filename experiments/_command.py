"""The command `natgym`: `natgym adanat-ppo ...` is `python experiments/adanat_ppo.py ...`, from any folder.

Installed, this folder is the package `natgym_experiments`; scripts find what lies beside them as in a clone.
"""

from __future__ import annotations

import ast
import difflib
import os
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def scripts() -> dict[str, Path]:
    """Return the scripts by the names that the command has for them."""
    return {path.stem.replace("_", "-"): path for path in sorted(HERE.glob("[!_]*.py"))}


def summary(script: Path) -> str:
    """Return the first line of what a script says of itself; it is not run."""
    return (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def listing() -> str:
    """Return what `natgym --help` prints."""
    width = max(map(len, scripts()))
    lines = [f"  {name:{width}}  {summary(path)}" for name, path in scripts().items()]
    return "\n".join(["usage: natgym SCRIPT ..., or natgym SCRIPT --help for its settings", "", *lines])


def main() -> None:
    """Run the script that the first argument names on the others."""
    name = sys.argv[1].removesuffix(".py").replace("_", "-") if len(sys.argv) > 1 else ""
    if name in ("", "-h", "--help", "help"):
        try:
            print(listing(), flush=True)
        except BrokenPipeError:  # they have read enough, as `| head` has
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0 if name else 2)
    if name not in scripts():
        near = difflib.get_close_matches(name, scripts(), 3)
        meant = f" (perhaps {' or '.join(near)})" if near else ""
        print(f"natgym: error: no script {name!r}{meant}; natgym --help lists them", file=sys.stderr)
        sys.exit(2)
    script = str(scripts()[name])
    sys.path.insert(0, str(HERE))  # where Python would look first if it were given the script
    import _root  # noqa: F401  (first, as in scripts)

    import _cli

    _cli.program = f"natgym {name}"
    sys.argv[:] = [script, *sys.argv[2:]]
    runpy.run_path(script, run_name="__main__")
