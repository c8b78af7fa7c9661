"""Sudoku of any size: in each row, column and box every symbol stands once.

Shapes: N puzzles, L cells, V symbols, U units (rows, columns, boxes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from generators.puzzles.rules import Puzzle, at_random, mixed

SEEDS = 400  # grids found by search, of which all others are made by symmetries
_CHUNK = 2000


@dataclass(frozen=True)
class Sudoku(Puzzle):
    """Sudoku with boxes of `box` rows and columns.

    The form `few` gives so few cells that many answers are right; `unique` gives cells from which all others
    follow one after the other, each as the only symbol left for a cell or the only cell left for a symbol in
    a row, column or box.

    Attributes:
        box: rows and columns of a box; their product is the side.
        few, unique: how many cells these forms give.
    """

    box: tuple[int, int]
    few: int
    unique: int

    @property
    def side(self) -> int:
        """V, symbols, and cells of a row."""
        return self.box[0] * self.box[1]

    @property
    def grid(self) -> tuple[int, int]:  # type: ignore[override]
        return self.side, self.side

    @property
    def symbols(self) -> str:  # type: ignore[override]
        return "".join(str(number + 1) for number in range(self.side))

    @property
    def forms(self) -> dict[str, int]:  # type: ignore[override]
        return {"few": self.few, "unique": self.unique}

    @cached_property
    def places(self) -> dict[str, np.ndarray]:
        """Row, column, box, band (of boxes side by side) and stack (of boxes above each other), (L,) each."""
        row, column = np.divmod(np.arange(self.cells), self.side)
        band, stack = row // self.box[0], column // self.box[1]
        box = band * (self.side // self.box[1]) + stack
        return {"row": row, "column": column, "box": box, "band": band, "stack": stack}

    @cached_property
    def units_UL(self) -> np.ndarray:
        """Which cells are in each unit, 0 or 1, float32."""
        numbers = np.arange(self.side)[:, None]
        parts = [self.places[name] == numbers for name in ("row", "column", "box")]
        return np.concatenate(parts).astype(np.float32)

    @cached_property
    def peers_LL(self) -> np.ndarray:
        """Which two cells can't hold the same symbol, 0 or 1, float32."""
        together_LL = self.units_UL.T @ self.units_UL > 0
        return (together_LL & ~np.eye(self.cells, dtype=bool)).astype(np.float32)

    def answers(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Return grids that are found by a search in random order, each changed by a random symmetry."""
        found_SL = np.stack([self._found(rng) for _ in range(min(SEEDS, number))])
        chosen_NL = found_SL[rng.integers(len(found_SL), size=number)]
        return self.changed(chosen_NL, rng)

    def changed(self, symbols_NL: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return grids, each under a random symmetry of its own: symbols are renamed; bands, rows of a band,
        stacks and columns of a stack change places; and rows with columns, where boxes are square.

        Args:
            symbols_NL: -1 in an empty cell, which goes along.
        """
        number = len(symbols_NL)
        grids = symbols_NL.reshape(number, self.side, self.side)
        at = np.arange(number)[:, None, None]
        rows_NS = _shuffled(number, self.side // self.box[0], self.box[0], rng)
        columns_NS = _shuffled(number, self.side // self.box[1], self.box[1], rng)
        grids = grids[at, rows_NS[:, :, None], columns_NS[:, None, :]]
        if self.box[0] == self.box[1]:
            turned = rng.random(number) < 0.5
            grids = np.where(turned[:, None, None], grids.transpose(0, 2, 1), grids)
        names_NV = rng.random((number, self.side)).argsort(1)
        names_NV = np.concatenate([names_NV, np.full((number, 1), -1)], axis=1)  # of an empty cell, the last
        return names_NV[at[:, 0], grids.reshape(number, -1)]

    def _found(self, rng: np.random.Generator) -> np.ndarray:
        """Return one grid, filled cell by cell with symbols tried in random order, (L,)."""
        grid_L = np.full(self.cells, -1)
        peers = [np.flatnonzero(row) for row in self.peers_LL]

        def fill(cell: int) -> bool:
            if cell == self.cells:
                return True
            for symbol in rng.permutation(self.side):
                if not (grid_L[peers[cell]] == symbol).any():
                    grid_L[cell] = symbol
                    if fill(cell + 1):
                        return True
            grid_L[cell] = -1
            return False

        fill(0)
        return grid_L

    def completed(self, cells: Sequence[int]) -> list[int] | None:
        """Return an answer that a grid can be completed to; None if there is none.

        Args:
            cells: L symbols, -1 in an empty cell.
        """
        for cell, symbol in enumerate(cells):
            if symbol >= 0 and any(cells[peer] == symbol for peer in self._peers[cell]):
                return None
        return self._filled(list(cells))

    @cached_property
    def _peers(self) -> list[list[int]]:
        return [np.flatnonzero(row_L).tolist() for row_L in self.peers_LL]

    def _filled(self, cells: list[int]) -> list[int] | None:
        """Return the first answer that a search finds, which fills where the fewest symbols are left."""
        left = {
            cell: set(range(self.side)) - {cells[peer] for peer in self._peers[cell]}
            for cell, symbol in enumerate(cells)
            if symbol < 0
        }
        if not left:
            return cells
        cell = min(left, key=lambda cell: len(left[cell]))
        tries = (self._filled([*cells[:cell], symbol, *cells[cell + 1 :]]) for symbol in left[cell])
        return next((answer for answer in tries if answer), None)

    def holds(self, symbols_NL: np.ndarray) -> np.ndarray:
        """Return which units hold every symbol once, (N, U): rows, then columns, then boxes."""
        there_NVL = symbols_NL[:, None] == np.arange(self.side)[:, None]
        return (there_NVL.astype(np.float32) @ self.units_UL.T == 1).all(1)

    def hidden(self, answers_NL: np.ndarray, form: str, given: int, rng: np.random.Generator) -> np.ndarray:
        if form == "few":
            return at_random(answers_NL, given, rng)
        parts = [
            self._dug(answers_NL[first : first + _CHUNK], given, rng)
            for first in range(0, len(answers_NL), _CHUNK)
        ]
        return np.concatenate(parts)

    def _dug(self, answers_NL: np.ndarray, given: int, rng: np.random.Generator) -> np.ndarray:
        """Return which cells are hidden, (N, L): one after the other, each if it follows from those that are
        given still. Read backwards, this is a way to solve the puzzle."""
        number, at = len(answers_NL), np.arange(len(answers_NL))
        hidden_NL = np.zeros(answers_NL.shape, dtype=bool)
        for cell_N in rng.random(answers_NL.shape).argsort(1).T:
            more_N = (~hidden_NL).sum(1) > given
            hidden_NL[at, cell_N] = more_N
            hidden_NL[at, cell_N] &= self.follows(answers_NL, hidden_NL)[at, cell_N]
        hidden_NL[hidden_NL.sum(1) < self.cells - given] = False
        return hidden_NL.reshape(number, self.cells)

    def follows(self, answers_NL: np.ndarray, hidden_NL: np.ndarray) -> np.ndarray:
        """Return which hidden cells follow at once from the given ones, (N, L): one symbol is left for the
        cell, or the cell is the only one left for its symbol in a row, column or box."""
        there_NVL = (answers_NL[:, None] == np.arange(self.side)[:, None]) & ~hidden_NL[:, None]
        can_NVL = hidden_NL[:, None] & (there_NVL.astype(np.float32) @ self.peers_LL == 0)
        only_symbol_NL = can_NVL.sum(1) == 1
        ways_NVU = can_NVL.astype(np.float32) @ self.units_UL.T
        only_cell_NVL = can_NVL & ((ways_NVU == 1).astype(np.float32) @ self.units_UL > 0)
        its_NL = np.take_along_axis(only_cell_NVL, answers_NL[:, None], 1)[:, 0]
        return hidden_NL & (only_symbol_NL | its_NL)

    @cached_property
    def _relations_LL(self) -> np.ndarray:
        """How two cells lie to each other, as no symmetry changes it; integers below 32."""
        same = {name: place[:, None] == place for name, place in self.places.items()}
        across = 2 * same["row"] + same["band"]
        down = 2 * same["column"] + same["stack"]
        if self.box[0] == self.box[1]:  # rows and columns may change places
            across, down = np.minimum(across, down), np.maximum(across, down)
        return 4 * across + down

    def kinds(self, answers_NL: np.ndarray, hidden_NL: np.ndarray) -> np.ndarray:
        """Return digits of what each given cell is to the others, twice over (Weisfeiler and Leman's test):
        two puzzles of one kind have the same, and few others."""
        parts = [
            self._kinds(answers_NL[first : first + _CHUNK], hidden_NL[first : first + _CHUNK])
            for first in range(0, len(answers_NL), _CHUNK)
        ]
        return np.concatenate(parts)

    def _kinds(self, answers_NL: np.ndarray, hidden_NL: np.ndarray) -> np.ndarray:
        same_NLL = answers_NL[:, :, None] == answers_NL[:, None]
        related_NLL = mixed(2 * self._relations_LL + same_NLL)
        given_NL = (~hidden_NL).astype(np.uint64)
        color_NL = given_NL
        for _ in range(2):
            seen_NLL = mixed(related_NLL + color_NL[:, None]) * given_NL[:, None]
            color_NL = mixed(seen_NLL.sum(2)) * given_NL  # sums don't tell in which order cells come
        return color_NL.sum(1)


def _shuffled(number: int, groups: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return orders (N, groups * size) in which groups and what is in each of them change places."""
    groups_NG = rng.random((number, groups)).argsort(1)
    within_NGs = rng.random((number, groups, size)).argsort(2)
    return (groups_NG[:, :, None] * size + within_NGs).reshape(number, -1)
