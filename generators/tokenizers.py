"""Tokenizers: images to grids of code ids and back.

The contract is `encode(images_BCHW in [0, 1]) -> ids_BL`, `decode(ids_BL) -> images_BCHW in [0, 1]`, and the
attributes `codebook_size`, `grid` (rows, columns of tokens) and `image_shape` (C, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from generators.checkpoints import register
from generators.checks import at_least
from generators.images import ImageRows, batches
from generators.room import image_rows

MOST = 200_000  # patches that k-means looks at


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


@torch.no_grad()
def encode_all(
    tokenizer: Tokenizer, images: ImageRows, device: torch.device | str, rows: int = 256
) -> Tensor:
    """Return token ids (N, L), on the images' device, of images encoded some rows at a time on another."""
    chunks = (chunk for _, chunk in batches(images, rows))
    return torch.cat([tokenizer.encode(chunk.to(device)).to(chunk.device) for chunk in chunks])


@torch.no_grad()
def decode_all(tokenizer: Tokenizer, ids_NL: Tensor, device: torch.device | str) -> Tensor:
    """Return images (N, C, H, W), on the ids' device, decoded on another, as many at once as have room."""
    chunks = ids_NL.split(image_rows(tokenizer.image_shape))
    return torch.cat([tokenizer.decode(chunk.to(device)).to(ids_NL.device) for chunk in chunks])


def refuse_other_codes(generator: Any, tokenizer: Tokenizer) -> None:
    """Raise ValueError if a generator draws other codes than the tokenizer knows, or on another grid."""
    ours, theirs = ((net.codebook_size, tuple(net.grid)) for net in (generator, tokenizer))
    if ours != theirs:
        raise ValueError(f"codes and grid: the generator has {ours}, the tokenizer {theirs}; use a pair")


def nearest(vectors_BLd: Tensor, codes_Vd: Tensor) -> Tensor:
    """Return the ids (B, L) of the nearest codes."""
    # cdist's default expands the square with matrix products, which can't tell near codes apart.
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(vectors_BLd, codes_Vd, compute_mode=exact).argmin(-1)


@dataclass(frozen=True, kw_only=True)
class PatchKMeansConfig:
    """Geometry of a patch codebook: images (channels, height, width) cut into square patches."""

    codebook_size: int
    patch: int
    image_shape: tuple[int, int, int]


