"""A NAT without one kind of attention, and an ENAT that reuses nothing, against slower routes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from generators.checkpoints import from_pretrained, save_pretrained
from generators.conditions import Labels
from generators.config import CUTS
from generators.decoding import advance, start
from generators.enat import ENAT, enat_digits
from generators.nat import NAT, nat_digits, reads
from generators.noise import HashNoise
from generators.schedules import DecodeParams, reference
from rounding import assert_rounded

B, L, MASK = 5, 16, 128


def spread(model: Any) -> Any:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def some_masked() -> tuple[Tensor, Labels]:
    generator = torch.Generator().manual_seed(1)
    ids_BL = torch.randint(MASK, (B, L), generator=generator)
    order_BL = torch.rand(B, L, generator=generator).argsort(1)
    return ids_BL.masked_fill(order_BL < torch.tensor([[3], [8], [12], [5], [15]]), MASK), Labels(
        torch.arange(B), 10
    )


@pytest.mark.parametrize("cut", CUTS)
def test_who_reads_whom(cut: str) -> None:
    ids_BL, _ = some_masked()
    masked_BL, before = ids_BL == MASK, 2
    found_BLL = reads(cut, masked_BL, before)
    reader, hidden = cut.split("-")
    for row in range(B):
        kinds = ["condition"] * before + ["masked" if masked else "visible" for masked in masked_BL[row]]
        for here, kind in enumerate(kinds):
            for there, other in enumerate(kinds):
                expected = not (other == hidden and kind in (reader, "condition"))
                assert found_BLL[row, here, there] == expected, (kind, other)
    assert found_BLL.any(-1).all(), "nobody is left without anything to read"


@pytest.mark.parametrize(("cut", "kind"), [("visible-masked", "visible"), ("masked-visible", "masked")])
@pytest.mark.parametrize("relative", ["", "offset"])
def test_what_is_cut_might_as_well_not_be_there(cut: str, kind: str, relative: str) -> None:
    """The readers' features are those of a sequence from which what they don't read was taken out."""
    model = spread(NAT(nat_digits(cut=cut, relative=relative)))
    ids_BL, condition = some_masked()
    features_BLD = model(ids_BL, condition).features_BLD
    for row in range(B):
        masked_L = ids_BL[row] == MASK
        kept = (masked_L if kind == "masked" else ~masked_L).nonzero()[:, 0]
        embedded = model.token_embedding(ids_BL[row : row + 1])[:, kept]
        x = torch.cat([model.condition_embedding(condition[row : row + 1].values), embedded], dim=1)
        related = None
        if model.relations_LL is not None:
            related = torch.nn.functional.pad(model.relations_LL[kept][:, kept], (1, 0, 1, 0))
        skips = []
        for block in model.in_blocks:
            x = block(x, None, related)
            skips.append(x)
        x = model.mid_block(x, None, related)
        for block in model.out_blocks:
            x = block(x, skips.pop(), related)
        assert_rounded(features_BLD[row, kept], model.norm(x)[0, 1:])
    whole = spread(NAT(nat_digits(relative=relative)))(ids_BL, condition).features_BLD
    assert not torch.allclose(whole, features_BLD, atol=1e-2), "the cut changes something"


def test_a_cut_is_saved_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    model = spread(NAT(nat_digits(cut="masked-visible")))
    save_pretrained(model, tmp_path / "nat")
    ids_BL, condition = some_masked()
    assert torch.equal(
        from_pretrained(tmp_path / "nat")(ids_BL, condition).logits_BLV, model(ids_BL, condition).logits_BLV
    )
    with pytest.raises(ValueError, match="cut 'both' is not one of visible-masked, "):
        nat_digits(cut="both")


@torch.no_grad()
def test_an_enat_without_reuse_decodes_as_if_each_step_were_the_first() -> None:
    reusing, anew = spread(ENAT(enat_digits())), spread(ENAT(enat_digits(reuse=False)))
    condition, table_T4 = Labels(torch.arange(B), 10), reference(4).table_T4
    state = start(anew, condition, steps=4)
    assert state.prediction is not None and state.prediction.cache is None
    for table_4 in table_T4[:-1]:
        params = DecodeParams.from_table(table_4.expand(B, 4))
        state = advance(anew, state, params, HashNoise(torch.arange(B)))
        expected = reusing(state.ids_BL, condition)
        assert state.prediction is not None and state.null_cache is None
        assert_rounded(state.prediction.features_BLD, expected.features_BLD)
    assert (state.ids_BL != MASK).any() and expected.cache is not None
