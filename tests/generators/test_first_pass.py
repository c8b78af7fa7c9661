"""The kept all-masked pass: equal to a fresh one, whatever happened to the weights, within its bytes."""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from generators.conditions import Labels
from generators.decoding import DecodeState, advance, start
from generators.enat import ENAT, enat_digits
from generators.first_pass import FirstPass, fingerprint
from generators.nat import NAT, nat_digits
from generators.noise import HashNoise
from generators.schedules import DecodeParams, reference
from generators.texts import Text
from generators.training import Trainer, small_recipe
from rounding import UNIT_OF_BFLOAT, assert_rounded

ROW = 4 * 16 * (128 + 64)  # bytes of one condition's logits and features


def spread(model: nn.Module) -> Any:
    """Let the logits spread as if trained."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


class Counted:
    """Count the rows that a generator is called with."""

    def __init__(self, generator: Any) -> None:
        self.generator, self.rows = generator, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generator, name)

    def __call__(self, ids_BL: Any, *seen: Any) -> Any:
        self.rows += len(ids_BL)
        return self.generator(ids_BL, *seen)


def labels(*classes: int) -> Labels:
    return Labels(torch.tensor(classes), 10)


def fresh(generator: Any, condition: Any) -> Any:
    with torch.no_grad():
        return generator(torch.full((len(condition), generator.num_tokens), generator.mask_id), condition)


def agrees(kept: FirstPass, condition: Any) -> bool:
    found, expected = kept(condition), fresh(kept.generator, condition)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        if ours.dtype == torch.bfloat16:  # few units: each is a hundredth, and a wrong pass is off by more
            assert_rounded(ours, theirs, roundings=8, unit=UNIT_OF_BFLOAT)
        else:
            assert_rounded(ours, theirs)
    return found.logits_BLV.dtype == expected.logits_BLV.dtype


@pytest.mark.parametrize(
    "build", [lambda: NAT(nat_digits()), lambda: ENAT(enat_digits())], ids=["nat", "enat"]
)
def test_each_condition_is_predicted_once(build: Callable[[], Any]) -> None:
    watched = Counted(spread(build()))
    kept = FirstPass(watched)
    for classes, rows in (((3, 1, 3, 3), 2), ((1, 3), 2), ((5, 3, 9, 5), 4), ((9,), 4)):
        condition = labels(*classes)
        kept(condition)
        assert watched.rows == rows, "no condition twice"
    assert agrees(kept, labels(9, 3, 3, 1, 5))
    assert agrees(kept, labels(3).null()), "the null condition is one of them"


def co_train(model: Any) -> None:
    """One update, and the average in the generator's place, as the env sees it afterwards."""
    tokens = torch.randint(128, (64, 16), generator=torch.Generator().manual_seed(0))
    trainer = Trainer(model, tokens, labels(*(i % 10 for i in range(64))), small_recipe(batch_size=32))
    trainer.update()
    model.eval()


def swap_data(model: Any) -> None:
    """Swap an average in as many codes do, through `.data`, which no version counter sees."""
    for parameter in model.parameters():
        parameter.data.mul_(0.9)


def swap_storage(model: Any) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.1


def load(model: Any) -> None:
    model.load_state_dict({name: 0.8 * tensor for name, tensor in model.state_dict().items()})


def one_bit(model: Any) -> None:
    """The smallest change there is, in one weight."""
    bias = model.head.bias.data
    bias[0, 0, 0] = torch.nextafter(bias[0, 0, 0], torch.tensor(9.0))


@pytest.mark.parametrize(
    "build", [lambda: NAT(nat_digits()), lambda: ENAT(enat_digits())], ids=["nat", "enat"]
)
@pytest.mark.parametrize(
    "change",
    [co_train, swap_data, swap_storage, load, lambda model: model.double(), lambda model: model.bfloat16()],
)
def test_it_never_goes_stale(build: Callable[[], Any], change: Callable[[Any], Any]) -> None:
    model, condition = spread(build()), labels(0, 7, 7)
    kept = FirstPass(model)
    before = kept(condition).logits_BLV
    assert agrees(kept, condition)
    change(model)
    assert agrees(kept, condition) and agrees(kept, condition.null())
    after = kept(condition).logits_BLV
    assert after.dtype != before.dtype or not torch.equal(after, before), "the change was one"


def test_the_smallest_change_of_one_weight_is_seen() -> None:
    model = spread(NAT(nat_digits()))
    before = fingerprint(model)
    assert fingerprint(model) == before
    one_bit(model)
    assert fingerprint(model) != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("rows", "offset"), [(4, 0), (3, 0), (4, 1), (4, 3)])
def test_each_bit_of_a_weight_is_seen_wherever_it_lies(dtype: Any, rows: int, offset: int) -> None:
    """An odd number of weights and views that begin anywhere fill no words of 64 bits."""
    storage = torch.arange(offset + rows * 3, dtype=dtype)
    model: Any = nn.Module()
    model.weight = nn.Parameter(storage[offset:].view(rows, 3))
    size = 8 * dtype.itemsize
    bits = storage.view(getattr(torch, f"int{size}")).numpy()  # whose writing no version counter sees
    before = fingerprint(model)
    for place in range(offset, len(bits)):
        for bit in (0, 7, size - 2):
            bits[place] ^= 1 << bit
            assert fingerprint(model) != before
            bits[place] ^= 1 << bit
    assert fingerprint(model) == before


