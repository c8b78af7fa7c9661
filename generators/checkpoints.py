"""Weights and states on disk: `save_pretrained`, `from_pretrained` (config.json, safetensors), atomic writes.

Loading never executes code: JSON, safetensors and `torch.load(weights_only=True)` only. Every file is written
to a temporary name, flushed and renamed, so that a reader never sees half a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from generators import former

REGISTRY: dict[str, tuple[type, type[nn.Module]]] = {}
PRETRAINED = Path(__file__).parent / "pretrained"
FILES = ("config.json", "model.safetensors")  # of a saved module

ModuleType = TypeVar("ModuleType", bound=type[nn.Module])


def register(config_class: type) -> Callable[[ModuleType], ModuleType]:
    """Make a module class with a `config` dataclass known to `from_pretrained` under its own name."""

    def add(module_class: ModuleType) -> ModuleType:
        REGISTRY[module_class.__name__] = config_class, module_class
        return module_class

    return add


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary name; what is written there replaces `path` in one step.

    A crash leaves the old file or the new one, never a part.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Replace `path` by `data` in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def save_state(path: Path | str, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers and containers (optimizers, counters) atomically."""
    with replacing(path) as temporary, open(temporary, "wb") as file:  # by a path, its name would be stored
        torch.save(state, file)


def load_state(path: Path | str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_state` wrote, executing nothing."""
    return torch.load(path, map_location=device, weights_only=True)


def save_pretrained(module: nn.Module, folder: Path | str, **metadata: Any) -> None:
    """Write `config.json` (type, config, metadata) and `model.safetensors` into `folder`."""
    config: Any = module.config
    description = {
        "type": type(module).__name__,
        "config": dataclasses.asdict(config),
        "metadata": metadata,
    }
    save_tensors(module.state_dict(), folder, description)


def save_tensors(
    tensors: Mapping[str, torch.Tensor], folder: Path | str, description: Mapping[str, Any]
) -> None:
    """Write tensors as `model.safetensors` and, last, what they are as `config.json`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    host = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(folder / "model.safetensors") as temporary:
        save_file(host, temporary)  # straight to the disk: no second copy of the weights in memory
    write_atomic(folder / "config.json", json.dumps(description, indent=2) + "\n")


def from_pretrained(folder: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """Build the module that `save_pretrained` wrote, in eval mode and without a second copy of its weights.

    Raises:
        ValueError: the folder holds no such module, or one of an unknown type.
    """
    folder = Path(folder)
    description = read_description(folder)
    if description["type"] not in REGISTRY:
        raise ValueError(
            f"{folder}/config.json: type {description['type']!r} is not one of {sorted(REGISTRY)}"
        )
    config_class, module_class = REGISTRY[description["type"]]
    with torch.device("meta"):
        module = module_class(config_from_dict(config_class, description["config"]))
    module.load_state_dict(load_file(folder / "model.safetensors", device=str(device)), assign=True)
    return module.eval().requires_grad_(False)


def read_description(folder: Path | str) -> dict[str, Any]:
    """Return the type, config and metadata of a saved module; ValueError if there is none."""
    path = Path(folder) / "config.json"
    if not all((Path(folder) / file).is_file() for file in FILES):
        raise ValueError(f"{folder} holds no saved module; expected {' and '.join(FILES)} in it")
    try:
        description = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(description, dict) or not {"type", "config"} <= set(description):
        raise ValueError(f"{path} is not a module's description; expected the keys type, config and metadata")
    return former.description(description)


def config_from_dict(config_class: type, values: dict[str, Any]) -> Any:
    """Build a config dataclass from JSON values, lists becoming tuples; ValueError if the keys don't fit."""
    fields = [field.name for field in dataclasses.fields(config_class)]
    values = former.settings(values, fields)
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(f"{config_class.__name__} has no {', '.join(unknown)}; it has {', '.join(fields)}")
    try:
        return config_class(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    except TypeError as error:
        raise ValueError(f"{config_class.__name__} can't be built from {sorted(values)}: {error}") from None


def weights_hash(module: nn.Module) -> str:
    """Return 12 hexadecimal digits that name the exact weights, for manifests."""
    return tensors_hash(module.state_dict())


def tensors_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return 12 hexadecimal digits that name the exact values of named tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
