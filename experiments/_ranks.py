"""Runs of which several processes train a part together: torchrun's, or workers that a script starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from natgym.runs import Run, read_metrics


def begun(args: Any) -> Path | None:
    """Return the folder of this very run if torchrun began it, which starts a lost run's processes anew.

    Args:
        args: with a field `output`.

    Raises:
        ValueError: it is to start processes anew that would not find each other, or their run.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)):
        if args.output is None:
            raise ValueError("max-restarts without --output: restarted processes would not find their run")
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            raise ValueError(
                "max-restarts: restarted processes would look for each other where those before them were; "
                "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun"
            )
    if args.output is None or not (args.output / "config.json").is_file():
        return None
    return args.output if Run.open(args.output).config(type(args)) == args else None


@contextmanager
def followed(path: Path, report: Callable[[dict[str, str]], object]) -> Iterator[None]:
    """Report the rows of a metrics file that other processes write, as they come."""
    ended = Event()

    def follow() -> None:
        told, last = 0, False
        while not last:
            last = ended.wait(1.0)
            rows = read_metrics(path)
            for row in rows[told:]:
                report(row)
            told = len(rows)

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
