"""Does a reward prefer what brings images nearer to real ones? Compare rewards before training on them."""

import _root  # noqa: F401

from dataclasses import dataclass, field
from pathlib import Path

from _cli import main

from agents.adanat.config import TrainingConfig
from generators.checks import at_least
from generators.text import split
from natgym.rewards.config import AdversarialConfig


def config_of(base: TrainingConfig, spec: str) -> TrainingConfig:
    """Return the config of a reward such as influence or adversarial:backbone=classifier,mismatched=0.5.

    Raises:
        ValueError: the reward or one of its settings is unknown.
    """
    name, texts = split(spec)
    usual = vars(AdversarialConfig())
    if unknown := [key for key in texts if key not in usual or name != "adversarial"]:
        raise ValueError(f"reward {spec!r}: {', '.join(unknown)} is no setting of {name}")
    try:
        settings = {key: type(usual[key])(text) for key, text in texts.items()}
    except (TypeError, ValueError):
        raise ValueError(f"reward {spec!r}: a setting is not a number where one is needed") from None
    config = base.but(reward=name, adversarial=AdversarialConfig(**settings))
    config.env.rewards.adversarial.refuse_absent()
    return config.but(rewards=config.env.rewards.only([name]))


@dataclass(frozen=True, kw_only=True)
class Args:
    """Measure how far rewards want what the distance wants, before any policy is trained on them.

    Random actions are played around a schedule. The gradient of the reward by the actions of each class is
    set beside that of the distance from the train split; then one step is taken along the reward's gradient,
    and the distance from the select split says where it leads. A discriminator learns first, from images
    drawn under the same random actions.
    """

    rewards: tuple[str, ...] = (
        "influence",
        "classifier",
        "adversarial",
        "adversarial:mismatched=0.5",
        "adversarial:members=4",
        "adversarial:backbone=classifier",
        "adversarial:backbone=classifier,mismatched=0.5",
    )
    """Rewards by name; the settings of an adversarial one follow a colon."""
    train: TrainingConfig = field(
        default_factory=lambda: TrainingConfig.of(
            steps=2, action_std=(0.5, 0.5), trajectories=1000, discriminator_batch=125, warmup=60
        )
    )
    """Task, schedule, action_std of the actions, trajectories a batch, warmup batches for a discriminator."""
    episodes: int = 20_000
    """Images under random actions, from which the gradients are estimated."""
    sizes: tuple[float, ...] = (0.15, 0.3)
    """Steps along the gradient: root mean square of the actions, in units of the action map."""
    images: int = 4000
    """Images per step and noise seed."""
    seeds: int = 3
    """Noise seeds of the distances."""
    threads: int = 2
    """Batches drawn at once where the distance is measured."""
    output: Path | None = None
    """Run folder, by default runs/reward_agreement-<time>."""

    def __post_init__(self) -> None:
        at_least(1, self, "episodes", "images", "seeds", "threads")
        if not self.rewards:
            raise ValueError("rewards is empty; give at least one")
        for spec in self.rewards:
            self.config(spec)

    def config(self, spec: str) -> TrainingConfig:
        """Return the training with one of the rewards; ValueError as of `config_of`."""
        return config_of(self.train, spec)


def work(args: Args) -> None:
    import _reward_agreement  # torch, only now that the flags are read

    _reward_agreement.work(args)


if __name__ == "__main__":
    main(Args, work)
