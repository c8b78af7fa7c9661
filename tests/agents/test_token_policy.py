"""Actions that choose tokens: what a step reveals, and the policy that learns to choose."""

from itertools import product
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from torch.nn import functional as F

import natgym
from agents import AdaNATTrainer, TrainingConfig, load_policy
from agents.adanat.parts import TokenPolicyConfig
from agents.sb3 import SB3VecEnv
from natgym.env.vector import DecodeVectorEnv
from natgym.observations import statistics
from natgym.task import Task

NAME = "sudoku-4"
OPTIONS = {"task": NAME, "schedule": "linear:sampling=.1,remask=0", "actions": "reveal"}


def env_of(num_envs: int = 12, **options: object) -> DecodeVectorEnv:
    return DecodeVectorEnv(num_envs, **{**OPTIONS, "steps": 4, "autoreset": False, **options})  # type: ignore[arg-type]


def config_of(**settings: object) -> TrainingConfig:
    usual = {
        **OPTIONS, "steps": 4, "observation": "statistics", "reward": "valid", "objective": "valid",
        "price": 0.02, "updates": 2, "trajectories": 32, "minibatch": 64, "evaluation_images": 100,
        "evaluate_every": 1, "final_images": 100, "finalists": 2,
    }  # fmt: skip
    return TrainingConfig.of(**{**usual, **settings})


def test_a_step_reveals_what_is_chosen_and_at_least_one_token() -> None:
    env = env_of()
    assert env.single_action_space == gymnasium.spaces.MultiBinary(16)
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    for step in range(3):
        masked = (env.state.ids_BL == 4).numpy()  # type: ignore[union-attr]
        chosen = rng.random((12, 16)) < (0.0 if step == 1 else 0.3)
        _, rewards, ended, _, info = env.step(chosen.astype(np.int8))
        left = (env.state.ids_BL == 4).numpy()  # type: ignore[union-attr]
        some = (chosen & masked).any(1)
        assert (left[some] == (masked & ~chosen)[some]).all()
        assert ((masked & ~left).sum(1) >= 1)[masked.any(1)].all(), "one, where none is chosen"
        assert not info["clipped"].any() and not rewards.any() and not ended.any()
    env.step(np.zeros((12, 16), dtype=np.int8))
    assert not (env.finished.ids_BL == 4).any(), "the last step reveals everything"  # type: ignore[union-attr]


def test_choosing_what_a_rule_would_plays_the_rule() -> None:
    """The threshold's tokens, told from what is drawn, are the threshold's images and passes."""
    task = Task.load(NAME)
    policy = natgym.FixedPolicy(
        natgym.Schedule(torch.tensor([[0.0, 0.0, 0.1, 0.0]] * 13, dtype=torch.float64)),
        natgym.DecodeRules.of("threshold,theta=0.7", (4, 4)),
    )
    condition = task.asked(40)
    expected = natgym.rollout(policy, task, condition=condition, seed=5)
    env = env_of(40, steps=13, schedule=policy.schedule)
    env.reset(seed=5, options={"condition": condition})
    noise = env.parts.noise  # type: ignore[union-attr]
    for step in range(13):
        logits = env.state.prediction.logits_BLV  # type: ignore[union-attr]
        drawn = noise.categorical(logits / 0.1, step)
        chance = logits.softmax(-1).gather(-1, drawn[..., None])[..., 0]
        _, _, _, _, info = env.step((chance >= 0.7).numpy())
    assert torch.equal(torch.from_numpy(info["tokens"]), expected.tokens_NL)
    assert (info["nfe"] == expected.nfe_N).all()


def test_any_agent_may_choose() -> None:
    """Gymnasium's and SB3's own checks, and SB3's PPO as it is."""
    env = gymnasium.make("natgym/Decode-v1", **OPTIONS, steps=3, observation="statistics")
    check_env(env.unwrapped, skip_render_check=True)
    rows = SB3VecEnv(DecodeVectorEnv(8, **OPTIONS, steps=3, observation="statistics"))  # type: ignore[arg-type]
    PPO("MultiInputPolicy", rows, n_steps=3, batch_size=8, n_epochs=1).learn(24)
    with pytest.raises(ValueError, match="actions 'reveal' choose tokens and set no parameters"):
        env_of(parameters=["mask_ratio"])
    env_of().reset(seed=0)


def test_what_is_shown_of_a_token_is_how_sure_the_generator_is() -> None:
    env = env_of(observation="statistics")
    observation, _ = env.reset(seed=0)
    logits = env.state.prediction.logits_BLV  # type: ignore[union-attr]
    shown = observation["features"][..., -3:]
    assert torch.equal(shown, statistics(logits))
    for row, place in ((0, 0), (3, 7)):
        chances = sorted(logits[row, place].double().softmax(-1).tolist(), reverse=True)
        entropy = -sum(chance * np.log(chance) for chance in chances)
        expected = [np.log(chances[0]), chances[0] - chances[1], entropy]
        assert shown[row, place].tolist() == pytest.approx(expected, abs=1e-5)
    assert observation["features"].shape[1:] == env.single_observation_space["features"].shape  # type: ignore[index]


