"""Co-training: masks as the policy leaves them, a control that knows no policy, and an exact resume."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import generators.parts
from agents.adanat.alarms import Vitals
from agents.adanat.config import TrainingConfig
from agents.adanat.cotraining import Cotraining, CotrainingConfig, VisitedRatios
from agents.adanat.monitor import Monitor
from agents.adanat.teacher import Teacher
from agents.adanat.trainer import AdaNATTrainer, train
from generators.checkpoints import from_pretrained, load_state
from generators.data import load_split
from generators.noise import derive_seed
from generators.recipes import build, recipe
from generators.training import Trainer
from natgym.runs import read_metrics
from natgym.task import Task


class Killed(Exception):
    pass


def weights(module: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def configs(tiny: TrainingConfig) -> dict[str, TrainingConfig]:
    """The two laws of the generator's masks, with two of its updates after each of the policy's."""
    return {
        masks: tiny.but(steps=3, cotraining=CotrainingConfig(updates=2, masks=masks))
        for masks in ("visited", "usual")
    }


@pytest.fixture(scope="module")
def runs(configs: dict[str, TrainingConfig], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Uninterrupted runs."""
    folders = {name: tmp_path_factory.mktemp(name) for name in configs}
    for name, folder in folders.items():
        train(configs[name], folder, lambda metrics: None)
    return folders


def test_every_ratio_visited_is_drawn_as_often_as_it_was_visited() -> None:
    masked_TBL = torch.zeros(3, 4, 8)
    counts_TB = [[8, 8, 8, 8], [4, 4, 2, 0], [1, 1, 1, 0]]
    for step, counts in enumerate(counts_TB):
        for row, count in enumerate(counts):
            masked_TBL[step, row, :count] = 1
    drawn = (VisitedRatios(masked_TBL).sample(20_000, np.random.default_rng(0)) * 8).tolist()
    visits = [count for counts in counts_TB for count in counts if count]
    assert set(drawn) == set(visits)
    for count in set(visits):
        share = visits.count(count) / len(visits)
        assert drawn.count(count) / len(drawn) == pytest.approx(share, abs=5 * (share / 20_000) ** 0.5)


