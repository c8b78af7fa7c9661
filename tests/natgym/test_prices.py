"""A price of passes that is a range: drawn for each row, shown, taken off the reward, told to policies."""

import math
import re
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common import env_checker

import natgym
from generators.noise import HashNoise, Purpose, hash_uniform
from generators.schedules import DecodeParams
from natgym.env.vector import DecodeVectorEnv
from natgym.evaluation.objective import Objective
from natgym.names.prices import checked, mean, text
from natgym.observations import Observation, priced
from natgym.policies import Decision

RANGE = (0.01, 0.25)
OPTIONS: dict[str, Any] = {
    "task": "sudoku-4",
    "steps": 4,
    "schedule": "linear:sampling=.1",
    "actions": "reveal",
    "observation": "tokens",
    "autoreset": False,
}


def env_of(num_envs: int = 12, **options: Any) -> DecodeVectorEnv:
    return DecodeVectorEnv(num_envs, **(OPTIONS | options))


def played(env: DecodeVectorEnv, **options: Any) -> tuple[np.ndarray, dict[str, Any], torch.Tensor]:
    """Rewards, info and prices of an episode of random bits, the same for all environments."""
    rng = np.random.default_rng(0)
    observation, _ = env.reset(**options)
    shown = [observation["price"]] if "price" in observation else []
    for _ in range(env.steps):
        bits = rng.random((env.num_envs, 16)) < 0.3
        observation, rewards, _, _, info = env.step(bits.astype(np.int8))
        shown += [observation["price"]] if "price" in observation else []
    assert all(torch.equal(one, shown[0]) for one in shown), "an image has one price from start to end"
    return rewards, info, shown[0] if shown else torch.tensor([])


def test_each_row_pays_its_own_price_and_sees_it() -> None:
    env, free = env_of(price=RANGE), env_of()
    rewards, info, prices = played(env, seed=7)
    without, same, nothing = played(free, seed=7)
    assert (info["tokens"] == same["tokens"]).all() and not len(nothing), "a price changes no image"
    for row in range(12):
        uniform = hash_uniform(torch.tensor([7 + row]), 0, 1, Purpose.PRICE).item()
        price = math.exp(math.log(0.01) + uniform * math.log(25))
        assert prices[row].item() == pytest.approx(price, rel=1e-6)
        assert rewards[row] == pytest.approx(without[row] - prices[row].item() * info["nfe"][row], abs=1e-12)
    alone = env_of(1, price=RANGE)
    observation, _ = alone.reset(seed=7 + 5)
    assert torch.equal(observation["price"][0], prices[5]), "alone as in a batch"
    assert env.observation_space.contains({key: np.asarray(one) for key, one in env.reset(seed=1)[0].items()})
    again, *_ = played(env.like(num_envs=12), seed=7)
    assert (again == rewards).all()


def test_one_price_is_exactly_what_it_was() -> None:
    """To the last bit: the reward less price times passes, and nothing more to see."""
    without, info, _ = played(env_of(), seed=3)
    for price in (0.0, 0.07):
        env = env_of(price=price)
        assert set(env.single_observation_space) == set(env_of().single_observation_space)
        rewards, _, shown = played(env, seed=3)
        assert (rewards == without - price * info["nfe"]).all() and not len(shown)


def test_prices_are_even_on_a_logarithmic_scale_and_those_of_a_group_are_one() -> None:
    seeds_B = HashNoise.from_seed(5, 4000).row_seeds_B
    places = np.sort(np.log(priced(RANGE, seeds_B)[:, 0].numpy() / 0.01) / math.log(25))
    assert np.abs(places - (np.arange(4000) + 0.5) / 4000).max() < 1.63 / math.sqrt(4000)  # Kolmogorov, 1 %
    assert mean(RANGE) == pytest.approx(float(priced(RANGE, seeds_B).mean()), rel=0.03)
    observation, _ = env_of(price=RANGE, group=4).reset(seed=0)
    groups = observation["price"].view(3, 4)
    assert (groups == groups[:, :1]).all() and len(groups.unique()) == 3


def test_later_episodes_have_other_prices_and_the_last_observation_its_own() -> None:
    env = env_of(3, price=RANGE, autoreset=True, steps=1)
    first, _ = env.reset(seed=0)
    then, _, _, _, info = env.step(np.ones((3, 16), dtype=np.int8))
    assert not (first["price"] == then["price"]).any()
    assert [seen["price"].item() for seen in info["final_obs"]] == first["price"][:, 0].tolist()
    again, _ = env.reset(seed=0)
    assert torch.equal(again["price"], first["price"])


