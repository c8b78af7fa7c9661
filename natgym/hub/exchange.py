"""To the Hub and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from generators import checkpoints
from generators.files import saved, write_atomic
from generators.hub import FILES, download, library, on_hub
from generators.schedules import Schedule
from natgym.evaluation.tables import Table
from natgym.hub.cards import STRATEGY, card, kind_of
from natgym.names.tasks import TASK_FILE
from natgym.runs import Run
from natgym.task import Task

RESULTS = "results.json"


def from_pretrained(
    place: Path | str, device: torch.device | str = "cpu", *, revision: str | None = None
) -> Task | Schedule | nn.Module:
    """Return what a folder, or a repository of the Hub, holds: a task, a strategy or a network.

    Policies are loaded by `agents.load_policy`.

    Args:
        place: folder, or hf://user/name[@revision]; with `revision`, user/name.

    Raises:
        ValueError: there is nothing, or it is broken.
    """
    spec = str(place)
    if on_hub(spec, revision):
        came = download(spec, revision)
        place, spec = came.path, came.spec
    place = Path(place)
    if not place.is_dir():
        raise ValueError(f"there is no folder {place}; what is on the Hub is said as hf://user/name")
    if (place / TASK_FILE).is_file():
        return Task.load(spec, device=device)
    if (place / STRATEGY).is_file():
        return Schedule.load(place / STRATEGY)
    return checkpoints.from_pretrained(place, device)


def push_to_hub(
    thing: Any, name: str, *, results: Any = None, private: bool | None = None, message: str | None = None
) -> str:
    """Upload a task, generator, tokenizer, extractor, strategy or policy; return the address of the commit.

    JSON, safetensors and a card go up, nothing else; paths in them are cut to their last names.

    Args:
        thing: folder of a task, a saved network, a policy, or a run with a policy or strategy in it;
            schedule file; or a live `Task` of a folder alone, `Schedule` or network.
        name: user/name; made if there is no such repository.
        results: of `natgym.evaluate`, or a results.json, for the card; by default that of the folder.
        private: whether a new repository is; None is the account's usual.

    Raises:
        ValueError: the thing is none of these.
    """
    with TemporaryDirectory() as temporary:
        staged = Path(temporary)
        found = _stage(thing, staged)
        told = _read(results if results is not None else found)
        if told is not None:
            Run(staged).write_results(told["protocol"], list(told["rows"]))
        for path in staged.rglob("*.json"):
            write_atomic(path, json.dumps(portable(json.loads(path.read_text())), indent=2) + "\n")
        told = _read(staged / RESULTS if told is not None else None)
        write_atomic(staged / "README.md", card(staged, name, told))
        api = library().HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=name,
            folder_path=staged,
            commit_message=message or f"Upload a {kind_of(staged)} with natgym",
            allow_patterns=[*FILES],
        )
    return str(done)


def portable(value: Any) -> Any:
    """Return JSON values with absolute paths, which mean nothing elsewhere and tell of a machine, cut to
    their last names."""
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    if isinstance(value, str) and value.startswith("/") and "/" in value[1:]:
        return value.rstrip("/").rpartition("/")[2]
    return value


def _stage(thing: Any, staged: Path) -> Path | None:
    """Put what is uploaded into a folder; return the results that lie beside it, if any."""
    if isinstance(thing, Schedule):
        thing.save(staged / STRATEGY)
    elif isinstance(thing, nn.Module):
        checkpoints.save_pretrained(thing, staged)
    elif isinstance(thing, Task) and thing.folder is not None and not thing.networks:
        return _stage(thing.folder, staged)
    elif not isinstance(thing, str | Path):
        raise ValueError(f"{thing!r} can't be uploaded; save it, and give the folder")
    elif Path(thing).is_file():
        Schedule.load(thing).save(staged / STRATEGY)
    else:
        return _stage_folder(Path(thing), staged)
    return None


def _stage_folder(folder: Path, staged: Path) -> Path | None:
    results = folder / RESULTS if (folder / RESULTS).is_file() else None
    if not (folder / TASK_FILE).is_file() and saved(folder / "policy"):
        folder = folder / "policy"
    kind = kind_of(folder)
    if kind == "strategy":
        Schedule.load(folder / STRATEGY).save(staged / STRATEGY)
        _keep_rules(folder / "config.json", staged)
        return results
    for path in sorted(folder.rglob("*") if kind == "task" else folder.glob("*")):
        if any(path.match(pattern) for pattern in FILES) and path.name != RESULTS:
            (staged / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staged / path.relative_to(folder))
    return results


def _keep_rules(config: Path, staged: Path) -> None:
    """Write under which rules a strategy was searched, if its run says so."""
    settings = json.loads(config.read_text()) if config.is_file() else {}
    if "rules" in settings:
        write_atomic(staged / config.name, json.dumps({"rules": settings["rules"]}) + "\n")


def _read(results: Any) -> Mapping[str, Any] | None:
    """Return a table, or a file of one, as a mapping."""
    if isinstance(results, Table):
        return {"protocol": results.protocol, "rows": results.rows}
    if isinstance(results, str | Path):
        return json.loads(Path(results).read_text())
    return results
