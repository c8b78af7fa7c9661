"""Figures and images: what is drawn is what was given."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from generators.conditions import Labels
from generators.decoding import DecodeState, advance, start
from generators.noise import HashNoise
from generators.schedules import PARAMETERS, TABLE, Schedule, reference
from natgym.env.rendering import as_rgb, reveal, to_uint8
from natgym.figures.policies import TITLES, parameters_figure, samples_figure
from natgym.figures.style import finish
from natgym.figures.trainings import learning_figure
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout


def drawn_without_error(figure: Figure) -> bool:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue().startswith(b"\x89PNG")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("policies", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_stand_in_a_panel_per_policy_and_a_column_per_class(policies: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = {f"policy {i}": torch.rand(6, channels, 4, 5, generator=generator) for i in range(policies)}
    figure = samples_figure(images, ["a", "b", "c"], "the note")
    assert [axis.get_title() for axis in figure.axes] == list(images) and texts(figure) == ["the note"]
    for axis, pictures in zip(figure.axes, images.values(), strict=True):
        assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b", "c"]
        grid = axis.images[0].get_array()
        assert grid.shape == (2 * 5, 3 * 6, 3), "a line of one pixel after each image"
        assert axis.get_xticks().tolist() == [3, 9, 15]
        for i, picture in enumerate(pictures):
            row, column = divmod(i, 3)
            found = grid[5 * row : 5 * row + 4, 6 * column : 6 * column + 5]
            assert (found == (255 * picture).round().permute(1, 2, 0).numpy()).all()
    assert drawn_without_error(figure)


@pytest.mark.parametrize("steps", [1, 4])
def test_parameters_are_drawn_per_step_without_those_that_decide_nothing(steps: int, digits: Any) -> None:
    condition = balanced(digits.generator.conditions(), 20)
    frames = {
        name: rollout(FixedPolicy(schedule), digits.generator, digits.tokenizer, condition, seed=0).frame
        for name, schedule in (("one", reference(steps)), ("two", reference(steps, remask=4)))
    }
    figure = parameters_figure(frames, "the note")
    assert [axis.get_title() for axis in figure.axes] == [TITLES[name] for name in PARAMETERS]
    assert texts(figure) == ["the note"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["one", "two"]
    for axis, name in zip(figure.axes, PARAMETERS, strict=True):
        assert axis.get_xlabel() == "step" and axis.get_xticks().tolist() == list(range(1, steps + 1))
        shown = max(1, steps - 1) if name in PARAMETERS[:2] else steps
        for line, remask in zip(axis.lines, (1, 4), strict=True):
            expected = reference(steps, remask=remask).table_T4[:shown, PARAMETERS.index(name)]
            assert line.get_xdata().tolist() == list(range(1, shown + 1))
            np.testing.assert_allclose(line.get_ydata(), expected)
        assert len(axis.collections) == 2 * 2, "two bands per policy"
    assert drawn_without_error(figure)


def test_the_bands_hold_half_and_nine_tenths_of_the_samples() -> None:
    spread = np.arange(101) / 100
    frame = pd.DataFrame({"sample": np.arange(101), "step": 0} | dict.fromkeys(PARAMETERS, spread))
    figure = parameters_figure({"policy": frame}, "")
    for axis in figure.axes:
        extents = [band.get_paths()[0].get_extents() for band in axis.collections]
        heights = [(extent.y0, extent.y1) for extent in extents]
        assert heights == [pytest.approx((0.05, 0.95)), pytest.approx((0.25, 0.75))]
        assert axis.lines[0].get_ydata().tolist() == pytest.approx([0.5])


def test_policies_of_different_lengths_share_the_axis(digits: Any) -> None:
    condition = balanced(digits.generator.conditions(), 3)
    frames = {
        str(steps): rollout(
            FixedPolicy(reference(steps)), digits.generator, digits.tokenizer, condition, seed=0
        ).frame
        for steps in (1, 4)
    }
    figure = parameters_figure(frames, "")
    assert figure.axes[3].get_xticks().tolist() == [1, 2, 3, 4] and drawn_without_error(figure)


def test_learning_is_drawn_at_the_measurements_and_at_every_update() -> None:
    metrics = pd.DataFrame(
        {
            "update": range(1, 7),
            "distance": [3.0, 3.0, 2.0, 2.0, 2.0, 1.5],
            "reward": np.linspace(0.2, 0.7, 6),
            "discriminator_accuracy": np.linspace(0.9, 0.5, 6),
        }
    )
    figure = learning_figure({"adanat": metrics}, "the note")
    distance, reward = figure.axes
    assert distance.lines[0].get_xydata().tolist() == [[0, 3.0], [3, 2.0], [6, 1.5]]
    assert distance.lines[1].get_ydata()[0] == 3.0, "the level it started from"
    assert [text.get_text() for text in distance.get_legend().get_texts()] == ["adanat", "start"]
    assert reward.lines[0].get_ydata().tolist() == metrics["reward"].tolist()
    assert reward.lines[1].get_ydata().tolist() == metrics["discriminator_accuracy"].tolist()
    assert "not comparable" in reward.get_title(), "a moving reward is no yardstick"
    assert all(axis.get_xlabel() == "update" for axis in figure.axes) and distance.get_ylim()[0] == 0
    assert texts(figure) == ["the note"] and drawn_without_error(figure)


def test_pictures_become_bytes_rounded_and_clipped() -> None:
    images = torch.tensor([-0.5, 0.0, 0.1, 0.5, 0.999, 1.0, 2.0]).reshape(1, 1, 1, 7)
    assert to_uint8(images).shape == (1, 1, 7, 1) and to_uint8(images).dtype == np.uint8
    assert to_uint8(images).ravel().tolist() == [0, 0, 26, 128, 255, 255, 255]
    rgb = as_rgb(images)
    assert rgb.shape == (1, 3, 1, 7) and torch.equal(rgb[:, 0], rgb[:, 2])
    assert as_rgb(rgb) is rgb


class Wide:
    """A tokenizer of 2 x 3 tokens, each a patch of one grey of 50 x 40 pixels."""

    codebook_size, grid, image_shape = 10, (2, 3), (1, 100, 120)

    def decode(self, ids_BL: Tensor) -> Tensor:
        patches = (ids_BL / 10).reshape(-1, 1, 2, 3)
        return patches.repeat_interleave(50, 2).repeat_interleave(40, 3)


def test_reveal_hides_masked_patches_of_any_grid_and_enlarges_only_small_pictures() -> None:
    ids_BL = torch.tensor([[1, 10, 2, 10, 10, 3]])
    masked_B, condition = torch.tensor([3]), Labels(torch.zeros(1, dtype=torch.long), 1)
    state = DecodeState(
        ids_BL, condition, 1, 2, masked_B, masked_B, masked_B, None, drawn_BL=torch.full_like(ids_BL, 5)
    )
    (unmasked,) = reveal(
        Wide(), DecodeState(ids_BL % 10, condition, 0, 2, masked_B, masked_B, masked_B, None), 10
    )
    assert unmasked.shape == (100, 120, 3) and unmasked[0, 0].tolist() == [26] * 3
    (picture,) = reveal(Wide(), state, 10)
    hidden = picture[0, 40]
    for token, id in enumerate(ids_BL[0].tolist()):
        row, column = divmod(token, 3)
        patch = picture[50 * row : 50 * row + 50, 40 * column : 40 * column + 40]
        assert (patch == (hidden if id == 10 else 128)).all(), "revealed ones as they were drawn"
    assert hidden.tolist() != [128] * 3


@pytest.mark.parametrize("steps", [1, 4])
def test_reveal_shows_every_step_of_the_digits(steps: int, digits: Any) -> None:
    condition = Labels.every(10)
    state = start(digits.generator, condition, steps=steps)
    schedule: Schedule = reference(steps)
    for step in range(steps):
        state = advance(digits.generator, state, schedule.params(step, 10), HashNoise.from_seed(0, 10))
        pictures = list(reveal(digits.tokenizer, state, digits.generator.mask_id))
        assert [picture.shape for picture in pictures] == [(96, 96, 3)] * 10
        for picture, masked in zip(pictures, state.masked_B.tolist(), strict=True):
            colored = (picture[..., 0] != picture[..., 2]).sum()  # only what is hidden is not grey
            assert colored == masked * 24 * 24


def test_texts_are_drawn_as_they_are_and_numbers_as_powers() -> None:
    """A name with dollars is no formula; 10 to a power on a logarithmic axis is one, and so is a parameter's
    symbol."""
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.bar(range(3), [1, 2, 3], label="$5-$10")
    left.set_xticks(range(3), ["$5-$10", "$10_$20", "free"])
    left.set_title("$10_$20")
    left.legend()
    right.loglog([1, 1e6], [1, 1e6])
    right.set_title(TABLE["remask_temperature"].label)
    finish(figure, "a note of $1_$")
    figure.savefig(io.BytesIO())
    assert [text.get_parse_math() for text in left.get_xticklabels()] == [False] * 3
    assert not left.title.get_parse_math() and not left.get_legend().get_texts()[0].get_parse_math()
    powers = [text for text in right.get_xticklabels() if "10^" in text.get_text()]
    assert powers and all(text.get_parse_math() for text in powers)
    assert right.title.get_text() == r"re-mask temperature $\tau_2$" and right.title.get_parse_math()
