"""Hyper-parameters of AdaNAT (arXiv 2409.00342, section 4.1 and code); `presets` has the published sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from agents.adanat.alarms import AlarmConfig
from agents.adanat.parts import Baseline, CotrainingConfig, PolicyConfig, TokenPolicyConfig, small_policy
from generators.checks import all_finite, at_least, finite
from generators.precision import Precision
from generators.rules import DecodeRules
from natgym.evaluation.objective import ObjectiveName
from natgym.names.prices import Price, checked
from natgym.names.spaces import (
    PARAMETERS,
    REVEAL,
    TOKENS,
    Actions,
    FeatureType,
    Kind,
    check_actions,
    check_preset,
)
from natgym.names.tasks import at_hand
from natgym.rewards.config import RewardOptions, groups_of
from natgym.rewards.contract import Reward
from natgym.rewards.named import names_of
from natgym.settings import changed

if TYPE_CHECKING:  # flags and their mistakes are told without torch
    from natgym.env.vector import DecodeVectorEnv
    from natgym.task import Task

SEARCHED = "static-search"  # the schedule that a script searches
ADANAT = "adanat"  # the learned policy
STEP_ONLY = "step-only"  # a policy that sees the step alone, and the folder of its trainings
STOPPED = "stopped-by-asha"  # in the folder of a trial that does not go on, not even when resumed
KINDS = (STEP_ONLY, ADANAT)  # what is trained alike


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Arguments of the environment that a policy is trained in, as text and numbers."""

    task: str = "digits"
    """Task whose train split is real for the discriminator and whose select split measures progress."""
    generator: str | None = None
    """Folder of a saved generator, or the name of a shipped one; by default the task's."""
    steps: int = 2
    """Decoding steps T."""
    schedule: str = "reference"
    """What the policy starts from: a family's name or a schedule file."""
    actions: Actions = "default"
    """Action map around the schedule; or of each token, reveal: whether a step reveals it; tokens: scores."""
    parameters: tuple[str, ...] = PARAMETERS
    """Decoding parameters that the policy sets; the others follow the schedule."""
    smoothing: float = 0.0
    """Share of the action played before in the one played; AdaGen has 0.8 for T = 16."""
    observation: Kind = "features"
    """What the rollout buffer holds: "features", "pooled" ones, "tokens", whose features come again, or
    "statistics", features and how sure the generator is of each token, which choosing tokens needs."""
    rules: str = "confidence"
    """Rules of the decoding step: confidence, random, halton, with limits if need be (generators.rules);
    adanat lets a step reveal nothing."""
    reward: str = "mmd"
    """What judges finished images: mmd, a discriminator in closed form, and quadratic, a logistic regression,
    both refitted on each rollout; adversarial, a network; influence, distance, classifier or
    feature-distance, which don't learn; or a sum, as in "adversarial=1,mmd=0.5"."""
    rewards: RewardOptions = field(default_factory=RewardOptions)
    """Options of the rewards by name."""
    price: Price = 0.0
    """Taken off the reward for each forward pass that an image took, and added to what is measured; two
    numbers are a range, from which each image draws its own price, which the policy sees."""
    extractor: str = "reward"
    """What rewards look through: the task's "reward" extractor; its "score" extractor, which measures
    progress, too; or the folder of a saved one."""
    trajectories: int = 1024
    """Rows of the environment: images per rollout."""
    group: int = 1
    """Rows in a row that share noise and condition and differ by their actions; it divides the rows."""
    coupled: bool = False
    """Draw codes so that a small change of action moves few tokens: Gumbel-max on noise for every code, which
    takes more random numbers. Measurements and tables draw as ever."""
    dtype: FeatureType = "float32"
    """Of the features that the rollout buffer holds: float32, or float16 for half the memory."""
    micro_batch: int | None = None
    """Rows that the generator meets at once; by default as many as 4 GiB hold, at most 256 on a CPU. Results
    don't depend on it but for rounding."""
    device: str = "cpu"
    """Where generator, policy and discriminator live: cpu or cuda."""
    precision: Precision = "float32"
    """In which the generator computes: float32, tf32 (a GPU's matrix products), or bfloat16 weights."""

    def __post_init__(self) -> None:
        for name in ("task", "generator", "schedule", "extractor"):  # a worker has another folder at hand
            object.__setattr__(self, name, at_hand(getattr(self, name), images=name == "task"))
        at_least(1, self, "steps", "trajectories", "micro_batch")
        object.__setattr__(self, "price", checked(self.price))
        if self.group < 1 or self.trajectories % self.group:
            raise ValueError(f"group {self.group}: it must divide trajectories {self.trajectories}")
        names_of(self.reward)
        DecodeRules.of(self.rules, (1, 1))  # says what is wrong with them, as the next
        check_preset(self.actions)
        check_actions(self.parameters, self.smoothing)

    @property
    def task_name(self) -> str:
        """What figures call the task: its name, or a folder's without those above it."""
        path = Path(self.task)
        return path.name if path.is_absolute() else self.task

    @property
    def adversary(self) -> bool:
        """Whether a discriminator is the reward or a part of it."""
        return "adversarial" in names_of(self.reward)

    def load_task(self) -> Task:
        """Return the task, with the generator and the reward extractor asked for."""
        from natgym.task import Task

        extractor = None if self.extractor == "reward" else self.extractor
        networks = {"generator": self.generator, "reward_extractor": extractor}
        return Task.load(self.task, device=self.device, precision=self.precision, **networks)

    def build(self, reward: Reward | None = None, task: Task | None = None) -> DecodeVectorEnv:
        """Return the environment.

        Args:
            reward: a live one in place of the one by name.
            task: that is loaded already.

        Raises:
            ValueError: what is said does not go together, as options of a reward that is not used.
        """
        from natgym.env.vector import DecodeVectorEnv

        return DecodeVectorEnv(
            self.trajectories,
            task=self.load_task() if task is None else task,
            steps=self.steps,
            reward=self.reward if reward is None else reward,
            rewards=self.rewards.changed,
            price=self.price,
            schedule=self.schedule,
            actions=self.actions,
            parameters=self.parameters,
            smoothing=self.smoothing,
            observation=self.observation,
            dtype=self.dtype,
            micro_batch=self.micro_batch,
            group=self.group,
            coupled=self.coupled,
            rules=self.rules,
            autoreset=False,
        )


