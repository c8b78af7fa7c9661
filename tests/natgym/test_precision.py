"""A generator in another precision: it plays everywhere, draws nearly the same, and the table says so."""

from typing import Any

import pytest
import torch

import natgym
from agents.adanat.config import TrainingConfig
from agents.adanat.trainer import AdaNATTrainer
from generators.checkpoints import weights_hash
from generators.precision import in_precision, precision_of
from generators.schedules import as_schedule
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.policies import FixedPolicy
from natgym.task import Task


@pytest.mark.parametrize("name", ["digits", "mnist/enat", "shapes"])
def test_bfloat16_draws_nearly_the_same(name: str) -> None:
    task = Task.load(name)
    half = task.in_precision("bfloat16")
    assert precision_of(half.generator) == "bfloat16" and precision_of(task.generator) == "float32"
    condition = task.named(["a red disc", "two blue squares"] * 16) if name == "shapes" else None
    asked: dict[str, Any] = {"seed": 0} | ({"condition": condition} if condition else {"num_images": 32})
    policy = FixedPolicy(as_schedule("maskgit", 4))
    full, drawn = (natgym.rollout(policy, one, **asked).tokens_NL for one in (task, half))
    equal = (full == drawn).float().mean()
    assert 0.5 < equal, "a token that differs early changes those that follow"
    assert weights_hash(half.generator) != weights_hash(task.generator)


def test_a_table_says_in_which_precision_it_was_made() -> None:
    task = Task.load("digits")
    config, policy = EvaluationConfig(images=300, seeds=(0,)), FixedPolicy(as_schedule("maskgit", 2))
    full, half = Evaluator(task, config), Evaluator(task.in_precision("bfloat16"), config)
    assert half.manifest()["precision"] == "bfloat16" and "computes in bfloat16" in half.legend()
    assert "precision" not in full.manifest() and "computes" not in full.legend(), "as in older files"
    distances = [one(policy)["distance"].item() for one in (full, half)]
    assert distances[0] != distances[1] and distances[1] == pytest.approx(distances[0], abs=0.1)


def test_a_policy_is_trained_on_it() -> None:
    config = TrainingConfig.of(trajectories=32, updates=1, evaluation_images=64, final_images=64, finalists=1)
    trainer = AdaNATTrainer.of(config.but(precision="bfloat16"))
    metrics = trainer.update()
    assert precision_of(trainer.env.generator) == "bfloat16" and metrics["distance"] > 0
    assert all(torch.isfinite(weight).all() for weight in trainer.ppo.policy.parameters())


def test_matrix_products_of_tf32_are_the_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    generator = Task.load("digits").generator
    assert in_precision(generator, "tf32") is generator is in_precision(generator, "float32")
    assert asked == ["high", "highest"]
    with pytest.raises(ValueError, match="'float8' is not one of float32, tf32, bfloat16"):
        in_precision(generator, "float8")  # type: ignore[arg-type]
