"""Agreement of rewards: laws that are known by construction, and one step that is followed."""

import math

import pytest
import torch

from agents.adanat.config import TrainingConfig
from agents.adanat.trainer import AdaNATTrainer
from agents.studies.agreement import PARTS, Agreement, Episodes, agreement, explore, follow, gradients, parts
from generators.data import load_split
from generators.schedules import PARAMETERS
from natgym.evaluation.scorer import Scorer

N, C, T, K, STD = 40_000, 4, 2, 3, 0.5


def episodes(noise: float, seed: int = 0) -> tuple[Episodes, torch.Tensor]:
    """Rewards that are linear in the actions, by class, beside noise; the truth has the same slopes."""
    random = torch.Generator().manual_seed(seed)
    actions = STD * torch.randn(N, T, K, generator=random)
    classes, slopes = torch.arange(N) % C, torch.randn(C, T, K, generator=random)
    pure = (slopes[classes] * actions).sum((1, 2)) + classes
    rewards, truth = (pure + noise * torch.randn(N, generator=random) for _ in range(2))
    return Episodes(actions, STD, classes, rewards, truth), slopes


def test_gradients_are_the_slopes_that_least_squares_finds() -> None:
    seen, slopes = episodes(noise=1.0)
    found = gradients(seen.actions_NTk, STD, seen.classes_N, seen.rewards_N)
    for label in range(C):
        own = seen.classes_N == label
        design = torch.cat([seen.actions_NTk[own].flatten(1), torch.ones(int(own.sum()), 1)], 1)
        fitted = torch.linalg.lstsq(design, seen.rewards_N[own, None]).solution[:-1, 0]
        torch.testing.assert_close(found[label].flatten(), fitted, atol=0.15, rtol=0)
        torch.testing.assert_close(fitted, slopes[label].flatten(), atol=0.15, rtol=0)


def test_the_correction_takes_the_noise_out() -> None:
    quiet, loud = (agreement(episodes(noise)[0]) for noise in (0.1, 16.0))
    for part in PARTS:
        assert quiet[part].cosine > 0.99 and quiet[part].corrected == pytest.approx(1, abs=0.01)
        assert loud[part].cosine < 0.9 and loud[part].corrected == pytest.approx(1, abs=0.25)


def test_opposite_and_unrelated_rewards_are_told() -> None:
    seen, _ = episodes(noise=0.1)
    against = agreement(seen._replace(rewards_N=-seen.truth_N))
    foreign = agreement(seen._replace(rewards_N=episodes(0.1, seed=9)[0].rewards_N))
    assert all(against[part].cosine < -0.99 for part in PARTS) and abs(foreign["all"].cosine) < 0.5
    assert math.isnan(Agreement(0.1, -0.2, 0.3).corrected)


def test_parts_add_up_and_the_class_part_has_no_mean() -> None:
    gradient = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(1))
    split = parts(gradient)
    torch.testing.assert_close(split["static"] + split["class"], split["all"])
    assert split["class"].mean(0).abs().max() < 1e-6
    torch.testing.assert_close(split["static"][3], gradient.mean(0))


def test_episodes_are_the_same_for_every_reward_and_a_step_is_one_of_the_action_map() -> None:
    scorer = None
    found = []
    for reward in ("influence", "classifier"):
        config = TrainingConfig.of(steps=2, reward=reward, trajectories=50, warmup=0, action_std=(0.4, 0.4))
        trainer = AdaNATTrainer.of(config)
        scorer = scorer or Scorer(trainer.monitor.scorer.classifier, load_split("digits", "train"))
        found.append(explore(trainer, scorer, episodes=90, seed=1))
    one, other = found
    assert one.actions_NTk.shape == (100, 2, 4) and one.actions_NTk.std() == pytest.approx(0.4, rel=0.1)
    for name in ("actions_NTk", "classes_N", "truth_N"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert not torch.equal(one.rewards_N, other.rewards_N) and abs(one.truth_N.mean()) < 1e-6
    direction = torch.zeros(10, 2, 4)
    direction[3, 1, 2] = 5.0
    table = follow(trainer, direction, size=0.1)
    action = 0.1 * math.sqrt(10 * 2 * 4)
    moved = table.schedules[3].table_T4 - trainer.env.action_map.schedule.table_T4
    expected = math.log(table.schedules[3].table_T4[1, 2] / trainer.env.action_map.schedule.table_T4[1, 2])
    assert expected == pytest.approx(action / 4) and PARAMETERS[2] == "sampling_temperature"
    assert moved.count_nonzero() == 1
    assert torch.equal(table.schedules[2].table_T4, trainer.env.action_map.schedule.table_T4)
