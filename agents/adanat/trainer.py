"""AdaNAT (arXiv 2409.00342): a policy learned by PPO against a discriminator that learns in turn, or against
any other reward. Knows no Ray.

Update u is: one rollout and PPO's epochs on it, perhaps updates of the generator, then the reward's own
learning, then perhaps a measurement. All randomness follows from (seed, u), so a resumed run ends where the
uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agents.adanat import folders
from agents.adanat.batches import drawn_by, share
from agents.adanat.config import AdaNATConfig, TrainingConfig
from agents.adanat.cotraining import Cotraining
from agents.adanat.learned import Learned, learned_policy, new_ppo, save_policy
from agents.adanat.monitor import Monitor
from agents.adanat.teacher import Teacher
from natgym.env.vector import DecodeVectorEnv

Metrics = dict[str, float]
KEPT = ("reward", "approx_kl", "clip_fraction", "explained_variance", "value_loss")


class AdaNATTrainer:
    """Train a policy in an environment; where torch's process group is joined, one of its ranks.

    Ranks share the environment's rows, and the training is that of one rank but for rounding.

    Args:
        env: says task, generator, rules, action map and reward; a sibling on the same objects is used, with
            as many rows, which are the images of a rollout. A reward that learns is reset before the first
            update and needs an environment with a task.
        config: of PPO, the reward's learning and the measurements.
        policy: another network than AdaNAT's: a class of SB3's actor-critic policies, or an instance of one.
        callbacks: called as (trainer, metrics) after each update, or objects with such an `on_update`; one
            that returns something false other than None stops the training, which is saved. Rank 0's count.

    Attributes:
        done: updates taken.
    """

    def __init__(
        self,
        env: DecodeVectorEnv,
        config: AdaNATConfig | None = None,
        *,
        policy: Any = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        if not isinstance(env, DecodeVectorEnv):
            raise ValueError(
                f"{type(env).__name__} is no DecodeVectorEnv; make one, or use gymnasium.make_vec"
            )
        self.config, self.callbacks = config or AdaNATConfig(), [_called(one) for one in callbacks]
        self.manifest = folders.manifest(env, self.config, policy)
        self.cotraining = Cotraining.of(env, self.config.cotraining, self.config.seed)
        task = env.task.like(generator=self.cotraining and self.cotraining.generator)
        self.env = share(env, env.num_envs, task=task, autoreset=False)
        self.ppo = new_ppo(self.env, self.config, policy)
        self.teacher, self.monitor = Teacher(self.env, self.config), Monitor(self.env, self.config)
        self.done, self._rollout_images = 0, 0

    @classmethod
    def of(cls, config: TrainingConfig, reward: Any = None, **options: Any) -> AdaNATTrainer:
        """Build environment and trainer from a config.

        Args:
            reward: a live one in place of the config's.
            options: `policy` and `callbacks`.
        """
        return cls(config.env.build(reward), config.adanat, **options)

    def update(self) -> Metrics:
        """Take one update: a rollout, PPO on it, the generator's and the reward's learning, a measurement."""
        config, update = self.config, self.done
        if update == 0:
            self.begin()
        std, rate = self.explore(update), config.learning_rate_at(update)
        learned = self.ppo.update(config.seed_of(update, "rollout"), rate)
        rollout = drawn_by(self.env)
        self._rollout_images += rollout.num_images
        visited_TBL: Any = self.ppo.rollout_buffer.observations["masked"]
        generator = self.cotraining.update(visited_TBL) if self.cotraining else {}
        seed = config.seed_of(update, "discriminator")
        judged = self.teacher.teach(self.ppo.policy, seed, rollout)
        self.done = update + 1
        self.monitor.watch(self.done, self.actor, self.ppo.policy.state_dict)
        if self.ended and not self.cotraining:  # whose generator has left its former policies behind
            self.monitor.choose(lambda weights: learned_policy(self.ppo.policy, self.env, weights))
        return _joined(
            {"update": self.done, "images_spent": self.images_spent},
            self.monitor.columns,
            {name: learned[name] for name in KEPT},
            {"reference_kl": learned["entropy_loss"]} if config.kl_weight else {},
            judged,
            generator,
            {} if std is None else {"action_std": std},
            {"learning_rate": rate},
        )

    def begin(self) -> None:
        """Let the reward begin to learn, and measure the policy before its first update."""
        self.warm_up()
        self.monitor.watch(0, self.actor, self.ppo.policy.state_dict)

    def warm_up(self) -> None:
        """Reset the reward, and let it learn from images of the exploring policy."""
        self.explore(0)
        self.teacher.begin(self.ppo.policy)

    def explore(self, update: int) -> float | None:
        """Set the standard deviation of the policy's actions to that of an update; return it.

        A policy that chooses tokens has none.
        """
        if not hasattr(self.ppo.policy, "log_std"):
            return None
        std = self.config.action_std_at(update)
        self.ppo.policy.log_std.data.fill_(math.log(std))  # type: ignore[union-attr, operator]
        return std

    def fit(self, folder: Path | str) -> Path:
        """Train to the end, or go on with the training in a folder.

        Args:
            folder: gets training.json, metrics.csv, alarms.csv, checkpoint.pt (replaced at each update) and,
                at the end, policy/ with the policy that measured best and last/ with the last one; or, if the
                generator learned, too, policy/ with the last one and generator/. An alarm of
                `config.alarms.stop` and a callback are an end as well.

        Raises:
            ValueError: the folder holds a training of another configuration, which is not touched; or it is
                new, and this trainer has been used already.
        """
        if self.done and not (Path(folder) / folders.TRAINING).is_file():
            raise ValueError(f"{folder} is new, and this trainer has taken {self.done} updates; make another")
        run = folders.claim(Path(folder), self.manifest)
        run.restore(self, self.env.device, self.config.updates)
        run.open_logs(self.done)
        going = True
        while going and not self.ended:
            metrics = self.update()
            run.write(metrics, self.monitor.alarms, self.state_dict())
            answers = [callback(self, metrics) for callback in self.callbacks]
            going = self.ppo.ranks.firsts(all(answer is None or answer for answer in answers))
        if run.writes:
            self.export(run.folder)
        return run.folder

    def export(self, folder: Path) -> None:
        """Save the chosen policy as policy/ and the last as last/, or the generator that learned, too."""
        task, best = self.env.task.home, self.monitor.best
        if self.cotraining:
            save_policy(self.actor(), folder / "policy", task=task)
            self.cotraining.export(folder / "generator", task)
            return
        measured = [{name: one[name] for name in ("update", "distance")} for one in self.monitor.finalists]
        update = best["update"] if best else self.done
        save_policy(self.policy(), folder / "policy", task=task, update=update, finalists=measured)
        save_policy(self.actor(), folder / "last", task=task, update=self.done)

    @property
    def ended(self) -> bool:
        """Whether all updates are taken, or an alarm has ended the training."""
        return self.done >= self.config.updates or self.monitor.stopped

    def actor(self) -> Learned:
        """Return the present policy in evaluation: its mean action."""
        return learned_policy(self.ppo.policy, self.env)

    def policy(self) -> Learned:
        """Return the policy that measured best: so far, and at the end among the finalists on fresh noise.

        Before any measurement, and where none tells policies apart, it is the present one; with co-training,
        too, since the generator that a former one played is no more.
        """
        best = None if self.cotraining else self.monitor.best
        return learned_policy(self.ppo.policy, self.env, best["weights"] if best else None)

    @property
    def images_spent(self) -> int:
        """Images that the training has drawn so far."""
        return self._rollout_images + self.teacher.images + self.monitor.images

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed training needs beside its configuration."""
        return {
            "done": self.done,
            "images_spent": self.images_spent,
            **self.monitor.state_dict(),
            "policy": self.ppo.policy.state_dict(),
            "optimizer": self.ppo.policy.optimizer.state_dict(),
            "reward": self.teacher.state_dict(),
        } | ({"generator": self.cotraining.trainer.state_dict()} if self.cotraining else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.done = state["done"]
        self._rollout_images = state["images_spent"] - self.teacher.images - self.monitor.images
        self.monitor.load_state_dict(state)
        self.ppo.policy.load_state_dict(state["policy"])
        self.ppo.policy.optimizer.load_state_dict(state["optimizer"])
        self.teacher.load_state_dict(state["reward"])
        if self.cotraining:
            self.cotraining.trainer.load_state_dict(state["generator"])


def train(
    config: TrainingConfig,
    folder: Path,
    report: Callable[[Metrics], object],
    *,
    reward: Any = None,
    callbacks: Sequence[Any] = (),
) -> None:
    """Train what a config says, or go on with the training in `folder`.

    Args:
        folder: see `AdaNATTrainer.fit`.
        report: called after each update with its metrics; `distance` and what else was measured is that of
            the last measurement.
        reward: a live one in place of the config's; a run is resumed with the same.
        callbacks: see `AdaNATTrainer`.
    """

    def tell(trainer: AdaNATTrainer, metrics: Metrics) -> None:
        report(metrics)

    AdaNATTrainer.of(config, reward, callbacks=[tell, *callbacks]).fit(folder)


def _joined(*parts: Metrics) -> Metrics:
    """Return all metrics; ValueError if a reward's has the name of another."""
    found: Metrics = {}
    for part in parts:
        if taken := found.keys() & part.keys():
            raise ValueError(f"metric {taken.pop()!r} is reported twice; let the reward rename its own")
        found |= part
    return found


def _called(callback: Any) -> Callable[[AdaNATTrainer, Metrics], object]:
    """Return what is called of a callback; ValueError if it can't be."""
    found = getattr(callback, "on_update", callback)
    if not callable(found):
        raise ValueError(f"callback {callback!r} is no function (trainer, metrics) and has no on_update")
    return found
