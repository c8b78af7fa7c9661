"""A schedule per class: every row plays its own, and the descent ends where no single change helps."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.autonat.class_table import (
    ClassTable,
    ClassTableConfig,
    assign,
    candidates,
    class_moments,
    search_table,
)
from generators.schedules import Schedule, maskgit, random_order, reference
from natgym.metrics import FrechetDistance, MomentsAccumulator
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout
from natgym.task import Task

TABLE = ClassTable((reference(2), maskgit(2), random_order(2)), (0, 1, 2, 0, 1, 2, 0, 1, 2, 0))


def test_each_row_plays_the_schedule_of_its_class() -> None:
    """The same images as those of the static schedules, row by row."""
    generator = Task.load("digits").generator
    tokenizer = Task.load("digits").tokenizer
    condition = balanced(generator.conditions(), 40)
    found = rollout(TABLE, generator, tokenizer, condition, seed=3)
    for index, schedule in enumerate(TABLE.schedules):
        alone = rollout(FixedPolicy(schedule), generator, tokenizer, condition, seed=3)
        rows = [row for row in range(40) if TABLE.assignment[row % 10] == index]
        assert len(rows) >= 12 and torch.equal(found.tokens_NL[rows], alone.tokens_NL[rows])
        assert (found.nfe_N[rows] == alone.nfe_N[rows]).all()


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "table.json")
    again = ClassTable.load(tmp_path / "table.json")
    assert again.assignment == TABLE.assignment and again.steps == 2
    for one, other in zip(again.schedules, TABLE.schedules, strict=True):
        assert torch.equal(one.table_T4, other.table_T4)


def test_the_control_hands_out_the_same_schedules() -> None:
    shuffled = TABLE.shuffled(0)
    assert sorted(shuffled.assignment) == sorted(TABLE.assignment) and shuffled.assignment != TABLE.assignment
    assert shuffled.assignment == TABLE.shuffled(0).assignment != TABLE.shuffled(1).assignment


def test_candidates_lie_around_the_static_schedule() -> None:
    config = ClassTableConfig(candidates=9, reach=0.5)
    found = candidates(maskgit(3), config, seed=1)
    assert len(found) == 9 and torch.equal(found[0].table_T4, maskgit(3).table_T4)
    assert len({tuple(schedule.table_T4.flatten().tolist()) for schedule in found}) == 9
    assert torch.equal(candidates(maskgit(3), config, seed=1)[5].table_T4, found[5].table_T4)
    ratio = torch.stack([schedule.table_T4[0, 1] for schedule in found[1:]]).div(found[0].table_T4[0, 1])
    assert 0.1 < float(ratio.log().std()) < 1.2, "one unit of action is a factor e of the temperature"


def clusters(shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures' features of three classes around three centres, the first two coordinates shifted."""
    generator = torch.Generator().manual_seed(0)
    classes_N = torch.arange(300) % 3
    centers = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    features_Nd = centers[classes_N] + torch.randn(300, 2, generator=generator)
    return features_Nd + shift * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])[classes_N], classes_N


def test_no_change_of_a_single_class_is_better() -> None:
    real = MomentsAccumulator(2)
    real.update(clusters(0.0)[0])
    frechet = FrechetDistance(real.compute())
    moments = [class_moments(*clusters(shift), 3) for shift in (1.0, 0.4, -0.2, -1.0)]

    def distance(assignment: tuple[int, ...]) -> float:
        pooled = torch.cat(
            [clusters((1.0, 0.4, -0.2, -1.0)[chosen])[0][label::3] for label, chosen in enumerate(assignment)]
        )
        frechet.reset()
        frechet.update(pooled)
        return frechet.compute()

    every = {assignment: distance(assignment) for assignment in itertools.product(range(4), repeat=3)}
    chosen = assign(moments, frechet, seed=0)
    near = [other for other in every if sum(a != b for a, b in zip(chosen, other, strict=True)) == 1]
    assert len(near) == 9 and every[chosen] <= min(every[other] for other in near) + 1e-9
    assert every[chosen] < 0.5 * every[0, 0, 0]


def test_the_search_draws_each_candidate_once() -> None:
    """What it returns is the assignment, with only the schedules that are used."""
    shifts = {0: 1.0, 1: -0.1, 2: 0.5}
    drawn: list[int] = []

    def features(schedule: Schedule, images: int) -> Any:
        assert images == 300
        drawn.append(len(drawn))
        return clusters(shifts[drawn[-1]])

    real = MomentsAccumulator(2)
    real.update(clusters(0.0)[0])
    config, steps = ClassTableConfig(candidates=3, images_per_class=100), []
    frechet = FrechetDistance(real.compute())
    table = search_table(
        reference(2), config, features, frechet, num_classes=3, seed=0, progress=steps.append
    )
    assert drawn == [0, 1, 2] and steps == [300] * 3
    tried = candidates(reference(2), config, 0)
    chosen = assign([class_moments(*clusters(shift), 3) for shift in shifts.values()], frechet, 0)
    for label, at in enumerate(table.assignment):
        assert torch.equal(table.schedules[at].table_T4, tried[chosen[label]].table_T4)
    assert len(table.schedules) == len(set(chosen))


@pytest.mark.parametrize("values", [{"candidates": -1}, {"images_per_class": 1}, {"reach": 0.0}])
def test_an_impossible_table_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        ClassTableConfig(**values)
