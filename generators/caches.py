"""Tensors that are computed once and lie in a file that says what they were made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch import distributed as dist

from generators.checkpoints import tensors_hash
from generators.files import write_atomic


def cached(
    path: Path, name: str, made_of: str, compute: Callable[[], Tensor], *, together: bool = False
) -> Tensor:
    """Return the tensor of a cache file; compute and write it where there is none.

    Args:
        path: of the safetensors file; a file that is damaged, or made of something else, is replaced.
        name: of the tensor in the file.
        made_of: everything that the values depend on, as text; it stands in the file and is compared.
        compute: makes the tensor.
        together: all ranks call this, and compute together if one of them has no file; one of each host
            writes it.
    """
    stored = _read(path, name, made_of)
    all_have_it = [stored is not None]
    if together and dist.is_initialized():
        all_have_it *= dist.get_world_size()
        dist.all_gather_object(all_have_it, stored is not None)
    if stored is not None and all(all_have_it):
        return stored
    tensor = compute()
    if not together or os.environ.get("LOCAL_RANK", "0") == "0":
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save({name: tensor}, {"made_of": made_of, "hash": tensors_hash({name: tensor})}))
    return tensor


def _read(path: Path, name: str, made_of: str) -> Tensor | None:
    """Return the tensor of a file; None if it is not there, made of something else or damaged."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensor = file.get_tensor(name)
    except (OSError, SafetensorError):
        return None
    # safetensors checks lengths, not contents: a flipped bit shows in the hash alone.
    right = metadata.get("made_of") == made_of and metadata.get("hash") == tensors_hash({name: tensor})
    return tensor if right else None
