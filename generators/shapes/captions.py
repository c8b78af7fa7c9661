"""Captions of scenes: what they ask for, how they say it, and what is held out of training.

A caption asks for things, each a color and a form, and perhaps for a place of the first in relation to the
second. `Asked.parse` reads what `Asked.say` wrote, and what a person writes in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from generators.shapes.scenes import COLORS, FORMS, SIDE, kind_of

Kind = Literal["one", "several", "pair", "relation", "three"]
HeldOut = Literal["things", "relations", "wordings"]
RELATIONS = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
_CONVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3}
_COUNTS = ("one", "two", "three")
OPENINGS = ("", "there is ")
STYLES = ("a", "one", "in")  # a red disc, one red disc, a disc in red


class Thing(NamedTuple):
    """A form of a color."""

    color: str
    form: str

    @property
    def kind(self) -> int:
        """Its number in `Scenes.contents_NC`."""
        return int(kind_of(FORMS.index(self.form), [*COLORS].index(self.color)))


THINGS = tuple(Thing(color, form) for form in FORMS for color in COLORS)  # by kind, from 1


# What no image and no caption of train or select has.
HELD_OUT_THINGS = frozenset(
    {Thing("white", "disc"), Thing("red", "square"), Thing("blue", "triangle"), Thing("green", "cross")}
)
HELD_OUT_RELATIONS = frozenset(  # of forms; the converse is held out with each
    {
        ("left", "triangle", "disc"),
        ("left", "cross", "square"),
        ("above", "square", "cross"),
        ("above", "disc", "triangle"),
    }
)
HELD_OUT_WORDINGS = frozenset({("there is ", "one")})  # opening and style, each of which is seen with others


@dataclass(frozen=True)
class Asked:
    """What a caption asks for: exactly these things, the first one in relation to the second, if any."""

    things: tuple[Thing, ...]
    relation: str | None = None

    @property
    def kind(self) -> Kind:
        """What kind of caption it is."""
        if self.relation is not None:
            return "relation"
        if len(self.things) == 1:
            return "one"
        if len(set(self.things)) == 1:
            return "several"
        return "pair" if len(self.things) == 2 else "three"

    def say(self, opening: str = "", style: str = "a") -> str:
        """Return a caption."""
        opening = opening.replace("is", "are") if self.kind == "several" else opening
        if self.kind == "several":
            return opening + _named(self.things[0], _COUNTS[len(self.things) - 1], style, "s")
        number = "one" if style == "one" else "a"
        named = [_named(thing, number, style) for thing in self.things]
        if self.relation is not None:
            return f"{opening}{named[0]} {RELATIONS[self.relation]} {named[1]}"
        return opening + " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))

    @staticmethod
    @lru_cache(maxsize=100_000)
    def parse(text: str) -> Asked | None:
        """Return what a text asks for; None if it is no caption of things and relations."""
        words = re.findall(r"\w+|,", text.lower())
        if words[:1] == ["there"] and words[1:2] in (["is"], ["are"]):
            words = words[2:]
        said = " ".join(words)
        for relation, phrase in RELATIONS.items():
            if len(parts := said.split(f" {phrase} ")) == 2:
                both = _things(parts[0]), _things(parts[1])
                if both[0] is None or both[1] is None or len(both[0]) + len(both[1]) != 2:
                    return None
                return Asked(both[0] + both[1], relation)
        found = _things(said)
        return None if found is None or not 1 <= len(found) <= len(_COUNTS) else Asked(found)

    @property
    def held_out(self) -> HeldOut | None:
        """What is held out of training: a thing, else the relation; None if nothing is."""
        if HELD_OUT_THINGS & set(self.things):
            return "things"
        if self.relation is not None and _is_held_out(self.relation, *self.things[:2]):
            return "relations"
        return None


def _is_held_out(relation: str, first: Thing, second: Thing) -> bool:
    forms = first.form, second.form
    return (relation, *forms) in HELD_OUT_RELATIONS or (
        _CONVERSE[relation],
        *reversed(forms),
    ) in HELD_OUT_RELATIONS


def _named(thing: Thing, number: str, style: str, plural: str = "") -> str:
    form = thing.form + ("e" if plural and thing.form.endswith("s") else "") + plural
    return f"{number} {form} in {thing.color}" if style == "in" else f"{number} {thing.color} {form}"


_PHRASE = re.compile(
    rf"({'|'.join(_NUMBERS)}) (?:({'|'.join(COLORS)}) )?({'|'.join(FORMS)})(?:e?s)?"
    rf"(?: in ({'|'.join(COLORS)}))?"
)


def _things(said: str) -> tuple[Thing, ...] | None:
    """Return the things of phrases with commas and "and" between them."""
    found: list[Thing] = []
    for phrase in re.split(r" , and | , | and ", said):
        match = _PHRASE.fullmatch(phrase.strip())
        if match is None or (match[2] is None) == (match[4] is None):
            return None
        found += [Thing(match[2] or match[4], match[3])] * _NUMBERS[match[1]]
    return tuple(found)


def relation_of(first: int, second: int) -> str | None:
    """Return the relation of one cell to another: along the axis where they are further apart, or None."""
    across, down = _apart(first, second)
    if abs(across) == abs(down):
        return None
    if abs(across) > abs(down):
        return "left" if across < 0 else "right"
    return "above" if down < 0 else "below"


def _apart(first: int, second: int) -> tuple[int, int]:
    """Return how far one cell lies to the right of another and below it."""
    (y, x), (other_y, other_x) = divmod(first, SIDE), divmod(second, SIDE)
    return x - other_x, y - other_y


def fits(asked: Asked, cells: tuple[int, ...]) -> bool:
    """Tell whether things in cells are as a caption asks, and in no held-out relation that it doesn't.

    Things in relation lie at opposite ends of the grid, so that it is plain.
    """
    places = [(thing, cell) for thing, cell in zip(asked.things, cells, strict=True)]
    if asked.relation is not None:
        far = max(map(abs, _apart(cells[0], cells[1]))) == SIDE - 1
        return far and relation_of(cells[0], cells[1]) == asked.relation
    return not any(
        (relation := relation_of(cell, other_cell)) is not None and _is_held_out(relation, thing, other)
        for number, (thing, cell) in enumerate(places)
        for other, other_cell in places[number + 1 :]
    )


def asks(rng: np.random.Generator, held_out: HeldOut | None = None) -> Iterator[Asked]:
    """Yield what captions ask for, without end; of what is held out, or of what is not."""
    seen = [thing for thing in THINGS if thing not in HELD_OUT_THINGS]
    kinds: tuple[Kind, ...] = ("one", "several", "pair", "relation", "three")
    shares = (0.15, 0.15, 0.1, 0.45, 0.15)
    while True:
        kind = str(rng.choice(kinds, p=shares))
        among = THINGS if held_out == "things" else seen
        number = {"one": 1, "several": int(rng.integers(2, 4)), "three": 3}.get(kind, 2)
        if kind == "several":
            chosen = (among[rng.integers(len(among))],) * number
        else:
            chosen = tuple(among[i] for i in rng.choice(len(among), number, replace=False))
        relation = str(rng.choice([*RELATIONS])) if kind == "relation" else None
        asked = Asked(chosen, relation)
        told = asked.held_out or ("wordings" if held_out == "wordings" and kind != "several" else None)
        if told == held_out:  # of several things there is one style alone, which is not held out
            yield asked


def wording(asked: Asked, rng: np.random.Generator, held_out: HeldOut | None = None) -> str:
    """Return one of the captions that ask for it, in words that are held out or are not."""
    ways = [
        (opening, style)
        for opening in OPENINGS
        for style in STYLES
        if ((opening, style) in HELD_OUT_WORDINGS) == (held_out == "wordings")
    ]
    opening, style = ways[rng.integers(len(ways))]
    return asked.say(opening, style)
