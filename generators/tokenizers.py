"""Tokenizers: pictures to grids of code ids and back.

The contract is `encode(images_BCHW in [0, 1]) -> ids_BL`, `decode(ids_BL) -> images_BCHW in [0, 1]`, and the
attributes `codebook_size`, `grid` (rows, columns of tokens) and `image_shape` (C, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from generators.checkpoints import register


class Tokenizer(Protocol):
    """What environment, training and evaluation ask of a tokenizer."""

    codebook_size: int
    grid: tuple[int, int]
    image_shape: tuple[int, int, int]

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Return ids (B, L) in 0..codebook_size-1."""
        ...

    def decode(self, ids_BL: Tensor) -> Tensor:
        """Return images (B, C, H, W) in [0, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class PatchKMeansConfig:
    """Geometry of a patch codebook: images (channels, height, width) cut into square patches."""

    codebook_size: int
    patch: int
    image_shape: tuple[int, int, int]


@register(PatchKMeansConfig)
class PatchKMeans(nn.Module):
    """Each patch is replaced by the nearest of `codebook_size` k-means centres; for very small pictures."""

    def __init__(self, config: PatchKMeansConfig) -> None:
        super().__init__()
        channels, height, width = config.image_shape
        if height % config.patch or width % config.patch:
            raise ValueError(f"patch {config.patch} does not divide the image size {height} x {width}")
        self.config = config
        self.codebook_size, self.image_shape = config.codebook_size, config.image_shape
        self.grid = height // config.patch, width // config.patch
        self.register_buffer("centers", torch.zeros(config.codebook_size, channels * config.patch**2))
        self.centers: Tensor

    @classmethod
    def fit(cls, images_NCHW: Tensor, *, patch: int, codebook_size: int, seed: int = 0) -> PatchKMeans:
        """Fit the codebook to the patches of `images_NCHW` with scikit-learn's k-means (4 restarts)."""
        from sklearn.cluster import KMeans

        _, channels, height, width = images_NCHW.shape
        shape = channels, height, width
        tokenizer = cls(PatchKMeansConfig(codebook_size=codebook_size, patch=patch, image_shape=shape))
        patches = tokenizer._patches(images_NCHW).flatten(0, 1).numpy()
        means = KMeans(codebook_size, n_init=4, random_state=seed).fit(patches)
        tokenizer.centers.copy_(torch.from_numpy(means.cluster_centers_))
        return tokenizer.eval()

    def encode(self, images_BCHW: Tensor) -> Tensor:
        # cdist's default expands the square with matrix products, which can't tell near centres apart.
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(self._patches(images_BCHW), self.centers, compute_mode=exact).argmin(-1)

    def decode(self, ids_BL: Tensor) -> Tensor:
        (rows, columns), patch = self.grid, self.config.patch
        patches = self.centers[ids_BL].clamp(0, 1)
        return rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, w=columns, p=patch, q=patch)

    def _patches(self, images_BCHW: Tensor) -> Tensor:
        patch = self.config.patch
        return rearrange(images_BCHW, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)
