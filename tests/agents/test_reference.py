"""A policy that is held near a reference: the divergence by its formula, and what its weight does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from agents.adanat.config import AdaNATConfig, TrainingConfig
from agents.adanat.trainer import AdaNATTrainer
from natgym.env.vector import DecodeVectorEnv
from rounding import assert_rounded

TINY: dict[str, Any] = {
    "updates": 2,
    "evaluate_every": 2,
    "evaluation_images": 20,
    "finalists": 1,
    "warmup": 1,
    "minibatch": 24,
    "learning_rate": 3e-2,
}


def trainer_of(**settings: Any) -> AdaNATTrainer:
    env = DecodeVectorEnv(12, steps=2, reward="mmd")
    return AdaNATTrainer(env, AdaNATConfig(**(TINY | settings)))


def observed(trainer: AdaNATTrainer) -> dict[str, torch.Tensor]:
    return trainer.env.reset(seed=3)[0]


def test_the_divergence_of_gaussians_is_that_of_their_means() -> None:
    trainer = trainer_of(kl_weight=0.1)
    trainer.explore(0)
    shown, policy = observed(trainer), trainer.ppo.policy
    nothing = torch.zeros(12, 4)
    assert not policy.evaluate_actions(shown, nothing)[2].any(), "it starts as its reference"
    with torch.no_grad():
        policy.action_net.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
        mean_Bk = policy.get_distribution(shown).distribution.loc
        divergence_B = -policy.evaluate_actions(shown, nothing)[2]
    std = trainer.config.action_std[0]
    for row in range(12):
        assert_rounded(divergence_B[row], sum(float(x) ** 2 / (2 * std**2) for x in mean_Bk[row]))
    assert float(divergence_B.min()) > 0.01


def test_the_divergence_of_bits_is_their_sum_over_masked_tokens() -> None:
    options: dict[str, Any] = {"actions": "reveal", "observation": "statistics", "reward": "valid"}
    env = DecodeVectorEnv(12, task="sudoku-4", steps=4, schedule="linear", **options)
    trainer = AdaNATTrainer(env, AdaNATConfig(kl_weight=0.1, objective="valid", **TINY))
    shown, policy = observed(trainer), trainer.ppo.policy
    with torch.no_grad():
        before_BL = policy.get_distribution(shown).distribution.probs
        policy.pi_features_extractor.trunk.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        now_BL = policy.get_distribution(shown).distribution.probs
        divergence_B = -policy.evaluate_actions(shown, torch.zeros(12, 16))[2]
    for row in range(12):
        pairs = zip(now_BL[row].double(), before_BL[row].double(), shown["masked"][row], strict=True)
        each = [p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log() for p, q, masked in pairs if masked]
        torch.testing.assert_close(divergence_B[row].double(), sum(each), rtol=1e-3, atol=1e-4)
    assert float(divergence_B.min()) > 0.01


def test_a_weight_keeps_a_policy_near_and_the_log_says_how_near() -> None:
    near, free = trainer_of(kl_weight=30.0), trainer_of(kl_weight=1e-6)
    for _ in range(2):
        told = [trainer.update() for trainer in (near, free)]
    assert 0 < told[0]["reference_kl"] < 0.5 * told[1]["reference_kl"], told
    assert "reference_kl" not in trainer_of().update()


def test_a_checkpoint_is_a_reference_too(tmp_path: Path) -> None:
    teacher = trainer_of()
    teacher.fit(tmp_path / "teacher")
    pupil = trainer_of(kl_weight=0.1, reference=str(tmp_path / "teacher"), seed=1)
    shown = observed(pupil)
    pupil.explore(0)
    with torch.no_grad():
        found_B = -pupil.ppo.policy.evaluate_actions(shown, torch.zeros(12, 4))[2]
        mean_Bk = teacher.policy().decide(shown, 0).action_B4
    assert mean_Bk is not None
    assert_rounded(found_B, (mean_Bk**2).sum(1) / (2 * pupil.config.action_std[0] ** 2))
    weights = pupil.ppo.policy.state_dict()
    assert set(weights) == set(teacher.ppo.policy.state_dict()), "a reference is none of the weights"
    other = DecodeVectorEnv(12, steps=2, reward="mmd", schedule="maskgit")
    config = AdaNATConfig(**TINY, kl_weight=0.1, reference=str(tmp_path / "teacher"))
    with pytest.raises(ValueError, match="another schedule"):
        AdaNATTrainer(other, config)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kl_weight": -1.0}, "kl_weight -1.0"),
        ({"kl_weight": 0.1, "entropy_weight": 0.1}, "give one of them"),
        ({"reference": "runs/mine"}, "it has no weight"),
    ],
)
def test_what_means_nothing_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainingConfig.of(**settings)
