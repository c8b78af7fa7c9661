"""Hyper-parameters of AdaNAT (arXiv 2409.00342, section 4.1 and code), and the published sets of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from agents.alarms import AlarmConfig
from agents.cotraining import CotrainingConfig
from agents.policy import PolicyConfig, small_policy
from generators.rules import DecodeRules
from generators.schedules import PARAMETERS, reference
from natgym.observations import Kind
from natgym.rewards import NAMED, AdversarialConfig, reward_weights
from natgym.rewards.projected import groups_of
from natgym.spaces import ActionMap, Preset

SEARCHED = "static-search"  # the schedule that a script searches before the training


@dataclass(frozen=True, kw_only=True)
class AdaNATConfig:
    """Hyper-parameters of AdaNAT; the defaults are those of the small tasks."""

    task: str = "digits"
    """Task whose train part is real for the discriminator and whose select part measures progress."""
    generator: str | None = None
    """Folder of a saved generator, or the name of a shipped one; by default the task's."""
    steps: int = 4
    """Decoding steps T."""
    schedule: str = "reference"
    """What the policy starts from: a family's name or a schedule file."""
    actions: Preset = "default"
    """Action map around the schedule."""
    parameters: tuple[str, ...] = PARAMETERS
    """Decoding parameters that the policy sets; the others follow the schedule."""
    smoothing: float = 0.0
    """Share of the action played before in the one played; AdaGen has 0.8 for T = 16."""
    observation: Kind = "features"
    """What the rollout buffer holds: "features", "pooled" ones, or "tokens", whose features come again."""
    rules: str = "confidence"
    """Rules of the decoding step: confidence, random, halton, with limits if need be (generators.rules);
    adanat lets a step reveal nothing."""
    updates: int = 60
    """PPO iterations."""
    trajectories: int = 512
    """Pictures per rollout."""
    epochs: int = 4
    """PPO epochs per rollout."""
    minibatch: int | None = 512
    """Transitions per gradient step; None takes the whole rollout, as the paper does."""
    learning_rate: float = 1e-3
    """Of actor and critic (Adam)."""
    final_learning_rate: float | None = None
    """Learning rate of the last update, linear between; None keeps it constant."""
    adam_eps: float = 1e-5
    """Adam's epsilon; the paper has torch's 1e-8."""
    max_gradient_norm: float | None = 0.5
    """Gradients are clipped to this norm; None leaves them, as the paper does."""
    normalize_advantages: bool = True
    """Whether the advantages of each minibatch are standardised; in the paper the returns alone are."""
    clip: float = 0.2
    """PPO's clipping range."""
    value_weight: float = 0.5
    """Weight of the critic's loss."""
    entropy_weight: float = 0.0
    """Weight of the entropy, which has no gradient as long as nothing learns the standard deviation."""
    action_std: tuple[float, float] = (0.3, 0.2)
    """Standard deviation of the actions at the first and the last update, linear between."""
    std_updates: int | None = None
    """Updates that are taken at the first standard deviation, all others at the last; None is linear."""
    reward: str = "adversarial"
    """What judges finished pictures: adversarial, or by name influence, distance, classifier or
    feature-distance, which don't learn; or a sum, as in "adversarial=1,influence=0.5"."""
    extractor: str | None = None
    """Folder of the classifier that such rewards and the backbone classifier look through; by default the
    task's, which measures progress, too."""
    real: Literal["tokens", "raw"] = "tokens"
    """Real pictures: decoded from their tokens, or as they are (the paper's way, which teaches the codec)."""
    discriminator_batch: int = 128
    """Real and generated pictures per discriminator step; it divides the trajectories."""
    discriminator_steps: int | None = None
    """Discriminator steps per update, each on a batch drawn for it; None shares one fresh batch of as many
    pictures as there are trajectories."""
    warmup: int = 8
    """Batches of trajectories that the discriminator learns from before the first update."""
    policy: PolicyConfig = field(default_factory=small_policy)
    """Widths of the policy network."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """The discriminator."""
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    """Signs of a gamed reward, looked for at each measurement."""
    cotraining: CotrainingConfig = field(default_factory=CotrainingConfig)
    """Learning of the generator beside the policy; by default it is frozen."""
    evaluate_every: int = 10
    """Updates between measurements on the select part; one comes before the first update."""
    evaluation_images: int = 1000
    """Pictures per measurement."""
    device: str = "cpu"
    """Where generator, policy and discriminator live: cpu or cuda."""
    seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        least = dict.fromkeys(("steps", "updates", "trajectories", "epochs", "minibatch"), 1)
        least |= dict.fromkeys(("discriminator_batch", "discriminator_steps"), 1)
        least |= dict.fromkeys(("evaluate_every", "evaluation_images"), 1)
        for name, bound in (least | {"warmup": 0, "std_updates": 0}).items():
            if (value := getattr(self, name)) is not None and value < bound:
                raise ValueError(f"{name} {getattr(self, name)}: it must be at least {bound}")
        if self.adversary and self.trajectories % self.discriminator_batch:
            raise ValueError(
                f"discriminator_batch {self.discriminator_batch} must divide trajectories {self.trajectories}"
            )
        positive = {name: getattr(self, name) for name in ("learning_rate", "clip", "adam_eps")}
        positive |= {name: getattr(self, name) for name in ("final_learning_rate", "max_gradient_norm")}
        for name, value in (positive | {"action_std": min(self.action_std)}).items():
            if value is not None and not value > 0:  # also not a number
                raise ValueError(f"{name} {value}: it must be positive")
        if unknown := set(reward_weights(self.reward)) - {"adversarial", *NAMED}:
            raise ValueError(f"reward {unknown.pop()!r} is not one of adversarial, {', '.join(NAMED)}")
        if self.adversary and self.adversarial.projected:
            for rows in (self.trajectories, self.discriminator_batch, self.evaluation_images):
                groups_of(rows)
        DecodeRules.of(self.rules, (1, 1))  # says what is wrong with them, as the next
        options = {"parameters": self.parameters, "smoothing": self.smoothing}
        ActionMap.preset(self.actions, reference(1), **options)

    @property
    def adversary(self) -> bool:
        """Whether a discriminator is the reward or a part of it."""
        return "adversarial" in reward_weights(self.reward)

    @property
    def total_images(self) -> int:
        """Pictures that the whole training draws."""
        measurements = 1 + -(-self.updates // self.evaluate_every)
        taught = self.warmup + self.updates if self.adversary else 0
        learning = self.updates * self.trajectories + taught * self.fresh_images
        return learning + measurements * self.evaluation_images

    @property
    def fresh_images(self) -> int:
        """Pictures drawn for the discriminator at each update."""
        steps = self.discriminator_steps
        return self.trajectories if steps is None else steps * self.discriminator_batch

    def action_std_at(self, update: int) -> float:
        """Return the standard deviation of the actions at an update, from 0."""
        first, last = self.action_std
        if self.std_updates is not None:
            return first if update < self.std_updates else last
        return first + (last - first) * update / max(1, self.updates - 1)

    def learning_rate_at(self, update: int) -> float:
        """Return the learning rate of actor and critic at an update, from 0."""
        if self.final_learning_rate is None:
            return self.learning_rate
        change = self.final_learning_rate - self.learning_rate
        return self.learning_rate + change * update / max(1, self.updates - 1)


PresetName = Literal["small", "adanat_paper", "adagen"]


def preset(name: PresetName) -> AdaNATConfig:
    """Return a named set of hyper-parameters; task, generator and device are left to the user.

    "small" is for the small tasks. "adanat_paper" has AdaNAT's of ImageNet-256 at T = 8; what 8 GPUs do there
    in batches of 128 is one batch here. "adagen" is the same with AdaGen's 16 steps, smoothed actions and
    schedule as residual (arXiv 2603.06993), which published no training code.
    """
    return {"small": AdaNATConfig, "adanat_paper": _adanat_paper, "adagen": _adagen}[name]()


def _adanat_paper() -> AdaNATConfig:
    return AdaNATConfig(
        steps=8,
        actions="paper-no-residual",
        rules="adanat",
        updates=1000,
        trajectories=4096,
        epochs=5,
        minibatch=None,
        learning_rate=1e-5,
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
        adversarial=AdversarialConfig(
            backbone="dino", learning_rate=1e-4, betas=(0.5, 0.999), loss="logistic", crop=0.5
        ),
        evaluate_every=1,
        evaluation_images=50_000,
    )


def _adagen() -> AdaNATConfig:
    return replace(_adanat_paper(), steps=16, actions="paper", smoothing=0.8)
