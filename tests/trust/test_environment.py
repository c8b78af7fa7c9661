"""Arguments, actions, options and rewards of the environment that have another type than they should."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from attacks import ODD_VALUES, Attack, forms

from natgym import DecodeVectorEnv

ARGUMENTS = """num_envs steps smoothing schedule reward rewards rules conditions price observation dtype group
    coupled micro_batch first_pass_bytes device autoreset render_mode parameters actions task generator
    tokenizer""".split()
USUAL: dict[str, Any] = {"num_envs": 2, "steps": 2, "reward": "classifier"}


@pytest.mark.parametrize("count", forms(12, 400))
def test_arguments_of_odd_values_are_refused_by_their_names(count: int) -> None:
    rng = np.random.default_rng(5)
    odd = [value for value in ODD_VALUES if not isinstance(value, str) or len(value) < 100]
    odd = [
        value for value in odd if not (isinstance(value, int) and value > 1000)
    ]  # a batch that fills memory
    with Attack("arguments of the environment", TypeError) as attack:
        for number in range(count):
            name, value = ARGUMENTS[number % len(ARGUMENTS)], odd[rng.integers(len(odd))]
            names = name, name.rstrip("s"), {"observation": "features"}.get(name, name), repr(value)
            attack.load(f"{name}={value!r}", partial(DecodeVectorEnv, **{**USUAL, name: value}), *names)


def actions(rng: np.random.Generator) -> Any:
    """Draw what an agent might send in place of float32 (2, 4)."""
    shape = [(2, 4), (2, 4), (2, 4), (4, 2), (2,), (2, 4, 1), (0, 4), ()][rng.integers(8)]
    values = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 300, size=shape)
    at = rng.random(shape) < 0.1
    values = np.where(at, [np.nan, np.inf, -np.inf][rng.integers(3)], values)
    odd: list[Any] = [
        values,
        values.astype("U8"),
        values.astype(object),
        values.astype(complex),
        None,
        "left",
    ]
    odd += [
        values.tolist(),
        {"a": values},
        np.zeros((2, 4), dtype=bool),
        torch.zeros(2, 4, dtype=torch.int64),
    ]
    return odd[rng.integers(len(odd))] if rng.random() < 0.5 else values


@pytest.mark.parametrize("count", forms(30, 400))
def test_odd_actions_are_refused_or_played_with_finite_parameters(count: int) -> None:
    rng, env = np.random.default_rng(6), DecodeVectorEnv(**USUAL)
    with Attack("actions") as attack:
        for number in range(count):
            env.reset(seed=number)
            sent = actions(rng)
            played: list[Any] = []
            case = f"{number}: {sent!r:.80}"
            if attack.load(
                case,
                lambda played=played, sent=sent: played.append(env.step(sent)),
                "action",
                "param",
                "temperature",
            ):
                info = played[0][-1]
                shown = np.stack([info[name] for name in ("mask_ratio", "sampling_temperature")])
                attack.check(case, bool(np.isfinite(shown).all()), "played with what is not finite")


REWARDS: list[Any] = [
    lambda rows: torch.full((rows,), torch.nan),
    lambda rows: torch.full((rows,), torch.inf),
    lambda rows: torch.zeros(rows, 1),
    lambda rows: torch.zeros(rows + 1),
    lambda rows: torch.zeros(1),
    lambda rows: 0.0,
    lambda rows: None,
    lambda rows: "good",
    lambda rows: torch.zeros(rows, dtype=torch.complex64),
]


def test_odd_rewards_reach_no_agent() -> None:
    with Attack("rewards") as attack:
        for number, reward in enumerate(REWARDS):
            env = DecodeVectorEnv(3, steps=1, reward=lambda images, _, reward=reward: reward(len(images)))
            env.reset(seed=0)
            step = partial(env.step, np.zeros((3, 4), np.float32))
            attack.check(number, not attack.load(number, step, "reward"), "reached the agent")
