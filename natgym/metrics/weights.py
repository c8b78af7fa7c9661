"""Weights of foreign extractors from local files, which never execute code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generators.checkpoints import load_tensors, refuse_pointer


def read_weights(
    module: nn.Module,
    path: Path | str,
    name: str,
    convert: Callable[[dict[str, Tensor]], Any] = lambda state: state,
) -> None:
    """Load a state dict (.safetensors, or a torch file of tensors only) into a module, for evaluation.

    Args:
        name: of the network, for errors.
        convert: other keys -> the module's.

    Raises:
        ValueError: the file is not there, or holds another network.
    """
    if not Path(path).is_file():
        raise ValueError(f"no {name} weights at {path}; download them yourself and give their path")
    try:
        state = load_tensors(path) if Path(path).suffix == ".safetensors" else _tensors(path)
        module.load_state_dict(convert(state))
    except Exception as error:  # a broken pickle can raise anything
        first = str(error).split("\n")[0]
        raise ValueError(f"{path} holds no {name} weights: {first}") from None
    module.eval().requires_grad_(False)


def _tensors(path: Path | str) -> dict[str, Tensor]:
    refuse_pointer(path)
    return torch.load(path, map_location="cpu", weights_only=True)
