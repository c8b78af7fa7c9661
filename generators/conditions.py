"""What an image is drawn from: class labels here, texts in `generators.texts`, behind one surface.

No other module asks which of the two it has. A generator reads `values`, a judge that wants one vector per
row reads `vectors`, tables print `names`, guidance takes `null()`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators import former
from generators.checkpoints import tensors_hash
from generators.noise import derive_seed

NO_LIST = "a generator that reads texts has no list of conditions; say what to draw"
Index = Tensor | slice | Sequence[int]


class Condition(ABC):
    """B conditions on one device; immutable, indexable like a tensor's first dimension."""

    @property
    @abstractmethod
    def values(self) -> Tensor:
        """What `ConditionEmbedding` reads: class ids (B,) or token embeddings (B, S, E)."""

    @property
    @abstractmethod
    def vectors(self) -> Tensor:
        """One float vector per row, (B, E): one-hot classes (zeros for null) or a text's pooled vector."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where they are."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """One printable name per row; costs a copy to the host."""

    @property
    @abstractmethod
    def geometry(self) -> dict[str, Any]:
        """What a generator's config has to say of it: `num_classes` and `class_names`, or `text_width`
        and `text_encoder`."""

    @abstractmethod
    def null(self) -> Self:
        """Return the unconditional condition of the same length, for guidance."""

    @abstractmethod
    def __getitem__(self, index: Index) -> Self:
        """Select rows by a slice, a list or an integer or boolean tensor."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Move to a device."""

    @classmethod
    @abstractmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Join conditions of one kind."""

    @property
    def groups(self) -> list[str]:
        """What tables and figures tell apart: the class of each row, or what kind of text it is."""
        return self.names

    @property
    @abstractmethod
    def kinds_B(self) -> Tensor:
        """Integers (B,), equal for rows of one group."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Digits that name these conditions, in this order, in any process."""

    @property
    def guides(self) -> bool:
        """Whether guidance means anything: not where all there is to ask for is one class."""
        return True

    @property
    def given_BL(self) -> Tensor | None:
        """Tokens that are given, -1 where one is to be drawn (`generators.given`); None: all are."""
        return None

    @property
    def keys(self) -> list[Hashable]:
        """One hashable value per row, equal for equal rows alone, for caches; costs a copy to the host.

        Names are for readers: two classes may share one, and a class may be named as the null condition is.
        """
        return [*self.names]

    @property
    def key(self) -> Hashable:
        """A hashable value equal for equal conditions, for caches."""
        return type(self).__name__, *self.keys

    def __len__(self) -> int:
        return self.values.shape[0]


@dataclass(frozen=True, eq=False)
class Labels(Condition):
    """Class labels 0..num_classes-1; label num_classes is the null condition, as in the official checkpoints.

    Attributes:
        ids_B: integer labels.
        num_classes: without the null class.
        class_names: of the classes; where there are none, their numbers are.
    """

    ids_B: Tensor
    num_classes: int
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(f"{self.num_classes} classes have {len(self.class_names)} names; give one each")

    @classmethod
    def every(cls, num_classes: int, class_names: tuple[str, ...] = ()) -> Labels:
        """Return each class once, in order."""
        return cls(torch.arange(num_classes), num_classes, class_names)

    @property
    def values(self) -> Tensor:
        return self.ids_B

    @property
    def device(self) -> torch.device:
        return self.ids_B.device

    @property
    def kinds_B(self) -> Tensor:
        return self.ids_B

    @property
    def fingerprint(self) -> str:
        return tensors_hash({"values": self.ids_B})

    @property
    def vectors(self) -> Tensor:
        return F.one_hot(self.ids_B, self.num_classes + 1)[:, :-1].float()

    @property
    def names(self) -> list[str]:
        named = dict(enumerate(self.class_names))
        return [named.get(label, str(label)) for label in self.ids_B.tolist()]

    @property
    def guides(self) -> bool:
        return self.num_classes > 1

    @property
    def keys(self) -> list[Hashable]:
        return self.ids_B.tolist()

    @property
    def key(self) -> Hashable:
        return self.num_classes, *self.keys

    @property
    def geometry(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes, "class_names": self.class_names}

    def null(self) -> Labels:
        return replace(self, ids_B=torch.full_like(self.ids_B, self.num_classes))

    def __getitem__(self, index: Index) -> Labels:
        return replace(self, ids_B=self.ids_B[index])

    def to(self, device: torch.device | str) -> Labels:
        return replace(self, ids_B=self.ids_B.to(device))

    @classmethod
    def cat(cls, parts: Sequence[Labels]) -> Labels:
        return replace(parts[0], ids_B=torch.cat([part.ids_B for part in parts]))


