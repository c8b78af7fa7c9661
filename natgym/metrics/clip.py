"""CLIP through transformers (extra "pretrained"): the CLIP score of images and their texts (Hessel et al.
2021, arXiv 2104.08718), and images as CMMD compares them (Jayasumana et al. 2024, arXiv 2401.09603)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.conditions import Condition
from generators.others.library import library, refuse_kernels_of
from natgym.metrics.dino import prepared


class CLIP:
    """Images and texts as vectors of length 1.

    Args:
        name: of a model on the hub, or its folder.

    Raises:
        ValueError: the library is missing, or finds no such model.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        transformers = library("transformers")
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name)
            refuse_kernels_of(Path(name))
            self.model: Any = transformers.CLIPModel.from_pretrained(name, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ValueError(f"transformers finds no CLIP {name!r}: {error}") from None
        self.model.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)

    def images(self, images_BCHW: Tensor) -> Tensor:
        """Return vectors (B, P) of images in [0, 1], resized to the model's size, a square."""
        side = self.model.config.vision_config.image_size
        pixels = prepared(images_BCHW.to(self.device), (side, side), *scaling(self.device))
        return F.normalize(self.model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)

    def texts(self, texts: list[str]) -> Tensor:
        """Return vectors (B, P) of texts, cut at 77 tokens."""
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
        told = self.model.get_text_features(**tokens.to(self.device))
        return F.normalize(told.pooler_output, dim=-1)


class CLIPImages(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] -> CLIP's vectors of length 1 (B, P); it has no logits.

    CMMD is a name for ViT-L/14 at 336 pixels, `openai/clip-vit-large-patch14-336`; numbers of another one
    compare with one another alone, which the protocol's hash of the weights sees to.

    Args:
        clip: of which the part that sees is taken.
    """

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        self.vision, self.projection = clip.model.vision_model, clip.model.visual_projection
        config = clip.model.config
        self.num_features: int = config.projection_dim
        self.side: int = config.vision_config.image_size
        depth = config.vision_config.num_hidden_layers
        self.meaning = (
            f"Frechet distance in CLIP's image vectors, {depth} layers at {self.side} pixels; not the "
            "Inception FID"
        )

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, None]:
        """Return vectors; grey images become three equal channels."""
        x = prepared(images_BCHW, (self.side, self.side), *scaling(images_BCHW.device))
        return F.normalize(self.projection(self.vision(pixel_values=x).pooler_output), dim=-1), None


class CLIPScore:
    """100 times the mean cosine of images and the texts that they were drawn from, none below 0.

    A metric for `natgym.evaluate(metrics={"clip_score": lambda: CLIPScore(clip)})`.
    """

    def __init__(self, clip: CLIP) -> None:
        self.clip = clip
        self.total, self.number = 0.0, 0

    @torch.no_grad()
    def update(self, images_BCHW: Tensor, condition: Condition, features_Bd: Tensor) -> None:
        """Take a batch of images with their texts, or the names of their classes."""
        cosine_B = (self.clip.images(images_BCHW) * self.clip.texts(condition.names)).sum(-1)
        self.total += float(cosine_B.clamp_min(0).sum())
        self.number += len(cosine_B)

    def compute(self) -> float:
        return 100 * self.total / self.number


def scaling(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return OpenAI's mean and deviation of pixels, (3, 1, 1) each, which every published CLIP has."""
    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)
    both = torch.tensor([mean, std], device=device)[..., None, None]
    return both[0], both[1]
