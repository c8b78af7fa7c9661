"""NAT: the non-autoregressive transformer of AutoNAT, AdaNAT, AdaGen (a U-ViT; arXiv 2406.05478, 2409.00342).

Condition tokens stand before the visual tokens; half of the blocks store their output, a middle block
follows, the other half takes the stored outputs back last-in-first-out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.checkpoints import register
from generators.conditions import NO_LIST, Condition, ConditionEmbedding, Labels
from generators.config import CUTS
from generators.contract import Prediction
from generators.layers import Block, TokenEmbedding, TokenHead, init_weights
from generators.relations import behind, relations


@dataclass(frozen=True, kw_only=True)
class NATConfig:
    """Geometry of a NAT.

    Attributes:
        codebook_size: V; the mask token gets id V.
        grid: rows and columns of tokens.
        num_classes: for class labels, without the null class; or
        text_width: for texts, the width of the text encoder; and
        text_encoder: its name, where it has one; texts that another has encoded are refused.
        class_names: of the classes, where they have any.
        width: D, divisible by `heads`.
        depth: blocks beside the middle one, even; half of them before it.
        heads: attention heads.
        mlp_ratio: hidden width of the MLPs, in units of `width`.
        qkv_bias: bias in the query, key and value projection.
        skip: long skips between the two halves.
        dropout: on the token embeddings.
        relative: a learned bias of the attention by how two tokens lie to each other
            (`generators.relations`): "offset", or "box=RxC" of a sudoku; none by default, as in the papers.
        cut: one kind of attention to leave out, "visible-masked" where visible tokens don't read mask tokens,
            and so on (`CUTS`); none by default. Section 3 of ENAT's paper asks which kinds matter.
    """

    codebook_size: int
    grid: tuple[int, int]
    num_classes: int | None = None
    text_width: int | None = None
    text_encoder: str = ""
    class_names: tuple[str, ...] = ()
    width: int = 768
    depth: int = 24
    heads: int = 8
    mlp_ratio: float = 4.0
    qkv_bias: bool = False
    skip: bool = True
    dropout: float = 0.1
    relative: str = ""
    cut: str = ""

    def __post_init__(self) -> None:
        if self.cut and self.cut not in CUTS:
            raise ValueError(f"cut {self.cut!r} is not one of {', '.join(CUTS)}")


def reads(cut: str, masked_BL: Tensor, before: int) -> Tensor:
    """Return which tokens each token reads, (B, S + L, S + L), where one kind of attention is cut.

    Condition tokens are read by all, and don't read what the cut hides: they would carry it round.

    Args:
        cut: who doesn't read whom, of `CUTS`.
        masked_BL: which tokens are mask tokens.
        before: S condition tokens that stand before them.
    """
    reader, hidden = (masked_BL if kind == "masked" else ~masked_BL for kind in cut.split("-"))
    return ~(F.pad(reader, (before, 0), value=True)[:, :, None] & F.pad(hidden, (before, 0))[:, None, :])


@register(NATConfig)
class NAT(nn.Module):
    """Predict all tokens from the visible ones."""

    def __init__(self, config: NATConfig) -> None:
        super().__init__()
        if config.depth % 2:
            raise ValueError(
                f"depth {config.depth} is odd; NAT has depth / 2 blocks on each side of the middle one"
            )
        self.config = config
        self.codebook_size = self.mask_id = config.codebook_size
        self.grid = config.grid
        self.width = config.width
        self.num_tokens = config.grid[0] * config.grid[1]
        vocabulary = config.codebook_size + 1
        half = config.depth // 2
        ways, related_LL = relations(config.relative, config.grid)
        self.register_buffer("relations_LL", related_LL)
        self.relations_LL: Tensor | None

        def block(skip: bool = False) -> Block:
            return Block(config.width, config.heads, config.mlp_ratio, config.qkv_bias, skip, ways)

        self.token_embedding = TokenEmbedding(vocabulary, self.num_tokens, config.width, config.dropout)
        self.condition_embedding = ConditionEmbedding(config.num_classes, config.text_width, config.width)
        self.in_blocks = nn.ModuleList(block() for _ in range(half))
        self.mid_block = block()
        self.out_blocks = nn.ModuleList(block(config.skip) for _ in range(half))
        self.norm = nn.LayerNorm(config.width)
        self.head = TokenHead(vocabulary, config.width)
        self.apply(init_weights)

    def forward(self, ids_BL: Tensor, condition: Condition, cache: None = None) -> Prediction:
        """Return logits (B, L, V) and features (B, L, D); NAT reuses nothing, so `cache` stays None."""
        condition_BSD = self.condition_embedding(condition.values)
        x = torch.cat([condition_BSD, self.token_embedding(ids_BL)], dim=1)  # (B, S + L, D)
        before, cut = condition_BSD.shape[1], self.config.cut
        related = behind(self.relations_LL, before)
        read = reads(cut, ids_BL == self.mask_id, before) if cut else None
        skips = []
        for block in self.in_blocks:
            x = block(x, None, related, read)
            skips.append(x)
        x = self.mid_block(x, None, related, read)
        for block in self.out_blocks:
            x = block(x, skips.pop(), related, read)
        features_BLD = self.norm(x)[:, before:]
        return Prediction(self.head(features_BLD, self.token_embedding.word.weight), features_BLD)

    def conditions(self) -> Condition:
        """Return every class once, on the weights' device; ValueError for a text model, which has none."""
        if self.config.num_classes is None:
            raise ValueError(NO_LIST)
        return Labels.every(self.config.num_classes, self.config.class_names).to(self.head.bias.device)


