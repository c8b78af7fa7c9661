"""Readers of scenes: what is right in an image, by hand; likelihoods, by trying all scenes."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from generators.shapes.captions import Asked, relation_of
from generators.shapes.scenes import COLORS, FORMS, KINDS, draw
from natgym.metrics.scenes import (
    SceneReader,
    SceneReaderConfig,
    any_scenes,
    contents,
    fit_reader,
    is_right,
    log_probability,
    read,
)

NAN = math.nan


def cells(**things: str) -> list[int]:
    """Contents of 9 cells, as c4="red disc"."""
    held = [0] * 9
    for name, thing in things.items():
        color, form = thing.split()
        held[int(name[1:])] = 1 + FORMS.index(form) * len(COLORS) + [*COLORS].index(color)
    return held


@pytest.mark.parametrize(
    ("text", "there", "right"),
    [
        ("a red disc", {"c4": "red disc"}, (1, 1, 1, NAN, 1)),
        ("a red disc", {"c4": "blue disc"}, (1, 0, 1, NAN, 0)),
        ("a red disc", {"c4": "red cross"}, (0, 0, 1, NAN, 0)),
        ("a red disc", {}, (0, 0, 0, NAN, 0)),
        ("a red disc", {"c4": "red disc", "c5": "red disc"}, (0, 0, 0, NAN, 0)),
        ("two red discs", {"c4": "red disc", "c5": "red disc"}, (1, 1, 1, NAN, 1)),
        ("a red disc left of a blue disc", {"c0": "red disc", "c2": "blue disc"}, (1, 1, 1, 1, 1)),
        ("a red disc left of a blue disc", {"c2": "red disc", "c0": "blue disc"}, (1, 1, 1, 0, 0)),
        ("a red disc left of a blue disc", {"c0": "blue disc", "c2": "red disc"}, (1, 1, 1, 0, 0)),
        ("a red disc above a blue disc", {"c0": "red disc", "c8": "blue disc"}, (1, 1, 1, 0, 0)),
        ("a red disc above a blue disc", {"c1": "red disc", "c6": "blue disc"}, (1, 1, 1, 1, 1)),
        ("a red disc above a blue disc", {"c1": "red disc"}, (0, 0, 0, 0, 0)),
        (
            "a red disc above a blue disc",
            {"c1": "red disc", "c7": "blue disc", "c0": "white cross"},
            (0, 0, 0, 1, 0),
        ),
    ],
)
def test_what_is_right_is_as_by_hand(text: str, there: dict[str, str], right: tuple[float, ...]) -> None:
    asked = Asked.parse(text)
    assert asked is not None
    assert is_right(asked, cells(**there)) == pytest.approx(right, nan_ok=True)


def test_shares_are_of_those_captions_that_ask_for_it() -> None:
    texts = ["a red disc", "a red disc left of a blue disc", "a rhinoceros"]
    held = torch.tensor([cells(c4="red disc"), cells(c2="red disc", c0="blue disc"), cells()])
    logits = torch.nn.functional.one_hot(held, KINDS).float().flatten(1) * 9
    assert np.array_equal(contents(logits), held.numpy())
    assert read(texts, logits)[2].tolist() == pytest.approx([NAN] * 5, nan_ok=True)
    shares = SceneReader(SceneReaderConfig()).read(texts, logits)
    assert shares == {"objects": 1, "colors": 1, "counts": 1, "relations": 0, "caption": 0.5}
    assert "relations" not in SceneReader(SceneReaderConfig()).read(texts[:1], logits[:1])


def test_the_likeliest_scene_is_found_as_by_trying_all() -> None:
    texts = ["a red disc", "two white crosses", "a red disc below a blue disc", "a red disc and a blue cross"]
    logits_BN = torch.randn(4, 9 * KINDS, generator=torch.Generator().manual_seed(0))
    found = log_probability(texts, logits_BN)
    for text, logits_N, value in zip(texts, logits_BN, found, strict=True):
        asked, log_CK = Asked.parse(text), logits_N.view(9, KINDS).log_softmax(-1)
        assert asked is not None
        kinds = [cells(c0=f"{thing.color} {thing.form}")[0] for thing in asked.things]
        best = -math.inf
        for where in itertools.permutations(range(9), len(kinds)):
            if asked.relation is None or relation_of(*where[:2]) == asked.relation:
                held = dict(zip(where, kinds, strict=True))
                best = max(best, sum(float(log_CK[cell, held.get(cell, 0)]) for cell in range(9)))
        assert float(value) == pytest.approx(best / 9, rel=1e-5)
    with pytest.raises(ValueError, match="'a rhinoceros' is no caption that can be judged"):
        log_probability(["a rhinoceros"], logits_BN[:1])


def test_a_reader_learns_to_read_and_is_its_seed() -> None:
    config = SceneReaderConfig(channels=8, features=12)
    losses: list[float] = []
    reader = fit_reader(config, updates=80, seed=3, progress=losses.append)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
    again = fit_reader(config, updates=80, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(reader.parameters(), again.parameters(), strict=True))
    scenes = any_scenes(200, np.random.default_rng(0))
    features, logits = reader(torch.from_numpy(draw(scenes)).float() / 255)
    assert features.shape == (200, 12) and logits.shape == (200, 9 * KINDS)
    assert features.var(0).mean() == pytest.approx(1, abs=0.5), "distances have a scale"


def test_scenes_to_read_hold_anything_anywhere() -> None:
    scenes: Any = any_scenes(3000, np.random.default_rng(0))
    held = scenes.contents_NC
    assert set((held > 0).sum(1)) == {0, 1, 2, 3, 4} and set(held.flatten()) == set(range(KINDS))
    assert (held > 0).any(0).all()
