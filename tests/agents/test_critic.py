"""The critic and the discriminator of a run folder are those that the training had at its end."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.adanat import AdaNATConfig, Learner, train
from agents.critic import ActorWithCritic, load_critic, load_discriminator
from agents.policy import PolicyConfig
from generators.checkpoints import from_pretrained, load_state
from generators.schedules import reference
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout
from natgym.runs import write_config

CONFIG = AdaNATConfig(
    steps=2,
    updates=2,
    trajectories=16,
    discriminator_batch=16,
    warmup=0,
    minibatch=32,
    evaluation_images=40,
    learning_rate=0.05,
    policy=PolicyConfig(width=16, channels=8, hidden=(16, 16), frequencies=8),
)


@pytest.fixture(scope="module", params=["plain", "smoothed", "blind"])
def run(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Learner]:
    config = {
        "plain": CONFIG,
        "smoothed": dataclasses.replace(CONFIG, smoothing=0.5),
        "blind": dataclasses.replace(CONFIG, policy=dataclasses.replace(CONFIG.policy, blind=True)),
    }[request.param]
    folder = tmp_path_factory.mktemp("run")
    write_config(folder / "config.json", config)
    train(config, folder, lambda metrics: None)
    learner = Learner(config)
    learner.load_state_dict(load_state(folder / "checkpoint.pt"))
    return folder, learner


def test_values_are_those_of_the_trained_critic(run: tuple[Path, Learner]) -> None:
    folder, learner = run
    actor: Any = from_pretrained(folder / "policy")
    played = load_critic(folder, actor)
    assert isinstance(played, ActorWithCritic) and played.steps == 2
    observation, _ = learner.env.reset(seed=5)
    for step in range(2):
        decision = played.decide(observation, step)
        with torch.no_grad():
            expected = learner.ppo.policy.predict_values(observation)[:, 0]  # type: ignore[arg-type]
        torch.testing.assert_close(decision.value_B, expected)
        alone = actor.decide(observation, step)
        assert torch.equal(decision.action_B4, alone.action_B4) and decision.value_B.std() > 0
        assert torch.equal(played(observation, step).table, alone.params.table)
        observation = learner.env.step(alone.action_B4[:, : len(actor.config.parameters)])[0]


def test_a_rollout_tells_values_and_rewards_and_draws_the_same_pictures(run: tuple[Path, Learner]) -> None:
    folder, learner = run
    actor: Any = from_pretrained(folder / "policy")
    shape = learner.tokenizer.image_shape
    reward = load_discriminator(folder, shape, 10)
    condition = balanced(learner.generator.conditions(), 20)
    given = learner.generator, learner.tokenizer, condition
    told = rollout(load_critic(folder, actor), *given, seed=1, reward=reward)
    assert torch.equal(told.tokens_NL, rollout(actor, *given, seed=1).tokens_NL)
    assert told.frame["value"].notna().all()
    expected = learner.reward(told.images_NCHW, condition)
    last = told.frame[told.frame["step"] == 1].sort_values("sample")["reward"]
    assert last.to_list() == pytest.approx(expected.tolist(), rel=1e-5)


def test_other_policies_have_no_critic(tmp_path: Path, run: tuple[Path, Learner]) -> None:
    policy = FixedPolicy(reference(2))
    assert load_critic(run[0], policy) is policy and load_critic(tmp_path, policy) is policy
    actor = from_pretrained(run[0] / "policy")
    assert load_critic(tmp_path, actor) is actor
    assert load_discriminator(tmp_path, (1, 8, 8), 10) is None
