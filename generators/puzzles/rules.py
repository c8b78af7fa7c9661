"""What a puzzle is: its symbols, what holds in an answer, and how much of one is given.

Shapes: N puzzles, L cells, V symbols, R rules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

ODD = 0x9E3779B97F4A7C15  # of the golden ratio, 64 bits


class Puzzle(ABC):
    """A kind of puzzle; cells hold symbols 0..V-1.

    Attributes:
        grid: rows and columns of cells.
        symbols: one printable character for each.
        forms: which cells are given, by name, and by default how many.
        apart: whether answers are kept apart like puzzles: the form `unique` gives the same cells of each.
    """

    grid: tuple[int, int]
    symbols: str
    forms: Mapping[str, int]
    apart: bool = False

    @property
    def cells(self) -> int:
        """L."""
        return self.grid[0] * self.grid[1]

    @abstractmethod
    def answers(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Return complete grids in which every rule holds, (N, L)."""

    @abstractmethod
    def holds(self, symbols_NL: np.ndarray) -> np.ndarray:
        """Return which rules hold in complete grids, (N, R), bool."""

    @abstractmethod
    def hidden(self, answers_NL: np.ndarray, form: str, given: int, rng: np.random.Generator) -> np.ndarray:
        """Return which cells are to be found, (N, L), bool; of a row that can't give so few, none.

        Args:
            form: one of `forms`.
            given: how many cells are not hidden.
        """

    @abstractmethod
    def kinds(self, answers_NL: np.ndarray, hidden_NL: np.ndarray) -> np.ndarray:
        """Return digits (N,), uint64, that are equal for puzzles that are alike but for a symmetry."""


def mixed(values: np.ndarray) -> np.ndarray:
    """Return 64 bits for each integer that look random: the finalizer of SplitMix64 (Steele et al. 2014)."""
    bits = (values.astype(np.uint64) + np.uint64(1)) * np.uint64(ODD)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def at_random(answers_NL: np.ndarray, given: int, rng: np.random.Generator) -> np.ndarray:
    """Return all cells as hidden but `given` random ones of each row, (N, L)."""
    return rng.random(answers_NL.shape).argsort(1).argsort(1) >= given
