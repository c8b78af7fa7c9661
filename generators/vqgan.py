"""The f16 VQGAN of the official checkpoints: MaskGIT's tokenizer (Chang et al. 2022), in MAGE's weights.

Not the VQGAN of Esser et al. in some details: average pooling, no attention, no convolution beside the
codebook, and a shortcut that projects the branch instead of the input. Shapes: E code width, h and w grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from generators.checkpoints import register

GROUPS = 32
ROWS_AT_ONCE = 16384  # latents compared with the codebook at once: 64 MiB of distances for 1024 codes


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """Geometry of a VQGAN.

    Attributes:
        codebook_size: V.
        code_width: E, channels of a code.
        image_shape: (channels, height, width), the sides divisible by the factor 2^(levels - 1).
        width: channels of the finest level, divisible by 32.
        width_multipliers: channels of each level, from fine to coarse, in units of `width`.
        blocks: residual blocks per level.
    """

    codebook_size: int
    code_width: int
    image_shape: tuple[int, int, int]
    width: int = 128
    width_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2

    @property
    def factor(self) -> int:
        """Pixels per token and side."""
        return 2 ** (len(self.width_multipliers) - 1)


class ResidualBlock(nn.Module):
    """Two times norm, swish, 3x3 convolution; where the channels change, the branch itself is projected."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(outputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv1(F.silu(self.norm1(x)))
        branch = self.conv2(F.silu(self.norm2(branch)))
        return branch + (x if self.shortcut is None else self.shortcut(branch))


class Encoder(nn.Module):
    """Images (B, C, H, W) to latents (B, E, h, w), halving the sides between levels."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.width_multipliers]
        inputs = [config.width, *widths[:-1]]
        self.conv_in = nn.Conv2d(config.image_shape[0], config.width, 3, padding=1, bias=False)
        self.levels = nn.ModuleList(map(_level, inputs, widths, [config.blocks] * len(widths)))
        self.middle = _level(widths[-1], widths[-1], 2)
        self.norm = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.code_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.levels[0](self.conv_in(x))
        for level in self.levels[1:]:
            x = level(F.avg_pool2d(x, 2))
        return self.conv_out(F.silu(self.norm(self.middle(x))))


class Decoder(nn.Module):
    """Codes (B, E, h, w) to images (B, C, H, W); levels, from fine to coarse, run backwards."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.width_multipliers]
        inputs = [*widths[1:], widths[-1]]
        self.conv_in = nn.Conv2d(config.code_width, widths[-1], 3, padding=1)
        self.middle = _level(widths[-1], widths[-1], 2)
        self.levels = nn.ModuleList(map(_level, inputs, widths, [config.blocks] * len(widths)))
        self.upsample = nn.ModuleList([nn.Identity(), *map(_upsample, widths[1:])])  # after each level
        self.norm = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.image_shape[0], 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.conv_in(x))
        for level, upsample in zip(reversed(self.levels), reversed(self.upsample), strict=True):
            x = upsample(level(x))
        return self.conv_out(F.silu(self.norm(x)))


@register(VQGANConfig)
class VQGAN(nn.Module):
    """Tokenizer of images in [0, 1]; all but `decode`, which needs a grid, works at any size."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size = config.codebook_size
        self.image_shape = config.image_shape
        self.grid = self._grid(*config.image_shape[1:])
        if config.width % GROUPS:
            raise ValueError(f"width {config.width} is not divisible by the {GROUPS} groups of the norms")
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.codebook = nn.Embedding(config.codebook_size, config.code_width)

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Return the nearest code of each latent, (B, h w); any sides that the factor divides."""
        latents = rearrange(self.latents(images_BCHW), "b e h w -> b (h w) e")
        # As in PatchKMeans: distances by matrix products could not tell near codes apart.
        exact = "donot_use_mm_for_euclid_dist"
        codes = self.codebook.weight.float()
        nearest = [
            torch.cdist(rows, codes, compute_mode=exact).argmin(-1)
            for rows in latents.float().flatten(0, 1).split(ROWS_AT_ONCE)
        ]
        return torch.cat(nearest).view(latents.shape[:2])

    def decode(self, ids_BL: Tensor) -> Tensor:
        """Return the images (B, C, H, W) of the configured grid in [0, 1]."""
        if ids_BL.shape[-1] != self.grid[0] * self.grid[1]:
            raise ValueError(
                f"{ids_BL.shape[-1]} tokens don't fill a grid of {self.grid[0]} x {self.grid[1]}"
            )
        return self.paint(ids_BL.view(-1, *self.grid)).clamp(0, 1)

    def latents(self, images_BCHW: Tensor) -> Tensor:
        """Return what is about to be quantized, (B, E, h, w)."""
        self._grid(*images_BCHW.shape[-2:])
        return self.encoder(images_BCHW)

    def paint(self, ids_Bhw: Tensor) -> Tensor:
        """Return images before they are clamped to [0, 1], from a grid of any size."""
        return self.decoder(rearrange(self.codebook(ids_Bhw), "b h w e -> b e h w"))

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        factor = self.config.factor
        if height % factor or width % factor:
            raise ValueError(f"{height} x {width} pixels are not divisible by the {factor} of a token")
        return height // factor, width // factor


def vqgan_f16(**overrides: int | tuple[int, ...]) -> VQGANConfig:
    """Size the tokenizer of AutoNAT, AdaNAT and ENAT on ImageNet-256: 55 million parameters."""
    base: dict = dict(codebook_size=1024, code_width=256, image_shape=(3, 256, 256))
    return VQGANConfig(**(base | overrides))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def _level(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(outputs if block else inputs, outputs) for block in range(blocks)))


def _upsample(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1))
