"""Layers shared by the generators: attention, MLP, pre-norm block, BERT-like embedding, tied token head.

Shapes: B images, L tokens, D width, H heads, V codes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from generators.relations import attention_mask


def plus(x: Tensor, fresh: Tensor) -> Tensor:
    """Return x + fresh, in the memory of `fresh`, a layer's output that nobody else reads.

    On a CPU the system gives large new tensors page by page, which costs more than the sum itself.
    """
    return fresh.add_(x) if fresh.dtype == x.dtype else x + fresh  # they differ under autocast


def gelu(fresh: Tensor, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """Return the GELU, exact or by its tanh approximation, like `plus` in the memory of `fresh`."""
    if fresh.requires_grad:  # its gradient needs what went in
        return F.gelu(fresh, approximate=approximate)
    return torch.ops.aten.gelu_(fresh, approximate=approximate)


class Attention(nn.Module):
    """Multi-head self-attention with one projection for query, key and value.

    Args:
        relations: how many ways there are in which one token may lie to another, each with a learned bias
            of its own on the logits of every head; 0 for none.
    """

    def __init__(self, width: int, heads: int, qkv_bias: bool = False, relations: int = 0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}; change one of them")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)
        self.bias_HR = nn.Parameter(torch.zeros(heads, relations)) if relations else None

    def forward(
        self, x_BLD: Tensor, relations_LL: Tensor | None = None, reads_BLL: Tensor | None = None
    ) -> Tensor:
        """Attend; `relations_LL` says how each two tokens lie to each other, in 0..relations-1, and
        `reads_BLL` (bool) which of them each token reads, at least one; by default all."""
        q, k, v = rearrange(self.qkv(x_BLD), "b l (three h d) -> three b h l d", three=3, h=self.heads)
        bias_HLL = None
        if self.bias_HR is not None and relations_LL is not None:
            bias_HLL = self.bias_HR[:, relations_LL].to(q.dtype)
        reads_B1LL = None if reads_BLL is None else reads_BLL[:, None]
        mask = attention_mask(bias_HLL, reads_B1LL)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(rearrange(mixed, "b h l d -> b l (h d)"))


class MLP(nn.Module):
    """Two linear layers with a GELU between them, exact or by its tanh approximation."""

    def __init__(self, width: int, ratio: float = 4.0, approximate: Literal["none", "tanh"] = "none") -> None:
        super().__init__()
        self.approximate = approximate
        self.fc1 = nn.Linear(width, int(width * ratio))
        self.fc2 = nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x), self.approximate))


class Recomputed(nn.Module):
    """A module that may keep its inputs alone for the gradient: all within is then computed again.

    Attributes:
        recompute: whether it does; results are the same.
    """

    recompute = False

    def __call__(self, *inputs: Any) -> Any:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *inputs, use_reentrant=False)
        return super().__call__(*inputs)


class Block(Recomputed):
    """Pre-norm transformer block; with `skip`, U-ViT's projection of [x, skip] first (Bao et al. 2023)."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        skip: bool = False,
        relations: int = 0,
    ) -> None:
        super().__init__()
        self.skip_linear = nn.Linear(2 * width, width) if skip else None
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, qkv_bias, relations)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, mlp_ratio)

    def forward(
        self,
        x_BLD: Tensor,
        skip_BLD: Tensor | None = None,
        relations_LL: Tensor | None = None,
        reads_BLL: Tensor | None = None,
    ) -> Tensor:
        if self.skip_linear is not None and skip_BLD is not None:
            x_BLD = self.skip_linear(torch.cat([x_BLD, skip_BLD], dim=-1))
        x_BLD = plus(x_BLD, self.attn(self.norm1(x_BLD), relations_LL, reads_BLL))
        return plus(x_BLD, self.mlp(self.norm2(x_BLD)))


class TokenEmbedding(nn.Module):
    """BERT-style embedding: word plus learned position, LayerNorm, dropout."""

    def __init__(self, vocabulary: int, num_tokens: int, width: int, dropout: float) -> None:
        super().__init__()
        self.word = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(num_tokens, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids_BL: Tensor) -> Tensor:
        return self.dropout(self.norm(plus(self.position.weight, self.word(ids_BL))))


class TokenHead(nn.Module):
    """Logits over the codes by product with the embedding table.

    The table is detached, as upstream: it learns from the input side only. Its last row, the mask token, is
    never predicted and not computed.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(1, 1, vocabulary))

    def forward(self, features_BLD: Tensor, table_VD: Tensor) -> Tensor:
        hidden = self.norm(gelu(self.fc(features_BLD)))
        return plus(self.bias[..., :-1], hidden @ table_VD[:-1].detach().T)


def init_weights(module: nn.Module) -> None:
    """U-ViT's initialisation: linear layers truncated normal 0.02 with zero bias, embeddings normal 0.02."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
