"""Pretrained encoders of images by name or local path: models of timm (DINO and others).

They need the extra `pretrained`. Weights are read as safetensors, and no code of a checkpoint is run. A name
is fetched by the library that owns it; a local path needs no network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generators.others.library import library
from natgym.metrics.dino import prepared


class ImageEncoder:
    """A timm model without its head.

    Args:
        name: of a model, such as vit_base_patch16_224.dino, or a folder as timm.models.save_for_hf writes it
            (config.json, model.safetensors).

    Raises:
        ValueError: the library is missing, or has no such model.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        timm = library("timm")
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


def weights_stamp(encoder: str) -> dict[str, list[int]]:
    """Return size and time of the weights of "library:FOLDER", so that a cache notices others; or nothing."""
    weights = Path(encoder.partition(":")[2], "model.safetensors")
    if not (":" in encoder and weights.is_file()):
        return {}
    return {"weights": [weights.stat().st_size, weights.stat().st_mtime_ns]}
