"""How far two computations of the same number may lie apart: what rounding explains, and no more.

A sum of n terms is off by at most n units of the terms' size, and by about sqrt(n) of them in practice; how
it is off depends on the order of the terms, which processors, batch sizes and libraries choose by themselves.
The networks of these tests sum some hundreds of terms in each of some ten layers: sqrt(256) * 16 = 256 units
of the largest value, 1.5e-5 of it in float32. A row that felt another, or a wrong constant, is off by a
thousandth and more.
"""

from typing import Any

import numpy as np
import torch

UNIT = 2.0**-24  # half the distance from 1 to the next float32
UNIT_OF_DOUBLE = 2.0**-53
UNIT_OF_HALF = 2.0**-11
UNIT_OF_BFLOAT = 2.0**-8
ROUNDINGS = 256

# Recorded logits spread over 3, features over 10; the recording's README gives 1e-4 as sensible, and all
# decisions that follow from them are to be equal.
GOLDEN = {"atol": 1e-4, "rtol": 0.0}


def _double(values: Any) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().double()
    return torch.from_numpy(np.array(values, np.float64))


def assert_rounded(
    found: Any,
    expected: Any,
    *,
    roundings: float = ROUNDINGS,
    unit: float = UNIT,
    size: float | None = None,
    msg: str = "",
) -> None:
    """Assert that values are the same but for rounding.

    Args:
        found: tensor, array, frame, list or number.
        expected: the same, of the same shape or to be repeated to it.
        roundings: units of the size that they may lie apart.
        size: of the numbers that were summed; by default the largest of the expected ones.
    """
    ours, theirs = _double(found), _double(expected)
    theirs = theirs.expand_as(ours)
    finite = torch.isfinite(theirs)
    assert torch.equal(ours[~finite].nan_to_num(), theirs[~finite].nan_to_num()), f"{msg} infinities"
    if size is None:
        size = float(theirs[finite].abs().max()) if finite.any() else 0.0
    apart = float((ours - theirs)[finite].abs().max()) if finite.any() else 0.0
    allowed = roundings * unit * size
    assert apart <= allowed, f"{msg} {apart:.3g} apart, {allowed:.3g} is what {roundings:g} roundings explain"
