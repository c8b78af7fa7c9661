"""AdaNAT (arXiv 2409.00342): a policy learned by PPO against a discriminator that learns in turn. Knows no
Ray.

Update u is: one rollout and PPO's epochs on it, then the discriminator's steps on fresh pictures of the new
policy against real ones. All its randomness follows from (seed, u), so a resumed run ends where the
uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from agents.policy import Actor, AdaNATPolicy, PolicyConfig, export_actor, small_policy
from agents.sb3 import PPO, SB3VecEnv
from generators.checkpoints import load_state, save_pretrained, save_state
from generators.conditions import Condition
from generators.data import load_part
from generators.noise import derive_seed, seeded
from generators.schedules import PARAMETERS, as_schedule, reference
from natgym.env import DecodeVectorEnv
from natgym.evaluation import Judge
from natgym.loading import load_companion, load_generator
from natgym.observations import Kind
from natgym.rewards import AdversarialConfig, AdversarialReward
from natgym.rollouts import balanced, rollout
from natgym.runs import MetricsLog
from natgym.spaces import ActionMap, Preset

Report = Callable[[dict[str, float]], object]


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
    min_reveal: int = 1
    """Tokens that each step reveals at least; 0 is the paper's."""
    updates: int = 60
    """PPO iterations."""
    trajectories: int = 512
    """Pictures per rollout; one more batch of as many is drawn for the discriminator."""
    epochs: int = 4
    """PPO epochs per rollout."""
    minibatch: int = 512
    """Transitions per gradient step."""
    learning_rate: float = 1e-3
    """Of actor and critic (Adam)."""
    clip: float = 0.2
    """PPO's clipping range."""
    value_weight: float = 0.5
    """Weight of the critic's loss."""
    action_std: tuple[float, float] = (0.3, 0.2)
    """Standard deviation of the actions at the first and the last update, linear between."""
    real: Literal["tokens", "raw"] = "tokens"
    """Real pictures: decoded from their tokens, or as they are (the paper's way, which teaches the codec)."""
    discriminator_batch: int = 128
    """Real and generated pictures per discriminator step; it divides the trajectories."""
    warmup: int = 8
    """Batches of trajectories that the discriminator learns from before the first update."""
    policy: PolicyConfig = field(default_factory=small_policy)
    """Widths of the policy network."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """The discriminator."""
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
        least |= dict.fromkeys(("discriminator_batch", "evaluate_every", "evaluation_images"), 1)
        for name, bound in (least | {"warmup": 0, "min_reveal": 0}).items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} {getattr(self, name)}: it must be at least {bound}")
        if self.trajectories % self.discriminator_batch:
            raise ValueError(
                f"discriminator_batch {self.discriminator_batch} must divide trajectories {self.trajectories}"
            )
        positive = {
            "learning_rate": self.learning_rate,
            "clip": self.clip,
            "action_std": min(self.action_std),
        }
        for name, value in positive.items():
            if not value > 0:  # also not a number
                raise ValueError(f"{name} {value}: it must be positive")

        options = {"parameters": self.parameters, "smoothing": self.smoothing}
        ActionMap.preset(self.actions, reference(1), **options)  # says what is wrong with them

    @property
    def total_images(self) -> int:
        """Pictures that the whole training draws."""
        measurements = 1 + -(-self.updates // self.evaluate_every)
        return (self.warmup + 2 * self.updates) * self.trajectories + measurements * self.evaluation_images


def train(config: AdaNATConfig, folder: Path, report: Report) -> None:
    """Train a policy, or go on with the one in `folder`.

    Args:
        config: hyper-parameters.
        folder: gets metrics.csv, checkpoint.pt (replaced at each update) and, at the end, policy/.
        report: called after each update with its metrics; `distance` is that of the last measurement.
    """
    learner = Learner(config)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.is_file():
        learner.load_state_dict(load_state(checkpoint, config.device))
    log = MetricsLog(folder / "metrics.csv", "update", learner.done + 1)
    while learner.done < config.updates:
        metrics = learner.update()
        log.append(metrics)
        save_state(checkpoint, learner.state_dict())
        report(metrics)
    learner.export(folder / "policy")


class Learner:
    """Policy, discriminator and everything they learn from."""

    def __init__(self, config: AdaNATConfig) -> None:
        self.config = config
        self.generator, task = load_generator(config.generator or config.task, config.device)
        self.tokenizer = load_companion(None, "tokenizer", task or config.task, config.device)
        self.schedule = as_schedule(config.schedule, config.steps)
        part = load_part(config.task, "train").to(config.device)
        self.real_condition, self.real_NCHW = part.condition, part.images_NCHW
        if config.real == "tokens":
            chunks = (self.tokenizer.encode(images) for images in part.images_NCHW.split(1000))
            self.real_NCHW = torch.cat([self.tokenizer.decode(ids_BL) for ids_BL in chunks])
        classifier = load_companion(None, "classifier", config.task, config.device)
        self.judge = Judge(classifier, load_part(config.task, "select").to(config.device))
        self.reward = AdversarialReward(
            tuple(self.real_NCHW.shape[1:]),  # type: ignore[arg-type]
            part.condition.vectors.shape[1],
            config.adversarial,
            seed=derive_seed(config.seed, "discriminator"),
            device=config.device,
        )
        self.env = DecodeVectorEnv(
            config.trajectories,
            generator=self.generator,
            tokenizer=self.tokenizer,
            steps=config.steps,
            reward=self.reward,
            schedule=self.schedule,
            actions=config.actions,
            parameters=config.parameters,
            smoothing=config.smoothing,
            observation=config.observation,
            min_reveal=config.min_reveal,
            autoreset=False,
        )
        self.ppo = self._ppo(self.env)
        self.done, self.images_spent, self.distance = 0, 0, math.nan

    def update(self) -> dict[str, float]:
        """Take update `done`: PPO, then the discriminator, then perhaps a measurement."""
        config = self.config
        if self.done == 0:
            self.distance = self._measure()
            for batch in range(config.warmup):
                self._teach(derive_seed(config.seed, "warmup", batch))
        first, last = config.action_std
        std = first + (last - first) * self.done / max(1, config.updates - 1)
        self.ppo.policy.log_std.data.fill_(math.log(std))  # type: ignore[union-attr, operator]
        learned = self.ppo.update(derive_seed(config.seed, self.done, "rollout"))
        self.images_spent += config.trajectories
        judged = self._teach(derive_seed(config.seed, self.done, "discriminator"))
        self.done += 1
        if self.done % config.evaluate_every == 0 or self.done == config.updates:
            self.distance = self._measure()
        kept = ("reward", "approx_kl", "clip_fraction", "explained_variance", "value_loss")
        return {
            "update": self.done,
            "images_spent": self.images_spent,
            "distance": self.distance,
            **{name: learned[name] for name in kept},
            **judged,
            "action_std": std,
        }

    def export(self, folder: Path) -> None:
        """Save the actor, which plays without SB3."""
        save_pretrained(self.actor(), folder, task=self.config.task, min_reveal=self.config.min_reveal)

    def actor(self) -> Actor:
        """Return a copy of the present actor, on the host."""
        assert isinstance(self.ppo.policy, AdaNATPolicy)
        config, pooled = self.config, self.config.observation == "pooled"
        return export_actor(
            self.ppo.policy,
            config.policy,
            config.actions,
            self.schedule,
            parameters=config.parameters,
            smoothing=config.smoothing,
            pooled_from=self.env.observer.grid if pooled else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs beside the config."""
        return {
            "done": self.done,
            "images_spent": self.images_spent,
            "distance": self.distance,
            "policy": self.ppo.policy.state_dict(),
            "optimizer": self.ppo.policy.optimizer.state_dict(),
            "reward": self.reward.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.done, self.images_spent, self.distance = state["done"], state["images_spent"], state["distance"]
        self.ppo.policy.load_state_dict(state["policy"])
        self.ppo.policy.optimizer.load_state_dict(state["optimizer"])
        self.reward.load_state_dict(state["reward"])

    def _ppo(self, env: DecodeVectorEnv) -> PPO:
        config = self.config
        with seeded(derive_seed(config.seed, "policy")):
            return PPO(
                AdaNATPolicy,
                SB3VecEnv(env),
                n_steps=config.steps,
                batch_size=config.minibatch,
                n_epochs=config.epochs,
                learning_rate=config.learning_rate,
                clip_range=config.clip,
                vf_coef=config.value_weight,
                gamma=1.0,
                gae_lambda=1.0,
                rollout_buffer_kwargs={"normalize_returns": True},
                policy_kwargs={"config": config.policy, "grid": env.observer.features_grid},
                device=env.device,
            )

    def _teach(self, seed: int) -> dict[str, float]:
        """Train the discriminator on fresh pictures of the present policy; return its mean metrics."""
        images, condition = self._draw(seed)
        self.images_spent += len(images)
        rng = np.random.default_rng(seed)
        metrics: list[dict[str, float]] = []
        for rows in torch.arange(len(images)).split(self.config.discriminator_batch):
            real = torch.from_numpy(rng.integers(len(self.real_NCHW), size=len(rows)))
            fake = images[rows], condition[rows]
            with seeded(derive_seed(seed, len(metrics)), self.env.device):  # crops are drawn at random
                metrics.append(self.reward.update(self.real_NCHW[real], self.real_condition[real], *fake))
        return {name: float(np.mean([row[name] for row in metrics])) for name in metrics[0]}

    def _draw(self, seed: int) -> tuple[Tensor, Condition]:
        """Let the exploring policy draw one batch."""
        observation, _ = self.env.reset(seed=seed)
        info: dict[str, Any] = {}
        with seeded(seed, self.env.device), torch.no_grad():
            while "images" not in info:
                actions = self.ppo.policy(observation)[0]  # type: ignore[arg-type]
                observation, _, _, _, info = self.env.step(actions)
        assert self.env.finished is not None
        return info["images"], self.env.finished.condition

    def _measure(self) -> float:
        """Return the mean policy's distance from the select part, on the same noise each time."""
        actor = self.actor().to(self.config.device)
        condition = balanced(self.generator.conditions(), self.config.evaluation_images)
        seed = derive_seed(self.config.seed, "select")
        drawn = rollout(
            actor, self.generator, self.tokenizer, condition, seed=seed, min_reveal=self.config.min_reveal
        )
        self.images_spent += len(condition)
        return self.judge.distance(drawn.images_NCHW)
