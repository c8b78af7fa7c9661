"""The splits of puzzles: answers drawn as images, and which of their cells are given.

No two puzzles of different splits are alike up to a symmetry, of any form and number of given cells. Answers
without their puzzles are kept apart of chains alone: small sudokus have few.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from generators.checkpoints import tensors_hash
from generators.config import SplitName
from generators.noise import derive_seed
from generators.puzzles.chain import Chain
from generators.puzzles.glyphs import PATCH, glyphs
from generators.puzzles.rules import Puzzle, mixed
from generators.puzzles.sudoku import Sudoku

PUZZLES: dict[str, Puzzle] = {
    "sudoku-4": Sudoku((2, 2), few=3, unique=5),
    "sudoku-6": Sudoku((2, 3), few=5, unique=12),
    "chain": Chain(links=12, modulus=5, most=2, few=6),
}
SIZES: dict[SplitName, int] = {"train": 20_000, "select": 2_000, "report": 4_000}
_TURNS = 200


class PuzzlePixels:
    """Grids of symbols (N, L) as uint8 images (B, 1, H, W), drawn row by row."""

    def __init__(self, puzzle: Puzzle, symbols_NL: np.ndarray) -> None:
        self.puzzle = puzzle
        self.symbols_NL = symbols_NL

    def __getitem__(self, rows: Tensor) -> Tensor:
        high, wide = self.puzzle.grid
        patches = glyphs(self.puzzle.symbols)[self.symbols_NL[rows.cpu().numpy()]]
        images = patches.reshape(-1, high, wide, PATCH, PATCH).transpose(0, 1, 3, 2, 4)
        return torch.from_numpy(images.reshape(-1, 1, high * PATCH, wide * PATCH))

    def fingerprint(self) -> str:
        """Name the grids."""
        return tensors_hash({"symbols": torch.from_numpy(self.symbols_NL)})


@cache
def answers(name: str, split: SplitName) -> np.ndarray:
    """Return the complete grids of a split, symbols 0..V-1, (N, L)."""
    puzzle, number = PUZZLES[name], SIZES[split]
    rng = np.random.default_rng(derive_seed("puzzles", name, split))
    if not puzzle.apart:
        return puzzle.answers(number, rng)
    found = list[np.ndarray]()
    while sum(map(len, found)) < number:
        drawn_NL = puzzle.answers(number, rng)
        hidden_NL = puzzle.hidden(drawn_NL, "unique", puzzle.forms["unique"], rng)
        found.append(drawn_NL[_splits(puzzle.kinds(drawn_NL, hidden_NL)) == split])
    return np.concatenate(found)[:number]


@cache
def hidden_cells(name: str, split: SplitName, form: str) -> Tensor:
    """Return which cells of a split's grids are to be found, bool (N, L).

    Args:
        form: "few" gives so few cells that many answers are right, "unique" so many that one is;
            "FORM=NUMBER" gives another number of them.

    Raises:
        ValueError: there is no such form, or no puzzle of a row gives so few cells.
    """
    puzzle, kind, given = PUZZLES[name], *_parsed(name, form)
    answers_NL = answers(name, split)
    rng = np.random.default_rng(derive_seed("givens", name, split, kind, given))
    hidden_NL = np.zeros(answers_NL.shape, dtype=bool)
    left_M = np.arange(len(answers_NL))
    for _ in range(_TURNS):
        drawn_ML = puzzle.hidden(answers_NL[left_M], kind, given, rng)
        fits_M = drawn_ML.any(1) & (_splits(puzzle.kinds(answers_NL[left_M], drawn_ML)) == split)
        hidden_NL[left_M[fits_M]] = drawn_ML[fits_M]
        left_M = left_M[~fits_M]
        if not len(left_M):
            return torch.from_numpy(hidden_NL)
    raise ValueError(
        f"given={form}: no puzzle {kind} of {name} was found that gives {given} cells; give more"
    )


def _parsed(name: str, form: str) -> tuple[str, int]:
    """Return the form and the number of given cells that a text says."""
    puzzle = PUZZLES[name]
    kind, _, number = form.partition("=")
    if kind not in puzzle.forms:
        raise ValueError(
            f"given={form}: {name} has the forms {', '.join(puzzle.forms)}, each perhaps =NUMBER"
        )
    given = int(number) if number.isdecimal() else puzzle.forms[kind] if not number else 0
    if not 0 < given < puzzle.cells:
        raise ValueError(f"given={form}: {number!r} is no number of cells between 1 and {puzzle.cells - 1}")
    return kind, given


def _splits(kinds_N: np.ndarray) -> np.ndarray:
    """Return the split of each kind of puzzle: half of them train, a quarter select, a quarter report."""
    names = np.array(["train", "train", "select", "report"])
    return names[mixed(kinds_N) % np.uint64(len(names))]
