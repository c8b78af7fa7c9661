"""Recipes, which a task names: sizes of generators, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import nn

from generators.enat import ENAT, enat_b, enat_cifar10, enat_digits, enat_l, enat_mnist, enat_s
from generators.nat import NAT, nat_cifar10, nat_digits, nat_l, nat_mnist
from generators.tokenizers import Tokenizer
from generators.training import TrainingConfig, small_recipe

Model = Literal["nat", "enat"]
MODELS: dict[str, Callable[[Any], nn.Module]] = {"nat": NAT, "enat": ENAT}
SIZES: dict[str, dict[str, Callable[..., Any]]] = {
    "nat": {"digits": nat_digits, "mnist": nat_mnist, "cifar10": nat_cifar10, "l": nat_l},
    "enat": {
        "digits": enat_digits,
        "mnist": enat_mnist,
        "cifar10": enat_cifar10,
        "s": enat_s,
        "b": enat_b,
        "l": enat_l,
    },
}
# What the small tasks change in the papers' recipe.
DEFAULT_SIZE = "cifar10"  # of a task that names no recipe
_SMALL: dict[str, dict[str, Any]] = {
    "digits": {},
    "mnist": dict(updates=3000, learning_rate=2e-3),
    "cifar10": dict(updates=40_000, batch_size=512, learning_rate=1e-3, warmup=1000, ema=0.999),
}


RECIPES = tuple(_SMALL)  # by name


def recipe(name: str | None, model: Model) -> TrainingConfig:
    """Return the hyper-parameters of a named recipe's training; AutoNAT's on ImageNet for none.

    An ENAT learns to reuse, with the paper's probability of 0.5.
    """
    reuse = 0.5 if model == "enat" else 0.0
    if name is None:
        return TrainingConfig(reuse=reuse)
    if name not in _SMALL:
        raise ValueError(f"recipe {name!r} is not one of {', '.join(_SMALL)}")
    return small_recipe(**_SMALL[name], reuse=reuse)


def tokenizer_kind(name: str | None) -> Literal["kmeans", "vq"]:
    """Return the kind of tokenizer of a named recipe."""
    return "kmeans" if name == "digits" else "vq"


def build(
    model: Model, size: str, tokenizer: Tokenizer, geometry: Mapping[str, int], **overrides: Any
) -> nn.Module:
    """Return an untrained generator of a named size on the tokenizer's grid and codes.

    Args:
        geometry: of its conditions, `Condition.geometry`.
        overrides: fields of its config instead of the size's; None leaves the size's.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    given |= {"codebook_size": tokenizer.codebook_size, "grid": tokenizer.grid, **geometry}
    return MODELS[model](SIZES[model][size](**given))
