"""The grid search: the right winner, none of the pictures twice, and a log that survives anything."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.autonat import GridConfig, grid_search
from generators.schedules import Schedule, reference
from natgym.runs import read_metrics

STEPS = 3
GRID = GridConfig(
    remask=(1.0, 2.0, 4.0),
    sampling=(0.9, 1.0),
    guidance=(0.0, 1.0),
    images=10,
    finalists=4,
    final_images=30,
)
# By grid point. First look: 7, 2, 9, 0 are the four best, in this order. Second: 9 wins among them; 5, which
# would win, is not looked at again.
FIRST = [0.4, 0.9, 0.2, 0.8, 0.7, 0.6, 0.5, 0.1, 1.0, 0.3, 1.1, 1.2]
SECOND = [0.40, 0.0, 0.35, 0.0, 0.0, 0.01, 0.0, 0.5, 0.0, 1 / 3, 0.0, 0.0]
WINNER = 9


class Killed(Exception):
    pass


def point_of(schedule: Schedule) -> int:
    found = [
        at
        for at, (remask, sampling, guidance) in enumerate(GRID.points)
        if torch.equal(
            schedule.table_T4, reference(STEPS, remask=remask, sampling=sampling, guidance=guidance).table_T4
        )
    ]
    assert len(found) == 1
    return found[0]


class Known:
    """A known function instead of pictures; lists its calls and, if asked, dies at one of them."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.dies_at = dies_at

    def __call__(self, schedule: Schedule, images: int, stage: int) -> float:
        if len(self.calls) == self.dies_at:
            raise Killed
        self.calls.append((point_of(schedule), images, stage))
        return (FIRST, SECOND)[stage][self.calls[-1][0]]


EVALUATIONS = [*((point, 10, 0) for point in range(12)), *((point, 30, 1) for point in (7, 2, 9, 0))]


def search(log: Path, evaluate: Any, config: GridConfig = GRID) -> list[tuple[int, Schedule]]:
    return list(grid_search(config, STEPS, evaluate, log))


def test_the_second_look_alone_decides(tmp_path: Path) -> None:
    known = Known()
    found = search(tmp_path / "log.csv", known)
    assert known.calls == EVALUATIONS
    assert point_of(found[-1][1]) == WINNER and found[-1][1].name == "static-search"


def test_the_best_so_far_is_yielded(tmp_path: Path) -> None:
    bests = [point_of(schedule) for _, schedule in search(tmp_path / "log.csv", Known())]
    assert bests == [0, 0, 2, 2, 2, 2, 2, 7, 7, 7, 7, 7, 7, 2, 9, 9]


@pytest.mark.parametrize("finalists", [1, 4, 12, 50])
def test_the_images_yielded_are_the_total(tmp_path: Path, finalists: int) -> None:
    config, known = dataclasses.replace(GRID, finalists=finalists), Known()
    found = search(tmp_path / "log.csv", known, config)
    drawn = sum(images for _, images, _ in known.calls)
    assert sum(images for images, _ in found) == drawn == config.total_images


@pytest.mark.parametrize("dies_at", [0, 1, 7, 12, 14, 15])
@pytest.mark.parametrize("half_line", [False, True])
def test_an_interrupted_search_goes_on(tmp_path: Path, dies_at: int, half_line: bool) -> None:
    """Nothing is evaluated twice but what was cut in the middle of its line; the log is the same."""
    log, whole = tmp_path / "log.csv", tmp_path / "whole.csv"
    expected = search(whole, Known())
    with pytest.raises(Killed):
        search(log, Known(dies_at))
    if half_line and dies_at:
        log.write_bytes(log.read_bytes()[:-3])
        dies_at -= 1
    again = Known()
    found = search(log, again)
    assert again.calls == EVALUATIONS[dies_at:]
    assert [images for images, _ in found] == [images for images, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
        assert torch.equal(one.table_T4, other.table_T4)
    assert log.read_text() == whole.read_text()


def test_a_finished_search_evaluates_nothing(tmp_path: Path) -> None:
    search(tmp_path / "log.csv", Known())
    before = (tmp_path / "log.csv").read_text()
    found = search(tmp_path / "log.csv", Known(dies_at=0))
    assert point_of(found[-1][1]) == WINNER and (tmp_path / "log.csv").read_text() == before


def test_every_evaluation_is_a_whole_line(tmp_path: Path) -> None:
    """Flushed before the next one starts, with the distance to the last bit."""
    log = tmp_path / "log.csv"
    for done, _ in enumerate(grid_search(GRID, STEPS, Known(), log), start=1):
        text = log.read_text()
        assert text.endswith("\n") and len(text.splitlines()) == done + 1
    rows = read_metrics(log)
    assert [int(row["evaluation"]) for row in rows] == list(range(16))
    scales = [tuple(float(row[name]) for name in ("remask", "sampling", "guidance")) for row in rows]
    assert scales == [GRID.points[point] for point, _, _ in EVALUATIONS]
    distances = [(FIRST, SECOND)[stage][point] for point, _, stage in EVALUATIONS]
    assert [float(row["distance"]) for row in rows] == distances
    assert [int(row["images"]) for row in rows] == [images for _, images, _ in EVALUATIONS]


@pytest.mark.parametrize(
    "values",
    [
        {"remask": ()},
        {"sampling": ()},
        {"guidance": ()},
        {"images": 0},
        {"finalists": 0},
        {"final_images": 0},
    ],
)
def test_an_empty_search_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="grid"):
        GridConfig(**values)
