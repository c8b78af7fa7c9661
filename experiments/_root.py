"""Put the repository root first on the import path, here and in every process started from here, and leave
what a shell or notebook says of matplotlib.

Without it a foreign package named `agents` in site-packages would win over ours. Ray's workers get their
path from PYTHONPATH, so it is set there too.
"""

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)


def _root_first(entries: list[str]) -> list[str]:
    return [ROOT, *(entry for entry in entries if entry != ROOT)]


sys.path[:] = _root_first(sys.path)
_inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
# Scripts draw into files; the backend that a notebook leaves for its children is none of theirs.
os.environ["MPLBACKEND"] = "Agg"
os.environ["PYTHONPATH"] = os.pathsep.join(_root_first([entry for entry in _inherited if entry]))