def nat_digits(**overrides: Any) -> NATConfig:
    """Size the NAT of the digits task: 172 thousand parameters."""
    base: dict = dict(codebook_size=128, grid=(4, 4), num_classes=10, width=64, depth=2, heads=4)
    return NATConfig(**(base | overrides))


def nat_mnist(**overrides: Any) -> NATConfig:
    """Size the NAT of the MNIST task: 5 blocks of width 96."""
    base: dict = dict(codebook_size=256, grid=(7, 7), num_classes=10, width=96, depth=4, heads=4)
    return NATConfig(**(base | overrides))


def nat_sudoku_4(**overrides: Any) -> NATConfig:
    """Size the NAT of sudoku of side 4: 3 blocks of width 64."""
    base: dict = dict(
        codebook_size=4, grid=(4, 4), num_classes=1, width=64, depth=2, heads=4, relative="box=2x2"
    )
    return NATConfig(**(base | overrides))


def nat_sudoku_6(**overrides: Any) -> NATConfig:
    """Size the NAT of sudoku of side 6: 5 blocks of width 64."""
    return nat_sudoku_4(**(dict(codebook_size=6, grid=(6, 6), depth=4, relative="box=2x3") | overrides))


def nat_chain(**overrides: Any) -> NATConfig:
    """Size the NAT of chains of sums: 3 blocks of width 64, without dropout, which hides what is added."""
    size: dict = dict(codebook_size=5, grid=(2, 12), relative="offset", dropout=0.0)
    return nat_sudoku_4(**(size | overrides))


def nat_cifar10(**overrides: Any) -> NATConfig:
    """Size the NAT of the CIFAR-10 task: 13 blocks of width 384, for one GPU."""
    base: dict = dict(codebook_size=512, grid=(8, 8), num_classes=10, width=384, depth=12, heads=6)
    return NATConfig(**(base | overrides))


def nat_l(**overrides: Any) -> NATConfig:
    """Size NAT-L, the generator of AutoNAT-L and AdaNAT on ImageNet-256: 194 million parameters."""
    base: dict = dict(codebook_size=1024, grid=(16, 16), num_classes=1000, width=768, depth=24, heads=8)
    return NATConfig(**(base | overrides))
