"""Weights and states on disk: `save_pretrained`, `from_pretrained` (config.json, safetensors).

Loading never executes code: JSON, safetensors and `torch.load(weights_only=True)` only. Every file is written
as `generators.files` writes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import reprlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_map_only

from generators.files import FILES as FILES
from generators.files import (
    FORMAT,
    config_from_dict,
    read_description,
    reading,
    refuse_newer,
    replacing,
    write_atomic,
)
from generators.files import PRETRAINED as PRETRAINED
from generators.hub import download, on_hub
from generators.skeletons import without_weights

WRAPPINGS = (DataParallel, DistributedDataParallel, AveragedModel)
COMPILED = "_orig_mod"  # where torch.compile keeps a module; its class takes seconds to import
PARTS = (COMPILED, "_checkpoint_wrapped_module", "_fsdp_wrapped_module")  # what wrapped parts put into names
FEWEST = 1000  # numbers: a small network has sizes beyond its weights, too
POINTER = b"version https://git-lfs"
REGISTRY: dict[str, tuple[type, type[nn.Module]]] = {}

ModuleType = TypeVar("ModuleType", bound=type[nn.Module])


def register(config_class: type) -> Callable[[ModuleType], ModuleType]:
    """Make a module class with a `config` dataclass known to `from_pretrained` under its own name."""

    def add(module_class: ModuleType) -> ModuleType:
        REGISTRY[module_class.__name__] = config_class, module_class
        return module_class

    return add


class _Written:
    """A file that remembers why it could not be written, which torch's own error does not say."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_state(path: Path | str, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers and containers (optimizers, counters) atomically.

    Raises:
        OSError: there is no room, or it may not be written; what stood there before is kept.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:  # by a path, its name would be stored
        written = _Written(file)
        try:
            torch.save(state | {"format": FORMAT}, written)  # type: ignore[arg-type]
            file.flush()
        except (RuntimeError, OSError) as error:
            why = written.error or error
            if not isinstance(why, OSError):
                raise
            raise OSError(why.errno, f"{why.strerror}; what was saved before is kept", str(path)) from None


