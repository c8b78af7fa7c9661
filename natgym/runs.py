"""Run folders: config.json, metrics.csv, results.json, figures/, checkpoints; none is ever overwritten."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import re
import reprlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators import former
from generators.files import config_from_dict, hold, read_json, reading, write_atomic
from natgym.settings import grouped, groups

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run:
    """One folder with everything a run leaves behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, script: str, output: Path | None, config: Any) -> Run:
        """Make a new folder, by default `runs/<script>-<time>`, and write the resolved config into it.

        Raises:
            ValueError: the folder exists.
        """
        folder = output or Path("runs") / f"{script}-{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise ValueError(
                f"{folder} exists and is not overwritten; choose another --output or go on with --resume"
            ) from None
        hold(folder)
        write_config(folder / "config.json", config)
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open an existing folder to read; ValueError if it is not one."""
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"{folder} is not a run folder: it has no config.json; start a new run without --resume"
            )
        return cls(folder)

    @classmethod
    def resume(cls, folder: Path) -> Run:
        """Open an existing folder to go on; ValueError if it is none, or another process writes there."""
        run = cls.open(folder)
        hold(folder)
        return run

    def config(self, config_class: type) -> Any:
        """Return the config that the run was started with."""
        return read_config(self.folder / "config.json", config_class)

    def write_results(self, protocol: Mapping[str, Any], rows: list[dict[str, Any]], **more: Any) -> None:
        """Write results.json: the protocol, one row per policy, and what else belongs to them.

        Numbers that are not finite, such as the spread over one seed, become null: JSON has no NaN.
        """
        results = _without_nan({"protocol": protocol, "rows": rows, **more})
        write_atomic(self.folder / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")

    def write_figure(self, name: str, figure: Figure) -> Path:
        """Write figures/<name>.png at 160 dots per inch; what may trouble a file's name becomes a dash."""
        name = re.sub(r"[^\w.-]+", "-", name)
        (self.folder / "figures").mkdir(exist_ok=True)
        write_png(path := self.folder / "figures" / f"{name}.png", figure)
        return path


def write_png(path: Path, figure: Figure) -> None:
    """Write a figure at 160 dots per inch, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight")
    write_atomic(path, buffer.getvalue())


def write_config(path: Path, config: Any) -> None:
    """Write a config dataclass as JSON, nested ones and paths included."""
    write_atomic(path, json.dumps(dataclasses.asdict(config), indent=2, default=str) + "\n")


def read_config(path: Path, config_class: type, key: str | None = None) -> Any:
    """Build a (possibly nested) config dataclass from JSON, or from what stands there under a key.

    Raises:
        ValueError: it does not fit; the file is named.
    """
    with reading(path, config_class.__name__):
        content = read_json(path)
        return _nested(config_class, content if key is None else content[key])


def _nested(config_class: type, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{config_class.__name__} is {reprlib.repr(values)}, not settings by name")
    fields = [field.name for field in dataclasses.fields(config_class)]
    inner = groups(config_class)
    settings = grouped(config_class, former.settings(values, fields))
    built = {
        name: _nested(inner[name], value) if name in inner else value for name, value in settings.items()
    }
    return config_from_dict(config_class, built)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsLog:
    """An append-only metrics.csv, flushed line by line; its columns are those of the first row.

    A file of an older version gets the columns that it lacks with the first row appended to it.

    Args:
        path: kept if it exists, except for rows from `resume_at` on, which will be written again.
        key: the integer column that counts updates.
        resume_at: first value of `key` still to come.
        whole: every value from 1 on has one row.

    Raises:
        ValueError: rows that should be there are not, or more than once: file and checkpoint are of two runs.
    """

    def __init__(self, path: Path, key: str, resume_at: int, *, whole: bool = False) -> None:
        self.path = path
        with reading(path):
            earlier = [row for row in read_metrics(path) if int(row[key]) < resume_at]
        if whole and [int(row[key]) for row in earlier] != list(range(1, resume_at)):
            raise ValueError(
                f"{path} has {len(earlier)} rows up to {key} {resume_at - 1}, after which the checkpoint is: "
                "the two don't belong together; take both from one copy of the run"
            )
        self.columns: list[str] | None = list(earlier[0]) if earlier else None
        self._earlier = earlier
        self._rewrite()

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line; columns missing from `row` stay empty, unknown ones are a ValueError."""
        if self._earlier and self.columns is not None:
            if lacking := [name for name in row if name not in self.columns]:
                self.columns = [*self.columns, *lacking]
                self._rewrite()
            self._earlier = []
        with open(self.path, "a", newline="") as file:
            if self.columns is None:
                self.columns = list(row)
                csv.writer(file).writerow(self.columns)
            writer = csv.DictWriter(file, self.columns)
            writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self) -> None:
        """Write what was there before."""
        text = io.StringIO()
        if self.columns is not None:
            writer = csv.DictWriter(text, self.columns)
            writer.writeheader()
            writer.writerows(self._earlier)
        write_atomic(self.path, text.getvalue())


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv, whole lines only; none if there is no file."""
    if not path.is_file():
        return []
    with reading(path):
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]
        return list(csv.DictReader(io.StringIO(whole), strict=True))
