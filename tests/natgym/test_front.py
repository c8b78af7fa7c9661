"""The front of policies: corners by brute force, and what lies beyond it."""

import numpy as np
import pandas as pd
import pytest

from natgym.evaluation.front import beyond, hull


def test_corners_are_what_no_mixture_of_two_others_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        passes, quality = rng.integers(1, 9, 12).astype(float), rng.integers(0, 9, 12) / 8
        corners = hull(passes, quality)
        assert list(passes[corners]) == sorted(set(passes[corners]))
        assert list(quality[corners]) == sorted(set(quality[corners]))
        assert quality[corners[-1]] == quality.max()
        for place in np.linspace(passes.min(), passes.max(), 29):
            best = max(
                (1 - share) * quality[a] + share * quality[b]
                for a in range(12)
                for b in range(12)
                for share in [0.0, *np.linspace(0, 1, 41)]
                if (1 - share) * passes[a] + share * passes[b] <= place + 1e-9
            )
            ours = np.interp(place, passes[corners], quality[corners])
            assert ours >= best - 1e-9


def frame(nfe: list[float], valid: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"seed": range(len(nfe)), "nfe": nfe, "valid": valid})


def test_beyond_is_the_difference_to_the_mixture_of_as_many_passes() -> None:
    corners = [frame([2.0, 2.0], [0.2, 0.4]), frame([4.0, 6.0], [0.8, 0.6]), frame([9.0, 9.0], [1.0, 1.0])]
    found = beyond(frame([3.0, 4.0], [0.7, 0.7]), corners, "valid", policy="ours")
    between = [0.5 * 0.2 + 0.5 * 0.8, 0.5 * 0.4 + 0.5 * 0.6]
    assert found.each == pytest.approx([0.7 - between[0], 0.7 - between[1]])
    assert found.policy == "ours" and found.metric == "valid"
    assert beyond(frame([1.0, 1.0], [0.1, 0.1]), corners, "valid").each == pytest.approx([-0.1, -0.3])
    assert beyond(frame([12.0, 12.0], [1.0, 0.9]), corners, "valid").each == pytest.approx([0.0, -0.1])
