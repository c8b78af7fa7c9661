"""Scenes and their captions: drawn point by point, read back, and cut so that nothing held out is learned."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from generators.data import open_split
from generators.shapes.captions import (
    HELD_OUT_RELATIONS,
    HELD_OUT_THINGS,
    HELD_OUT_WORDINGS,
    OPENINGS,
    RELATIONS,
    STYLES,
    Asked,
    Thing,
    relation_of,
)
from generators.shapes.data import SIZES, place, sampled
from generators.shapes.scenes import CELL, COLORS, FORMS, NOTHING, SIDE, Scenes, draw

EVERY = [Thing(color, form) for color in COLORS for form in FORMS]


def inside(form: str, x: float, y: float, r: float) -> bool:
    if form == "disc":
        return x * x + y * y <= r * r
    if form == "square":
        return abs(x) <= 0.85 * r and abs(y) <= 0.85 * r
    if form == "triangle":
        return abs(x) <= 0.6 * (y + r) and y <= 0.8 * r
    return (abs(x) <= r and abs(y) <= 0.36 * r) or (abs(y) <= r and abs(x) <= 0.36 * r)


def slowly(scenes: Scenes, row: int) -> np.ndarray:
    """One scene, sample by sample."""
    chances = np.random.Generator(np.random.PCG64(scenes.seed_N[row])).random((scenes.cell_NK.shape[1], 6))
    image = np.full((24, 24, 3), 0.12)
    for at, cell in enumerate(scenes.cell_NK[row]):
        if cell == NOTHING:
            continue
        chance, (top, left) = chances[at], divmod(int(cell), SIDE)
        form = FORMS[scenes.form_NK[row, at]]
        color = np.array([*COLORS.values()][scenes.color_NK[row, at]]) + 0.03 * (2 * chance[3:6] - 1)
        for i, j in itertools.product(range(CELL), repeat=2):
            offsets = [(k + 0.5) / 4 for k in range(4)]
            hits = [
                inside(
                    form,
                    j + u - 4 - 0.4 * (2 * chance[0] - 1),
                    i + v - 4 - 0.4 * (2 * chance[1] - 1),
                    2.9 + 0.5 * chance[2],
                )
                for v in offsets
                for u in offsets
            ]
            pixel = image[top * CELL + i, left * CELL + j]
            pixel += np.mean(hits) * (color - pixel)
    return (image.clip(0, 1) * 255).round().astype(np.uint8).transpose(2, 0, 1)


def test_scenes_are_drawn_as_point_by_point() -> None:
    scenes, _ = sampled(12, np.random.default_rng(0))
    images = draw(scenes)
    assert images.shape == (12, 3, 24, 24) and images.dtype == np.uint8
    for row in range(12):
        assert abs(images[row].astype(int) - slowly(scenes, row)).max() <= 1
    assert set(scenes.form_NK[scenes.cell_NK != NOTHING]) == {0, 1, 2, 3}, "each form was drawn"


def test_a_scene_looks_the_same_in_any_batch() -> None:
    scenes, _ = sampled(9, np.random.default_rng(1))
    rows = np.array([7, 2, 2])
    assert np.array_equal(draw(scenes)[rows], draw(scenes[rows]))
    assert draw(scenes[np.array([], dtype=int)]).shape == (0, 3, 24, 24)


def test_captions_are_read_back_whatever_the_wording() -> None:
    asks = [Asked((thing,)) for thing in EVERY] + [Asked((thing,) * n) for thing in EVERY for n in (2, 3)]
    pairs = list(itertools.permutations(EVERY[:7], 2))
    asks += [Asked(pair, relation) for pair in pairs for relation in RELATIONS]
    asks += [Asked(pair) for pair in pairs] + [Asked(t) for t in itertools.permutations(EVERY[3:8], 3)]
    ways = list(itertools.product(OPENINGS, STYLES))
    for asked in asks:
        said = {asked.say(*way) for way in ways}
        assert {Asked.parse(text) for text in said} == {asked}, said
    assert {asked.kind for asked in asks} == {"one", "several", "pair", "relation", "three"}


@pytest.mark.parametrize(
    ("text", "things", "relation"),
    [
        ("A red disc", ["red disc"], None),
        ("there is one disc in red", ["red disc"], None),
        ("two blue crosses", ["blue cross", "blue cross"], None),
        ("a red disc, a blue disc, and a green cross", ["red disc", "blue disc", "green cross"], None),
        ("a red disc left of a blue disc", ["red disc", "blue disc"], "left"),
        ("there is one disc in red below a blue disc", ["red disc", "blue disc"], "below"),
    ],
)
def test_captions_mean_what_they_say(text: str, things: list[str], relation: str | None) -> None:
    assert Asked.parse(text) == Asked(tuple(Thing(*thing.split()) for thing in things), relation)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a disc",
        "a purple disc",
        "red disc",
        "a red disc a blue disc",
        "five red discs",
        "two red discs and ",
    ]
    + ["two red discs left of a blue disc", "a red disc in blue", "a red disc left of", "rouge", "три"]
    + ["two red discs and two blue discs"],
)
def test_other_texts_are_no_captions(text: str) -> None:
    assert Asked.parse(text) is None


@pytest.mark.parametrize(
    ("first", "second", "relation"),
    [(0, 1, "left"), (2, 0, "right"), (0, 6, "above"), (7, 1, "below"), (0, 4, None), (2, 3, "right")]
    + [(0, 5, "left"), (1, 6, "above"), (4, 0, None)],
)
def test_relations_go_along_the_longer_way(first: int, second: int, relation: str | None) -> None:
    assert relation_of(first, second) == relation


def held_out_in(asked: Asked, cells: list[int]) -> list[Any]:
    """What is held out of a scene, found by looking at each pair both ways."""
    found: list[Any] = [thing for thing in asked.things if thing in HELD_OUT_THINGS]
    for (thing, cell), (other, there) in itertools.permutations(zip(asked.things, cells, strict=True), 2):
        relation = relation_of(cell, there)
        found += [relation] if (relation, thing.form, other.form) in HELD_OUT_RELATIONS else []
    return found


@pytest.mark.parametrize("split", ["train", "select", "report"])
def test_nothing_held_out_is_in_a_split(split: Any) -> None:
    pictures = open_split("shapes", split)
    scenes: Scenes = pictures.pixels.scenes  # type: ignore[attr-defined]
    texts = pictures.condition.names
    assert len(texts) == len(scenes) == SIZES[split]
    assert frozenset({("there is ", "one")}) == HELD_OUT_WORDINGS
    kinds: Counter[str] = Counter()
    for row, text in enumerate(texts[:4000]):
        asked = Asked.parse(text)
        assert asked is not None
        cells = [int(cell) for cell in scenes.cell_NK[row] if cell != NOTHING]
        there = [
            Thing([*COLORS][scenes.color_NK[row, at]], FORMS[scenes.form_NK[row, at]])
            for at in range(len(cells))
        ]
        assert Counter(there) == Counter(asked.things) and len(set(cells)) == len(cells)
        assert asked.relation is None or relation_of(cells[0], cells[1]) == asked.relation
        assert not held_out_in(asked, cells), text
        assert not text.startswith("there is one")
        kinds[asked.kind] += 1
    assert min(kinds.values()) > 300 and len(kinds) == 5


def test_what_is_held_out_can_be_asked_for() -> None:
    every = {"one", "several", "pair", "relation", "three"}
    for held_out, kinds in (
        ("things", every),
        ("relations", {"relation"}),
        ("wordings", every - {"several"}),
    ):
        scenes, texts = sampled(300, np.random.default_rng(2), held_out)  # type: ignore[arg-type]
        asked = [one for text in texts if (one := Asked.parse(text)) is not None]
        assert len(asked) == 300 and {one.kind for one in asked} == kinds
        assert {one.held_out for one in asked} == {None if held_out == "wordings" else held_out}
        assert all(text.startswith("there is one ") for text in texts) == (held_out == "wordings")
        assert (scenes.cell_NK != NOTHING).any(1).all()


@pytest.mark.parametrize(
    ("text", "held_out"),
    [("a red disc", None), ("a red square", "things"), ("a white cross below a red disc", None)]
    + [("a red cross below a blue square", "relations"), ("a blue square above a red cross", "relations")]
    + [("a red cross above a blue square", None), ("a white disc below a red triangle", "things")],
)
def test_relations_are_held_out_with_their_converse(text: str, held_out: str | None) -> None:
    asked = Asked.parse(text)
    assert asked is not None and asked.held_out == held_out


def test_things_have_cells_of_their_own_and_contents_tell_them() -> None:
    asked = [Asked((Thing("blue", "cross"), Thing("red", "disc")), "above")] * 50
    scenes = place(asked, np.random.default_rng(0))
    contents = scenes.contents_NC
    cross, disc = 1 + FORMS.index("cross") * 5 + [*COLORS].index("blue"), 1
    assert (np.sort(contents, axis=1)[:, -2:] == sorted([cross, disc])).all() and (contents > 0).sum() == 100
    for row in range(50):
        at = [int(np.flatnonzero(contents[row] == kind)[0]) for kind in (cross, disc)]
        assert relation_of(*at) == "above"


def test_images_are_read_row_by_row() -> None:
    pictures = open_split("shapes", "select")
    assert pictures.image_shape == (3, 24, 24) and pictures.fingerprint() == pictures.fingerprint()
    rows = torch.tensor([17, 3])
    assert torch.equal(pictures[rows], pictures[torch.arange(20)][rows])
    assert pictures.fingerprint() != open_split("shapes", "report").fingerprint()
