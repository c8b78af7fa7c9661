"""Masked language models of transformers as generators of texts (extra "pretrained").

Each code is a token of the vocabulary. A prompt is tokens that are given (`generators.given`); the
unconditional pass is that without it, its tokens masked as the rest, as LLaDA guides (Nie et al. 2025, arXiv
2502.09992). Whatever has the surface of `AutoModelForMaskedLM`, ids to logits of every token without a causal
mask, will do as a live object: `MaskedLM.of`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generators.checkpoints import register
from generators.checks import at_least
from generators.conditions import Condition, Labels
from generators.contract import Prediction
from generators.given import DRAWN, Given
from generators.others.library import (
    Seen,
    first_line,
    geometry,
    library,
    refuse_kernels,
    refuse_kernels_of,
)
from generators.others.words import Words, WordsConfig

# Finite, since guidance takes differences; no temperature in use makes a chance of it.
FORBIDDEN = -1e4


@dataclass(frozen=True, kw_only=True)
class MaskedLMConfig:
    """Which model it is, and what it is to write.

    Attributes:
        architecture: the class of transformers.
        library: what transformers builds it by.
        grid: rows and columns of tokens that are drawn, of L in all.
        mask_token: the vocabulary's.
        before, after: tokens around those that are drawn, which are always there.
        forbidden: tokens that are never drawn.
        prompts: texts that are gone on from, each with its tokens; without any, texts are written of nothing.
    """

    architecture: str
    library: dict[str, Any]
    grid: tuple[int, int]
    mask_token: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()
    prompts: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        at_least(0, self, "mask_token")
        length = self.grid[0] * self.grid[1]
        for text, ids in self.prompts:
            if not 0 < len(ids) < length:
                raise ValueError(f"prompt {text!r} has {len(ids)} tokens; give 1 to {length - 1}")


class Prompts(Labels):
    """Prompts by number; they guide even if there is but one, since there is a pass without it."""

    @property
    def guides(self) -> bool:
        return True


@register(MaskedLMConfig)
class MaskedLM(nn.Module):
    """A masked language model by the contract of `generators.contract`.

    Features are what its last layer reads, which makes the logits.
    """

    def __init__(self, config: MaskedLMConfig, model: Any = None) -> None:
        super().__init__()
        self.config = config
        self._adopt(_built(config) if model is None else model)
        self.register_state_dict_post_hook(_untie)
        self.grid = config.grid
        self.num_tokens = config.grid[0] * config.grid[1]
        for token in (config.mask_token, *config.before, *config.after, *config.forbidden):
            if not 0 <= token < self.codebook_size:
                raise ValueError(f"token {token} is none of the {self.codebook_size} of the vocabulary")
        length = len(config.before) + self.num_tokens + len(config.after)
        room = getattr(self.model.config, "max_position_embeddings", None)
        if room is not None and length > room:
            raise ValueError(f"{length} tokens, those around included: the model reads at most {room}")
        self._forbidden_V = torch.zeros(self.codebook_size, dtype=torch.bool, device="cpu")
        self._forbidden_V[list(config.forbidden)] = True

    @classmethod
    def load(
        cls,
        folder: Path | str,
        grid: tuple[int, int],
        *,
        prompts: Sequence[str] = (),
        allowed: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> tuple[MaskedLM, Words]:
        """Read a folder of transformers, and return the generator with its tokenizer.

        Args:
            folder: with config.json, model.safetensors and a fast tokenizer.
            grid: rows and columns of tokens that are drawn, as (1, 64).
            prompts: that are gone on from.
            allowed: special tokens that may be drawn, as an end of text; all others are not.

        Raises:
            ValueError: there is no such model, it has no mask token, or a prompt is too long.
        """
        models = library("transformers")
        refuse_kernels_of(Path(folder))
        here = {"local_files_only": True, "trust_remote_code": False}
        try:
            told = models.AutoTokenizer.from_pretrained(folder, **here)
            model = models.AutoModelForMaskedLM.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, **here
            )
        except Exception as error:  # the library raises what its parts do
            line = first_line(error)
            raise ValueError(f"{folder} holds no masked language model that can be read: {line}") from None
        generator, words = cls.of(model, told, grid, prompts=prompts, allowed=allowed)
        return generator.to(device), words

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Any,
        grid: tuple[int, int],
        *,
        prompts: Sequence[str] = (),
        allowed: Sequence[str] = (),
        mask_token: int | None = None,
    ) -> tuple[MaskedLM, Words]:
        """Return generator and tokenizer of a live model and its fast tokenizer, as `load` does.

        Args:
            model: called with `input_ids` and `attention_mask`, it returns an object with `logits`, and its
                `get_output_embeddings()` is the layer that makes them. It is put into eval mode, and its
                weights need no gradient any more. Saved is one whose class is transformers' own.
            mask_token: of a tokenizer that does not know it.

        Raises:
            ValueError: the mask token or one that is allowed is not known, or a prompt is too long.
        """
        mask_token = tokenizer.mask_token_id if mask_token is None else mask_token
        if mask_token is None:
            raise ValueError("the tokenizer has no mask token; give `mask_token`, its number")
        size = model.get_output_embeddings().weight.shape[0]
        vocabulary = tokenizer.backend_tokenizer.to_str()
        words = Words(WordsConfig(codebook_size=size, grid=grid, vocabulary=vocabulary))
        if unknown := [name for name in allowed if name not in tokenizer.all_special_tokens]:
            known = ", ".join(tokenizer.all_special_tokens)
            raise ValueError(f"allowed {unknown[0]!r} is not one of the special tokens {known}")
        kept = set(tokenizer.convert_tokens_to_ids(list(allowed)))
        special = {mask_token, *tokenizer.all_special_ids, *range(len(tokenizer), size)}
        before, after = _frame(tokenizer)
        ids = words.prompts(prompts)
        config = MaskedLMConfig(
            architecture=type(model).__name__,
            # Of tied tensors each name has its own in a file (`_untie`).
            library=geometry(json.loads(model.config.to_json_string())) | {"tie_word_embeddings": False},
            grid=grid,
            mask_token=mask_token,
            before=before,
            after=after,
            forbidden=tuple(sorted(special - kept | {mask_token})),
            prompts=tuple((text, tuple(one)) for text, one in zip(prompts, ids, strict=True)),
        )
        return cls(config, model).eval().requires_grad_(False), words

    def forward(self, ids_BL: Tensor, condition: Condition, cache: None = None) -> Prediction:
        """Return logits (B, L, V) and features (B, L, D); nothing is reused, so `cache` stays None."""
        config = self.config
        hidden_BL = ids_BL == self.mask_id
        if (given_BL := condition.given_BL) is not None:
            asked_for_nothing_B = ~condition.vectors.any(1)
            hidden_BL = hidden_BL | (asked_for_nothing_B[:, None] & (given_BL >= 0))
        ids_BL = ids_BL.masked_fill(hidden_BL, config.mask_token)
        around = (ids_BL.new_tensor(ids).expand(len(ids_BL), -1) for ids in (config.before, config.after))
        before_BX, after_BY = around
        input_ids = torch.cat([before_BX, ids_BL, after_BY], dim=1)
        told = self.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))
        drawn = slice(len(config.before), len(config.before) + self.num_tokens)
        if self._forbidden_V.device != ids_BL.device:  # no buffer, which a file would have to hold
            self._forbidden_V = self._forbidden_V.to(ids_BL.device)
        logits_BLV = told.logits[:, drawn].masked_fill(self._forbidden_V, FORBIDDEN)
        return Prediction(logits_BLV, self._seen.take()[:, drawn])

    def conditions(self) -> Condition:
        """Return each prompt once, on the weights' device; without any, the one of nothing."""
        prompts, device = self.config.prompts, next(self.parameters()).device
        return (_given(prompts, self.num_tokens) if prompts else Labels.every(1)).to(device)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights; where the model is not yet anywhere, the library makes what no file holds of it."""
        found = super().load_state_dict(state_dict, strict=strict, assign=assign)
        if any(buffer.is_meta for buffer in self.buffers()):
            weights = {name.removeprefix("model."): tensor for name, tensor in state_dict.items()}
            kind, told = type(self.model), {"config": self.model.config, "state_dict": weights}
            first = next(iter(weights.values()))
            self._adopt(kind.from_pretrained(None, dtype=first.dtype, **told).to(first.device))
        return found

    def _adopt(self, model: Any) -> None:
        last = model.get_output_embeddings()
        if last is None or getattr(last, "weight", None) is None:
            raise ValueError(f"{type(model).__name__} has no output embeddings, which make logits")
        self.model = model
        self.codebook_size = self.mask_id = last.weight.shape[0]
        self.width = last.weight.shape[1]
        self._seen = Seen(last)


def prompted(texts: Sequence[str], words: Words) -> Given:
    """Return the condition of any prompts, one per row, for whatever takes a condition.

    Raises:
        ValueError: one has as many tokens as an image, or none.
    """
    ids = words.prompts(texts)
    return _given(list(zip(texts, ids, strict=True)), words.grid[0] * words.grid[1])


def _given(prompts: Sequence[tuple[str, Sequence[int]]], num_tokens: int) -> Given:
    tokens_BL = torch.full((len(prompts), num_tokens), DRAWN)
    for row, (_, ids) in enumerate(prompts):
        tokens_BL[row, : len(ids)] = torch.tensor(ids)
    return Given(Prompts.every(len(prompts), tuple(text for text, _ in prompts)), tokens_BL)


def _built(config: MaskedLMConfig) -> Any:
    """Return the model of a config, with random weights."""
    models = library("transformers")
    kind = getattr(models, config.architecture, None)
    if not (isinstance(kind, type) and issubclass(kind, models.PreTrainedModel)):
        raise ValueError(f"architecture {config.architecture!r} is no model of transformers; make it live")
    refuse_kernels(config.library, config.architecture)
    try:
        return kind(getattr(kind, "config_class").from_dict(geometry(config.library)))  # noqa: B009
    except Exception as error:  # the library raises what its parts do
        raise ValueError(f"{config.architecture} can't be built: {first_line(error)}") from None


def _untie(module: nn.Module, weights: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Give each name of tensors that the library ties a tensor of its own, as files want it."""
    seen: set[int] = set()
    for name, tensor in weights.items():
        weights[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())


def _frame(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens that a tokenizer puts before and after a text."""
    plain, framed = (tokenizer("a", add_special_tokens=add)["input_ids"] for add in (False, True))
    for at in range(len(framed) - len(plain) + 1):
        if plain and framed[at : at + len(plain)] == plain:
            return tuple(framed[:at]), tuple(framed[at + len(plain) :])
    raise ValueError("the tokenizer changes a text where it marks its ends; give a live generator instead")
