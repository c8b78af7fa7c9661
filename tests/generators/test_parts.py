"""A batch in parts is the batch: the same tokens, passes and, to rounding, floats."""

from typing import Any

import pytest
import torch
from torch import Tensor

import generators.room
from generators.conditions import Labels
from generators.decoding import DecodeState, advance, start
from generators.enat import ENAT, enat_digits
from generators.first_pass import FirstPass
from generators.nat import NAT, nat_digits
from generators.noise import HashNoise
from generators.parts import Parts, joined
from generators.room import cut, decoding_rows, image_rows
from generators.rules import DecodeRules
from generators.schedules import DecodeParams
from generators.tokenizers import ConvVQ, ConvVQConfig, decode_all
from rounding import assert_rounded

B, T, SIZE = 8, 4, 3


def spread(network: Any) -> Any:
    """Give a network weights whose logits differ as if trained, so that no draw is near a tie."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture(params=["nat", "enat"], scope="module")
def generator(request: pytest.FixtureRequest) -> NAT | ENAT:
    return spread(NAT(nat_digits()) if request.param == "nat" else ENAT(enat_digits()))


def tables() -> Tensor:
    """Decoding parameters (T, B, 4): every row its own, every third without guidance."""
    table_TB4 = torch.rand(T, B, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    guided_B = (torch.arange(B) % 3 > 0).double()
    return torch.stack(
        [*table_TB4[..., :2].unbind(-1), 0.5 + table_TB4[..., 2], 3 * guided_B.expand(T, B)], -1
    )


def whole(generator: Any) -> list[DecodeState]:
    """Return the states of all rows at once, the first included."""
    states = [start(generator, Labels(torch.arange(B), 10), steps=T)]
    for table_B4 in tables():
        params = DecodeParams.from_table(table_B4)
        states.append(advance(generator, states[-1], params, HashNoise(torch.arange(B))))
    return states


def parts(generator: Any, **options: Any) -> Parts:
    noise = HashNoise(torch.arange(B))
    return Parts(generator, Labels(torch.arange(B), 10), noise, DecodeRules(), T, **options)


def test_parts_are_decoded_as_the_batch_is(generator: Any) -> None:
    expected, taken = whole(generator), parts(generator, size=SIZE)
    assert [len(state.ids_BL) for state in taken.states] == [3, 3, 2]
    for step, state in enumerate(expected):
        assert taken.step == step and taken.state.condition.names == state.condition.names
        assert torch.equal(taken.state.ids_BL, state.ids_BL)
        assert torch.equal(taken.state.masked_B, state.masked_B)
        assert torch.equal(taken.state.nfe_B, state.nfe_B)
        if not state.done:
            assert taken.state.prediction is not None and state.prediction is not None
            assert_rounded(taken.state.prediction.logits_BLV, state.prediction.logits_BLV)
            assert_rounded(taken.state.prediction.features_BLD, state.prediction.features_BLD)
            taken.advance(DecodeParams.from_table(tables()[step]))
    assert taken.done and taken.state.prediction is None


def test_one_part_is_the_state_itself(generator: Any) -> None:
    taken = parts(generator, size=B)
    assert taken.state is taken.states[0] and joined(taken.states) is taken.state


def test_a_step_that_fails_halfway_leaves_nothing_to_go_on_from(generator: Any) -> None:
    """Some rows would be a step ahead; one that fails at once leaves all as they were."""

    class Failing(type(generator)):  # type: ignore[misc]
        calls = 0

        def __call__(self, *arguments: Any) -> Any:
            self.calls += 1
            if self.calls == self.fails_at:
                raise MemoryError
            return super().__call__(*arguments)

    failing = Failing(generator.config).eval()
    params = DecodeParams.from_table(tables()[0])
    for fails_at, left in ((4, 3), (7, 0)):  # three calls begin; each part takes one or two a step
        failing.calls, failing.fails_at = 0, fails_at
        taken = parts(failing, size=SIZE)
        with pytest.raises(MemoryError):
            taken.advance(params)
        assert len(taken.states) == left and taken.done == (left == 0)


def test_a_room_holds_fewer_rows_of_larger_networks(generator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoding_rows(generator, "cpu") == generators.room.MOST < decoding_rows(generator, "cuda:1")
    assert image_rows((3, 16, 16)) > 1024 > image_rows((3, 256, 256)) > 1
    monkeypatch.setattr(generators.room, "ROOM", 4 * 5 * generators.room.OF_A_PIXEL * 3 * 16 * 16 + 1)
    assert image_rows((3, 16, 16)) == 5
    monkeypatch.setattr(generators.room, "ROOM", 1)
    assert decoding_rows(generator, "cuda") == image_rows((3, 16, 16)) == 1
    assert [(rows.start, rows.stop) for rows in cut(8, 3)] == [(0, 3), (3, 6), (6, 8)]


def test_images_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = ConvVQ(ConvVQConfig(image_shape=(3, 16, 16), codebook_size=8, code_width=4, width=8)).eval()
    ids_BL = torch.randint(8, (7, tokenizer.grid[0] * tokenizer.grid[1]))
    expected, drawn = decode_all(tokenizer, ids_BL, "cpu"), list[int]()
    original = tokenizer.decode

    def watched(ids_BL: Tensor) -> Tensor:
        drawn.append(len(ids_BL))
        return original(ids_BL)

    monkeypatch.setattr(tokenizer, "decode", watched)
    monkeypatch.setattr(generators.room, "ROOM", 4 * 3 * generators.room.OF_A_PIXEL * 3 * 16 * 16)
    assert_rounded(decode_all(tokenizer, ids_BL, "cpu"), expected)
    assert drawn == [3, 3, 1]


def test_first_passes_are_taken_in_parts(generator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = FirstPass(generator)(Labels(torch.arange(B), 10))
    monkeypatch.setattr(generators.room, "MOST", 3)
    for found in (FirstPass(generator)(Labels(torch.arange(B), 10)), parts(generator).state.prediction):
        assert found is not None
        assert_rounded(found.logits_BLV, expected.logits_BLV)
        assert_rounded(found.features_BLD, expected.features_BLD)
