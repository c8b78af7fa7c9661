"""ENAT: visible tokens are encoded once, mask tokens decoded against them (Ni et al. 2024, arXiv 2411.06959).

The encoder sees visible tokens only; the decoder's queries are mask tokens, its keys visible and mask tokens.
What the previous step encoded is projected and kept, so that only newly revealed tokens pass the encoder
(equation 5). Any mask per row: the linear layers work on the chosen tokens of all rows laid end to end, and
only attention pads them. Shapes: N chosen tokens of a batch, M the most in a row.

Of a text, of which no official code exists: its S tokens stand before the grid's and are always visible (the
paper concatenates them to what the encoder sees); with nothing else visible there is nothing to reuse, so
that they are encoded with the first tokens revealed, and reused like them from then on. Blocks are modulated
by their mean, where there is a class embedding else. All of this is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from generators.checkpoints import register
from generators.conditions import NO_LIST, Condition, Labels, refuse_both
from generators.contract import Prediction
from generators.layers import MLP, Recomputed, TokenEmbedding, TokenHead, plus
from generators.packing import Packing
from generators.relations import attention_mask, behind, relations


@dataclass(frozen=True, kw_only=True)
class ENATConfig:
    """Geometry of an ENAT.

    Attributes:
        codebook_size, grid: V, which is the mask token's id, and rows and columns of tokens.
        num_classes, class_names: class labels, without the null class, and what they are called, if anything;
        text_width, text_encoder: or the width of a text encoder, and its name, if it has one.
        width, heads: D, and the attention heads, which divide it.
        encoder_depth, decoder_depth: blocks for visible and for mask tokens.
        mlp_ratio: hidden width of the MLPs, in units of `width`.
        dropout: on the token embeddings.
        reproject: what is kept of an old token. True, the official code: its projected features, so that they
            are projected again at every step. False: what the encoder said, projected once whenever it is
            used, as equation 5 can also be read and as the training with one reuse has it.
        reuse: keep for the next step what was encoded; else all visible tokens are encoded anew (table 6a).
        relative: a learned bias of the attention by how two tokens lie to each other, as NAT's; ours.
    """

    codebook_size: int
    grid: tuple[int, int]
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    text_width: int | None = None
    text_encoder: str = ""
    width: int = 1024
    encoder_depth: int = 22
    decoder_depth: int = 2
    heads: int = 16
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    reproject: bool = True
    reuse: bool = True
    relative: str = ""


@dataclass(frozen=True, eq=False)
class Reuse:
    """What an ENAT has computed of the visible tokens of each row.

    Attributes:
        features_BLD: before the final norm; read where visible.
        visible_BL: the tokens that they are of.
        visible_B: how many these are, on the host.
    """

    features_BLD: Tensor
    visible_BL: Tensor
    visible_B: Tensor

    def __getitem__(self, rows: Tensor) -> Reuse:
        at = rows.to(self.visible_BL.device, non_blocking=True)
        return Reuse(self.features_BLD[at], self.visible_BL[at], self.visible_B[rows])

    def put(self, rows: Tensor, other: Reuse) -> Reuse:
        """Return a copy with `rows` replaced by `other`."""
        at = rows.to(self.visible_BL.device, non_blocking=True)
        return Reuse(
            self.features_BLD.index_copy(0, at, other.features_BLD),
            self.visible_BL.index_copy(0, at, other.visible_BL),
            self.visible_B.index_copy(0, rows, other.visible_B),
        )

    def forget(self, tokens_BL: Tensor) -> Reuse:
        """Return a copy in which these tokens (B, L) of the grid are not visible."""
        text = self.visible_BL.shape[1] - tokens_BL.shape[1]  # whose tokens stand before the grid's
        visible_BL = self.visible_BL & ~F.pad(tokens_BL, (text, 0))
        return Reuse(self.features_BLD, visible_BL, visible_BL.sum(1).cpu())


class ContextAttention(nn.Module):
    """Attention of own tokens to context and own tokens, with keys and values of their own for each kind;
    `relations` as of `generators.layers.Attention`."""

    def __init__(self, width: int, heads: int, relations: int = 0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}; change one of them")
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv_context = nn.Linear(width, 2 * width)
        self.kv_own = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.bias_HR = nn.Parameter(torch.zeros(heads, relations)) if relations else None

    def forward(
        self, x: Tensor, own: Packing, context_x: Tensor, context: Packing, related_LL: Tensor | None = None
    ) -> Tensor:
        """Map packed own tokens to their values; a row may have no token of either kind."""
        kv = own.pad(self.kv_own(x))
        if context.size:
            kv = torch.cat([context.pad(self.kv_context(context_x)), kv], dim=1)
        real = None
        if own.ragged or context.ragged:
            real = torch.cat([context.real_BM, own.real_BM], dim=1)[:, None, None]
        bias = None
        if self.bias_HR is not None and related_LL is not None:
            keys_BM = torch.cat([context.places_BM, own.places_BM] if context.size else [own.places_BM], 1)
            related_BMM = related_LL[own.places_BM[:, :, None], keys_BM[:, None]]
            bias = rearrange(self.bias_HR[:, related_BMM], "h b m n -> b h m n").to(kv.dtype)
        q = rearrange(own.pad(self.q(x)), "b m (h d) -> b h m d", h=self.heads)
        k, v = rearrange(kv, "b m (two h d) -> two b h m d", two=2, h=self.heads)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask(bias, real))
        return self.proj(own.unpad(rearrange(mixed, "b h m d -> b m (h d)")))


class ContextBlock(Recomputed):
    """DiT block (adaLN-Zero) with context: shift and scale of their own for own and context tokens."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, relations: int = 0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = ContextAttention(width, heads, relations)
        self.mlp = MLP(width, mlp_ratio, approximate="tanh")
        self.modulation = nn.Linear(width, 8 * width)

    def forward(
        self,
        x: Tensor,
        own: Packing,
        context_x: Tensor,
        context: Packing,
        condition_BD: Tensor,
        related_LL: Tensor | None = None,
    ) -> Tensor:
        """Map packed own tokens to packed own tokens."""
        parts = self.modulation(F.silu(condition_BD)).chunk(8, dim=-1)
        shift, scale, context_shift, context_scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
        if context.size:
            context_x = self._modulated(context_x, context, context_shift, context_scale)
        mixed = self.attn(self._modulated(x, own, shift, scale), own, context_x, context, related_LL)
        x = torch.addcmul(x, own.spread(gate), mixed)
        return torch.addcmul(x, own.spread(mlp_gate), self.mlp(self._modulated(x, own, mlp_shift, mlp_scale)))

    def _modulated(self, x: Tensor, packing: Packing, shift_BD: Tensor, scale_BD: Tensor) -> Tensor:
        return torch.addcmul(packing.spread(shift_BD), self.norm(x), packing.spread(1 + scale_BD))


