"""Write a policy's episodes as data, and see what schedules that are distilled of them lose."""

import _root  # noqa: F401

import math
from dataclasses import dataclass
from pathlib import Path

from _cli import main

from generators.checks import at_least
from generators.rules import DecodeRules
from natgym.rewards.named import names_of


@dataclass(frozen=True, kw_only=True)
class Args:
    """Play a policy and write episodes.parquet: tokens, actions, log-probabilities, rewards and seeds of all
    steps. The file is read again and replayed before the script ends.

    With --distill the means of what was played become a schedule and a table by class, schedule.json and
    table.json, which are set against the policy.
    """

    task: str = "digits"
    """Shipped task or folder."""
    policy: str = "adanat"
    """Name, file or run folder, as in evaluate.py."""
    steps: int | None = None
    """Decoding steps T, by default 8, or the policy's own."""
    images: int = 1000
    """Episodes."""
    seed: int = 0
    """Of the noise: image i has row seed + i."""
    rules: str = "confidence"
    """Rules of a policy that has none of its own."""
    reward: str | None = None
    """Reward by name, or a sum, of the finished images; none is 0."""
    action_std: float = 0.0
    """Standard deviation of the actions around a learned policy's; 0 plays what it decides."""
    minari: str | None = None
    """Name of a Minari data set to make besides, as "natgym/digits-v0"."""
    distill: bool = False
    """Distill schedules, and evaluate them and the policy."""
    evaluation_images: int = 2000
    """Images generated per evaluation seed."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Evaluation seeds; the intervals are over them."""
    threads: int = 1
    """Batches drawn at once in evaluations."""
    device: str = "cpu"
    """Where to draw."""
    output: Path | None = None
    """Run folder, by default runs/export_episodes-<time>."""

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "images", "threads", "evaluation_images")
        if not self.seeds:
            raise ValueError("seeds is empty; give at least one")
        if not 0 <= self.action_std < math.inf:
            raise ValueError(f"action_std {self.action_std}: it must be a number from 0 on")
        DecodeRules.of(self.rules, (1, 1))  # says what is wrong with them before anything is loaded
        if self.reward is not None:
            names_of(self.reward)


def work(args: Args) -> None:
    import _export_episodes  # torch, only now that the flags are read

    _export_episodes.work(args)


if __name__ == "__main__":
    main(Args, work)
