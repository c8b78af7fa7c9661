"""Named sets of hyper-parameters: the small tasks' and the papers' own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from agents.adanat.config import SEARCHED, AdaNATConfig, EnvConfig, TrainingConfig
from agents.adanat.parts import PolicyConfig
from generators.config import PUZZLE_NAMES
from natgym.names.spaces import REVEAL, TOKENS
from natgym.names.tasks import described
from natgym.rewards.config import AdversarialConfig, RewardOptions
from natgym.rewards.named import names_of

PresetName = Literal["small", "small_adversarial", "adanat_paper", "adagen"]


def preset(name: PresetName) -> TrainingConfig:
    """Return a named set of hyper-parameters; task, generator and device are left to the user.

    "small" is for the small tasks. "small_adversarial" goes on from a searched schedule there in small steps,
    with a network as the discriminator. "adanat_paper" has AdaNAT's of ImageNet-256 at T = 8; what 8 GPUs do
    there in batches of 128 is one batch here. "adagen" is the same with AdaGen's 16 steps, smoothed actions
    and schedule as residual (arXiv 2603.06993), which published no training code.
    """
    presets: dict[PresetName, Callable[[], TrainingConfig]] = {
        "small": TrainingConfig,
        "small_adversarial": _small_adversarial,
        "adanat_paper": _adanat_paper,
        "adagen": _adagen,
    }
    return presets[name]()


def followed(usual: TrainingConfig, flags: Mapping[str, str]) -> TrainingConfig:
    """Return the defaults that follow from some flags of a command line, and that further ones may change.

    Choosing tokens, --actions reveal or tokens, needs the observation statistics; of puzzles it is then to be
    valid what is drawn, reward and objective alike. A preset's options of rewards are those of the rewards
    that are used.

    Args:
        usual: the defaults without these flags.
        flags: with their dashes, and their values.
    """
    changes: dict[str, Any] = {}
    if flags.get("--actions") in (REVEAL, TOKENS):
        changes["observation"] = "statistics"
        task = described(flags.get("--task", usual.env.task))
        if task is not None and task.data in PUZZLE_NAMES:
            changes |= {"reward": "valid", "objective": "valid"}
    reward = flags.get("--reward", changes.get("reward", usual.env.reward))
    return usual.but(changes, rewards=usual.env.rewards.only(names_of(reward)))


def _small_adversarial() -> TrainingConfig:
    env = EnvConfig(steps=4, schedule=SEARCHED, reward="adversarial", trajectories=512)
    adanat = AdaNATConfig(
        updates=60, learning_rate=1e-3, final_learning_rate=None, action_std=(0.3, 0.2), finalists=1
    )
    return TrainingConfig(env=env, adanat=adanat)


def _adanat_paper() -> TrainingConfig:
    discriminator = AdversarialConfig(
        backbone="dino", learning_rate=1e-4, betas=(0.5, 0.999), loss="logistic", crop=0.5
    )
    env = EnvConfig(
        steps=8,
        actions="paper-no-residual",
        rules="adanat",
        reward="adversarial",
        trajectories=4096,
        rewards=RewardOptions(adversarial=discriminator),
    )
    adanat = AdaNATConfig(
        updates=1000,
        epochs=5,
        minibatch=None,
        learning_rate=1e-5,
        final_learning_rate=None,
        adam_eps=1e-8,
        max_gradient_norm=None,
        normalize_advantages=False,
        clip=0.2,
        value_weight=0.5,
        entropy_weight=0.01,
        action_std=(0.6, 0.3),
        std_updates=500,
        real="raw",
        discriminator_batch=8 * 128,
        discriminator_steps=5,
        warmup=0,
        policy=PolicyConfig(),
        # The official code measures 50,000 images after each update, five sixths of all that it does.
        evaluate_every=50,
        evaluation_images=10_000,
        finalists=1,
    )
    return TrainingConfig(env=env, adanat=adanat)


def _adagen() -> TrainingConfig:
    return _adanat_paper().but(steps=16, actions="paper", smoothing=0.8)
