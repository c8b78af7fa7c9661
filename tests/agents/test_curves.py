"""Curves of trainings and searches: what would be played at each point, and what it has cost."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from tiny import TINY

from agents.adanat.trainer import AdaNATTrainer
from agents.autonat.config import GridConfig, SearchConfig
from agents.autonat.scorer import ScheduleScorer
from agents.autonat.search import Search
from agents.studies.curves import Point, points
from natgym.runs import read_metrics

SEARCH = SearchConfig(
    images_per_evaluation=24,
    race=2,
    budget=400,
    finalists=2,
    final_images=40,
    coarse=GridConfig(remask=(1.0, 8.0), sampling=(1.0,), guidance=(0.0, 1.0)),
    grid=GridConfig(remask=(1.0, 8.0), sampling=(1.0,), guidance=(0.0, 1.0)),
)


def table(point: Point) -> list[list[float]]:
    policy: Any = point.policy
    return policy.schedule.table_T4.tolist()


def test_a_training_is_followed_to_the_policy_that_it_keeps(tmp_path: Path) -> None:
    config = TINY.but(reward="mmd", finalists=2, final_images=40)
    curve = list(points("adanat", config, SEARCH, log=tmp_path / "log"))
    trainer = AdaNATTrainer.of(config)
    trainer.fit(tmp_path / "run")
    spent = [int(row["images_spent"]) for row in read_metrics(tmp_path / "run" / "metrics.csv")]
    assert [point.images for point in curve] == [spent[1], spent[2]], "measured after 2 and 3 updates"
    assert 0 < curve[0].seconds < curve[1].seconds
    observation, _ = trainer.env.reset(seed=0)
    expected, found = (policy(observation, 0).table for policy in (trainer.policy(), curve[-1].policy))
    assert torch.equal(expected, found)


def test_step_only_is_the_training_without_features(tmp_path: Path) -> None:
    config = TINY.but(reward="mmd", finalists=1, learning_rate=0.05)
    *_, last = points("step-only", config, SEARCH, log=tmp_path / "log")
    env = AdaNATTrainer.of(config).env
    observation, _ = env.reset(seed=0)
    rows = last.policy(observation, 0).table
    assert torch.equal(rows, rows[:1].expand_as(rows))


def test_a_search_is_followed_to_its_winner(tmp_path: Path) -> None:
    for method, optimizer, race in (("grid", "grid", 1), ("cma", "cma", 1), ("raced cma", "cma", 2)):
        log: Any = tmp_path / method
        curve = list(points(method, TINY, SEARCH, log=log, every=20))  # type: ignore[arg-type]
        config = dataclasses.replace(SEARCH, race=race)
        scorer = ScheduleScorer("digits")
        search = Search(optimizer, config, 2, TINY.adanat.seed, tmp_path / "again.csv")  # type: ignore[arg-type]
        winner = search.run(scorer)
        (tmp_path / "again.csv").unlink()
        assert table(curve[-1]) == winner.table_T4.tolist() and curve[-1].images == search.spent
        images = [point.images for point in curve]
        assert images == sorted(images) and min(b - a for a, b in zip(images, images[1:], strict=False)) > 0
        first = [
            one for one in search.asked if one.generation == 0 and (one.number + 1) * one.images <= images[0]
        ]
        best = min(first, key=lambda one: search.known[one.number].distance)
        assert table(curve[0]) == best.schedule.table_T4.tolist(), method