def test_the_generator_learns_at_the_ratios_of_the_rollout_before(
    configs: dict[str, TrainingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recounted from the states that the environment decodes."""
    visited: list[float] = []
    hidden: list[float] = []

    def spying_advance(generator: Any, state: Any, *rest: Any, **options: Any) -> Any:
        visited.extend((state.ids_BL == generator.mask_id).float().mean(1).tolist())
        return advance(generator, state, *rest, **options)

    def spying_batch(trainer: Trainer, rng: np.random.Generator) -> Any:
        drawn = batch(trainer, rng)
        hidden.extend((drawn.labels_BL >= 0).float().mean(1).tolist())
        return drawn

    advance, batch = generators.parts.advance, Trainer._batch
    monkeypatch.setattr(generators.parts, "advance", spying_advance)
    monkeypatch.setattr(Trainer, "_batch", spying_batch)
    monkeypatch.setattr(Teacher, "teach", lambda *_: {})
    monkeypatch.setattr(Monitor, "measure", lambda *_: Vitals())
    trainer = AdaNATTrainer.of(configs["visited"])
    for _ in range(2):
        visited.clear()
        hidden.clear()
        trainer.update()
        assert len(visited) == 3 * 32 and len(hidden) == 2 * 128
        expected = [ratio for ratio in visited if ratio > 0]
        assert set(hidden) <= set(expected)
        assert np.mean(hidden) == pytest.approx(np.mean(expected), abs=0.08)
        assert np.mean(np.array(hidden) == 1) == pytest.approx(1 / 3, abs=0.12)


def test_the_control_is_the_usual_training_gone_on_with(
    configs: dict[str, TrainingConfig], runs: dict[str, Path]
) -> None:
    """To the bit what the generator's own trainer gives, so that no policy had a part in it."""
    generator = Task.load("digits").generator
    tokenizer, part = Task.load("digits").tokenizer, load_split("digits", "train")
    config = dataclasses.replace(
        recipe("digits", "nat"),
        learning_rate=3e-4,
        decay="constant",
        warmup=0,
        seed=derive_seed(0, "generator"),
    )
    trainer = Trainer(
        generator.requires_grad_(True), tokenizer.encode(part.images_NCHW), part.condition, config
    )
    for _ in range(configs["visited"].adanat.updates * 2):
        trainer.update()
    trained = weights(from_pretrained(runs["usual"] / "generator"))
    assert same(trained, weights(trainer.ema))
    assert not same(trained, weights(from_pretrained(runs["visited"] / "generator")))


def test_rollouts_and_measurements_are_drawn_by_the_averaged_generator(
    configs: dict[str, TrainingConfig],
) -> None:
    trainer = AdaNATTrainer.of(configs["visited"])
    before, distance = weights(trainer.env.generator), trainer.monitor.measure(trainer.actor()).distance
    trainer.update()
    assert trainer.cotraining is not None
    learner = trainer.cotraining.trainer
    for env in (trainer.env, trainer.teacher.fresh_env, trainer.monitor.env):
        assert env.generator is learner.ema
    assert not same(before, weights(learner.ema))
    assert not same(weights(learner.generator), weights(learner.ema))
    assert not learner.ema.training and not any(one.requires_grad for one in learner.ema.parameters())
    actor = trainer.actor()
    moved = trainer.monitor.measure(actor).distance
    learner.ema.load_state_dict(before)
    assert moved != trainer.monitor.measure(actor).distance != distance, "nothing kept of earlier weights"


def test_metrics_count_the_updates_of_the_generator(
    configs: dict[str, TrainingConfig], runs: dict[str, Path]
) -> None:
    rows = read_metrics(runs["visited"] / "metrics.csv")
    assert [int(row["generator_updates"]) for row in rows] == [2, 4, 6]
    assert all(0 < float(row["generator_loss"]) < 10 for row in rows)
    assert int(rows[-1]["images_spent"]) == configs["visited"].total_images, (
        "learning from real images draws none"
    )


@pytest.mark.parametrize("name", ["visited", "usual"])
def test_a_killed_run_ends_as_the_uninterrupted_one(
    configs: dict[str, TrainingConfig], runs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    config = configs[name]

    def report(metrics: dict[str, float]) -> None:
        if metrics["update"] == 2:
            raise Killed

    with pytest.raises(Killed):
        train(config, tmp_path, report)
    assert not (tmp_path / "generator").exists()
    train(config, tmp_path, lambda metrics: None)
    for file in ("metrics.csv", "policy/model.safetensors", "generator/model.safetensors"):
        assert (tmp_path / file).read_bytes() == (runs[name] / file).read_bytes(), file
    states = [load_state(folder / "checkpoint.pt")["generator"] for folder in (tmp_path, runs[name])]
    assert states[0]["done"] == states[1]["done"] == 6
    assert same(*(state["generator"] for state in states))


def test_an_enat_learns_with_reuse() -> None:
    tokenizer, part = Task.load("digits").tokenizer, load_split("digits", "train")
    generator = build("enat", "digits", tokenizer, part.condition.geometry)
    before = weights(generator)
    config, ids_NL = CotrainingConfig(updates=1), tokenizer.encode(part.images_NCHW)
    cotraining = Cotraining(config, recipe("digits", "enat"), generator, ids_NL, part.condition, seed=0)
    assert cotraining.trainer.config.reuse == 0.5
    metrics = cotraining.update(torch.ones(2, 8, 16))
    assert metrics["generator_updates"] == 1 and metrics["generator_loss"] > 0
    assert same(before, weights(generator)) and not same(before, weights(cotraining.generator))


@pytest.mark.parametrize("values", [{"updates": -1}, {"learning_rate": 0.0}])
def test_a_bad_value_is_named(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"cotraining.{next(iter(values))}"):
        CotrainingConfig(**values)
