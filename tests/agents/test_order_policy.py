"""Actions that are scores of tokens, and the policy that orders them: Plackett-Luce against enumeration."""

from itertools import permutations
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_for_sb3

import natgym
from agents import AdaNATTrainer, TrainingConfig, load_policy
from agents.adanat.orders import NEVER, PlackettLuce
from generators.rules import DecodeRules
from natgym.env.vector import DecodeVectorEnv
from natgym.task import Task
from rounding import assert_rounded

NAME = "sudoku-4"
OPTIONS: dict[str, Any] = {"task": NAME, "schedule": "linear:sampling=.001,remask=0", "actions": "tokens"}


def env_of(num_envs: int = 12, **options: Any) -> DecodeVectorEnv:
    return DecodeVectorEnv(num_envs, **{**OPTIONS, "steps": 4, "autoreset": False, **options})


def config_of(**settings: Any) -> TrainingConfig:
    usual = {
        **OPTIONS, "steps": 4, "observation": "statistics", "reward": "valid", "objective": "valid",
        "updates": 2, "trajectories": 32, "minibatch": 64, "evaluation_images": 100,
        "evaluate_every": 1, "final_images": 100, "finalists": 2,
    }  # fmt: skip
    return TrainingConfig.of(**{**usual, **settings})


def test_the_highest_scores_are_revealed_as_many_as_is_shown() -> None:
    env = env_of()
    assert env.single_action_space == gymnasium.spaces.Box(-10, 10, (16,), np.float32)
    observation, _ = env.reset(seed=3)
    rng = np.random.default_rng(0)
    for step in range(4):
        masked = observation["masked"].numpy().astype(bool)
        count = observation["reveal"].numpy()[:, 0]
        scores = rng.normal(size=(12, 16)).astype(np.float32)
        observation, *_ = env.step(scores)
        state = env.state if step < 3 else env.finished
        left = (state.ids_BL == 4).numpy()  # type: ignore[union-attr]
        for row in range(12):
            order = sorted(np.flatnonzero(masked[row]), key=lambda token: -scores[row, token])
            assert set(np.flatnonzero(masked[row] & ~left[row])) == set(order[: int(count[row])])
            assert count[row] >= 1 or not masked[row].any()
    assert not left.any() and not observation["reveal"].any()


def test_scores_that_are_the_confidence_play_the_rule_and_an_oracle_plays_its_order() -> None:
    """Codes are all but certain, so that the likeliest one's log-probability is the rule's score."""
    task = Task.load(NAME)
    condition = task.asked(40)
    policy = natgym.FixedPolicy(natgym.Schedule(env_of().action_map.schedule.table_T4))
    expected = natgym.rollout(policy, task, condition=condition, seed=5)
    env = env_of(40, observation="statistics")
    observation, _ = env.reset(seed=5, options={"condition": condition})
    for _ in range(4):
        observation, *_, info = env.step(observation["features"][..., -3])
    assert torch.equal(torch.from_numpy(info["tokens"]), expected.tokens_NL)
    assert (info["nfe"] == expected.nfe_N).all()
    env.reset(seed=5, options={"condition": condition})
    given_BL = condition.given_BL >= 0  # type: ignore[operator]
    for step in range(3):
        env.step(torch.linspace(1, -1, 16).expand(40, -1))
        left = env.state.ids_BL == 4  # type: ignore[union-attr]
        shown = (~left & ~given_BL).sum(1)
        free = (~given_BL).cumsum(1)
        assert torch.equal(~left & ~given_BL, ~given_BL & (free <= shown[:, None])), (
            f"from the left, step {step}"
        )


@pytest.mark.parametrize("rules", ["sure,theta=0.8,extra=2,most=1", "entropy-bound,epsilon=0.7"])
def test_where_a_rule_counts_it_says_how_many_and_scores_say_which(rules: str) -> None:
    """Codes are all but certain, so that the rule counts by the likeliest ones, as is shown."""
    env = env_of(40, rules=rules, steps=9)
    observation, _ = env.reset(seed=3)
    rng = np.random.default_rng(0)
    counts = set()
    for _ in range(8):
        masked = observation["masked"].numpy().astype(bool)
        count = observation["reveal"].numpy()[:, 0].astype(int)
        scores = rng.normal(size=(40, 16)).astype(np.float32)
        observation, *_ = env.step(scores)
        left = (env.state.ids_BL == 4).numpy()  # type: ignore[union-attr]
        for row in range(40):
            order = sorted(np.flatnonzero(masked[row]), key=lambda token: -scores[row, token])
            assert set(np.flatnonzero(masked[row] & ~left[row])) == set(order[: count[row]])
        counts |= set(count.tolist())
    assert len(counts) > 4, "rows take the steps that they need"
    settings = {"rules": rules, "steps": 9, "tokens.order": rules}
    trainer, task = AdaNATTrainer.of(config_of(**settings)), Task.load(NAME)
    plain = natgym.FixedPolicy(trainer.env.action_map.schedule, trainer.env.rules)
    played, expected = (
        natgym.rollout(policy, task, condition=task.asked(60), seed=1) for policy in (trainer.policy(), plain)
    )
    assert torch.equal(played.tokens_NL, expected.tokens_NL), "it starts as the rule"
    assert (played.nfe_N == expected.nfe_N).all()