@dataclass(frozen=True, kw_only=True)
class AdaNATConfig:
    """Hyper-parameters of PPO, of the reward's learning and of the measurements; the defaults are those of
    the small tasks."""

    updates: int = 120
    """PPO iterations."""
    epochs: int = 4
    """PPO epochs per rollout."""
    minibatch: int | None = 512
    """Transitions per gradient step; None takes the whole rollout, as the paper does."""
    learning_rate: float = 3e-3
    """Of actor and critic (Adam)."""
    final_learning_rate: float | None = 3e-4
    """Learning rate of the last update, linear between; None keeps it constant."""
    adam_eps: float = 1e-5
    """Adam's epsilon; the paper has torch's 1e-8."""
    max_gradient_norm: float | None = 0.5
    """Gradients are clipped to this norm; None leaves them, as the paper does."""
    normalize_advantages: bool = True
    """Whether the advantages of each minibatch are standardized; in the paper the returns alone are."""
    clip: float = 0.2
    """PPO's clipping range."""
    value_weight: float = 0.5
    """Weight of the critic's loss."""
    entropy_weight: float = 0.0
    """Weight of the entropy, which has no gradient as long as nothing learns the standard deviation."""
    kl_weight: float = 0.0
    """Weight of KL(policy || reference), in nats of a step's actions at the same standard deviation; it takes
    the place of the entropy, which is minus that from a reference that is uniform."""
    reference: str = "start"
    """What the policy is held near to: the schedule or rule that it starts as, or a policy's folder."""
    baseline: Baseline = "critic"
    """What a return is compared with: the critic's value, the mean of the others of its group (rloo), or the
    group's mean in units of its standard deviation (grpo); the last two need a group of 2 or more."""
    action_std: tuple[float, float] = (1.0, 0.3)
    """Standard deviation of the actions at the first and the last update, linear between."""
    std_updates: int | None = None
    """Updates that are taken at the first standard deviation, all others at the last; None is linear."""
    real: Literal["tokens", "raw"] = "tokens"
    """Real images: decoded from their tokens, or as they are (the paper's way, which teaches the codec)."""
    discriminator_batch: int = 128
    """Real and generated images per step of a reward that learns from fresh ones; it divides the
    trajectories."""
    discriminator_steps: int | None = None
    """Such steps per update, each on a batch drawn for it; None shares one fresh batch of as many images as
    there are trajectories."""
    warmup: int = 8
    """Batches of trajectories that such a reward learns from before the first update."""
    policy: PolicyConfig = field(default_factory=small_policy)
    """Widths of the policy network."""
    tokens: TokenPolicyConfig = field(default_factory=TokenPolicyConfig)
    """The network of a policy that chooses tokens (--actions reveal), and the rule that it starts as."""
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    """Signs of a gamed reward, looked for at each measurement."""
    cotraining: CotrainingConfig = field(default_factory=CotrainingConfig)
    """Learning of the generator beside the policy; by default it is frozen."""
    objective: ObjectiveName = "distance"
    """What the select split measures, and the kept policy has least of: the distance; or the share of images
    not as their captions ask, or not by the rules of a puzzle."""
    evaluate_every: int = 10
    """Updates between measurements on the select split; one comes before the first update."""
    evaluation_images: int = 1000
    """Images per measurement."""
    finalists: int = 4
    """Measured policies, the start among them, of which the best on fresh noise is kept at the end; 1 keeps
    the one whose measurement was best, which is partly luck."""
    final_images: int = 3000
    """Images per finalist."""
    seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        if self.reference != "start" and Path(self.reference).exists():  # a worker has another folder at hand
            object.__setattr__(self, "reference", str(Path(self.reference).resolve()))
        at_least(1, self, "updates", "epochs", "minibatch", "evaluate_every", "evaluation_images")
        at_least(1, self, "finalists", "final_images", "discriminator_batch", "discriminator_steps")
        at_least(0, self, "warmup", "std_updates")
        all_finite(self)
        finite(self, "value_weight", "kl_weight")
        if self.kl_weight and self.entropy_weight:
            raise ValueError(
                f"kl_weight {self.kl_weight} and entropy_weight {self.entropy_weight}: the divergence "
                "stands in the entropy's place; give one of them"
            )
        if self.reference != "start" and not self.kl_weight:
            raise ValueError(f"reference {self.reference}: it has no weight; give kl_weight, such as 0.1")
        positive = {name: getattr(self, name) for name in ("learning_rate", "clip", "adam_eps")}
        positive |= {name: getattr(self, name) for name in ("final_learning_rate", "max_gradient_norm")}
        for name, value in (positive | {"action_std": min(self.action_std)}).items():
            if value is not None and not value > 0:  # also not a number
                raise ValueError(f"{name} {value}: it must be positive")

    def seed_of(self, *place: int | str) -> int:
        """Return the seed of what is drawn at a place, such as an update's "rollout"."""
        from generators.noise import derive_seed  # torch

        return derive_seed(self.seed, *place)

    def fresh_images(self, trajectories: int) -> int:
        """Return how many images are drawn at each update for a reward that learns from fresh ones."""
        steps = self.discriminator_steps
        return trajectories if steps is None else steps * self.discriminator_batch

    def measures_at(self, update: int) -> bool:
        """Whether there is a measurement after so many updates."""
        return update % self.evaluate_every == 0 or update == self.updates

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


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A training as text and numbers: environment and trainer, for Ray and the command line."""

    env: Annotated[EnvConfig, tyro.conf.arg(name="")] = field(default_factory=EnvConfig)
    """The environment."""
    adanat: Annotated[AdaNATConfig, tyro.conf.arg(name="")] = field(default_factory=AdaNATConfig)
    """The trainer."""

    def __post_init__(self) -> None:
        env, adanat = self.env, self.adanat
        if adanat.baseline != "critic" and env.group < 2:
            raise ValueError(
                f"baseline {adanat.baseline} compares the rows of a group; give --group of 2 or more"
            )
        if env.adversary and env.trajectories % adanat.discriminator_batch:
            raise ValueError(
                f"discriminator_batch {adanat.discriminator_batch} must divide trajectories "
                f"{env.trajectories}"
            )
        if env.adversary and env.rewards.adversarial.projected:
            try:
                for rows in (env.trajectories, adanat.discriminator_batch, adanat.evaluation_images):
                    groups_of(rows)
            except ValueError:
                env.rewards.adversarial.refuse_absent()  # a name that was mistyped, perhaps
                raise

    @classmethod
    def of(cls, **settings: Any) -> TrainingConfig:
        """Return the defaults with some settings changed; each may be said by its last words."""
        return cls().but(**settings)

    def but(self, changes: Mapping[str, Any] | None = None, **settings: Any) -> TrainingConfig:
        """Return a copy with settings changed: `but(steps=2, seed=1)`, `but({"alarms.recall": .2})`."""
        return changed(self, {**(changes or {}), **settings})

    def settings_of(self, kind: str) -> dict[str, Any]:
        """Return the settings in which a training of one of KINDS differs from this one."""
        network = "tokens" if self.env.actions in (REVEAL, TOKENS) else "policy"
        return {f"{network}.blind": True} if kind == STEP_ONLY else {}

    @property
    def total_images(self) -> int:
        """Images that the whole training draws."""
        env, adanat = self.env, self.adanat
        measurements = 1 + -(-adanat.updates // adanat.evaluate_every)
        finalists = min(adanat.finalists, measurements)
        taught = adanat.warmup + adanat.updates if env.adversary else 0
        learning = adanat.updates * env.trajectories + taught * adanat.fresh_images(env.trajectories)
        final = finalists * adanat.final_images if finalists > 1 and not adanat.cotraining.updates else 0
        return learning + measurements * adanat.evaluation_images + final