class ReuseProjection(nn.Module):
    """The papers' f: what a kept feature becomes at the next step, x + MLP(LN(x))."""

    def __init__(self, width: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, mlp_ratio, approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        return plus(x, self.mlp(self.norm(x)))


@register(ENATConfig)
class ENAT(nn.Module):
    """Predict all tokens from the visible ones, reusing what a former pass has encoded of them."""

    def __init__(self, config: ENATConfig) -> None:
        super().__init__()
        self.config = config
        self.reuses = config.reuse
        self.codebook_size = self.mask_id = config.codebook_size
        self.grid = config.grid
        self.width = config.width
        self.num_tokens = config.grid[0] * config.grid[1]
        vocabulary = config.codebook_size + 1
        depth = config.encoder_depth + config.decoder_depth
        self.token_embedding = TokenEmbedding(vocabulary, self.num_tokens, config.width, config.dropout)
        self.condition_embedding = _condition_embedding(config)
        self.reuse_projection = ReuseProjection(config.width, config.mlp_ratio)
        ways, related_LL = relations(config.relative, config.grid)
        self.register_buffer("relations_LL", related_LL)
        self.relations_LL: Tensor | None
        self.blocks = nn.ModuleList(
            ContextBlock(config.width, config.heads, config.mlp_ratio, ways) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = TokenHead(vocabulary, config.width)
        self.apply(_init_weights)

    def forward(
        self,
        ids_BL: Tensor,
        condition: Condition,
        cache: Reuse | None = None,
        masked_B: Tensor | None = None,
    ) -> Prediction:
        """Return logits (B, L, V), features (B, L, D) and the cache for a later pass.

        Args:
            ids_BL: 0..V, of which V is the mask; any number of masks per row.
            condition: labels or texts.
            cache: of an earlier pass over the same rows, whose visible tokens are visible still.
            masked_B: how many tokens of each row are masked, on the host; without, they are counted on the
                device and copied.
        """
        condition_BD, text_BSD = self._conditioned(condition)
        length = text_BSD.shape[1]
        related = behind(self.relations_LL, length)
        embedded_BLD = torch.cat([text_BSD, self.token_embedding(ids_BL)], dim=1)
        masked_BL = F.pad(ids_BL == self.mask_id, (length, 0))
        old_BL = torch.zeros_like(masked_BL) if cache is None else cache.visible_BL & ~masked_BL
        if length and cache is not None:  # a text alone is encoded anew, with the first tokens to be revealed
            old_BL = old_BL & cache.visible_BL[:, length:].any(1, keepdim=True)
        chosen_BL = ~masked_BL, masked_BL, old_BL, ~masked_BL & ~old_BL
        counts = None if masked_B is None else _counts(masked_B, self.num_tokens, length, cache)
        visible, hidden, old, new = Packing.of(*chosen_BL, counts=counts)

        kept_BLD = features_BLD = torch.zeros_like(embedded_BLD) if cache is None else cache.features_BLD
        # What was encoded before is projected, and read by the new tokens. The next pass gets the projection,
        # or with reproject=False what the encoder said.
        old_x = old.pack(features_BLD)
        if old.size:
            old_x = self.reuse_projection(old_x)
            features_BLD = old.unpack(old_x, features_BLD)
        new_x = self._through(self._encoder, new.pack(embedded_BLD), new, old_x, old, condition_BD, related)
        features_BLD = new.unpack(new_x, features_BLD)
        kept_BLD = features_BLD if self.config.reproject else new.unpack(new_x, kept_BLD)

        visible_x = visible.pack(features_BLD)
        hidden_x = hidden.pack(embedded_BLD)
        seen = visible_x, visible, condition_BD, related
        hidden_x = self._through(self._decoder, hidden_x, hidden, *seen)
        features_BLD = self.norm(hidden.unpack(hidden_x, features_BLD)[:, length:])
        logits_BLV = self.head(features_BLD, self.token_embedding.word.weight)
        if not self.reuses:
            return Prediction(logits_BLV, features_BLD)
        reuse = Reuse(kept_BLD, ~masked_BL, torch.tensor(visible.counts_B))
        return Prediction(logits_BLV, features_BLD, reuse)

    def conditions(self) -> Condition:
        """Return every class once, on the weights' device; ValueError for a text model, which has none."""
        if self.config.num_classes is None:
            raise ValueError(NO_LIST)
        return Labels.every(self.config.num_classes, self.config.class_names).to(self.head.bias.device)

    def _conditioned(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Return what modulates the blocks (B, D), and the text's tokens (B, S, D); labels have S = 0."""
        embedded = self.condition_embedding(condition.values)
        if embedded.ndim == 2:
            return embedded, embedded[:, None][:, :0]
        return embedded.mean(1), embedded

    @property
    def _encoder(self) -> nn.ModuleList:
        return self.blocks[: self.config.encoder_depth]

    @property
    def _decoder(self) -> nn.ModuleList:
        return self.blocks[self.config.encoder_depth :]

    @staticmethod
    def _through(blocks: nn.ModuleList, x: Tensor, own: Packing, *context: Any) -> Tensor:
        """Pass packed tokens through blocks, or nothing through none of them if there is no token."""
        for block in blocks if own.size else ():
            x = block(x, own, *context)
        return x


def _condition_embedding(config: ENATConfig) -> nn.Module:
    refuse_both(config.num_classes, config.text_width)
    if config.num_classes is not None:
        return nn.Embedding(config.num_classes + 1, config.width)
    return nn.Linear(config.text_width or 0, config.width)


def _counts(masked_B: Tensor, num_tokens: int, length: int, cache: Reuse | None) -> Tensor:
    """Return how many tokens of each row are visible, masked, visible before and newly visible, (4, B).

    Args:
        length: of the text, whose tokens are visible, and before only with others.
    """
    visible_B = num_tokens + length - masked_B
    old_B = torch.zeros_like(visible_B) if cache is None else cache.visible_B
    old_B = torch.where(old_B > length, old_B, 0)
    return torch.stack([visible_B, masked_B, old_B, visible_B - old_B])


def enat_digits(**overrides: Any) -> ENATConfig:
    """Size the ENAT of the digits task: 2 + 1 blocks of width 64."""
    base: dict = dict(codebook_size=128, grid=(4, 4), num_classes=10, width=64, heads=4)
    return ENATConfig(**(base | dict(encoder_depth=2, decoder_depth=1) | overrides))


def enat_mnist(**overrides: Any) -> ENATConfig:
    """Size the ENAT of the MNIST task: 4 + 1 blocks of width 96, as many as `nat_mnist` has."""
    base: dict = dict(codebook_size=256, grid=(7, 7), num_classes=10, width=96, heads=4)
    return ENATConfig(**(base | dict(encoder_depth=4, decoder_depth=1) | overrides))


def enat_cifar10(**overrides: Any) -> ENATConfig:
    """Size the ENAT of the CIFAR-10 task: 12 + 1 blocks of width 384, for one GPU."""
    base: dict = dict(codebook_size=512, grid=(8, 8), num_classes=10, width=384, heads=6)
    return ENATConfig(**(base | dict(encoder_depth=12, decoder_depth=1) | overrides))


def enat_l(**overrides: Any) -> ENATConfig:
    """Size ENAT-L on ImageNet-256: 22 + 2 blocks of width 1024, 574 million parameters."""
    return ENATConfig(**(dict[str, Any](codebook_size=1024, grid=(16, 16), num_classes=1000) | overrides))


def enat_b(**overrides: Any) -> ENATConfig:
    """Size ENAT-B on ImageNet-256: 15 + 1 blocks of width 768, 219 million parameters."""
    return enat_l(**(dict(width=768, encoder_depth=15, decoder_depth=1, heads=8) | overrides))


def enat_s(**overrides: Any) -> ENATConfig:
    """Size ENAT-S, the ablations' model on ImageNet-256: 15 + 1 blocks of width 366."""
    return enat_l(**(dict(width=366, encoder_depth=15, decoder_depth=1, heads=6) | overrides))


def _init_weights(module: nn.Module) -> None:
    """Initialise as DiT: linear layers Xavier uniform, modulations zero, embeddings normal 0.02."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, ContextBlock):  # apply visits children first
        nn.init.zeros_(module.modulation.weight)