def test_a_swap_and_back_inside_a_kept_storage_is_seen() -> None:
    """An average written into the same storage and taken out again, with a look in between."""
    model, condition = spread(NAT(nat_digits())), labels(4)
    kept, own = FirstPass(model), [parameter.detach().clone() for parameter in model.parameters()]
    first = kept(condition).logits_BLV
    swap_data(model)
    assert not torch.equal(kept(condition).logits_BLV, first)
    for parameter, value in zip(model.parameters(), own, strict=True):
        parameter.data.copy_(value)
    assert torch.equal(kept(condition).logits_BLV, first)


def test_training_mode_is_never_kept() -> None:
    model = spread(NAT(nat_digits())).train()
    kept, condition = FirstPass(model), labels(1, 2)
    assert not torch.equal(kept(condition).logits_BLV, kept(condition).logits_BLV), "dropout draws anew"
    assert kept.bytes == 0


def test_bytes_are_bounded_and_the_longest_unasked_is_forgotten() -> None:
    watched = Counted(spread(NAT(nat_digits())))
    kept = FirstPass(watched, 3 * ROW)
    for label in (0, 1, 2, 0, 3):  # 3 drives 1 out
        assert agrees(kept, labels(label)) and kept.bytes <= 3 * ROW
    watched.rows = 0
    kept(labels(0, 2, 3))
    assert watched.rows == 0 and kept.bytes == 3 * ROW
    kept(labels(1))
    assert watched.rows == 1
    assert agrees(kept, labels(*range(10))) and kept.bytes <= 3 * ROW, "a batch may need more than is kept"
    with pytest.raises(ValueError, match="max_bytes 0"):
        FirstPass(watched, 0)


def test_texts_are_conditions_too() -> None:
    model = spread(NAT(nat_digits(num_classes=None, text_width=6)))
    embeddings = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
    condition = Text.of(embeddings, torch.zeros(5, 6), ("a cat", "a dog", "a cat on a mat"))
    kept = FirstPass(model)
    assert agrees(kept, condition) and agrees(kept, condition[[2, 0, 2]]) and agrees(kept, condition.null())


@pytest.mark.parametrize(
    "names",
    [[str(number) for number in range(1, 11)], ["crane", "crane", *"abcdefgh"]],
    ids=["null", "twice"],
)
def test_classes_are_told_apart_whatever_their_names_are(names: list[str]) -> None:
    """As of folders 1 to 10, where 10 is the null condition's number; or of ImageNet, with two cranes."""
    kept = FirstPass(spread(NAT(nat_digits())))
    condition = Labels(torch.arange(10), 10, tuple(names))
    assert agrees(kept, condition) and agrees(kept, condition.null())


def test_another_process_gets_an_empty_one() -> None:
    kept = FirstPass(spread(NAT(nat_digits())), 4 * ROW)
    kept(labels(1, 2))
    copied = pickle.loads(pickle.dumps(kept))
    assert copied.bytes == 0 and copied.max_bytes == 4 * ROW and agrees(copied, labels(2, 3))


def test_threads_share_it() -> None:
    kept = FirstPass(spread(NAT(nat_digits())), 4 * ROW)
    batches = [labels(*((i + j) % 10 for j in range(3))) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda condition: agrees(kept, condition), batches))


def played(generator: Any, steps: int, first_pass: FirstPass | None, scales: Any) -> list[DecodeState]:
    condition, noise = labels(*range(10)), HashNoise.from_seed(0, 10)
    states = [start(generator, condition, steps=steps, first_pass=first_pass)]
    for step in range(steps):
        params = reference(steps, guidance=0.0).params(step, 10)._replace(guidance_scale=scales[step])
        states.append(advance(generator, states[-1], DecodeParams(*params), noise))
    return states


@pytest.mark.parametrize(
    "build", [lambda: NAT(nat_digits()), lambda: ENAT(enat_digits())], ids=["nat", "enat"]
)
@pytest.mark.parametrize("ragged", [False, True])
def test_pictures_are_the_same_with_14_passes_instead_of_15(build: Callable[[], Any], ragged: bool) -> None:
    """Also where some rows are not guided at some steps, so that reuse states of the streams part."""
    model, T = spread(build()), 8
    scales = torch.full((T, 10), 1.5, dtype=torch.float64)
    if ragged:
        scales *= torch.rand(T, 10, generator=torch.Generator().manual_seed(1)) < 0.6
    kept = FirstPass(model)
    plain = played(model, T, None, scales)
    for _ in range(2):  # the second time nothing has to be predicted
        for state, expected in zip(played(model, T, kept, scales), plain, strict=True):
            assert torch.equal(state.ids_BL, expected.ids_BL)
            assert torch.equal(state.nfe_B, expected.nfe_B - 1)
    if not ragged:
        assert plain[-1].nfe_B.tolist() == [15] * 10 and state.nfe_B.tolist() == [14] * 10


def test_the_second_episode_runs_fourteen_passes() -> None:
    """Counted at the generator: 7 conditional and 7 unconditional ones, of every row."""
    watched, scales = Counted(spread(NAT(nat_digits()))), torch.ones(8, 10, dtype=torch.float64)
    kept = FirstPass(watched)
    played(watched, 8, kept, scales)
    assert watched.rows == 10 + 1 + 14 * 10
    watched.rows = 0
    played(watched, 8, kept, scales)
    assert watched.rows == 14 * 10
