"""Put the repository root first on the import path, here and in every process started from here, and leave
what a shell or notebook says of matplotlib.

Without it a foreign package named `agents` in site-packages would win over ours. Ray's workers get their
path from PYTHONPATH, so it is set there too. Installed, natgym is found where everything is that is
installed; that folder must not come first, where it would hide the standard library.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = str(HERE.parent)
CLONE = HERE.name == "experiments"


def _root_first(entries: list[str]) -> list[str]:
    return [ROOT, *(entry for entry in entries if entry != ROOT)]


if CLONE:
    sys.path[:] = _root_first(sys.path)
    _inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(_root_first([entry for entry in _inherited if entry]))
# Scripts draw into files; the backend that a notebook leaves for its children is none of theirs.
os.environ["MPLBACKEND"] = "Agg"
