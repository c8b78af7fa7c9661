"""ENAT with texts: against a loop over samples and tokens, ragged, reusing, and guided by the empty text."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from generators.decoding import advance, start
from generators.enat import ENAT, enat_digits
from generators.first_pass import FirstPass
from generators.noise import HashNoise
from generators.rules import DecodeRules
from generators.schedules import DecodeParams
from generators.texts import Text
from rounding import assert_rounded

B, L, S, E, MASK = 5, 16, 4, 6, 128


@pytest.fixture(scope="module")
def model() -> ENAT:
    torch.manual_seed(0)
    model = ENAT(enat_digits(num_classes=None, text_width=E)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.requires_grad_(False)


def texts(num_rows: int = B) -> Text:
    random = torch.Generator().manual_seed(1)
    tokens_BSE = torch.randn(num_rows, S, E, generator=random)
    return Text.of(tokens_BSE, torch.randn(S, E, generator=random), [f"text {i}" for i in range(num_rows)])


def ragged_ids() -> Tensor:
    random = torch.Generator().manual_seed(2)
    ids_BL = torch.randint(MASK, (B, L), generator=random)
    order_BL = torch.rand(B, L, generator=random).argsort(1)
    return ids_BL.masked_fill(order_BL < torch.tensor([0, L, 3, 9, 15])[:, None], MASK)


def attended(block: Any, own_MD: Tensor, context_ND: Tensor, condition_D: Tensor) -> Tensor:
    """One block on the tokens of one sample, head by head."""
    D = own_MD.shape[-1]
    shift, scale, c_shift, c_scale, gate, m_shift, m_scale, m_gate = block.modulation(
        F.silu(condition_D)
    ).chunk(8)

    def normed(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(x, (D,), eps=1e-6) * (1 + scale) + shift

    x = normed(own_MD, scale, shift)
    pairs = [block.attn.kv_context(normed(context_ND, c_scale, c_shift))] if len(context_ND) else []
    k, v = torch.cat([*pairs, block.attn.kv_own(x)]).chunk(2, dim=-1)
    q, heads, width = block.attn.q(x), block.attn.heads, D // block.attn.heads
    mixed = torch.empty_like(x)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        weights = (q[:, part] @ k[:, part].T / width**0.5).softmax(-1)
        mixed[:, part] = weights @ v[:, part]
    own_MD = own_MD + gate * block.attn.proj(mixed)
    return own_MD + m_gate * block.mlp(normed(own_MD, m_scale, m_shift))


def slowly(model: ENAT, earlier_L: Tensor | None, ids_L: Tensor, tokens_SE: Tensor) -> Tensor:
    """Logits of one sample: the text is encoded with what is visible first, and reused like it.

    A state with nothing visible but the text is the same as none.
    """
    if earlier_L is not None and bool((earlier_L == MASK).all()):
        earlier_L = None
    text_SD = model.condition_embedding(tokens_SE)
    condition_D = sum(text_SD) / S
    embedded_LD = model.token_embedding(ids_L[None])[0]
    sequence = torch.cat([text_SD, embedded_LD])
    masked = [False] * S + (ids_L == MASK).tolist()
    none = sequence[:0]
    before = [False] * (S + L)
    features: dict[int, Tensor] = {}
    if earlier_L is not None:
        before = [True] * S + (earlier_L != MASK).tolist()
        first = [place for place in range(S + L) if before[place]]
        x = sequence[first]
        for block in model._encoder:
            x = attended(block, x, none, condition_D)
        features |= {place: model.reuse_projection(one) for place, one in zip(first, x, strict=True)}
    old = torch.stack([features[place] for place in sorted(features)]) if features else none
    new = [place for place in range(S + L) if not masked[place] and not before[place]]
    x = sequence[new]
    for block in model._encoder if new else ():
        x = attended(block, x, old, condition_D)
    features |= dict(zip(new, x, strict=True))
    visible = torch.stack([features[place] for place in sorted(features)])
    hidden = [place for place in range(S + L) if masked[place]]
    x = sequence[hidden]
    for block in model._decoder if hidden else ():
        x = attended(block, x, visible, condition_D)
    features |= dict(zip(hidden, x, strict=True))
    of_grid = torch.stack([features[place] for place in range(S, S + L)])
    return model.head(model.norm(of_grid)[None], model.token_embedding.word.weight)[0]


def test_a_text_is_encoded_with_what_is_visible_as_in_a_loop(model: ENAT) -> None:
    ids_BL, condition = ragged_ids(), texts()
    logits_BLV = model(ids_BL, condition).logits_BLV
    for row in range(B):
        assert_rounded(logits_BLV[row], slowly(model, None, ids_BL[row], condition.values[row]))


def test_a_text_is_reused_as_in_a_loop(model: ENAT) -> None:
    now_BL, condition = ragged_ids(), texts()
    earlier_BL = now_BL.masked_fill(torch.arange(L) % 3 > 0, MASK)
    earlier_BL[2] = MASK  # as a training without reuse has it
    cache = model(earlier_BL, condition).cache
    logits_BLV = model(now_BL, condition, cache).logits_BLV
    for row in range(B):
        expected = slowly(model, earlier_BL[row], now_BL[row], condition.values[row])
        assert_rounded(logits_BLV[row], expected)
    assert_rounded(logits_BLV[2], model(now_BL[2:3], condition[2:3]).logits_BLV[0])
    assert cache.visible_B.tolist() == (S + (earlier_BL != MASK).sum(1)).tolist()


def test_sizes_told_and_sizes_counted_are_the_same(model: ENAT) -> None:
    ids_BL, condition = ragged_ids(), texts()
    counted = model(ids_BL, condition)
    told = model(ids_BL, condition, None, (ids_BL == MASK).sum(1))
    assert torch.equal(counted.logits_BLV, told.logits_BLV)
    later_BL = torch.where(torch.arange(L) < 9, ids_BL % MASK, ids_BL)  # more is visible
    again = model(later_BL, condition, counted.cache, (later_BL == MASK).sum(1))
    assert torch.equal(again.logits_BLV, model(later_BL, condition, counted.cache).logits_BLV)


def test_ragged_guided_decoding_is_one_by_one(model: ENAT) -> None:
    """Own ratios, temperatures and guidance per row, both streams reusing."""
    table = torch.rand(4, B, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    scale = (3 * table[..., 3] - 1).clamp_min(0)
    tables = torch.stack([table[..., 0], 2 * table[..., 1], 0.5 + table[..., 2], scale], dim=-1)

    def decode(rows: list[int], first_pass: FirstPass | None = None) -> Any:
        noise = HashNoise(100 + torch.tensor(rows))
        state = start(model, texts()[rows], steps=4, first_pass=first_pass)
        for table_B4 in tables[:, rows]:
            state = advance(model, state, DecodeParams.from_table(table_B4), noise, rules=DecodeRules())
        return state

    together = decode(list(range(B)))
    kept = FirstPass(model)
    for first_pass in (None, kept, kept):
        again = decode(list(range(B)), first_pass)
        assert torch.equal(again.ids_BL, together.ids_BL), "each row its own text, whatever is kept"
    for row in range(B):
        alone = decode([row])
        assert torch.equal(together.ids_BL[row], alone.ids_BL[0]) and together.nfe_B[row] == alone.nfe_B[0]


def test_it_reads_classes_or_texts() -> None:
    for wrong in ({"num_classes": None}, {"text_width": 3}):
        with pytest.raises(ValueError, match="give exactly one of the two"):
            ENAT(enat_digits(**wrong))
    with pytest.raises(ValueError, match="has no list of conditions"):
        ENAT(enat_digits(num_classes=None, text_width=E)).conditions()