def named(pool: Condition, names: Sequence[str]) -> Condition:
    """Return the conditions of some names; ValueError if one is none of the pool's."""
    known = {name: row for row, name in enumerate(pool.names)}
    if unknown := [name for name in names if name not in known]:
        some = ", ".join(list(known)[:20]) + (", ..." if len(known) > 20 else "")
        raise ValueError(f"label {unknown[0]!r} is not one of {some}")
    return pool[[known[name] for name in names]]


def balanced(pool: Condition, num_samples: int) -> Condition:
    """Return `num_samples` conditions, taking the pool's rows in turn."""
    return pool[torch.arange(num_samples, device=pool.device) % len(pool)]


def in_rows(pool: Condition, most: int) -> Condition:
    """Return ten rows of the pool for a figure: fewer where these are more than `most` images, but one."""
    return balanced(pool, len(pool) * max(1, min(10, most // len(pool))))


def shuffled(condition: Condition) -> Condition:
    """Return conditions in another order, always the same one."""
    order = np.random.default_rng(derive_seed("pool")).permutation(len(condition))
    return condition[torch.from_numpy(order).to(condition.device)]


def at_shares(real: Condition, num_samples: int) -> Condition:
    """Return `num_samples` conditions, each as often as it is among some, to the nearest whole number."""
    places = torch.arange(num_samples, device=real.device) * len(real) // num_samples
    return real[real.kinds_B.argsort(stable=True)[places]]


def at_random(pool: Condition, num_samples: int, seed: int) -> Condition:
    """Return `num_samples` conditions, each any of the pool's with equal chance."""
    rows = np.random.default_rng(seed).integers(len(pool), size=num_samples)
    return pool[torch.from_numpy(rows).to(pool.device)]


def refuse_both(num_classes: int | None, text_width: int | None) -> None:
    """Raise ValueError unless exactly one of the two is given."""
    if (num_classes is None) == (text_width is None):
        raise ValueError(f"num_classes={num_classes}, text_width={text_width}: give exactly one of the two")


class ConditionEmbedding(nn.Module):
    """Turn `Condition.values` into condition tokens (B, S, D): U-ViT's class token or projected text tokens.

    Args:
        num_classes: for labels; the table has one more row, the null class.
        text_width: for texts, the width E of the text encoder; exactly one of the two is given.
        width: D.
    """

    def __init__(self, num_classes: int | None, text_width: int | None, width: int) -> None:
        super().__init__()
        refuse_both(num_classes, text_width)
        self.num_classes = num_classes
        if num_classes is not None:
            # The class token is embedded as BERT embeds a word: with a position of its own, and normalized.
            self.word = nn.Embedding(num_classes + 1, width)
            self.position = nn.Embedding(1, width)
            self.norm = nn.LayerNorm(width, eps=1e-6)
        elif text_width is not None:
            self.project = nn.Linear(text_width, width)

    def forward(self, values: Tensor) -> Tensor:
        if self.num_classes is None:
            return self.project(values.to(self.project.weight.dtype))  # (B, S, D)
        return self.norm(self.word(values)[:, None] + self.position.weight)  # (B, 1, D)


__getattr__ = former.renamed(__name__, {"Text": "generators.texts:Text"})