@pytest.mark.parametrize("slope", [None, 2.0])
@pytest.mark.parametrize(
    "start", ["threshold,theta=0.6", "sure,theta=0.8,most=1", "entropy-bound,epsilon=0.7"]
)
def test_the_policy_starts_as_a_rule(start: str, slope: float | None) -> None:
    """Greedy, it plays the rule's images in the rule's passes, where draws are all but certain."""
    tokens = {"start": start, "slope": slope}
    trainer = AdaNATTrainer.of(config_of(tokens=tokens, steps=14, schedule="linear:sampling=.001"))
    task = trainer.env.task
    rules = natgym.DecodeRules.of(start, (4, 4))
    schedule = natgym.Schedule(torch.tensor([[0.0, 0.0, 0.001, 0.0]] * 14, dtype=torch.float64))
    ours = natgym.rollout(trainer.actor(), task, num_images=60, seed=0)
    theirs = natgym.rollout(natgym.FixedPolicy(schedule, rules), task, num_images=60, seed=0)
    assert torch.equal(ours.tokens_NL, theirs.tokens_NL) and (ours.nfe_N == theirs.nfe_N).all()


def test_it_explores_where_the_rule_stops() -> None:
    """Row by row: log-odds fall by the slope from token to token, in the rule's order."""
    config = TokenPolicyConfig(start="threshold,theta=0.6", sharpness=3.0, slope=2.0)
    trainer = AdaNATTrainer.of(config_of(tokens=vars(config)))
    observation, _ = trainer.env.reset(seed=1)
    odds_BL = trainer.ppo.policy.get_distribution(observation).distribution.logits  # type: ignore[union-attr]
    for row, odds_L in enumerate(odds_BL):
        masked = observation["masked"][row].bool()
        chances = observation["features"][row, masked, -3].exp()
        order = chances.argsort(descending=True, stable=True)
        revealed = max(1, int((chances >= 0.6).sum()))
        expected = [2.0 * (revealed - 0.5 - place) for place in range(len(order))]
        assert sorted(odds_L[masked].tolist(), reverse=True) == [min(3.0, max(-3.0, one)) for one in expected]
        assert odds_L[masked][order[revealed - 1]] == 1 and (odds_L[~masked] == 0).all()
    with pytest.raises(ValueError, match="slope -1"):
        TokenPolicyConfig(slope=-1)


def test_its_log_probability_is_exact() -> None:
    """Over all actions of three masked tokens the probabilities sum to one; other bits weigh nothing."""
    trainer = AdaNATTrainer.of(config_of(tokens={"sharpness": 1.5}))
    observation, _ = trainer.env.reset(seed=1)
    policy = trainer.ppo.policy
    policy.pi_features_extractor.trunk.head.weight.data.normal_()  # type: ignore[union-attr]
    masked = observation["masked"].bool()
    odds = policy.get_distribution(observation).distribution.logits  # type: ignore[union-attr]
    assert (odds[~masked] == 0).all() and odds[masked].unique().numel() > 20
    places = masked[0].nonzero()[:3, 0]
    every = torch.zeros(8, 16)
    every[:, places] = torch.tensor(list(product((0.0, 1.0), repeat=3)))
    repeated = {key: values[:1].expand(8, *values.shape[1:]) for key, values in observation.items()}
    _, log_probs, _ = policy.evaluate_actions(repeated, every)
    idle = torch.full((16,), np.log(0.5))
    idle[masked[0]] = F.logsigmoid(-odds[0][masked[0]])
    idle[places] = 0
    assert (log_probs - idle.sum()).exp().sum().item() == pytest.approx(1, rel=1e-4)


def test_it_trains_resumes_to_the_bit_and_plays_what_it_learned(tmp_path: Path) -> None:
    config = config_of()
    whole = AdaNATTrainer.of(config)
    whole.fit(tmp_path / "whole")
    halted = AdaNATTrainer.of(config, callbacks=[lambda trainer, metrics: trainer.done < 1])
    halted.fit(tmp_path / "halted")
    resumed = AdaNATTrainer.of(config)
    resumed.fit(tmp_path / "halted")
    ours, theirs = whole.ppo.policy.state_dict(), resumed.ppo.policy.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    task = Task.load(NAME)
    played = natgym.rollout(load_policy(tmp_path / "whole" / "last", task), task, num_images=30, seed=0)
    direct = natgym.rollout(whole.actor(), task, num_images=30, seed=0)
    assert torch.equal(played.tokens_NL, direct.tokens_NL) and (played.nfe_N == direct.nfe_N).all()
    assert played.nfe_N.max() <= 4
    env = whole.env.like(num_envs=30)
    env.reset(seed=0, options={"condition": direct.condition})
    for _ in range(4):
        bits = whole.actor().policy.get_distribution(env.observer(env.state, env.played_Bk)).mode()
        _, _, _, _, info = env.step(bits)
    assert (info["tokens"] == direct.tokens_NL.numpy()).all()


def test_a_blind_one_sees_no_features_but_starts_as_the_same_rule() -> None:
    trainer = AdaNATTrainer.of(config_of(tokens={"blind": True}))
    observation, _ = trainer.env.reset(seed=1)
    actor = trainer.ppo.policy.pi_features_extractor.trunk  # type: ignore[union-attr]
    other = {**observation, "features": torch.randn_like(observation["features"])}
    actor.head.weight.data.normal_()
    assert torch.equal(actor(observation), actor(other))
    with pytest.raises(ValueError, match="observation features: to choose tokens"):
        AdaNATTrainer.of(config_of(observation="features"))
    with pytest.raises(ValueError, match="start 'margin' is no rule that counts by itself"):
        TokenPolicyConfig(start="margin")
