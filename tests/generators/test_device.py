"""Nothing leaves the device inside the generators and the decoding step.

On a CPU everything that is on the device is marked by a tensor subclass that raises where a GPU would copy to
the host; on a GPU the driver itself is asked.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from generators.conditions import Condition, Labels
from generators.contract import Prediction
from generators.decoding import advance, predict, start
from generators.enat import ENAT, enat_digits
from generators.nat import NAT, nat_digits
from generators.noise import HashNoise
from generators.rules import DecodeRules
from generators.schedules import DecodeParams
from generators.texts import Text

B, T = 6, 4
COPIES = {
    *(
        "item",
        "tolist",
        "numpy",
        "cpu",
        "nonzero",
        "argwhere",
        "masked_select",
        "unique",
        "equal",
        "allclose",
    ),
    *("__bool__", "__int__", "__float__", "__index__", "__array__", "__contains__"),
}


class OnDevice(Tensor):
    """A tensor of the device: what it touches is there too, and it can't be read from the host."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(function, "__name__", "")) in COPIES:
            raise RuntimeError(f"{name} copies to the host")
        if name == "__getitem__" and isinstance(args[1], Tensor) and args[1].dtype == torch.bool:
            raise RuntimeError("a mask as an index needs its count on the host")
        return super().__torch_function__(function, types, args, kwargs or {})


class Device:
    """A generator whose tokens, logits and features are on the device."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generator, name)

    def __call__(self, ids_BL: Tensor, *seen: Any) -> Prediction:
        prediction = self.generator(ids_BL.as_subclass(OnDevice), *seen)
        assert all(isinstance(tensor, OnDevice) for tensor in prediction[:2])
        return prediction


def labels() -> Condition:
    return Labels(torch.arange(B).as_subclass(OnDevice), 10)  # type: ignore[arg-type]


def texts() -> Condition:
    embeddings = torch.randn(B, 3, 5, generator=torch.Generator().manual_seed(0)).as_subclass(OnDevice)
    return Text.of(embeddings, torch.zeros(3, 5).as_subclass(OnDevice), tuple("abcdef"))  # type: ignore[arg-type]


def tables() -> Tensor:
    """Parameters (T, B, 4), ragged in everything: all rows are guided, some, none."""
    table = torch.rand(T, B, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    table[..., 0] /= 2
    table[1, ::2, 3] = table[2, :, 3] = 0
    return table


BUILDS = {
    "nat": (lambda: NAT(nat_digits()), labels),
    "nat-text": (lambda: NAT(nat_digits(num_classes=None, text_width=5)), texts),
    "enat": (lambda: ENAT(enat_digits()), labels),
}


@pytest.mark.parametrize("name", BUILDS)
def test_a_whole_decoding_copies_nothing_to_the_host(name: str) -> None:
    build, condition = BUILDS[name]
    torch.manual_seed(0)
    generator: Any = Device(build().eval())
    noise = HashNoise(torch.arange(B).as_subclass(OnDevice))  # type: ignore[arg-type]
    state = start(generator, condition(), steps=T)
    for table_B4 in tables():
        params = DecodeParams.from_table(table_B4)
        state = advance(generator, state, params, noise, DecodeRules(min_reveal=0), entropy=True)
        assert isinstance(state.ids_BL, OnDevice) and not isinstance(state.masked_B, OnDevice)
    assert isinstance(state.entropy_BL, OnDevice)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: bool((x > 0).any()),
        lambda x: x[0, 0].item(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: float(x[0, 0]),
    ],
)
def test_the_mark_sees_what_would_be_copied(read: Callable[[Tensor], Any]) -> None:
    marked = torch.ones(2, 3).as_subclass(OnDevice) + torch.ones(3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="host"):
        read(marked)


def test_the_mark_sees_a_generator_that_counts_for_itself() -> None:
    """ENAT without the counts, as it is called in training."""
    ids_BL = torch.full((B, 16), 128).as_subclass(OnDevice)
    with pytest.raises(RuntimeError, match="tolist"):
        ENAT(enat_digits())(ids_BL, labels())  # type: ignore[arg-type]
    predict(ENAT(enat_digits()), ids_BL, labels(), None, torch.full((B,), 16))  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["nat", "enat"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_driver_sees_no_copy_either(name: str, dtype: torch.dtype) -> None:
    generator: Any = BUILDS[name][0]().eval().to("cuda", dtype)
    condition, noise = Labels(torch.arange(B, device="cuda"), 10), HashNoise.from_seed(0, B, "cuda")
    every = [DecodeParams.from_table(table_B4) for table_B4 in tables()]
    for mode in ("default", "error"):  # the first round compiles and allocates
        torch.cuda.set_sync_debug_mode(mode)
        try:
            state = start(generator, condition, steps=T)
            for params in every:
                state = advance(generator, state, params, noise)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert int(state.ids_BL.max()) < generator.mask_id
