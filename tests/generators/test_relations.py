"""Attention that knows how tokens lie to each other."""

import pytest
import torch
from einops import rearrange

from generators.conditions import Labels
from generators.layers import Attention
from generators.nat import NAT, NATConfig
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
