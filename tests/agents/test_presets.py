"""The published hyper-parameters, one by one, and that each reaches what it is said to set."""

import importlib
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.adanat.config import AdaNATConfig, TrainingConfig
from agents.adanat.network import PolicyConfig
from agents.adanat.presets import preset
from agents.adanat.trainer import AdaNATTrainer, train
from natgym.rewards import AdversarialConfig, Images
from natgym.runs import read_metrics
from natgym.settings import setting

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
PAPER = {  # AdaNAT's code and section 4.1
    "steps": 8,
    "actions": "paper-no-residual",
    "smoothing": 0.0,
    "rules": "adanat",
    "updates": 1000,
    "trajectories": 4096,
    "epochs": 5,
    "minibatch": None,
    "learning_rate": 1e-5,
    "final_learning_rate": None,
    "adam_eps": 1e-8,
    "max_gradient_norm": None,
    "normalize_advantages": False,
    "clip": 0.2,
    "value_weight": 0.5,
    "entropy_weight": 0.01,
    "action_std": (0.6, 0.3),
    "std_updates": 500,
    "real": "raw",
    "discriminator_batch": 1024,
    "discriminator_steps": 5,
    "warmup": 0,
    "policy": PolicyConfig(width=512, channels=128, hidden=(1024, 512), frequencies=256),
    # Not the paper's, whose 50,000 images after each update teach nothing and take most of the time.
    "evaluate_every": 50,
    "evaluation_images": 10_000,
    "finalists": 1,
}
TINY: dict[str, Any] = dict(
    steps=2,
    updates=4,
    trajectories=32,
    discriminator_batch=16,
    evaluation_images=20,
    finalists=1,
    reward="adversarial",
    policy=PolicyConfig(width=16, channels=8, hidden=(16, 16), frequencies=8),
    adversarial=AdversarialConfig(channels=4),
)


@pytest.mark.parametrize("name", PAPER)
def test_the_constants_of_the_paper(name: str) -> None:
    assert setting(preset("adanat_paper"), name) == PAPER[name]


def test_the_constants_of_the_discriminator_and_of_adagen() -> None:
    found = preset("adanat_paper")
    assert found.env.rewards.adversarial == AdversarialConfig(
        backbone="dino", condition="class", crop=0.5, learning_rate=1e-4, betas=(0.5, 0.999), loss="logistic"
    )
    adagen = found.but(steps=16, smoothing=0.8, actions="paper")
    assert preset("adagen") == adagen and preset("small") == TrainingConfig.of()


def test_standard_deviation_and_learning_rate_over_the_updates() -> None:
    paper = preset("adanat_paper").adanat
    assert [paper.action_std_at(update) for update in (0, 499, 500, 999)] == [0.6, 0.6, 0.3, 0.3]
    assert {paper.learning_rate_at(update) for update in (0, 999)} == {1e-5}
    falling = AdaNATConfig(updates=5, learning_rate=1e-3, final_learning_rate=2e-4, action_std=(0.5, 0.1))
    assert [falling.learning_rate_at(update) for update in range(5)] == pytest.approx(
        [1e-3, 8e-4, 6e-4, 4e-4, 2e-4]
    )
    assert [falling.action_std_at(update) for update in range(5)] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])


def test_the_paper_s_settings_undo_those_of_sb3() -> None:
    """Adam's epsilon, clipping, standardized advantages, full batches, returns: as in the golden updates."""
    trainer = AdaNATTrainer.of(preset("adanat_paper").but(**TINY))
    ppo: Any = trainer.ppo
    assert ppo.policy.optimizer.defaults["eps"] == 1e-8 and ppo.max_grad_norm == math.inf
    assert not ppo.normalize_advantage and ppo.rollout_buffer.normalize_returns
    assert (ppo.batch_size, ppo.n_epochs, ppo.ent_coef, ppo.vf_coef) == (64, 5, 0.01, 0.5)
    assert (ppo.gamma, ppo.gae_lambda, ppo.clip_range(1.0)) == (1, 1, 0.2)
    steps: list[float] = []
    step = ppo.policy.optimizer.step
    ppo.policy.optimizer.step = lambda *_, **__: (
        steps.append(ppo.policy.optimizer.param_groups[0]["lr"]),
        step(),
    )
    taught: list[int] = []
    update = trainer.env.reward.update

    def counted(real: Images, fake: Images) -> dict[str, float]:
        taught.append(fake.num_images)
        return update(real, fake)

    trainer.env.reward.update = counted  # type: ignore[method-assign]
    trainer.update()
    assert steps == [1e-5] * 5, "one full batch per epoch"
    assert taught == [16] * 5, "five batches drawn for the discriminator"
    assert ppo.policy.log_std.exp().tolist() == pytest.approx([0.6] * 4)


def test_a_preset_on_the_command_line_is_the_default_of_all_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # the script changes it
    monkeypatch.syspath_prepend(EXPERIMENTS)
    script: Any = importlib.import_module("adanat_ppo")
    parse: Any = importlib.import_module("_cli").parse

    def parsed(*flags: str) -> TrainingConfig:
        monkeypatch.setattr(sys, "argv", ["adanat_ppo.py", *flags])
        return parse(script.Args, "adanat_ppo.py", script.defaults).train

    paper = preset("adanat_paper")
    assert parsed("--preset", "adanat_paper") == parsed("--preset=adanat_paper") == paper
    assert parsed("--updates", "7", "--preset", "adagen", "--clip", "0.1") == preset("adagen").but(
        updates=7, clip=0.1
    )
    assert parsed("--minibatch", "64", "--preset", "adanat_paper").adanat.minibatch == 64
    assert parsed("--minibatch", "None").adanat.minibatch is None
    assert parsed() == parsed("--preset", "small") == TrainingConfig()


def test_every_discriminator_step_has_pictures_of_its_own() -> None:
    trainer = AdaNATTrainer.of(TrainingConfig.of(**TINY, discriminator_steps=3))
    batches = [images for images, _ in trainer.teacher._draw_fresh(trainer.ppo.policy, 7)]
    assert [len(images) for images in batches] == [16] * 3
    assert not torch.equal(batches[0], batches[1]) and not torch.equal(batches[1], batches[2])
    again = [images for images, _ in trainer.teacher._draw_fresh(trainer.ppo.policy, 7)]
    assert all(torch.equal(one, other) for one, other in zip(batches, again, strict=True))


def test_images_spent_and_learning_rates_are_logged(tmp_path: Path) -> None:
    rates: dict[str, Any] = dict(learning_rate=1e-3, final_learning_rate=4e-4)
    config = TrainingConfig.of(**TINY, **rates, discriminator_steps=3, warmup=1)
    train(config, tmp_path, lambda _: None)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert int(rows[-1]["images_spent"]) == config.total_images
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trajectories": 36, "discriminator_batch": 9}, "36 .* 32 and 40 fit"),
        ({"trajectories": 54, "discriminator_batch": 27}, "54 .* 48 and 56 fit"),
        ({"trajectories": 20, "discriminator_batch": 20}, "20 .* 16 and 24 fit"),
    ],
)
def test_batches_that_the_paper_s_discriminator_cannot_group_are_refused(values: Any, said: str) -> None:
    config = preset("adanat_paper")
    with pytest.raises(ValueError, match=said):
        config.but(**values)
    config.but(**values, adversarial=AdversarialConfig())
