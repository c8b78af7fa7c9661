"""Alarms: each sign by itself, and in a training that they end."""

from pathlib import Path
from typing import Any

import pytest
import torch

from agents.adanat.alarms import AlarmConfig, Vitals, alarms
from agents.adanat.config import TrainingConfig
from agents.adanat.monitor import Judgments, evenly
from agents.adanat.trainer import AdaNATTrainer, train
from generators.conditions import Labels
from generators.noise import derive_seed
from generators.rules import DecodeRules
from generators.schedules import Schedule, reference
from natgym.rollouts import balanced, rollout
from natgym.runs import read_metrics

CALM = Vitals(
    distance=1.0,
    recall=0.8,
    coverage=0.9,
    class_drift=0.02,
    reward_gap=0.2,
    told_apart=0.7,
    separation=0.4,
    idle=0.0,
)


def nothing(metrics: dict[str, float]) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "over", "under"),
    [
        ("divergence", {"distance": 1.11, "reward_gap": 0.19}, {"distance": 1.11, "reward_gap": 0.21}),
        ("divergence", {"distance": 1.11, "reward_gap": -0.1}, {"distance": 1.09, "reward_gap": -0.1}),
        ("recall", {"recall": 0.69}, {"recall": 0.71}),
        ("coverage", {"coverage": 0.79}, {"coverage": 0.81}),
        ("classes", {"class_drift": 0.13}, {"class_drift": 0.11}),
        ("saturation", {"told_apart": 0.99}, {"told_apart": 0.97}),
        ("flat", {"separation": 0.04}, {"separation": 0.06}),
        ("flat", {"separation": -1.0}, {"separation": 1.0}),
        ("idle", {"idle": 0.11}, {"idle": 0.09}),
    ],
)
def test_each_alarm_has_its_own_sign_and_limit(name: str, over: Any, under: Any) -> None:
    config = AlarmConfig()
    found = alarms(config, CALM, CALM._replace(**over))
    assert list(found) == [name] and "\n" not in found[name]  # type: ignore[comparison-overlap]
    assert not alarms(config, CALM, CALM._replace(**under))


def test_what_was_not_measured_gives_no_alarm() -> None:
    assert not alarms(AlarmConfig(), Vitals(), Vitals()) and not alarms(AlarmConfig(), CALM, Vitals())


def test_an_unknown_alarm_is_named() -> None:
    with pytest.raises(ValueError, match="recal is not one of divergence, recall"):
        AlarmConfig(stop=("recal",))  # type: ignore[arg-type]


def test_an_alarm_ends_the_training_keeps_the_policy_and_stays_ended(
    tiny: TrainingConfig, tmp_path: Path
) -> None:
    """Limits that nothing meets: the first measurement after the start ends it, once and for all."""
    strict = AlarmConfig(stop=("recall",), recall=-1.0, coverage=-1.0, flat=-10.0)
    config = tiny.but(updates=4, alarms=strict)
    train(config, tmp_path, nothing)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [int(row["update"]) for row in rows] == [1, 2]
    told = read_metrics(tmp_path / "alarms.csv")
    assert [(row["update"], row["alarm"]) for row in told] == [("2", "recall"), ("2", "coverage")]
    assert (tmp_path / "policy" / "model.safetensors").is_file()
    before = (tmp_path / "metrics.csv").read_text()
    train(config, tmp_path, nothing)
    assert (tmp_path / "metrics.csv").read_text() == before


def test_alarms_alone_end_nothing(tiny: TrainingConfig, tmp_path: Path) -> None:
    config = tiny.but(updates=4, alarms=AlarmConfig(recall=-1.0, flat=-10.0))
    train(config, tmp_path, nothing)
    assert len(read_metrics(tmp_path / "metrics.csv")) == 4
    assert [row["update"] for row in read_metrics(tmp_path / "alarms.csv")] == ["2", "4"]


def test_vitals_say_what_a_slow_look_says(tiny: TrainingConfig, tmp_path: Path) -> None:
    """A schedule whose second step reveals nothing, and a discriminator that nobody taught."""
    table = reference(3).table_T4.clone()
    table[:, 0] = torch.tensor([0.5, 0.5, 0.0])
    Schedule(table).save(tmp_path / "idle.json")
    config = tiny.but(
        steps=3,
        schedule=str(tmp_path / "idle.json"),
        rules="min_reveal=0",
        warmup=0,
        evaluation_images=30,
        finalists=1,
    )
    trainer = AdaNATTrainer.of(config)
    vitals = trainer.monitor.measure(trainer.actor())
    assert vitals.idle == 0.5, "of the two steps before the last"
    held_out = trainer.monitor.held_out
    scorer = trainer.env.reward(held_out[torch.arange(200)], held_out.condition)
    assert len(held_out) == 200 and 0 <= vitals.told_apart <= 1
    fake = balanced(trainer.env.generator.conditions(), 30)
    nets, seed = (trainer.actor(), trainer.env.generator, trainer.env.tokenizer), derive_seed(0, "select")
    drawn = rollout(*nets, fake, seed=seed, rules=DecodeRules(min_reveal=0)).images_NCHW
    rewards = torch.cat([trainer.env.reward(drawn[row : row + 1], fake[row : row + 1]) for row in range(30)])
    assert vitals.reward_gap == pytest.approx((scorer.mean() - rewards.mean()).item(), abs=1e-6)
    spread = ((scorer.numpy().var(ddof=1) + rewards.numpy().var(ddof=1)) / 2) ** 0.5
    assert vitals.separation == pytest.approx(vitals.reward_gap / spread, rel=1e-4)
    right = sum(reward > 0.5 for reward in scorer) / 200 + sum(reward < 0.5 for reward in rewards) / 30
    assert vitals.told_apart == pytest.approx(float(right) / 2)


def test_a_discriminator_that_says_the_same_of_all_is_flat(
    tiny: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = AdaNATTrainer.of(tiny.but(evaluation_images=30))
    monkeypatch.setattr(
        type(trainer.env.reward), "__call__", lambda self, images, _: images.new_ones(len(images))
    )
    vitals = trainer.monitor.measure(trainer.actor())
    assert vitals.separation == vitals.reward_gap == 0 and "flat" in alarms(AlarmConfig(), CALM, vitals)


def test_rewards_see_images_as_they_come_in_batches_of_their_own() -> None:
    """And hand all of them on."""
    images, labels = torch.rand(50, 1, 2, 2), Labels(torch.arange(50) % 3, 3)
    given: list[int] = []

    def brightness(images_BCHW: torch.Tensor, condition: Any) -> torch.Tensor:
        given.append(len(images_BCHW))
        return images_BCHW.mean((1, 2, 3)) * condition.values

    judgments = Judgments([brightness, lambda images_BCHW, condition: condition.values], 16)
    cuts = [(0, 20), (20, 40), (40, 50)]
    passed = list(judgments.over((images[a:b], labels[a:b]) for a, b in cuts))
    assert given == [16, 16, 16, 2] and torch.equal(torch.cat([part for part, _ in passed]), images)
    assert evenly(200, 500) == 200 and evenly(501, 250) == 168 and evenly(1001, 500) == 336
    first, second = judgments.rewards
    assert torch.equal(first, images.mean((1, 2, 3)) * labels.values) and torch.equal(second, labels.values)
