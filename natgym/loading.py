"""Generators, tokenizers and classifiers by name, by folder or as live objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from generators.checkpoints import FILES, PRETRAINED, from_pretrained, read_description
from natgym.metrics import classifier  # noqa: F401  (the class registers itself)

DEFAULT_GENERATOR = "nat"
_SIGNS = {"generator": "mask_id", "tokenizer": "decode", "classifier": "num_features"}


@contextmanager
def unaffected() -> Iterator[None]:
    """Build things whatever torch's global state, which is put back: in float32, by one thread.

    A process in which torch has used several threads can't be forked: its children wait for threads that
    they don't have. Gymnasium's `AsyncVectorEnv` forks after it has made an environment.
    """
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)


def module_folder(name: str | Path, kind: str) -> Path:
    """Return the folder of a saved module: `name` is a folder, a task ("digits") or one of its modules
    ("digits/nat").

    Raises:
        ValueError: there is no such folder and nothing of that name is shipped.
    """
    for folder in (Path(name), PRETRAINED / name, PRETRAINED / name / kind):
        if all((folder / file).is_file() for file in FILES):  # a run folder may have a task's name, too
            return folder
    shipped = sorted(path.parent.parent.name for path in PRETRAINED.glob(f"*/{kind}/config.json"))
    raise ValueError(
        f"{str(name)!r} is neither a folder with a saved {kind} nor a shipped task; shipped are {shipped}"
    )


def load_generator(spec: Any, device: torch.device | str = "cpu") -> tuple[Any, str | None]:
    """Return a generator and the name of its task (None for a live object, which is used as it is)."""
    if not isinstance(spec, str | Path):
        return spec, None
    folder = module_folder(spec, DEFAULT_GENERATOR)
    task = read_description(folder).get("metadata", {}).get("task")
    return _load(folder, "generator", device), task


def load_companion(spec: Any, kind: str, task: str | None, device: torch.device | str = "cpu") -> Any:
    """Return a tokenizer or classifier: live, from a folder, or the one shipped for the generator's task."""
    if spec is None and task is None:
        raise ValueError(
            f"a generator without a task needs `{kind}=`: a live {kind} or the folder of a saved one"
        )
    if spec is not None and not isinstance(spec, str | Path):
        return spec
    return _load(module_folder(spec if spec is not None else str(task), kind), kind, device)


def _load(folder: Path, kind: str, device: torch.device | str) -> Any:
    module = from_pretrained(folder, device)
    if not hasattr(module, _SIGNS[kind]):
        raise ValueError(f"{folder} holds a {type(module).__name__}, which is not a {kind}")
    return module
