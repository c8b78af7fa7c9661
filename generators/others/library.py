"""What adapters of foreign networks share: a library asked for late, its configs, and what a layer reads."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from threading import get_ident
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from generators.files import read_json

# Of a library's config: what names code or kernels to be fetched, or tells of the file that it was in.
_NOT_GEOMETRY = ("attn_implementation", "auto_map", "dtype", "quantization_config", "transformers_version")


def library(name: str, extra: str = "pretrained") -> ModuleType:
    """Import a library; ValueError that names the extra if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is needed for this network ({error}); pip install '.[{extra}]'") from None


def geometry(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a library's config without what it says of itself, or of code that it would fetch."""
    return {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and name not in _NOT_GEOMETRY
    }


def refuse_kernels(config: Any, where: Path | str) -> None:
    """Raise ValueError if a config of transformers names a repository of kernels (attn_implementation), whose
    code the library would fetch and run."""
    for name, value in config.items() if isinstance(config, Mapping) else ():
        if str(name).endswith("_implementation") and "/" in str(value):
            raise ValueError(
                f"{where}: {name} {value!r} is code of a repository, which is not run; leave it out"
            )
        refuse_kernels(value, where)


def refuse_kernels_of(folder: Path) -> None:
    """Do so for a model's folder at hand; of what is not here nothing is known."""
    if (path := folder / "config.json").is_file():
        refuse_kernels(read_json(path), path)


def first_line(error: Exception) -> str:
    """Return what a library's error says in its first line."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class Seen:
    """What a layer reads, caught by a hook; of each thread its own, since batches are drawn side by side.

    Args:
        layer: usually the last, whose input is what all logits are made of.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._of_thread: dict[int, Tensor] = {}
        layer.register_forward_pre_hook(self)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._of_thread[get_ident()] = inputs[0]

    def take(self) -> Tensor:
        """Return what was read in the last pass of this thread, once."""
        return self._of_thread.pop(get_ident())