def load_state(path: Path | str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_state` wrote, executing nothing; ValueError that names the file if it is broken."""
    refuse_pointer(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        with zipfile.ZipFile(path) as archive:  # torch writes checksums and does not read them
            if (damaged := archive.testzip()) is not None:
                raise ValueError(damaged)
    except Exception as error:  # a broken pickle can raise anything
        raise ValueError(f"{path} is not loaded: it {why_not(error)}; expected a checkpoint") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not loaded: it holds a {type(state).__name__}; expected a checkpoint")
    refuse_newer(state.pop("format", 1), path)
    # Only now: what a device lacks is no fault of the file.
    return tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), state)


def restore(trained: Any, path: Path | str, device: torch.device | str = "cpu") -> None:
    """Give something with `load_state_dict` the state of a checkpoint; ValueError that names the file if it
    is broken or of something else."""
    state = load_state(path, device)
    with reading(path):
        trained.load_state_dict(state)


def why_not(error: Exception) -> str:
    """Say in few words what torch found in a file that it did not load; its own text advises to trust it."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    return f"asks for {refused[1]}, which could run code" if refused else "is broken, or no weights at all"


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside of torch.compile's, DistributedDataParallel's or an average's wrapping."""
    while COMPILED in module._modules or isinstance(module, WRAPPINGS):
        module = module.get_submodule(COMPILED if COMPILED in module._modules else "module")
    return module


def bare(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return named tensors without what compiled or otherwise wrapped parts of a module put into names."""
    words = {name: [word for word in name.split(".") if word not in PARTS] for name in tensors}
    return {".".join(words[name]): tensor for name, tensor in tensors.items()}


def save_pretrained(module: nn.Module, folder: Path | str, **metadata: Any) -> None:
    """Write `config.json` (type, config, metadata) and `model.safetensors` into `folder`.

    Of a wrapped module, or one with wrapped parts, what is inside is written.
    """
    module = unwrapped(module)
    config: Any = module.config
    description = {
        "type": type(module).__name__,
        "config": dataclasses.asdict(config),
        "metadata": metadata,
    }
    save_tensors(bare(module.state_dict()), folder, description)


def save_tensors(
    tensors: Mapping[str, torch.Tensor], folder: Path | str, description: Mapping[str, Any]
) -> None:
    """Write tensors as `model.safetensors` and, last, what they are as `config.json`.

    Raises:
        ValueError: a value is not finite.
    """
    folder = Path(folder)
    refuse_not_finite(tensors, f"{folder} is not written")
    folder.mkdir(parents=True, exist_ok=True)
    host = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(path := folder / "model.safetensors") as temporary:
        try:
            save_file(host, temporary)  # straight to the disk: no second copy of the weights in memory
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}") from None
    described = {"format": FORMAT, **description}
    write_atomic(folder / "config.json", json.dumps(described, indent=2) + "\n")


def from_pretrained(
    folder: Path | str, device: torch.device | str = "cpu", *, revision: str | None = None
) -> nn.Module:
    """Build the module that `save_pretrained` wrote, in eval mode and without a second copy of its weights.

    Args:
        folder: or a name of the Hub, as hf://user/name, or as user/name of a revision.

    Raises:
        ValueError: the folder holds no such module, one of an unknown type, or a weight is not finite.
    """
    from generators import enat, encoders, nat, planted, tokenizers, vqgan  # noqa: F401  (they register themselves)
    from generators.others import amused, halton, masked_lm, words  # noqa: F401
    from generators.puzzles import glyphs  # noqa: F401

    folder = download(str(folder), revision).path if on_hub(folder, revision) else Path(folder)
    description = read_description(folder)
    if description["type"] not in REGISTRY:
        raise ValueError(
            f"{folder}/config.json: type {reprlib.repr(description['type'])} is not one of {sorted(REGISTRY)}"
        )
    config_class, module_class = REGISTRY[description["type"]]
    weights = load_tensors(folder / "model.safetensors", device)
    if not getattr(module_class, "weightless", False):
        _refuse_oversized(description["config"], sum(map(torch.Tensor.numel, weights.values())), folder)
    with reading(folder / "config.json", description["type"]), without_weights():
        module = module_class(config_from_dict(config_class, description["config"]))
    refuse_not_finite(weights, f"{folder}/model.safetensors is not loaded")
    with reading(folder / "model.safetensors", description["type"]):
        module.load_state_dict(weights, assign=True)
    return module.to(device).eval().requires_grad_(False)


def _refuse_oversized(config: Any, numbers: int, folder: Path) -> None:
    """Raise ValueError if a size in a config is larger than all there is in the file of weights: layers would
    be built until memory ends."""
    for name, value in config.items():
        for size in value if isinstance(value, list) else [value]:
            if isinstance(size, dict):
                _refuse_oversized(size, numbers, folder)
            elif isinstance(size, int | float) and size > max(numbers, FEWEST):
                raise ValueError(
                    f"{folder}/config.json: {name} {value} is more than the {numbers:,} numbers in "
                    "model.safetensors; the two don't belong together"
                )


def load_tensors(path: Path | str, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """Read a .safetensors file; ValueError that names it if it is broken, or stands for one elsewhere."""
    try:
        return load_file(path, device=str(device))
    except SafetensorError as error:
        refuse_pointer(path)
        raise ValueError(f"{path} is not loaded: it is broken, or was cut ({error}); get it anew") from None


def refuse_not_finite(tensors: Mapping[str, torch.Tensor], what: str) -> None:
    """Raise ValueError that begins with `what` and names the first tensor with a value that is not finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and (wrong := int((~torch.isfinite(tensor)).sum())):
            raise ValueError(
                f"{what}: {wrong} of {tensor.numel()} values of {name} are not finite; go back to weights "
                "from before that"
            )


def refuse_pointer(path: Path | str) -> None:
    """Raise ValueError if a file is what git keeps in the place of a large one."""
    with open(path, "rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ValueError(
                f"{path} is a pointer of git-lfs, not the file itself; get it with `git lfs pull`"
            )


def weights_hash(module: nn.Module) -> str:
    """Return 12 hexadecimal digits that name the exact weights, for manifests; of a wrapped module, the
    module's inside."""
    return tensors_hash(bare(unwrapped(module).state_dict()))


def tensors_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return 12 hexadecimal digits that name the exact values of named tensors."""
    digest = TensorsHash()
    for name, tensor in sorted(tensors.items()):
        digest.begin(name)
        digest.update(tensor)
    return digest.value


class TensorsHash:
    """`tensors_hash` of named tensors, in the order of their names, each of which may come in parts."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def begin(self, name: str) -> None:
        """Begin the next tensor."""
        self._digest.update(name.encode())

    def update(self, rows: torch.Tensor) -> None:
        """Add the next rows of it, or all of it."""
        self._digest.update(rows.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)

    @property
    def value(self) -> str:
        """12 hexadecimal digits that name what was added so far."""
        return self._digest.hexdigest()[:12]