def test_any_agent_may_give_scores() -> None:
    env = gymnasium.make("natgym/Decode-v1", **OPTIONS, steps=3, observation="statistics")
    check_env(env.unwrapped, skip_render_check=True)
    check_for_sb3(env)
    PPO("MultiInputPolicy", env, n_steps=9, batch_size=9, n_epochs=1, seed=0).learn(9)


def test_the_log_probability_is_that_of_drawing_one_token_after_the_other() -> None:
    logits_1L = torch.tensor([[0.3, -1.0, NEVER, 2.0, 0.7]])
    masked = [0, 1, 3, 4]
    for count in range(1, 5):
        drawn = PlackettLuce().proba_distribution(torch.cat([logits_1L, torch.tensor([[float(count)]])], 1))
        total = 0.0
        for sequence in permutations(masked, count):
            chance, left = 1.0, list(masked)
            for token in sequence:
                chance *= float(logits_1L[0, token].exp() / sum(logits_1L[0, other].exp() for other in left))
                left.remove(token)
            rest = [token for token in masked if token not in sequence]
            scores_1L = torch.full((1, 5), 9.0)  # of what is revealed already it says nothing
            for place, token in enumerate([*sequence, *rest]):
                scores_1L[0, token] = -float(place)
            assert_rounded(drawn.log_prob(scores_1L).exp(), chance)
            total += chance
        assert total == pytest.approx(1, abs=1e-6)


def test_samples_have_the_chances_that_are_said() -> None:
    torch.manual_seed(0)
    N = 20_000
    latent_NM = torch.tensor([[0.3, -1.0, NEVER, 2.0, 2.0]]).expand(N, -1)  # two of four tokens
    drawn = PlackettLuce().proba_distribution(latent_NM)
    scores_NL = drawn.sample()
    assert float(scores_NL.abs().max()) <= 1
    order = scores_NL.masked_fill(latent_NM[:, :4] == NEVER, -9).argsort(dim=1, descending=True)[:, :2]
    for sequence in permutations((0, 1, 3), 2):
        rows = (order == torch.tensor(sequence)).all(1)
        chance = float(drawn.log_prob(scores_NL)[rows][0].exp())
        assert float(rows.float().mean()) == pytest.approx(chance, abs=4 * (chance * (1 - chance) / N) ** 0.5)
    assert torch.equal(drawn.mode()[:1].argsort(dim=1, descending=True)[0, :2], torch.tensor([3, 0]))


def test_it_starts_as_confidence_trains_and_plays_what_it_learned(tmp_path: Path) -> None:
    trainer = AdaNATTrainer.of(config_of())
    task = Task.load(NAME)
    condition = task.asked(60)
    plain = natgym.FixedPolicy(trainer.env.action_map.schedule)
    start = natgym.rollout(trainer.policy(), task, condition=condition, seed=1)
    assert torch.equal(start.tokens_NL, natgym.rollout(plain, task, condition=condition, seed=1).tokens_NL)
    trainer.fit(tmp_path / "run")
    stopped = AdaNATTrainer.of(config_of(), callbacks=[lambda trainer, metrics: False])
    stopped.fit(tmp_path / "resumed")
    resumed = AdaNATTrainer.of(config_of())
    resumed.fit(tmp_path / "resumed")
    kept = load_policy(tmp_path / "run")
    played = natgym.rollout(kept, task, condition=condition, seed=1)
    again = natgym.rollout(trainer.policy(), task, condition=condition, seed=1)
    assert torch.equal(played.tokens_NL, again.tokens_NL)
    weights, others = trainer.ppo.policy.state_dict(), resumed.ppo.policy.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights), "to the bit"
    assert float(weights["pi_features_extractor.trunk.head.weight"].abs().max()) > 0, "it has learned"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rules": DecodeRules(remask_rate=0.1)}, "none is masked again"),
        ({"smoothing": 0.5}, "choose tokens and set no parameters"),
    ],
)
def test_what_means_nothing_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        env_of(**changed)


def test_a_divergence_from_an_order_is_refused() -> None:
    with pytest.raises(ValueError, match="measures no divergence"):
        AdaNATTrainer.of(config_of(kl_weight=0.1))
