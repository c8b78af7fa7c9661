"""Sizes of generators, as a task's recipe names them; how they are trained stands in `generators.config`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from generators.config import DEFAULT_SIZE as DEFAULT_SIZE
from generators.config import RECIPES as RECIPES
from generators.config import Model as Model
from generators.config import recipe as recipe
from generators.config import tokenizer_kind as tokenizer_kind
from generators.enat import ENAT, enat_b, enat_cifar10, enat_digits, enat_l, enat_mnist, enat_s
from generators.nat import (
    NAT,
    nat_chain,
    nat_cifar10,
    nat_digits,
    nat_l,
    nat_mnist,
    nat_sudoku_4,
    nat_sudoku_6,
)
from generators.tokenizers import Tokenizer

MODELS: dict[str, Callable[[Any], nn.Module]] = {"nat": NAT, "enat": ENAT}
SIZES: dict[str, dict[str, Callable[..., Any]]] = {
    "nat": {
        "digits": nat_digits,
        "mnist": nat_mnist,
        "small": nat_mnist,
        "shapes": nat_mnist,
        "sudoku-4": nat_sudoku_4,
        "sudoku-6": nat_sudoku_6,
        "chain": nat_chain,
        "cifar10": nat_cifar10,
        "l": nat_l,
    },
    "enat": {
        "digits": enat_digits,
        "mnist": enat_mnist,
        "small": enat_mnist,
        "shapes": enat_mnist,
        "sudoku-4": partial(enat_digits, relative="box=2x2"),
        "sudoku-6": partial(enat_digits, relative="box=2x3", encoder_depth=4),
        "chain": partial(enat_digits, relative="offset", dropout=0.0),
        "cifar10": enat_cifar10,
        "s": enat_s,
        "b": enat_b,
        "l": enat_l,
    },
}


def build(
    model: Model, size: str, tokenizer: Tokenizer, geometry: Mapping[str, Any], **overrides: Any
) -> nn.Module:
    """Return an untrained generator of a named size on the tokenizer's grid and codes.

    Args:
        geometry: of its conditions, `Condition.geometry`.
        overrides: fields of its config instead of the size's; None leaves the size's.
    """
    fields = {name: value for name, value in overrides.items() if value is not None}
    fields |= {"codebook_size": tokenizer.codebook_size, "grid": tokenizer.grid, **geometry}
    return MODELS[model](SIZES[model][size](**fields))
