"""The critic and the discriminator of a run folder are those that the training had at its end."""

from pathlib import Path
from typing import Any

import pytest
import torch

from agents.adanat.config import TrainingConfig
from agents.adanat.critic import ActorWithCritic, load_critic, load_discriminator
from agents.adanat.network import PolicyConfig
from agents.adanat.trainer import AdaNATTrainer, train
from generators.checkpoints import from_pretrained, load_state
from generators.schedules import reference
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout
from natgym.runs import write_config

CONFIG = TrainingConfig.of(
    steps=2,
    updates=2,
    trajectories=16,
    discriminator_batch=16,
    warmup=0,
    minibatch=32,
    evaluation_images=40,
    finalists=1,
    reward="adversarial",
    learning_rate=0.05,
    policy=PolicyConfig(width=16, channels=8, hidden=(16, 16), frequencies=8),
)


@pytest.fixture(scope="module", params=["plain", "smoothed", "blind"])
def run(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AdaNATTrainer]:
    config = {
        "plain": CONFIG,
        "smoothed": CONFIG.but(smoothing=0.5),
        "blind": CONFIG.but({"policy.blind": True}),
    }[request.param]
    folder = tmp_path_factory.mktemp("run")
    write_config(folder / "config.json", config)
    train(config, folder, lambda metrics: None)
    trainer = AdaNATTrainer.of(config)
    trainer.load_state_dict(load_state(folder / "checkpoint.pt"))
    return folder, trainer


def test_values_are_those_of_the_trained_critic(run: tuple[Path, AdaNATTrainer]) -> None:
    folder, trainer = run
    actor: Any = from_pretrained(folder / "policy")
    played = load_critic(folder, actor)
    assert isinstance(played, ActorWithCritic) and played.steps == 2
    observation, _ = trainer.env.reset(seed=5)
    for step in range(2):
        decision = played.decide(observation, step)
        with torch.no_grad():
            expected = trainer.ppo.policy.predict_values(observation)[:, 0]  # type: ignore[arg-type]
        torch.testing.assert_close(decision.value_B, expected)
        alone = actor.decide(observation, step)
        assert torch.equal(decision.action_B4, alone.action_B4) and decision.value_B.std() > 0
        assert torch.equal(played(observation, step).table, alone.params.table)
        observation = trainer.env.step(alone.action_B4[:, : len(actor.config.parameters)])[0]


def test_a_rollout_tells_values_and_rewards_and_draws_the_same_pictures(
    run: tuple[Path, AdaNATTrainer],
) -> None:
    folder, trainer = run
    actor: Any = from_pretrained(folder / "policy")
    reward: Any = load_discriminator(folder, trainer.env.task)
    condition = balanced(trainer.env.generator.conditions(), 20)
    given = trainer.env.generator, trainer.env.tokenizer, condition
    told = rollout(load_critic(folder, actor), *given, seed=1, reward=reward)
    assert torch.equal(told.tokens_NL, rollout(actor, *given, seed=1).tokens_NL)
    assert told.frame["value"].notna().all()
    expected = trainer.env.reward(told.images_NCHW, condition)
    last = told.frame[told.frame["step"] == 1].sort_values("sample")["reward"]
    assert last.to_list() == pytest.approx(expected.tolist(), rel=1e-5)


def test_other_policies_have_no_critic(tmp_path: Path, run: tuple[Path, AdaNATTrainer]) -> None:
    policy = FixedPolicy(reference(2))
    assert load_critic(run[0], policy) is policy and load_critic(tmp_path, policy) is policy
    actor = from_pretrained(run[0] / "policy")
    assert load_critic(tmp_path, actor) is actor
    assert load_discriminator(tmp_path, run[1].env.task) is None
