"""Puzzles made by code: answers, what of them is given, and that no split knows another's."""

from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import pytest
import torch

from generators.data import load_split
from generators.puzzles import data
from generators.puzzles.chain import Chain
from generators.puzzles.data import PUZZLES, answers, hidden_cells
from generators.puzzles.glyphs import PATCH, Glyphs, GlyphsConfig
from generators.puzzles.sudoku import Sudoku

SMALL = {"train": 400, "select": 150, "report": 150}
SPLITS = tuple(SMALL)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fewer puzzles than those of the task, made by the same rules, and forgotten afterwards."""
    monkeypatch.setattr(data, "SIZES", SMALL)
    for kept in (answers, hidden_cells):
        kept.cache_clear()
    yield
    for kept in (answers, hidden_cells):
        kept.cache_clear()


def units(sudoku: Sudoku) -> list[list[int]]:
    """The cells of each row, column and box, by counting."""
    side, (high, wide) = sudoku.side, sudoku.box
    rows = [[side * row + column for column in range(side)] for row in range(side)]
    columns = [[side * row + column for row in range(side)] for column in range(side)]
    boxes = [
        [side * (top + row) + left + column for row in range(high) for column in range(wide)]
        for top in range(0, side, high)
        for left in range(0, side, wide)
    ]
    return rows + columns + boxes


def number_of_answers(sudoku: Sudoku, grid: list[int], most: int = 2) -> int:
    """Count the ways to fill a grid, -1 where it is empty, by trying all."""
    if -1 not in grid:
        return 1
    cell = min(
        (cell for cell in range(len(grid)) if grid[cell] < 0),
        key=lambda cell: len(allowed(sudoku, grid, cell)),
    )
    found = 0
    for symbol in allowed(sudoku, grid, cell):
        found += number_of_answers(sudoku, [*grid[:cell], symbol, *grid[cell + 1 :]], most)
        if found >= most:
            break
    return found


def allowed(sudoku: Sudoku, grid: list[int], cell: int) -> list[int]:
    taken = {grid[other] for unit in units(sudoku) if cell in unit for other in unit}
    return [symbol for symbol in range(sudoku.side) if symbol not in taken]


@pytest.mark.parametrize("name", PUZZLES)
@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_right_and_no_others_are(name: str, split: str) -> None:
    puzzle = PUZZLES[name]
    symbols_NL = data.answers(name, split)  # type: ignore[arg-type]
    assert symbols_NL.shape == (SMALL[split], puzzle.cells)
    assert symbols_NL.min() == 0 and symbols_NL.max() == len(puzzle.symbols) - 1
    assert puzzle.holds(symbols_NL).all()
    rng = np.random.default_rng(0)
    changed_NL = symbols_NL.copy()
    cells = rng.integers(puzzle.cells, size=len(changed_NL))
    rows = np.arange(len(changed_NL))
    changed_NL[rows, cells] = (changed_NL[rows, cells] + 1) % len(puzzle.symbols)
    assert not puzzle.holds(changed_NL).all(1).any(), "a change of one cell breaks a rule"


@pytest.mark.parametrize("name", ["sudoku-4", "sudoku-6"])
def test_the_rules_of_sudoku_by_counting(name: str) -> None:
    sudoku = PUZZLES[name]
    assert isinstance(sudoku, Sudoku)
    symbols_NL = np.random.default_rng(1).integers(sudoku.side, size=(40, sudoku.cells))
    symbols_NL[::2] = sudoku.answers(20, np.random.default_rng(2))
    symbols_NL[::4, :3] = symbols_NL[::4, 3:6]
    expected = [
        [sorted(grid[unit]) == list(range(sudoku.side)) for unit in units(sudoku)] for grid in symbols_NL
    ]
    assert sudoku.holds(symbols_NL).tolist() == expected


@pytest.mark.parametrize("name", ["sudoku-4", "sudoku-6"])
def test_the_unique_form_has_one_answer(name: str) -> None:
    sudoku = PUZZLES[name]
    assert isinstance(sudoku, Sudoku)
    hidden_NL = data.hidden_cells(name, "select", "unique").numpy()
    assert ((~hidden_NL).sum(1) == sudoku.unique).all()
    grids = np.where(hidden_NL, -1, data.answers(name, "select"))
    assert [number_of_answers(sudoku, grid.tolist()) for grid in grids[:25]] == [1] * 25


def test_the_few_form_has_many_answers_and_says_how_few() -> None:
    sudoku = PUZZLES["sudoku-4"]
    assert isinstance(sudoku, Sudoku)
    for form, given in (("few", 3), ("few=2", 2), ("unique=7", 7)):
        hidden_NL = data.hidden_cells("sudoku-4", "report", form)
        assert ((~hidden_NL).sum(1) == given).all()
    grids = np.where(data.hidden_cells("sudoku-4", "report", "few"), -1, data.answers("sudoku-4", "report"))
    assert min(number_of_answers(sudoku, grid.tolist()) for grid in grids[:25]) >= 2


def test_what_follows_at_once_by_trying() -> None:
    sudoku = Sudoku((2, 2), few=3, unique=5)
    rng = np.random.default_rng(3)
    answers_NL = sudoku.answers(30, rng)
    hidden_NL = rng.random(answers_NL.shape) < 0.6
    found_NL = sudoku.follows(answers_NL, hidden_NL)
    for answer, hidden, found in zip(answers_NL, hidden_NL, found_NL, strict=True):
        grid = np.where(hidden, -1, answer).tolist()
        can = {cell: allowed(sudoku, grid, cell) for cell in np.flatnonzero(hidden).tolist()}
        for cell, symbols in can.items():
            alone = any(
                cell in unit
                and not any(answer[cell] in can[other] for other in unit if other in can and other != cell)
                for unit in units(sudoku)
            )
            assert found[cell] == (len(symbols) == 1 or alone)
        assert not found[~hidden].any()


@pytest.mark.parametrize("name", ["sudoku-4", "sudoku-6"])
def test_symmetries_change_neither_rules_nor_kind(name: str) -> None:
    sudoku, rng = PUZZLES[name], np.random.default_rng(4)
    assert isinstance(sudoku, Sudoku)
    answers_NL = sudoku.answers(60, rng)
    assert sudoku.holds(sudoku.changed(answers_NL, rng)).all()
    hidden_NL = rng.random(answers_NL.shape) < 0.7
    empty_NL = np.where(hidden_NL, -1, answers_NL)
    kinds = sudoku.kinds(answers_NL, hidden_NL)
    for _ in range(5):
        changed_NL = sudoku.changed(empty_NL, rng)
        assert (sudoku.kinds(changed_NL, changed_NL < 0) == kinds).all()
    assert len(set(kinds.tolist())) > 50, "and puzzles that are not alike have others"


def canonical(grid: np.ndarray) -> tuple[int, ...]:
    """The least of all that a puzzle of side 4 may look like, by trying every symmetry."""
    forms = []
    orders = [[*a, *b] for a in ((0, 1), (1, 0)) for b in ((2, 3), (3, 2))]
    orders += [[*b, *a] for a in ((0, 1), (1, 0)) for b in ((2, 3), (3, 2))]
    for turned in (grid, grid.T):
        for rows, columns in product(orders, orders):
            moved = turned[np.ix_(rows, columns)].flatten().tolist()
            names: dict[int, int] = {}
            forms.append(tuple(-1 if s < 0 else names.setdefault(s, len(names)) for s in moved))
    return min(forms)


@pytest.mark.parametrize("form", ["few", "unique"])
def test_no_split_has_a_puzzle_that_is_alike_one_of_another(form: str) -> None:
    found = []
    for split in SPLITS:
        hidden_NL = data.hidden_cells("sudoku-4", split, form).numpy()  # type: ignore[arg-type]
        grids = np.where(hidden_NL, -1, data.answers("sudoku-4", split))[:120]  # type: ignore[arg-type]
        found.append({canonical(grid.reshape(4, 4)) for grid in grids})
        assert len(found[-1]) > 2
    for one, other in permutations(found, 2):
        assert not one & other


def test_a_form_that_there_is_not_is_told() -> None:
    for form, said in (
        ("all", "sudoku-4 has the forms few, unique"),
        ("few=0", "no number of cells between 1 and 15"),
        ("few=x", "'x' is no number"),
        ("unique=1", "no puzzle unique of sudoku-4 was found that gives 1 cells"),
    ):
        with pytest.raises(ValueError, match=said):
            data.hidden_cells("sudoku-4", "select", form)


def test_puzzles_are_the_same_each_time() -> None:
    assert (answers("sudoku-6", "select")[:5] == answers.__wrapped__("sudoku-6", "select")[:5]).all()
    again = hidden_cells.__wrapped__("sudoku-4", "select", "few")
    assert torch.equal(hidden_cells.__wrapped__("sudoku-4", "select", "few"), again)


@pytest.mark.parametrize("name", PUZZLES)
def test_symbols_are_drawn_and_read(name: str) -> None:
    puzzle = PUZZLES[name]
    tokenizer = Glyphs(GlyphsConfig(symbols=puzzle.symbols, grid=puzzle.grid))
    symbols_NL = torch.from_numpy(data.answers(name, "select")[:20])
    images = tokenizer.decode(symbols_NL)
    assert images.shape == (20, *tokenizer.image_shape) and images.unique().tolist() == [0, 1]
    assert torch.equal(tokenizer.encode(images), symbols_NL)
    assert torch.equal(tokenizer.encode((images + 0.2 * torch.rand_like(images)).clamp(0, 1)), symbols_NL)
    first = images[0, 0, :PATCH, :PATCH]
    assert torch.equal(first, tokenizer.pixels_VP[symbols_NL[0, 0]].view(PATCH, PATCH))
    assert torch.equal(load_split(name, "select").images_NCHW[:20], images)


def test_digits_differ_by_more_than_noise() -> None:
    pixels = Glyphs(GlyphsConfig(symbols="0123456789", grid=(1, 1))).pixels_VP
    apart = torch.cdist(pixels, pixels) + torch.eye(10) * 9
    assert apart.min() >= 2
    with pytest.raises(ValueError, match="'11': give digits, each once"):
        GlyphsConfig(symbols="11", grid=(1, 1))


@pytest.mark.parametrize(
    ("form", "given", "answers_there_are"), [("few", 1, 9), ("few", 3, 1), ("unique", 3, 1), ("unique", 5, 1)]
)
def test_a_chain_has_as_many_answers_as_its_hidden_numbers_leave(
    form: str, given: int, answers_there_are: int
) -> None:
    """By trying every grid of three links modulo 4, of numbers up to 2."""
    chain, rng = Chain(links=3, modulus=4, most=2, few=1), np.random.default_rng(5)
    every = np.array(list(product(range(4), repeat=6)))
    right = every[chain.holds(every).all(1)]
    assert len(right) == 27, "one for each three numbers"
    for numbers in right:
        assert numbers[3:].tolist() == [sum(numbers[:n].tolist()) % 4 for n in (1, 2, 3)]
    symbols_NL = chain.answers(20, rng)
    hidden_NL = chain.hidden(symbols_NL, form, given, rng)
    assert ((~hidden_NL).sum(1) == given).all() and (form == "unique" or hidden_NL[:, 3:].all())
    for symbols, hidden in zip(symbols_NL, hidden_NL, strict=True):
        assert (right[:, ~hidden] == symbols[~hidden]).all(1).sum() == answers_there_are


@pytest.mark.parametrize("form", ["unique", "unique=14", "few", "few=2"])
def test_no_split_has_a_chain_of_another(form: str) -> None:
    """By all that is given; the whole chains are apart as well."""
    found, whole = [], []
    for split in SPLITS:
        symbols_NL = data.answers("chain", split)  # type: ignore[arg-type]
        hidden_NL = data.hidden_cells("chain", split, form).numpy()  # type: ignore[arg-type]
        found.append(set(map(tuple, np.where(hidden_NL, -1, symbols_NL).tolist())))
        whole.append(set(map(tuple, symbols_NL.tolist())))
    for one, other in [*permutations(found, 2), *permutations(whole, 2)]:
        assert not one & other
    with pytest.raises(ValueError, match="no puzzle unique of chain was found that gives 11 cells"):
        data.hidden_cells("chain", "select", "unique=11")


def test_a_grid_is_completed_where_one_of_all_grids_has_its_cells() -> None:
    sudoku = PUZZLES["sudoku-4"]
    assert isinstance(sudoku, Sudoku)
    rng = np.random.default_rng(0)
    every_GL = np.unique(sudoku.answers(20_000, rng), axis=0)
    assert len(every_GL) == 288, "known, and all are found"
    seen = []
    for _ in range(300):
        cells_L = np.where(rng.random(16) < rng.random(), rng.integers(0, 4, 16), -1)
        fits_G = ((every_GL == cells_L) | (cells_L < 0)).all(1)
        completed = sudoku.completed(cells_L.tolist())
        seen.append(completed is not None)
        assert seen[-1] == fits_G.any()
        assert completed is None or (every_GL[fits_G] == completed).all(1).any()
    assert 0.1 < np.mean(seen) < 0.9
    six = PUZZLES["sudoku-6"]
    assert isinstance(six, Sudoku)
    begun_NL = np.where(rng.random((20, 36)) < 0.3, six.answers(20, rng), -1)
    assert six.holds(np.array([six.completed(cells) for cells in begun_NL.tolist()])).all()
