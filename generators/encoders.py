"""What reads texts: a word encoder that needs nothing, and the pretrained ones of transformers.

An encoder turns each text into S tokens of width E and one pooled vector of width P, whatever other texts
are in the batch. A generator projects the tokens by a layer of its own, so that behind the word encoder that
layer is a table of word and position embeddings, which learns along.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.caches import cached
from generators.checkpoints import from_pretrained, register
from generators.files import cache_folder, saved
from generators.language_models import LanguageModel
from generators.noise import derive_seed
from generators.texts import NULL, Captions, Text, TextTable

BATCH = 256
WIDTH = 64  # of words' codes, at most
NEAR = 2  # words on either side that are seen beside one, so that a color is seen with its form


class TextEncoder(Protocol):
    """What reads texts.

    Attributes:
        name: what it is, with a hash of its weights; a generator is bound to it.
    """

    reads_texts: bool
    costly: bool
    """Whether what it says is kept in files."""

    @property
    def name(self) -> str: ...

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return tokens (N, S, E) and pooled vectors (N, P), on the CPU, of what can be read of texts."""
        ...

    def complaint(self, text: str) -> str | None:
        """Say why a text can't be read as it stands, which refuses a prompt; None if it can."""
        ...


@dataclass(frozen=True, kw_only=True)
class WordEncoderConfig:
    """What a word encoder knows.

    Attributes:
        words: in small letters.
        length: S, the most words of a text.
    """

    words: tuple[str, ...]
    length: int


@register(WordEncoderConfig)
class WordEncoder(nn.Module):
    """Say which word stands at which place, and between which others.

    Tokens are a word's code, the codes of the two on either side of it and a one-hot place, zeros behind the
    end; the pooled vector has the words' codes at their places. Of an unknown word its place is left. A code
    is one-hot, or, of more than WIDTH words, a fixed random vector of length 1, so that a large vocabulary
    costs no more. There is nothing in it to be trained.
    """

    reads_texts = True
    costly = False
    weightless = True

    def __init__(self, config: WordEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.ids = {word: number for number, word in enumerate(config.words)}
        self.codes = _codes(config.words)
        self.name = f"words-{hash_of(' '.join([*config.words, str(config.length)]))}"

    @classmethod
    def of(cls, texts: Iterable[str]) -> WordEncoder:
        """Return the encoder of all words of some texts, as long as the longest."""
        texts = list(texts)
        counts = Counter(word for text in texts for word in words_of(text))
        longest = max((len(words_of(text)) for text in texts), default=0)
        if not longest:
            raise ValueError("there is no word in the captions; a word encoder needs some")
        return cls(WordEncoderConfig(words=tuple(sorted(counts)), length=longest))

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        length, number = self.config.length, len(self.config.words)
        said = [words_of(text)[:length] for text in texts]
        ids = [
            [self.ids.get(word, number) for word in words] + [number] * (length - len(words))
            for words in said
        ]
        ids_NS = torch.tensor(ids).reshape(len(texts), length)
        words_NSW = torch.from_numpy(self.codes)[ids_NS]
        ends_N = torch.tensor([len(words) for words in said])
        places_NSS = torch.diag_embed((torch.arange(length) < ends_N[:, None]).half())
        around = F.pad(words_NSW, (0, 0, NEAR, NEAR)).unfold(1, 2 * NEAR + 1, 1)  # (N, S, W, 2 NEAR + 1)
        seen_NSE = around.transpose(2, 3).flatten(2) * places_NSS.sum(-1, keepdim=True)
        return torch.cat([seen_NSE, places_NSS], dim=-1), words_NSW.flatten(1)

    def complaint(self, text: str) -> str | None:
        words, length = words_of(text), self.config.length
        if unknown := [word for word in words if word not in self.ids]:
            known = ", ".join(self.config.words[:40]) + (", ..." if len(self.config.words) > 40 else "")
            return f"{text!r}: {unknown[0]!r} is no word that is known here; these are: {known}"
        if text.strip() and not words:
            return f"{text!r} has no words; say what to draw, or nothing for anything"
        if len(words) > length:
            return f"{text!r} has {len(words)} words; at most {length} are read"
        return None


def _codes(words: Sequence[str]) -> np.ndarray:
    """Return a code for each word and, last, zeros for none, (V + 1, W) float16."""
    if len(words) <= WIDTH:
        return np.eye(len(words) + 1, len(words), dtype=np.float16)
    drawn = [np.random.default_rng(derive_seed("word", word)).normal(size=WIDTH) for word in words]
    codes = np.stack([*(code / np.linalg.norm(code) for code in drawn), np.zeros(WIDTH)])
    return codes.astype(np.float16)


def make_encoder(spec: str, captions: Captions, device: torch.device | str = "cpu") -> TextEncoder:
    """Return an encoder by name.

    Args:
        spec: "words", made of the captions' own; one of `generators.language_models`, as "clip:NAME"; or the
            folder of a saved one.
        captions: that it is to read, with all that an image has.

    Raises:
        ValueError: there is no such encoder.
    """
    if spec == "words":
        return WordEncoder.of(text for texts in captions.texts for text in texts)
    if saved(Path(spec)):
        encoder: Any = from_pretrained(spec, device)
        if not hasattr(encoder, "reads_texts"):
            raise ValueError(f"{spec} holds a {type(encoder).__name__}, which is not an encoder of texts")
        return encoder
    return LanguageModel.load(spec, device)


def words_of(text: str) -> list[str]:
    """Return the words of a text in small letters; punctuation is none."""
    return re.findall(r"\w+", text.lower())


def encode(
    texts: Sequence[str],
    encoder: TextEncoder,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Text:
    """Return the condition of texts, each distinct one encoded once.

    What a `costly` encoder says of them is kept in files of $NATGYM_CACHE, by default `cache`.

    Args:
        progress: called with the texts encoded and to encode, after each batch.
    """
    row_of = {text: row for row, text in enumerate(dict.fromkeys([NULL, *texts]))}
    distinct = tuple(row_of)

    @cache
    def both() -> tuple[Tensor, Tensor]:
        parts = []
        for start in range(0, len(distinct), BATCH):
            parts.append(encoder(distinct[start : start + BATCH]))
            progress(min(start + BATCH, len(distinct)), len(distinct))
        tokens, pooled = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return tokens, pooled

    if not encoder.costly:
        tokens, pooled = both()
    else:
        made_of = f"{encoder.name} {hash_of(json.dumps(distinct))}"
        path = cache_folder() / "texts" / hash_of(made_of)
        tokens = cached(path.with_suffix(".tokens.safetensors"), "tokens", made_of, lambda: both()[0])
        pooled = cached(path.with_suffix(".pooled.safetensors"), "pooled", made_of, lambda: both()[1])
    table = TextTable(tokens, pooled, distinct, encoder.name)
    return Text(table, torch.tensor([row_of[text] for text in texts], dtype=torch.long))


def encode_captions(captions: Captions, encoder: TextEncoder, owner: object) -> Text:
    """Return the condition of images' captions, of each image the first; warn of those not read in full.

    Args:
        owner: whose captions they are, for the warning.
    """
    if odd := [text for text in captions.names if encoder.complaint(text)]:
        warnings.warn(
            f"{owner}: {len(odd)} of {len(captions)} captions are not read in full, first {odd[0]!r}: "
            "they have words that training had not",
            stacklevel=4,
        )
    return encode(captions.names, encoder)


def hash_of(text: str) -> str:
    """Return 12 hexadecimal digits that name a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
