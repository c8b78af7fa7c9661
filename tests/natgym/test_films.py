"""What a policy learned, in figures: each number drawn is recomputed by a loop over samples."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from generators.schedules import PARAMETERS
from natgym.figures.comparisons import frontier_figure
from natgym.figures.films import disagreement, disagreement_figure, film_figure
from natgym.figures.policies import (
    adaptivity,
    by_class_figure,
    deciding,
    parameters_figure,
    reveal_figure,
    value_figure,
)
from natgym.figures.style import COLORS

T, N = 3, 12


def frame(seed: int = 0, samples: int = N) -> pd.DataFrame:
    """Parameters that move with step, class and sample; two classes in turn."""
    rng, rows = np.random.default_rng(seed), []
    for sample in range(samples):
        for step in range(T):
            values = {name: step + 0.3 * (sample % 2) + 0.1 * rng.normal() for name in PARAMETERS}
            masked = {"masked_before": 8 - 3 * step, "masked_after": 5 - 3 * step if step < 2 else 0}
            more = {"value": rng.normal(), "reward": rng.random() if step == T - 1 else 0.0}
            rows.append(
                {"sample": sample, "condition": "ab"[sample % 2], "step": step} | values | masked | more
            )
    return pd.DataFrame(rows)


def drawn(figure: Figure) -> bool:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue().startswith(b"\x89PNG")


def note_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_a_parameter_is_shown_where_it_decides() -> None:
    given = frame()
    assert set(deciding(given, "mask_ratio")["step"]) == {0, 1}
    assert set(deciding(given, "guidance_scale")["step"]) == {0, 1, 2}
    given.loc[(given["sample"] == 5) & (given["step"] == 2), "masked_before"] = 0
    shown = deciding(given, "guidance_scale")
    assert len(shown) == len(given) - 1 and not ((shown["sample"] == 5) & (shown["step"] == 2)).any()


def test_single_samples_are_drawn_as_they_are() -> None:
    given = frame()
    figure = parameters_figure({"p": given}, "note", samples=2)
    for axis, name in zip(figure.axes, PARAMETERS, strict=True):
        thin = [line for line in axis.lines if line.get_linewidth() < 1]
        assert len(thin) == 2
        for sample, line in enumerate(thin):
            own = deciding(given[given["sample"] == sample], name)
            assert line.get_ydata().tolist() == own[name].tolist()


def test_classes_have_lines_of_their_own_means() -> None:
    given = frame()
    figure = by_class_figure(given, "note")
    assert note_of(figure) == ["note"] and drawn(figure)
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == ["a", "b"]
    for axis, name in zip(figure.axes, PARAMETERS, strict=True):
        for label, line in zip("ab", axis.lines, strict=True):
            for step, value in zip(line.get_xdata(), line.get_ydata(), strict=True):
                own = [
                    row[name]
                    for _, row in given.iterrows()
                    if row["condition"] == label and row["step"] == step - 1
                ]
                assert value == pytest.approx(np.mean(own))
    assert len(by_class_figure(given, "", most=1).axes[0].lines) == 1


def test_shares_of_variance_by_loops() -> None:
    given = frame()
    shares = adaptivity(given).set_index("parameter")
    for name in PARAMETERS:
        rows = deciding(given, name).to_dict("records")
        mean = np.mean([row[name] for row in rows])
        parts = np.zeros(3)
        for row in rows:
            step = np.mean([r[name] for r in rows if r["step"] == row["step"]])
            same = [r for r in rows if (r["step"], r["condition"]) == (row["step"], row["condition"])]
            group = np.mean([r[name] for r in same])
            parts += np.square([step - mean, group - step, row[name] - group])
        found = shares.loc[name, ["step", "class", "sample"]].to_numpy(float)
        assert found == pytest.approx(parts / parts.sum()) and found.sum() == pytest.approx(1)
        assert shares.loc[name, "spread"] == pytest.approx(np.sqrt(parts[1:].sum() / len(rows)))


def test_a_schedule_does_not_adapt_and_a_constant_has_no_shares() -> None:
    given = frame()
    given["guidance_scale"], given["mask_ratio"] = 0.7, given["step"] / 3
    shares = adaptivity(given).set_index("parameter")
    assert shares.loc["guidance_scale", ["step", "class", "sample"]].isna().all()
    assert shares.loc["mask_ratio", ["step", "class", "sample", "spread"]].tolist() == pytest.approx(
        [1, 0, 0, 0]
    )


def test_positions_are_colored_by_their_mean_step() -> None:
    at = {"p": torch.tensor([[0, 1, 2, 2], [0, 0, 2, 1]], dtype=torch.int16), "q": torch.full((3, 4), 1)}
    figure = reveal_figure(at, (2, 2), "note")
    maps = [axis.images[0].get_array() for axis in figure.axes[:2]]
    assert maps[0].tolist() == [[1, 1.5], [3, 2.5]] and maps[1].tolist() == [[2, 2], [2, 2]]
    assert figure.axes[0].images[0].get_clim() == figure.axes[1].images[0].get_clim() == (1, 3)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["p", "q"] and drawn(figure)


def test_values_stand_against_the_reward_that_came() -> None:
    given = frame()
    figure = value_figure(given, "note")
    assert len(figure.axes) == T and drawn(figure)
    for step, axis in enumerate(figure.axes):
        points = axis.collections[0].get_offsets()
        own = given[given["step"] == step].sort_values("sample")["value"].to_numpy()
        earned = given[given["step"] == T - 1].sort_values("sample")["reward"].to_numpy()
        np.testing.assert_allclose(points, np.stack([own, earned], axis=1))
        assert f"r = {np.corrcoef(own, earned)[0, 1]:+.2f}" in axis.get_title()
    given["value"] = 1.0
    assert "not defined" in value_figure(given, "").axes[0].get_title()


def test_policies_are_placed_by_their_passes_with_intervals() -> None:
    rows = [
        {"policy": name, "nfe": nfe, "distance": distance, "distance_std": 0.1, "seeds": 3}
        for name, nfe, distance in (("a", 7, 1.0), ("b", 4, 2.0), ("a", 15, 0.5))
    ]
    figure = frontier_figure(rows, "note")
    axis = figure.axes[0]
    lines = {container.get_label(): container for container in axis.containers}
    assert lines["a"][0].get_xdata().tolist() == [7, 15] and lines["a"][0].get_ydata().tolist() == [1, 0.5]
    bar = lines["b"][2][0].get_segments()[0]
    half = 4.302652729911275 * 0.1 / np.sqrt(3)  # t with 2 degrees of freedom
    assert bar[:, 1].tolist() == pytest.approx([2 - half, 2 + half]) and drawn(figure)
    rows[0]["distance_std"] = float("nan")
    assert drawn(frontier_figure(rows, "one seed"))


def test_films_have_a_row_per_strip_and_a_column_per_step() -> None:
    strips = {"one": [np.full((2, 2, 3), value, np.uint8) for value in (0, 100, 200)], "two": []}
    strips["two"] = [np.full((2, 2, 3), value, np.uint8) for value in (5, 50)]
    figure = film_figure(strips, "note")
    assert [axis.get_title() for axis in figure.axes[:3]] == ["start", "step 1", "step 2"]
    shown = [int(axis.images[0].get_array()[0, 0, 0]) for axis in figure.axes if axis.images]
    assert shown == [0, 100, 200, 5, 50] and drawn(figure)
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["one", "two"]


def test_disagreement_by_loops() -> None:
    ours, theirs = frame(1), frame(2)
    ours["sampling_temperature"] = theirs["sampling_temperature"] = 1.0
    found = disagreement(ours, theirs)
    for name in PARAMETERS:
        steps = range(T - 1) if name in PARAMETERS[:2] else range(T)
        both = [
            f.loc[(f["sample"] == sample) & (f["step"] == step), name].item()
            for f in (ours, theirs)
            for sample in range(N)
            for step in steps
        ]
        half = len(both) // 2
        gaps = np.abs(np.subtract(both[:half], both[half:])).reshape(N, -1).mean(1)
        expected = gaps / np.std(both) if np.std(both) > 0 else gaps
        assert found[name].sort_index().to_numpy() == pytest.approx(expected), name
    totals = found.sum(axis=1).to_numpy()
    assert (np.diff(totals) <= 0).all() and sorted(found.index) == list(range(N))
    with pytest.raises(ValueError, match="different samples or steps"):
        disagreement(ours, frame(0, samples=5))


def test_disagreeing_samples_are_shown_with_the_parameter_that_differs_most() -> None:
    ours, theirs = frame(1), frame(1)
    theirs.loc[theirs["sample"] == 4, "guidance_scale"] += 5
    theirs.loc[theirs["sample"] == 7, "mask_ratio"] += 2
    order = disagreement(ours, theirs).index[:2].tolist()
    assert sorted(order) == [4, 7]
    pictures = {name: np.full((N, 2, 2, 3), value, np.uint8) for name, value in (("p", 10), ("q", 20))}
    figure = disagreement_figure({"p": ours, "q": theirs}, pictures, "note", samples=order)
    by_row = [figure.axes[i : i + 2] for i in (0, 2, 4)]
    assert [int(axis.images[0].get_array()[0, 0, 0]) for row in by_row[:2] for axis in row] == [
        10,
        10,
        20,
        20,
    ]
    titles = {order[column]: by_row[2][column].get_title() for column in range(2)}
    assert "guidance" in titles[4] and "mask ratio" in titles[7] and drawn(figure)
    assert [axis.get_title() for axis in by_row[0]] == [f"sample {i}, class {'ab'[i % 2]}" for i in order]


# What a dichromat sees of linear RGB (Machado et al. 2009, severity 1).
DEUTERANOPE = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
PROTANOPE = [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
]


@pytest.mark.parametrize("matrix", [np.eye(3), DEUTERANOPE, PROTANOPE], ids=["all", "deutan", "protan"])
def test_colors_differ_for_all_kinds_of_color_vision(matrix: Any) -> None:
    rgb = np.array([to_rgb(color) for color in COLORS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
    gaps = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[~np.eye(len(COLORS), dtype=bool)]
    assert gaps.min() > 0.12
