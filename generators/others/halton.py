"""Halton-MaskGIT (Besnier et al. 2025, arXiv 2503.17076): the network whose weights its authors published.

A DiT: every block is modulated by the class alone, a register token stands behind the grid's, attention
normalizes queries and keys over the whole width, MLPs are gated. Its logits are products with the table of
tokens. Written from the public description of its state dict; not compared with the published weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from generators.checkpoints import register
from generators.checks import at_least
from generators.conditions import Condition, Labels
from generators.contract import Prediction

EPS = 1e-5  # of all its norms
MULTIPLE = 256  # that the width of its MLPs is rounded up to


@dataclass(frozen=True, kw_only=True)
class HaltonMaskGITConfig:
    """Geometry of a Halton-MaskGIT.

    Attributes:
        codebook_size: V; the mask token gets id V.
        grid: rows and columns of tokens.
        num_classes: without the null class.
        class_names: of the classes, where they have any.
        width: D, divisible by `heads`.
        depth: blocks.
        heads: attention heads.
        mlp_width: hidden width of the MLPs.
        registers: tokens beside the grid's, which nothing is read from.
    """

    codebook_size: int
    grid: tuple[int, int]
    num_classes: int
    class_names: tuple[str, ...] = ()
    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_width: int = 2816
    registers: int = 1

    def __post_init__(self) -> None:
        at_least(1, self, "codebook_size", "num_classes", "width", "heads", "mlp_width")
        at_least(0, self, "depth", "registers")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}; change one of them")


class GatedBlock(nn.Module):
    """Attention and a gated MLP, each shifted, scaled and weighed by the condition."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.norm1 = nn.RMSNorm(width, EPS)
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.norm2 = nn.RMSNorm(width, EPS)
        self.up, self.gate = (nn.Linear(width, mlp_width, bias=False) for _ in range(2))
        self.down = nn.Linear(mlp_width, width, bias=False)

    def forward(self, x_BLD: Tensor, condition_BD: Tensor) -> Tensor:
        modulation_B1D = self.modulation(F.silu(condition_BD))[:, None]
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation_B1D.chunk(6, dim=-1)
        x_BLD = x_BLD + gate1 * self._attend(self.norm1(x_BLD) * (1 + scale1) + shift1)
        y_BLD = self.norm2(x_BLD) * (1 + scale2) + shift2
        return x_BLD + gate2 * self.down(F.silu(self.up(y_BLD)) * self.gate(y_BLD))

    def _attend(self, x_BLD: Tensor) -> Tensor:
        q, k = (F.rms_norm(layer(x_BLD), x_BLD.shape[-1:], eps=EPS) for layer in (self.q, self.k))
        q, k, v = (rearrange(y, "b l (h d) -> b h l d", h=self.heads) for y in (q, k, self.v(x_BLD)))
        return self.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)"))


@register(HaltonMaskGITConfig)
class HaltonMaskGIT(nn.Module):
    """Predict all tokens from the visible ones and a class."""

    def __init__(self, config: HaltonMaskGITConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size = self.mask_id = config.codebook_size
        self.grid = config.grid
        self.width = width = config.width
        self.num_tokens = config.grid[0] * config.grid[1]
        self.token = nn.Embedding(config.codebook_size + 1, width)
        self.position = nn.Embedding(self.num_tokens, width)
        self.condition = nn.Embedding(config.num_classes + 1, width)
        self.register_token = nn.Embedding(config.registers, width)
        self.blocks = nn.ModuleList(
            GatedBlock(width, config.heads, config.mlp_width) for _ in range(config.depth)
        )
        self.norm = nn.RMSNorm(width, EPS)
        self.norm_bias = nn.Parameter(torch.zeros(width))
        self.modulation = nn.Linear(width, 2 * width)
        self.head_bias = nn.Parameter(torch.zeros(config.codebook_size + 1))

    def forward(self, ids_BL: Tensor, condition: Condition, cache: None = None) -> Prediction:
        """Return logits (B, L, V) and features (B, L, D); it reuses nothing, so `cache` stays None."""
        condition_BD = self.condition(condition.values)
        registers_BRD = self.register_token.weight.expand(len(ids_BL), -1, -1)
        x = torch.cat([self.token(ids_BL) + self.position.weight, registers_BRD], dim=1)
        for block in self.blocks:
            x = block(x, condition_BD)
        shift_B1D, scale_B1D = self.modulation(F.silu(condition_BD))[:, None].chunk(2, dim=-1)
        normed_BLD = self.norm(x[:, : self.num_tokens]) + self.norm_bias
        features_BLD = normed_BLD * (1 + scale_B1D) + shift_B1D
        # The mask token has a row in the table, too, and is never predicted.
        logits_BLV = F.linear(features_BLD, self.token.weight[:-1], self.head_bias[:-1])
        return Prediction(logits_BLV, features_BLD)

    def conditions(self) -> Condition:
        """Return every class once, on the weights' device."""
        config = self.config
        return Labels.every(config.num_classes, config.class_names).to(self.head_bias.device)


def halton_large(**overrides: Any) -> HaltonMaskGITConfig:
    """Size the published network, of 384 x 384 pixels of ImageNet: 480 million parameters."""
    base: dict = dict(codebook_size=16_384, grid=(24, 24), num_classes=1000)
    return HaltonMaskGITConfig(**(base | overrides))
