"""Texts as conditions: what stands beside images (`Captions`), and what a generator reads (`Text`).

Texts are encoded once, each into as many tokens as the encoder has, and lie in a table; a condition is rows
of it. So a split of a hundred thousand captions costs its distinct texts, which may lie in a file, and a
batch what it holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from generators.conditions import Condition, Index
from generators.shapes.captions import Asked

NULL = ""  # what nothing is asked for by


@dataclass(frozen=True, eq=False)
class TextTable:
    """Encoded texts, the empty one first.

    Attributes:
        tokens_MSE: S token embeddings of each text, padding included, of any float type.
        pooled_MP: one vector of each.
        texts: M of them, of which the first is the null condition.
        encoder: the name of what encoded them, with a hash of its weights; empty where nobody says.
    """

    tokens_MSE: Tensor
    pooled_MP: Tensor
    texts: tuple[str, ...]
    encoder: str = ""

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: Tensor) -> TextTable:
        texts = tuple(self.texts[row] for row in rows.tolist())
        return TextTable(self.tokens_MSE[rows], self.pooled_MP[rows], texts, self.encoder)

    def to(self, device: torch.device | str) -> TextTable:
        """Move to a device."""
        return TextTable(self.tokens_MSE.to(device), self.pooled_MP.to(device), self.texts, self.encoder)

    @classmethod
    def cat(cls, tables: Sequence[TextTable]) -> TextTable:
        """Stack tables of one encoder; those after the first keep their null as a text like others."""
        encoders = {table.encoder for table in tables}
        if len(encoders) > 1:
            raise ValueError(f"texts were encoded by {' and '.join(sorted(encoders))}; encode them by one")
        return cls(
            torch.cat([table.tokens_MSE for table in tables]),
            torch.cat([table.pooled_MP for table in tables]),
            tuple(text for table in tables for text in table.texts),
            encoders.pop(),
        )


@dataclass(frozen=True, eq=False)
class Text(Condition):
    """Encoded texts; the null condition is the encoding of the empty text.

    Attributes:
        table: of distinct texts.
        rows_B: which of them these are, on the table's device.
    """

    table: TextTable
    rows_B: Tensor

    @classmethod
    def of(
        cls,
        tokens_BSE: Tensor,
        null_SE: Tensor,
        texts: Sequence[str],
        pooled_BP: Tensor | None = None,
    ) -> Text:
        """Return the condition of texts that are encoded already; their mean token is the pooled vector
        unless another is given, to which zeros are the null's."""
        tokens_MSE = torch.cat([null_SE[None], tokens_BSE])
        if pooled_BP is None:
            pooled_MP = tokens_MSE.mean(1)
        else:
            pooled_MP = torch.cat([torch.zeros_like(pooled_BP[:1]), pooled_BP])
        table = TextTable(tokens_MSE, pooled_MP, (NULL, *texts))
        return cls(table, torch.arange(1, 1 + len(texts), device=null_SE.device))

    @property
    def values(self) -> Tensor:
        return _widened(self.table.tokens_MSE[self.rows_B])

    @property
    def vectors(self) -> Tensor:
        return _widened(self.table.pooled_MP[self.rows_B])

    @property
    def device(self) -> torch.device:
        return self.rows_B.device

    @property
    def names(self) -> list[str]:
        return [self.table.texts[row] for row in self.rows_B.tolist()]

    @property
    def groups(self) -> list[str]:
        return [group(text) for text in self.names]

    @property
    def kinds_B(self) -> Tensor:
        groups = self.groups
        number = {name: place for place, name in enumerate(sorted(set(groups)))}
        return torch.tensor([number[name] for name in groups], dtype=torch.long, device=self.device)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps([self.table.encoder, *self.names]).encode()).hexdigest()[:12]

    @property
    def keys(self) -> list[Hashable]:
        return [(self.table.encoder, name) for name in self.names]

    @property
    def geometry(self) -> dict[str, Any]:
        width, encoder = self.table.tokens_MSE.shape[-1], self.table.encoder
        return {"num_classes": None, "text_width": width, "text_encoder": encoder}

    def null(self) -> Text:
        return Text(self.table, torch.zeros_like(self.rows_B))

    def __getitem__(self, index: Index) -> Text:
        return Text(self.table, self.rows_B[index])

    def __len__(self) -> int:
        return len(self.rows_B)

    def to(self, device: torch.device | str) -> Text:
        """Move to a device; what a table holds beyond these rows stays where it is."""
        if self.rows_B.to(device) is self.rows_B:  # as "cuda" is where "cuda:0" is
            return self
        alone = self._alone()
        return Text(alone.table.to(device), alone.rows_B.to(device))

    def __getstate__(self) -> dict[str, Any]:
        """Let what is sent to another process be these rows alone, too."""
        return vars(self._alone())

    def _alone(self) -> Text:
        """Return these rows of a table that holds no others."""
        used_M, rows_B = torch.cat([self.rows_B.new_zeros(1), self.rows_B]).unique(return_inverse=True)
        return Text(self.table[used_M], rows_B[1:])

    @classmethod
    def cat(cls, parts: Sequence[Text]) -> Text:
        tables = list({id(part.table): part.table for part in parts}.values())
        if len(tables) == 1:
            return cls(tables[0], torch.cat([part.rows_B for part in parts]))
        firsts = accumulate(map(len, tables), initial=0)
        first = dict(zip(map(id, tables), firsts, strict=False))
        rows_B = torch.cat([part.rows_B + first[id(part.table)] for part in parts])
        return cls(TextTable.cat(tables), rows_B)


@dataclass(frozen=True, eq=False)
class Captions(Condition):
    """Texts as they stand beside images, before an encoder has read them; an image may have several.

    Attributes:
        texts: of N images, each with at least one.
    """

    texts: tuple[tuple[str, ...], ...]

    @property
    def values(self) -> Tensor:
        raise ValueError("captions are read by an encoder first: natgym.Task does it, or generators.encoders")

    vectors = values
    kinds_B = values

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()[:12]

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def names(self) -> list[str]:
        return [texts[0] for texts in self.texts]

    @property
    def geometry(self) -> dict[str, Any]:
        return {}

    def wordings(self) -> tuple[Tensor, Captions]:
        """Return each text as a row of its own, and which image it is of."""
        rows = [row for row, texts in enumerate(self.texts) for _ in texts]
        return torch.tensor(rows), Captions(tuple((text,) for texts in self.texts for text in texts))

    def null(self) -> Captions:
        return Captions(((NULL,),) * len(self))

    def __getitem__(self, index: Index) -> Captions:
        return Captions(tuple(self.texts[row] for row in torch.arange(len(self))[index].tolist()))

    def __len__(self) -> int:
        return len(self.texts)

    def to(self, device: torch.device | str) -> Captions:
        return self

    @classmethod
    def cat(cls, parts: Sequence[Captions]) -> Captions:
        return cls(tuple(texts for part in parts for texts in part.texts))


def _widened(tensor: Tensor) -> Tensor:
    """Tables may lie in half precision; networks read them in single."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def group(text: str) -> str:
    """Return what kind of text it is, for tables and figures: the number of things that a caption asks for,
    or how long it is."""
    if (asked := Asked.parse(text)) is not None:
        return f"{len(asked.things)} thing" + "s" * (len(asked.things) > 1)
    words = len(text.split())
    return f"{words // 5 * 5}-{words // 5 * 5 + 4} words"