def test_an_episode_may_be_asked_for_at_prices() -> None:
    env = env_of(3, price=RANGE)
    rewards, info, prices = played(env, seed=2, options={"price": 0.05})
    assert prices.tolist() == [[np.float32(0.05)]] * 3
    free, *_ = played(env_of(3), seed=2)
    assert rewards == pytest.approx(free - 0.05 * info["nfe"], abs=1e-7)
    _, _, prices = played(env, seed=2, options={"price": [0.01, 0.02, 0.25]})
    assert prices[:, 0].tolist() == pytest.approx([0.01, 0.02, 0.25])
    for asked, said in (
        (0.3, "0.3 is not between 0.01 and 0.25"),
        ([0.1, 0.2], "a number, or one for each of 3 rows"),
        ("much", "a number, or one for each of 3 rows"),
        (math.nan, "nan is not between"),
    ):
        with pytest.raises(ValueError, match=f"option 'price': .*{said}"):
            env.reset(options={"price": asked})
    with pytest.raises(ValueError, match=re.escape("all rows have 0; give a range, price=(.01, .1)")):
        env_of(3).reset(options={"price": 0.05})


@pytest.mark.parametrize(
    ("kind", "actions"),
    [
        ("features", "default"),
        ("pooled", "default"),
        ("tokens", "reveal"),
        ("statistics", "reveal"),
        ("statistics", "tokens"),
    ],
)
def test_both_checkers_pass(kind: str, actions: str) -> None:
    options = {"schedule": "linear:sampling=.1,remask=0", "observation": kind, "actions": actions, "steps": 2}
    env = gymnasium.make("natgym/Decode-v1", task="sudoku-4", price=RANGE, **options).unwrapped
    check_env(env, skip_render_check=True)
    env_checker.check_env(env)
    low, high = env.observation_space["price"].low, env.observation_space["price"].high  # type: ignore[index]
    assert (low, high) == (np.float32(0.01), np.float32(0.25))


def test_what_is_no_price_is_told() -> None:
    assert checked([0.01, 0.1]) == (0.01, 0.1) and text((0.01, 0.1)) == "0.01 to 0.1"
    for price in ((0.1, 0.01), (0.0, 0.1), (0.1,), (0.1, math.inf), (0.1, math.nan), (0.1, 0.1), ("a", 1)):
        with pytest.raises(ValueError, match="a range is of two numbers, 0 < lowest < highest"):
            env_of(price=price)
    with pytest.raises(TypeError, match="price 'high'"):
        env_of(price="high")


def test_what_is_measured_adds_the_cost_of_each_image() -> None:
    nfe_N, seed = np.array([3, 1, 8, 2]), 11
    prices = priced(RANGE, HashNoise.from_seed(seed, 4).row_seeds_B)[:, 0].tolist()
    by_hand = sum(price * nfe for price, nfe in zip(prices, nfe_N, strict=True)) / 4
    objective = Objective("valid", RANGE)
    assert objective.value({"valid": 0.75}, nfe_N, seed) == pytest.approx(0.25 + by_hand)
    assert objective.title == "share not valid, select split, + 0.01 to 0.25 a pass"
    assert Objective().title == "distance from the select split"
    assert Objective("valid", 0.1).value({"valid": 0.75}, nfe_N) == 0.25 + 0.1 * 3.5
    with pytest.raises(ValueError, match="price 0.01 to 0.25: prices of a range are drawn by seeds; give"):
        objective.value({"valid": 0.75}, nfe_N)


class Stingy:
    """Reveal everything at once where passes are dear, else one token after the other."""

    steps, price = 4, RANGE

    def decide(self, observation: Observation, step: int) -> Decision:
        bits_BL = (observation["price"] > 0.05).expand_as(observation["masked"])
        table_BK = torch.tensor([[0.0, 0.0, 0.1, 0.0]], dtype=torch.float64).expand(len(bits_BL), 4)
        return Decision(DecodeParams.from_table(table_BK), chosen_BL=bits_BL)

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        return self.decide(observation, step).params


def test_a_rollout_draws_the_prices_of_the_environment() -> None:
    task = natgym.Task.load("sudoku-4")
    drawn = natgym.rollout(Stingy(), task, num_images=40, seed=9)
    observation, _ = env_of(40, price=RANGE).reset(seed=9)
    prices = observation["price"][:, 0].numpy()
    assert (drawn.nfe_N == np.where(prices > 0.05, 1, 4)).all() and 5 < (drawn.nfe_N == 1).sum() < 35