@register(PatchKMeansConfig)
class PatchKMeans(nn.Module):
    """Each patch is replaced by the nearest of `codebook_size` k-means centres; for very small images."""

    def __init__(self, config: PatchKMeansConfig) -> None:
        super().__init__()
        channels, height, width = config.image_shape
        if height % config.patch or width % config.patch:
            raise ValueError(f"patch {config.patch} does not divide the image size {height} x {width}")
        self.config = config
        self.codebook_size = config.codebook_size
        self.image_shape = config.image_shape
        self.grid = height // config.patch, width // config.patch
        self.register_buffer("centers", torch.zeros(config.codebook_size, channels * config.patch**2))
        self.centers: Tensor

    @classmethod
    def fit(cls, images: ImageRows, *, patch: int, codebook_size: int, seed: int = 0) -> PatchKMeans:
        """Fit the codebook to the images' patches with scikit-learn's k-means (4 restarts); of many patches,
        to MOST of them, drawn at random. Images are read some at a time."""
        from sklearn.cluster import KMeans

        channels, height, width = images[torch.tensor([0])].shape[1:]
        shape = channels, height, width
        tokenizer = cls(PatchKMeansConfig(codebook_size=codebook_size, patch=patch, image_shape=shape))
        means = KMeans(codebook_size, n_init=4, random_state=seed).fit(tokenizer._chosen(images, seed))
        tokenizer.centers.copy_(torch.from_numpy(means.cluster_centers_))
        return tokenizer.eval()

    def _chosen(self, images: ImageRows, seed: int) -> np.ndarray:
        """Return all patches, or MOST of them, one below the other."""
        L = self.grid[0] * self.grid[1]
        total = len(images) * L
        chosen_N = np.arange(total)
        if total > MOST:
            chosen_N = np.random.default_rng(seed).choice(total, MOST, replace=False)
        image_N, place_N = np.divmod(chosen_N, L)
        patches = np.empty((len(chosen_N), self.centers.shape[1]), dtype=np.float32)
        for rows in torch.from_numpy(np.unique(image_N)).split(image_rows(self.image_shape)):
            here = (image_N >= int(rows[0])) & (image_N <= int(rows[-1]))
            patches_BLd = self._patches(images[rows]).cpu().numpy()
            patches[here] = patches_BLd[np.searchsorted(rows, image_N[here]), place_N[here]]
        return patches

    def encode(self, images_BCHW: Tensor) -> Tensor:
        return nearest(self._patches(images_BCHW), self.centers)

    def decode(self, ids_BL: Tensor) -> Tensor:
        rows, columns = self.grid
        patch = self.config.patch
        patches = self.centers[ids_BL].clamp(0, 1)
        return rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, w=columns, p=patch, q=patch)

    def _patches(self, images_BCHW: Tensor) -> Tensor:
        patch = self.config.patch
        return rearrange(images_BCHW, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


@dataclass(frozen=True, kw_only=True)
class ConvVQConfig:
    """Geometry of a convolutional tokenizer.

    Attributes:
        image_shape: (channels, height, width), each side divisible by `downsampling`.
        codebook_size: number of codes V.
        code_width: width d of a code.
        width: channels of the convolutions, a multiple of 8.
        downsampling: side of a token in pixels, a power of 2.
        blocks: residual blocks on either side of the codebook.
    """

    image_shape: tuple[int, int, int]
    codebook_size: int = 256
    code_width: int = 8
    width: int = 64
    downsampling: int = 4
    blocks: int = 2

    def __post_init__(self) -> None:
        _, height, width = self.image_shape
        if self.downsampling < 2 or self.downsampling & (self.downsampling - 1):
            raise ValueError(f"downsampling {self.downsampling} is not a power of 2 such as 2, 4, 8 or 16")
        if height % self.downsampling or width % self.downsampling:
            raise ValueError(
                f"downsampling {self.downsampling} does not divide the image size {height} x {width}"
            )
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width {self.width}: it must be a multiple of 8")
        at_least(1, self, "codebook_size", "code_width")


class Residual(nn.Module):
    """Two convolutions, each after SiLU and perhaps group norm, around which the input is carried."""

    def __init__(self, width: int, kernel: int, normed: bool) -> None:
        super().__init__()

        def layers() -> list[nn.Module]:
            norm = [nn.GroupNorm(8, width)] if normed else []
            return [*norm, nn.SiLU(), nn.Conv2d(width, width, kernel, padding=kernel // 2)]

        self.layers = nn.Sequential(*layers(), *layers())

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return x_BDHW + self.layers(x_BDHW)


@register(ConvVQConfig)
class ConvVQ(nn.Module):
    """VQ-VAE (arXiv 1711.00937): convolutions, the nearest code of each of their vectors, convolutions back.

    The encoder sees little beyond a token's own pixels and normalises nothing over the image. With a wider
    view it describes one place in the codes of another, empty regions first; the images come back a little
    better and no generator can predict their tokens. The decoder sees all it wants.

    The codebook is a plain buffer, which `generators.vq.VQTrainer` fills: nothing in here changes it.
    """

    def __init__(self, config: ConvVQConfig) -> None:
        super().__init__()
        channels, height, width = config.image_shape
        factor = config.downsampling
        self.config = config
        self.image_shape = config.image_shape
        self.codebook_size = config.codebook_size
        self.grid = (height // factor, width // factor)
        wide = config.width
        more = range(factor.bit_length() - 2)  # halvings and doublings after the first
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, wide, 4, 2, 1),
            *(nn.Sequential(nn.SiLU(), nn.Conv2d(wide, wide, 4, 2, 1)) for _ in more),
            *(Residual(wide, 1, normed=False) for _ in range(config.blocks)),
            *(nn.SiLU(), nn.Conv2d(wide, config.code_width, 1)),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.code_width, wide, 3, padding=1),
            *(Residual(wide, 3, normed=True) for _ in range(config.blocks)),
            *(nn.GroupNorm(8, wide), nn.SiLU()),
            *(nn.Sequential(nn.ConvTranspose2d(wide, wide, 4, 2, 1), nn.SiLU()) for _ in more),
            nn.ConvTranspose2d(wide, channels, 4, 2, 1),
        )
        self.register_buffer("codes", torch.zeros(config.codebook_size, config.code_width))
        self.codes: Tensor

    def vectors(self, images_BCHW: Tensor) -> Tensor:
        """Return the encoder's vectors (B, L, d), one a token, not yet replaced by codes."""
        return rearrange(self.encoder(2 * images_BCHW - 1), "b d h w -> b (h w) d")

    def pictures(self, vectors_BLd: Tensor) -> Tensor:
        """Return the decoder's images (B, C, H, W), not yet clamped to [0, 1]."""
        grid_BdHW = rearrange(vectors_BLd, "b (h w) d -> b d h w", h=self.grid[0])
        return (self.decoder(grid_BdHW) + 1) / 2

    def encode(self, images_BCHW: Tensor) -> Tensor:
        return nearest(self.vectors(images_BCHW), self.codes)

    def decode(self, ids_BL: Tensor) -> Tensor:
        return self.pictures(self.codes[ids_BL]).clamp(0, 1)
