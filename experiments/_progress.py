"""Progress bars: drawn on a terminal, a line now and then in a file or a pipe."""

import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

SECONDS = 30.0  # between two lines


class Lines:
    """Write what a bar draws over itself as lines."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write a state of the bar; what only moves the cursor is left out."""
        if line := text.strip("\r\n"):
            self.file.write(line.rstrip() + "\n")

    def flush(self) -> None:
        self.file.flush()


class Rare(tqdm):
    """A bar that shows itself at most every SECONDS, whatever is changed of it, and at its end."""

    shown = float("-inf")

    def refresh(self, *args: Any, **options: Any) -> None:
        """Show the present state, unless that was done lately."""
        if time.monotonic() - self.shown >= SECONDS:
            self.shown = time.monotonic()
            super().refresh(*args, **options)


def progress(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """Return a tqdm bar on stderr; `options` are tqdm's."""
    if sys.stderr.isatty():
        return tqdm(items, **{"dynamic_ncols": True, **options})
    lines: Any = Lines(sys.stderr)
    return Rare(items, **{**options, "file": lines, "ncols": 100, "leave": True})
