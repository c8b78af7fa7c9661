"""Attention that knows how tokens lie to each other."""

import pytest
import torch
from einops import rearrange

from generators.conditions import Labels
from generators.enat import ENAT, ContextAttention, enat_digits
from generators.layers import Attention
from generators.nat import NAT, NATConfig
from generators.packing import Packing
from generators.relations import FAR, relations

GRID = (4, 6)


def test_offsets_are_what_lies_between() -> None:
    ways, related_LL = relations("offset", GRID)
    assert related_LL.shape == (24, 24) and 0 < related_LL.min() and related_LL.max() < ways
    found: dict[tuple[int, int], set[int]] = {}
    for one in range(24):
        for other in range(24):
            (row, column), (at, along) = divmod(one, 6), divmod(other, 6)
            offset = max(-FAR, min(FAR, at - row)), max(-FAR, min(FAR, along - column))
            found.setdefault(offset, set()).add(int(related_LL[one, other]))
    assert all(len(ids) == 1 for ids in found.values())
    assert len(set.union(*found.values())) == len(found)


def test_boxes_are_those_of_sudoku() -> None:
    ways, related_LL = relations("box=2x3", (6, 6))
    for one in range(36):
        for other in range(36):
            (row, column), (at, along) = divmod(one, 6), divmod(other, 6)
            box = (row // 2, column // 3) == (at // 2, along // 3)
            said = int(related_LL[one, other]) - 1
            assert [bool(said & 2**bit) for bit in range(4)] == [
                row == at,
                column == along,
                box,
                one == other,
            ]
    assert related_LL.max() < ways


def test_what_there_is_not_is_told() -> None:
    for name, said in (("boxes", "not one of offset, box=RxC"), ("box=3x3", "4 x 6 tokens can't be cut")):
        with pytest.raises(ValueError, match=said):
            relations(name, GRID)


def test_a_bias_is_added_to_the_logits_of_the_attention() -> None:
    """Against the sum written out."""
    torch.manual_seed(0)
    layer, related_LL = Attention(8, 2, relations=5), torch.randint(5, (6, 6))
    layer.bias_HR.data.normal_()  # type: ignore[union-attr]
    x_BLD = torch.randn(3, 6, 8)
    q, k, v = rearrange(layer.qkv(x_BLD), "b l (three h d) -> three b h l d", three=3, h=2)
    logits = q @ k.transpose(-1, -2) / 2 + layer.bias_HR[:, related_LL]  # type: ignore[index]
    mixed = rearrange(logits.softmax(-1) @ v, "b h l d -> b l (h d)")
    torch.testing.assert_close(layer(x_BLD, related_LL), layer.proj(mixed))


def test_a_nat_begins_as_one_without_and_learns_the_bias() -> None:
    """The bias begins at nothing, in every block, and is another one for the condition's token."""
    size = dict(codebook_size=5, grid=(2, 3), num_classes=2, width=16, depth=2, heads=2, dropout=0.0)
    plain = NAT(NATConfig(**size)).eval()  # type: ignore[arg-type]
    biased = NAT(NATConfig(**size, relative="offset")).eval()  # type: ignore[arg-type]
    missing = biased.load_state_dict(plain.state_dict(), strict=False).missing_keys
    missing.remove("relations_LL")
    assert len(missing) == 3 and all(name.endswith("bias_HR") for name in missing)
    ids, condition = torch.randint(6, (4, 6)), Labels(torch.tensor([0, 1, 1, 0]), 2)
    torch.testing.assert_close(biased(ids, condition).logits_BLV, plain(ids, condition).logits_BLV)
    biased(ids, condition).logits_BLV.square().sum().backward()
    for name in missing:
        gradient = biased.get_parameter(name).grad
        assert gradient is not None and gradient[:, 0].abs().min() > 0, "the condition's relation, too"
    blocks = [*biased.in_blocks, biased.mid_block, *biased.out_blocks]
    for block in blocks:
        before = biased(ids, condition).logits_BLV
        block.attn.bias_HR.data.normal_()
        assert not torch.allclose(before, biased(ids, condition).logits_BLV)


def test_an_enat_adds_the_bias_wherever_its_tokens_were_packed_to() -> None:
    """Row by row and token by token, with any number of own and of context tokens in a row."""
    torch.manual_seed(0)
    layer, related_LL = ContextAttention(8, 2, relations=5), torch.randint(5, (6, 6))
    layer.bias_HR.data.normal_()  # type: ignore[union-attr]
    own_BL = torch.tensor(
        [[1, 0, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]
    ).bool()
    context_BL = torch.tensor([[0, 1, 0, 0, 1, 0], [1, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [0] * 6]).bool()
    x_BLD = torch.randn(4, 6, 8)
    own, context = Packing.of(own_BL, context_BL)
    packed = layer(own.pack(x_BLD), own, context.pack(x_BLD), context, related_LL)
    found_BLD = own.unpack(packed, torch.zeros_like(x_BLD))
    for row, place in own_BL.nonzero().tolist():
        seen = [*context_BL[row].nonzero()[:, 0].tolist(), *own_BL[row].nonzero()[:, 0].tolist()]
        kinds = [layer.kv_context] * int(context_BL[row].sum()) + [layer.kv_own] * int(own_BL[row].sum())
        q = layer.q(x_BLD[row, place]).view(2, 4)
        kv = torch.stack([kind(x_BLD[row, at]) for kind, at in zip(kinds, seen, strict=True)]).view(
            -1, 2, 2, 4
        )
        bias = layer.bias_HR[:, [related_LL[place, at] for at in seen]]  # type: ignore[index]
        weights = (torch.einsum("hd,nhd->hn", q, kv[:, 0]) / 2 + bias).softmax(-1)
        mixed = torch.einsum("hn,nhd->hd", weights, kv[:, 1]).flatten()
        torch.testing.assert_close(found_BLD[row, place], layer.proj(mixed))
    packed.square().sum().backward()
    assert torch.isfinite(layer.bias_HR.grad).all() and layer.bias_HR.grad.any()  # type: ignore[union-attr]


def test_an_enat_begins_as_one_without_and_plays_each_row_as_alone() -> None:
    torch.manual_seed(0)
    size = dict(codebook_size=5, grid=(2, 3), num_classes=2, width=16, heads=2, dropout=0.0)
    plain, biased = ENAT(enat_digits(**size)).eval(), ENAT(enat_digits(**size, relative="offset")).eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    missing = biased.load_state_dict(plain.state_dict(), strict=False).missing_keys
    missing.remove("relations_LL")
    assert len(missing) == 3 and all(name.endswith("bias_HR") for name in missing)
    ids = torch.tensor([[5] * 6, [0, 5, 5, 1, 5, 5], [1, 2, 3, 4, 0, 5]])
    later = torch.where(torch.arange(6) < 4, ids.clamp_max(4), ids)  # more of each row is visible
    condition = Labels(torch.tensor([0, 1, 1]), 2)
    torch.testing.assert_close(biased(ids, condition).logits_BLV, plain(ids, condition).logits_BLV)
    for name in missing:
        biased.get_parameter(name).data.normal_()
    first = biased(ids, condition)
    then = biased(later, condition, first.cache)
    assert not torch.allclose(first.logits_BLV, plain(ids, condition).logits_BLV)
    for row in range(3):
        alone = biased(ids[[row]], condition[[row]])
        torch.testing.assert_close(alone.logits_BLV[0], first.logits_BLV[row])
        again = biased(later[[row]], condition[[row]], alone.cache)
        torch.testing.assert_close(again.logits_BLV[0], then.logits_BLV[row])
    then.logits_BLV.square().sum().backward()
    for name in missing:
        assert torch.isfinite(biased.get_parameter(name).grad).all()  # type: ignore[arg-type]
