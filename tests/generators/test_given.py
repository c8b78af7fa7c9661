"""Given tokens: they never change, a row does not feel another, and a slow loop draws the same."""

from typing import Any

import pytest
import torch
from torch import Tensor

from generators.conditions import Labels
from generators.decoding import DecodeState, advance, start
from generators.enat import ENAT, enat_digits
from generators.first_pass import FirstPass
from generators.given import DRAWN, Given, give, hidden_pixels, hidden_region
from generators.nat import NAT, nat_digits
from generators.noise import HashNoise
from generators.parts import Parts
from generators.rules import DecodeRules
from generators.schedules import DecodeParams, as_schedule
from rounding import assert_rounded

B, L, T, V = 6, 16, 4, 128


@pytest.fixture(params=["nat", "enat"], scope="module")
def generator(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    network = NAT(nat_digits()) if request.param == "nat" else ENAT(enat_digits())
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def given() -> Given:
    """Rows that give nothing, one, half, all but one, all, and others again."""
    ids_BL = torch.randint(V, (B, L), generator=torch.Generator().manual_seed(1))
    shuffled_BL = torch.rand(B, L, generator=torch.Generator().manual_seed(2)).argsort(1)
    hidden_BL = shuffled_BL < L // 2
    hidden_BL[0], hidden_BL[1] = True, torch.arange(L) > 0
    hidden_BL[3], hidden_BL[4] = torch.arange(L) == 5, False
    return give(Labels(torch.arange(B), 10), ids_BL, hidden_BL)


def tables() -> Tensor:
    table_TB4 = torch.rand(T, B, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale_TB = 3 * (torch.rand(T, B, generator=torch.Generator().manual_seed(5)) > 0.4).double()
    return torch.stack([*table_TB4[..., :2].unbind(-1), 0.5 + table_TB4[..., 2], scale_TB], -1)


def run(generator: Any, condition: Any, rows: list[int]) -> list[DecodeState]:
    states = [start(generator, condition[rows], steps=T)]
    for table_B4 in tables()[:, rows]:
        noise = HashNoise(100 + torch.tensor(rows))
        states.append(advance(generator, states[-1], DecodeParams.from_table(table_B4), noise))
    return states


def test_what_is_given_never_changes_and_the_rest_is_drawn(generator: Any) -> None:
    condition = given()
    known_BL = condition.tokens_BL >= 0
    states = run(generator, condition, list(range(B)))
    for state in states:
        assert torch.equal(state.ids_BL[known_BL], condition.tokens_BL[known_BL])
        assert state.masked_B.tolist() == (state.ids_BL == V).sum(1).tolist()
    assert states[0].masked_B.tolist() == [16, 15, 8, 1, 0, 8]
    assert bool((states[-1].ids_BL < V).all())
    for step, (before, after) in enumerate(zip(states, states[1:-1], strict=False)):
        ratio_B = tables()[step, :, 0]
        for row, unknown in enumerate(states[0].masked_B.tolist()):
            asked = min(int(ratio_B[row] * unknown), int(before.masked_B[row]) - 1)
            assert int(after.masked_B[row]) == max(0, asked), "the ratio is of what was masked at the start"


def test_a_row_is_the_same_alone(generator: Any) -> None:
    """Whatever the others give, and whether they are guided."""
    together = run(generator, given(), list(range(B)))
    for row in range(B):
        alone = run(generator, given(), [row])
        for state, single in zip(together, alone, strict=True):
            assert torch.equal(state.ids_BL[row], single.ids_BL[0])
            assert state.nfe_B[row] == single.nfe_B[0]


def test_nothing_given_draws_as_ever(generator: Any) -> None:
    """But for the unconditional pass of the first step, which is a row's own where rows may differ."""
    plain = Labels(torch.arange(B), 10)
    nothing = Given(plain, torch.full((B, L), DRAWN))
    for state, other in zip(
        run(generator, plain, list(range(B))), run(generator, nothing, list(range(B))), strict=True
    ):
        assert torch.equal(state.ids_BL, other.ids_BL)
    guided_B = (tables()[0, :, 3] > 0).long()
    assert torch.equal(other.nfe_B, state.nfe_B + guided_B)


def test_the_first_pass_sees_what_is_given(generator: Any) -> None:
    condition = given()[[2]]
    state = start(generator, condition, steps=T, first_pass=FirstPass(generator))
    with torch.no_grad():
        expected = generator(torch.where(condition.tokens_BL < 0, V, condition.tokens_BL), condition)
    assert state.prediction is not None and state.nfe_B.tolist() == [1]
    assert_rounded(state.prediction.logits_BLV, expected.logits_BLV)


def test_guidance_extrapolates_from_the_pass_without_the_class(generator: Any) -> None:
    """On the same given tokens, in the first step too."""
    condition = given()[[2, 5]]
    state = start(generator, condition, steps=1)
    params = DecodeParams.from_table(torch.tensor([[0.0, 0.0, 1e-6, 2.0]] * 2))
    drawn = advance(generator, state, params, HashNoise(torch.arange(2)))
    with torch.no_grad():
        free = generator(state.ids_BL, condition.null())
    assert state.prediction is not None
    logits_BLV = state.prediction.logits_BLV + 2 * (state.prediction.logits_BLV - free.logits_BLV)
    hidden_BL = condition.tokens_BL < 0
    assert torch.equal(drawn.ids_BL[hidden_BL], logits_BLV.argmax(-1)[hidden_BL])
    assert drawn.nfe_B.tolist() == [2, 2]


def test_parts_carry_what_is_given(generator: Any) -> None:
    condition, noise = given(), HashNoise(100 + torch.arange(B))
    taken = Parts(generator, condition, noise, DecodeRules(), T, size=4)
    for state in run(generator, condition, list(range(B))):
        assert torch.equal(taken.state.ids_BL, state.ids_BL)
        assert torch.equal(taken.state.unknown_B, state.unknown_B)
        if not state.done:
            taken.advance(DecodeParams.from_table(tables()[state.step]))


def test_given_conditions_are_conditions() -> None:
    condition = given()
    again = Given.cat([condition[:2], condition[torch.arange(2, B)]])
    assert again.names == condition.names and torch.equal(again.tokens_BL, condition.tokens_BL)
    assert again.fingerprint == condition.fingerprint != condition.condition.fingerprint
    assert condition[[0]].key != condition[[1]].key and len(condition) == B
    assert condition.null().names == condition.condition.null().names
    assert torch.equal(condition.null().tokens_BL, condition.tokens_BL)
    assert condition.geometry == condition.condition.geometry and condition.guides


@pytest.mark.parametrize(
    ("region", "hidden"),
    [
        ("left", [[1, 1, 0, 0]] * 4),
        ("right=0.25", [[0, 0, 0, 1]] * 4),
        ("top=.75", [[1] * 4] * 3 + [[0] * 4]),
        ("bottom", [[0] * 4] * 2 + [[1] * 4] * 2),
        ("center", [[0] * 4, [0, 1, 1, 0], [0, 1, 1, 0], [0] * 4]),
        ("outside", [[1] * 4, [1, 0, 0, 1], [1, 0, 0, 1], [1] * 4]),
    ],
)
def test_regions(region: str, hidden: list[list[int]]) -> None:
    assert hidden_region(region, (4, 4)).view(4, 4).int().tolist() == hidden


def test_a_token_is_hidden_by_any_of_its_pixels() -> None:
    mask_HW = torch.zeros(4, 6, dtype=torch.bool)
    mask_HW[1, 1] = mask_HW[3, 5] = True
    assert hidden_pixels(mask_HW, (2, 3)).tolist() == [True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: hidden_region("middle", (4, 4)), "'middle' is not one of top"),
        (lambda: hidden_region("left=2", (4, 4)), "no share of a side"),
        (lambda: hidden_region("left=half", (4, 4)), "'half' is no share"),
        (lambda: hidden_region("left=0.01", (4, 4)), "hides 0 of 16"),
        (lambda: hidden_pixels(torch.zeros(4, 4, dtype=torch.bool), (2, 2)), "the mask is empty"),
        (lambda: hidden_pixels(torch.ones(4, 5, dtype=torch.bool), (2, 2)), "4 x 5 pixels can't be cut"),
        (lambda: Given(Labels(torch.arange(2), 10), torch.zeros(3, L, dtype=torch.long)), "for each of 2"),
        (lambda: Given(Labels(torch.arange(1), 10), torch.full((1, L), -2)), "or -1 where"),
    ],
)
def test_mistakes_are_told(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_codes_and_tokens_have_to_be_the_generators(generator: Any) -> None:
    for tokens_BL in (torch.full((1, L), V), torch.zeros(1, L + 1, dtype=torch.long)):
        with pytest.raises(ValueError, match="16 tokens of codes below 128"):
            start(generator, Given(Labels(torch.arange(1), 10), tokens_BL), steps=T)


def test_an_order_reveals_what_is_left_of_it(generator: Any) -> None:
    """A schedule's last but one step of four leaves a share of the unknown tokens, whatever was given."""
    condition = give(
        Labels(torch.arange(2), 10), torch.zeros(2, L, dtype=torch.long), hidden_region("left", (4, 4))
    )
    state = start(generator, condition, steps=2)
    params = as_schedule("maskgit", 2).params(0, 2)
    state = advance(generator, state, params, HashNoise(torch.arange(2)), DecodeRules.of("halton", (4, 4)))
    assert state.masked_B.tolist() == [int(8 * float(params.mask_ratio[0]))] * 2
