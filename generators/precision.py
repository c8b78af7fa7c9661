"""In which precision a generator computes, which a table depends on."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:  # flags are read without torch
    from generators.contract import Generator

Precision = Literal["float32", "tf32", "bfloat16"]


def in_precision(generator: Any, precision: Precision) -> Any:
    """Return a generator that computes in a precision, a copy if its weights change.

    Args:
        precision: "float32"; "tf32", float32 weights whose matrix products a GPU takes in TF32, as all
            others of this process; "bfloat16" weights. Guidance and drawing are in float32 always.

    Raises:
        ValueError: there is no such precision.
    """
    import torch

    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is not one of {', '.join(get_args(Precision))}")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if precision != "bfloat16":
        return generator
    return copy.deepcopy(generator).to(torch.bfloat16)


def precision_of(generator: Generator) -> str:
    """Return the precision that a generator computes in."""
    import torch

    weight = next(generator.parameters())
    if weight.dtype != torch.float32:
        return str(weight.dtype).removeprefix("torch.")
    fast = weight.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return "tf32" if fast else "float32"
