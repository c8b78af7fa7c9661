"""Policies of tokens that draw what they do: by the row seeds alone, with the chances that they learned."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import natgym
from agents import AdaNATTrainer, TrainingConfig, load_policy
from agents.named import describe, find_policies, find_policy
from generators.noise import Purpose, hash_uniform
from natgym.task import Task

ROWS, STEPS, SEED = 24, 4, 5
OPTIONS: dict[str, Any] = {
    "task": "sudoku-4", "schedule": "linear:sampling=.1,remask=0", "steps": STEPS,
    "observation": "statistics", "reward": "valid", "objective": "valid", "updates": 1,
    "trajectories": 16, "minibatch": 64, "evaluation_images": 20, "evaluate_every": 1, "finalists": 1,
}  # fmt: skip


def drawn_action(kind: str, logits_BL: torch.Tensor, step: int) -> np.ndarray:
    """What each row draws, one token after the other."""
    action = np.zeros(logits_BL.shape, dtype=np.float32)
    for row, logits_L in enumerate(logits_BL.double().tolist()):
        uniform_L = hash_uniform(torch.tensor([SEED + row]), step, len(logits_L), Purpose.ACTION)[0].tolist()
        if kind == "reveal":
            action[row] = [u < 1 / (1 + math.exp(-x)) for u, x in zip(uniform_L, logits_L, strict=True)]
            continue
        keys = [x - math.log(-math.log(u)) for u, x in zip(uniform_L, logits_L, strict=True)]
        for place, token in enumerate(sorted(range(len(keys)), key=lambda token: -keys[token])):
            action[row, token] = -place / len(keys)
    return action


@pytest.mark.parametrize("kind", ["reveal", "tokens"])
def test_what_is_drawn_follows_from_the_row_seeds_and_what_was_learned(kind: str, tmp_path: Path) -> None:
    trainer = AdaNATTrainer.of(TrainingConfig.of(**OPTIONS, actions=kind))
    trainer.fit(tmp_path / "run")
    task = Task.load("sudoku-4")
    [(label, policy)] = find_policies(f"{tmp_path}/run/last@draw", [STEPS], task.generator)
    assert label == "last@draw" and describe(policy)["draws"] is True
    condition = task.asked(ROWS)
    drawn = natgym.rollout(policy, task, condition=condition, seed=SEED)
    env = trainer.env.like(num_envs=ROWS)
    observation, _ = env.reset(seed=SEED, options={"condition": condition})
    for step in range(STEPS):
        distribution = trainer.ppo.policy.get_distribution(observation).distribution
        logits_BL = distribution.logits if kind == "reveal" else distribution[0]
        observation, *_, info = env.step(drawn_action(kind, logits_BL.detach(), step))
    assert (info["tokens"] == drawn.tokens_NL.numpy()).all() and (info["nfe"] == drawn.nfe_N).all()
    likeliest = natgym.rollout(trainer.actor(), task, condition=condition, seed=SEED)
    assert (likeliest.revealed_at_NL != drawn.revealed_at_NL).any()
    alone = natgym.rollout(policy, task, condition=condition[[7]], seed=SEED + 7)
    assert torch.equal(alone.tokens_NL[0], drawn.tokens_NL[7])
    natgym.check_policy(policy, task.generator)


def test_a_drawn_policy_of_a_range_of_prices_is_told_one_and_others_are_not_drawn(tmp_path: Path) -> None:
    settings = OPTIONS | {"updates": 1, "price": (0.01, 0.1), "actions": "reveal"}
    AdaNATTrainer.of(TrainingConfig.of(**settings)).fit(tmp_path / "run@draw")
    generator = Task.load("sudoku-4").generator
    told: list[Any] = [
        find_policy(f"{tmp_path}/run@draw{behind}", None, generator)
        for behind in ("", "@draw@price=.05", "@price=.05@draw", "@price=.05")
    ]
    found = [(policy.price, policy.draws) for policy in told]
    assert found == [((0.01, 0.1), False), (0.05, True), (0.05, True), (0.05, False)]
    AdaNATTrainer.of(TrainingConfig.of(**(OPTIONS | {"updates": 1}))).fit(tmp_path / "numbers")
    for spec in ("linear@draw", f"{tmp_path}/numbers@draw"):
        with pytest.raises(ValueError, match="@draw: only policies that learned to choose tokens are drawn"):
            find_policies(spec, [STEPS], generator)
    with pytest.raises(ValueError, match="is not a file"):
        load_policy(f"{tmp_path}/nowhere@draw")
