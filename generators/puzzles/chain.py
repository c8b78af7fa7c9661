"""Chains of running sums: numbers in a row, and below each the sum of all up to it, modulo their number of
symbols. What follows from what is known beforehand: a sum from the number above it and the sum before it.

Shapes: N puzzles, L cells, S links, V symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generators.puzzles.rules import Puzzle, mixed


@dataclass(frozen=True)
class Chain(Puzzle):
    """Numbers in the first row, their running sums modulo V in the second.

    The form `few` gives random numbers of the first row, so that many answers are right; `unique` gives all
    of them, and if there are to be more, sums.

    Attributes:
        links: S, numbers of a chain.
        modulus: V, symbols 0..V-1.
        most: of a number; below V - 1, so that a sum alone says something of the next, without which networks
            hardly begin to learn to add.
        few: how many cells that form gives.
    """

    links: int
    modulus: int
    most: int
    few: int
    apart = True

    @property
    def grid(self) -> tuple[int, int]:  # type: ignore[override]
        return 2, self.links

    @property
    def symbols(self) -> str:  # type: ignore[override]
        return "".join(map(str, range(self.modulus)))

    @property
    def forms(self) -> dict[str, int]:  # type: ignore[override]
        return {"few": self.few, "unique": self.links}

    def answers(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Return random numbers with their sums."""
        numbers_NS = rng.integers(self.most + 1, size=(number, self.links))
        return np.concatenate([numbers_NS, numbers_NS.cumsum(1) % self.modulus], axis=1)

    def holds(self, symbols_NL: np.ndarray) -> np.ndarray:
        """Return which sums are right, of a number that there may be above and the sum before, (N, S)."""
        numbers_NS, sums_NS = symbols_NL[:, : self.links], symbols_NL[:, self.links :]
        before_NS = np.concatenate([np.zeros_like(sums_NS[:, :1]), sums_NS[:, :-1]], axis=1)
        right_NS = (before_NS + numbers_NS - sums_NS) % self.modulus == 0
        return right_NS & (numbers_NS <= self.most)

    def hidden(self, answers_NL: np.ndarray, form: str, given: int, rng: np.random.Generator) -> np.ndarray:
        """Return which cells are to be found; none where `few` is to give more numbers than there are, or
        `unique` less than all of them."""
        hidden_NL = np.ones(answers_NL.shape, dtype=bool)
        order_NS = rng.random((len(answers_NL), self.links)).argsort(1).argsort(1)
        numbers_NS, sums_NS = hidden_NL[:, : self.links], hidden_NL[:, self.links :]
        if form == "few" and given <= self.links:
            numbers_NS[:] = order_NS >= given
        elif form == "unique" and given >= self.links:
            numbers_NS[:] = False
            sums_NS[:] = order_NS >= given - self.links
        else:
            hidden_NL[:] = False
        return hidden_NL

    def kinds(self, answers_NL: np.ndarray, hidden_NL: np.ndarray) -> np.ndarray:
        """Return digits of what is given where: chains have no symmetry."""
        places_L = mixed(np.arange(answers_NL.shape[1]))
        seen_NL = np.where(hidden_NL, self.modulus, answers_NL)
        return mixed(mixed(seen_NL) ^ places_L).sum(1)
