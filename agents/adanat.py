"""AdaNAT (arXiv 2409.00342): a policy learned by PPO against a discriminator that learns in turn, or against
any other reward. Knows no Ray.

Update u is: one rollout and PPO's epochs on it, perhaps updates of the generator, then the discriminator's
steps on fresh pictures of the new policy against real ones. All its randomness follows from (seed, u), so a
resumed run ends where the uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.adanat_config import AdaNATConfig
from agents.alarms import Alarm, Vitals, alarms
from agents.cotraining import Cotraining
from agents.policy import Actor, AdaNATPolicy, export_actor
from agents.sb3 import PPO, SB3VecEnv
from generators.checkpoints import load_state, save_pretrained, save_state
from generators.conditions import Condition
from generators.data import load_part
from generators.noise import derive_seed, seeded
from generators.schedules import as_schedule
from natgym.env import DecodeVectorEnv
from natgym.judge import Judge
from natgym.loading import load_companion, load_generator
from natgym.rewards import (
    AdversarialReward,
    LearningReward,
    Reward,
    learned_state,
    load_learned_state,
    make_reward,
    reward_weights,
)
from natgym.rewards.projected import GROUP
from natgym.rollouts import balanced, rollout
from natgym.runs import MetricsLog

Report = Callable[[dict[str, float]], object]


def train(config: AdaNATConfig, folder: Path, report: Report, *, reward: Reward | None = None) -> None:
    """Train a policy, or go on with the one in `folder`.

    Args:
        config: hyper-parameters.
        folder: gets metrics.csv, alarms.csv, checkpoint.pt (replaced at each update) and, at the end,
            policy/, with generator/ beside it if that learned, too. An alarm of `config.alarms.stop` is an
            end as well.
        report: called after each update with its metrics; `distance` and what else was measured is that of
            the last measurement.
        reward: a live one in place of the config's; one that learns is trained in turn with the policy, and a
            run is resumed with the same.
    """
    learner = Learner(config, reward)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.is_file():
        learner.load_state_dict(load_state(checkpoint, config.device))
    log, alarms_log = (
        MetricsLog(folder / name, "update", learner.done + 1) for name in ("metrics.csv", "alarms.csv")
    )
    while learner.done < config.updates and not learner.stopped:
        metrics = learner.update()
        for name, said in learner.alarms.items():
            alarms_log.append({"update": learner.done, "alarm": name, "said": said})
        log.append(metrics)
        save_state(checkpoint, learner.state_dict())
        report(metrics)
    learner.export(folder / "policy")
    if learner.cotraining:
        learner.cotraining.export(folder / "generator", config.task)


class Learner:
    """Policy, reward and everything they learn from.

    Args:
        config: hyper-parameters.
        reward: a live one in place of the config's.
    """

    def __init__(self, config: AdaNATConfig, reward: Reward | None = None) -> None:
        self.config = config
        self.generator, task = load_generator(config.generator or config.task, config.device)
        self.tokenizer = load_companion(None, "tokenizer", task or config.task, config.device)
        self.schedule = as_schedule(config.schedule, config.steps)
        part = load_part(config.task, "train").to(config.device)
        self.real_condition, self.real_NCHW = part.condition, part.images_NCHW
        learns = config.adversary if reward is None else isinstance(reward, LearningReward)
        decoded = learns and config.real == "tokens"  # nobody else looks at them
        if decoded or config.cotraining.updates:
            chunks = [self.tokenizer.encode(images) for images in part.images_NCHW.split(1000)]
        if decoded:
            self.real_NCHW = torch.cat([self.tokenizer.decode(ids_BL) for ids_BL in chunks])
        self.cotraining: Cotraining | None = None
        if config.cotraining.updates:
            seed = derive_seed(config.seed, "generator")
            self.cotraining = Cotraining(
                config.cotraining, config.task, self.generator, torch.cat(chunks), part.condition, seed
            )
            self.generator = self.cotraining.generator
        classifier = load_companion(None, "classifier", config.task, config.device)
        select = load_part(config.task, "select").to(config.device)
        self.judge = Judge(classifier, select)
        rows = torch.arange(len(select) - len(select) % GROUP)  # the papers' discriminator judges groups
        self.held_out = select.images_NCHW[rows], select.condition[rows]
        self.reward = self._reward() if reward is None else reward
        self.env = self._env(config.trajectories)
        self.fresh_env = self._env(config.discriminator_batch) if config.discriminator_steps else self.env
        self.ppo = self._ppo(self.env)
        self.done, self.images_spent = 0, 0
        self.first = self.vitals = Vitals()
        self.alarms: dict[Alarm, str] = {}

    @property
    def stopped(self) -> bool:
        """Whether an alarm has ended the training."""
        return not self.alarms.keys().isdisjoint(self.config.alarms.stop)

    def update(self) -> dict[str, float]:
        """Take update `done`: PPO, perhaps the generator, then the discriminator, perhaps a measurement."""
        config = self.config
        if self.done == 0:
            self.warm_up()
            self.first = self.vitals = self._measure()
        std, rate = self._explore(self.done), config.learning_rate_at(self.done)
        self.ppo.lr_schedule = lambda _: rate
        learned = self.ppo.update(derive_seed(config.seed, self.done, "rollout"))
        self.images_spent += config.trajectories
        visited_TBL = self.ppo.rollout_buffer.store["masked"]  # type: ignore[attr-defined]
        generator = self.cotraining.update(visited_TBL) if self.cotraining else {}
        judged = self._teach(derive_seed(config.seed, self.done, "discriminator"))
        self.done, self.alarms = self.done + 1, {}
        if self.done % config.evaluate_every == 0 or self.done == config.updates:
            self.vitals = self._measure()
            self.alarms = alarms(config.alarms, self.first, self.vitals)
        kept = ("reward", "approx_kl", "clip_fraction", "explained_variance", "value_loss")
        return {
            "update": self.done,
            "images_spent": self.images_spent,
            **self.vitals._asdict(),
            **{name: learned[name] for name in kept},
            **judged,
            **generator,
            "action_std": std,
            "learning_rate": rate,
        }

    def warm_up(self) -> None:
        """Let the reward learn from pictures of the exploring policy, before its first update."""
        self._explore(0)
        for batch in range(self.config.warmup):
            self._teach(derive_seed(self.config.seed, "warmup", batch))

    def export(self, folder: Path) -> None:
        """Save the actor, which plays without SB3."""
        save_pretrained(self.actor(), folder, task=self.config.task)

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
            rules=config.rules,
            pooled_from=self.env.observer.grid if pooled else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs beside the config."""
        return {
            "done": self.done,
            "images_spent": self.images_spent,
            "first": self.first._asdict(),
            "vitals": self.vitals._asdict(),
            "alarms": self.alarms,
            "policy": self.ppo.policy.state_dict(),
            "optimizer": self.ppo.policy.optimizer.state_dict(),
            "reward": learned_state(self.reward),
        } | ({"generator": self.cotraining.trainer.state_dict()} if self.cotraining else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.done, self.images_spent, self.alarms = state["done"], state["images_spent"], state["alarms"]
        self.first, self.vitals = Vitals(**state["first"]), Vitals(**state["vitals"])
        self.ppo.policy.load_state_dict(state["policy"])
        self.ppo.policy.optimizer.load_state_dict(state["optimizer"])
        load_learned_state(self.reward, state["reward"])
        if self.cotraining:
            self.cotraining.trainer.load_state_dict(state["generator"])

    def _reward(self) -> Reward:
        """Build the config's reward, or the sum of its parts."""
        config = self.config
        classifier = load_companion(config.extractor, "classifier", config.task, config.device)
        if not config.adversary:
            return make_reward(config.reward, config.task, config.device, classifier=classifier)
        adversary = self._adversary(classifier)
        if config.reward == "adversarial":
            return adversary
        parts = [
            (adversary if name == "adversarial" else name, weight)
            for name, weight in reward_weights(config.reward).items()
        ]
        return make_reward(parts, config.task, config.device, classifier=classifier)

    def _adversary(self, classifier: Any) -> AdversarialReward:
        config = self.config
        return AdversarialReward(
            tuple(self.real_NCHW.shape[1:]),  # type: ignore[arg-type]
            self.real_condition.vectors.shape[1],
            config.adversarial,
            seed=derive_seed(config.seed, "discriminator"),
            device=config.device,
            classifier=classifier,
        )

    def _env(self, num_envs: int) -> DecodeVectorEnv:
        config = self.config
        return DecodeVectorEnv(
            num_envs,
            generator=self.generator,
            tokenizer=self.tokenizer,
            steps=config.steps,
            reward=self.reward,
            schedule=self.schedule,
            actions=config.actions,
            parameters=config.parameters,
            smoothing=config.smoothing,
            observation=config.observation,
            rules=config.rules,
            autoreset=False,
        )

    def _ppo(self, env: DecodeVectorEnv) -> PPO:
        config = self.config
        with seeded(derive_seed(config.seed, "policy")):
            return PPO(
                AdaNATPolicy,
                SB3VecEnv(env),
                n_steps=config.steps,
                batch_size=config.minibatch or config.steps * config.trajectories,
                n_epochs=config.epochs,
                learning_rate=config.learning_rate,
                clip_range=config.clip,
                vf_coef=config.value_weight,
                ent_coef=config.entropy_weight,
                normalize_advantage=config.normalize_advantages,
                max_grad_norm=config.max_gradient_norm or math.inf,
                gamma=1.0,
                gae_lambda=1.0,
                rollout_buffer_kwargs={"normalize_returns": True},
                policy_kwargs={
                    "config": config.policy,
                    "grid": env.observer.features_grid,
                    "optimizer_kwargs": {"eps": config.adam_eps},
                },
                device=env.device,
            )

    def _explore(self, update: int) -> float:
        """Set the standard deviation of the policy's actions to that of an update; return it."""
        std = self.config.action_std_at(update)
        self.ppo.policy.log_std.data.fill_(math.log(std))  # type: ignore[union-attr, operator]
        return std

    def _teach(self, seed: int) -> dict[str, float]:
        """Train the reward on fresh pictures of the present policy; return its mean metrics.

        A reward that does not learn draws and returns nothing.
        """
        if not isinstance(self.reward, LearningReward):
            return {}
        rng = np.random.default_rng(seed)
        metrics: list[dict[str, float]] = []
        for images, condition in self._fresh(seed):
            self.images_spent += len(images)
            for rows in torch.arange(len(images)).split(self.config.discriminator_batch):
                real = torch.from_numpy(rng.integers(len(self.real_NCHW), size=len(rows)))
                fake = images[rows], condition[rows]
                with seeded(derive_seed(seed, len(metrics)), self.env.device):  # crops are drawn at random
                    metrics.append(self.reward.update(self.real_NCHW[real], self.real_condition[real], *fake))
        return {name: float(np.mean([row[name] for row in metrics])) for name in metrics[0]}

    def _fresh(self, seed: int) -> Iterator[tuple[Tensor, Condition]]:
        """Let the exploring policy draw what the discriminator learns from at one update."""
        steps = self.config.discriminator_steps
        if steps is None:
            yield self._draw(self.env, seed)
            return
        for step in range(steps):
            yield self._draw(self.fresh_env, derive_seed(seed, "fresh", step))

    def _draw(self, env: DecodeVectorEnv, seed: int) -> tuple[Tensor, Condition]:
        """Let the exploring policy draw one batch."""
        observation, _ = env.reset(seed=seed)
        with seeded(seed, env.device), torch.no_grad():
            while env.images is None:
                actions = self.ppo.policy(observation)[0]  # type: ignore[arg-type]
                observation, *_ = env.step(actions)
        assert env.finished is not None
        return env.images, env.finished.condition

    def _measure(self) -> Vitals:
        """Measure the mean policy against the select part, on the same noise each time."""
        config, actor = self.config, self.actor().to(self.config.device)
        condition = balanced(self.generator.conditions(), config.evaluation_images)
        seed = derive_seed(config.seed, "select")
        drawn = rollout(actor, self.generator, self.tokenizer, condition, seed=seed)
        self.images_spent += len(condition)
        scores = self.judge.score(drawn.images_NCHW, condition)
        real_B, fake_B = self.reward(*self.held_out), self.reward(drawn.images_NCHW, condition)
        told_apart = math.nan
        if isinstance(self.reward, AdversarialReward):
            told_apart = ((real_B > 0.5).float().mean() + (fake_B < 0.5).float().mean()).item() / 2
        before = drawn.frame[(drawn.frame["step"] < config.steps - 1) & (drawn.frame["masked_before"] > 0)]
        return Vitals(
            **{
                name: scores.get(name, math.nan) for name in ("distance", "recall", "coverage", "class_drift")
            },
            reward_gap=(real_B.mean() - fake_B.mean()).item(),
            told_apart=told_apart,
            idle=float((before["masked_after"] == before["masked_before"]).mean()),
        )
