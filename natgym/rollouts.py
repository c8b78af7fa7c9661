"""Any policy on any generator: images, and one tidy frame with a row per sample and step.

A policy is `policy(observation, step) -> DecodeParams`. A schedule ignores the observation; a learned policy
plays its mean action. The environment and this module share `observe` and `advance`, so all policies meet the
same step, the same noise and the same conditions.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from generators.conditions import Condition, balanced
from generators.conditions import at_random as at_random
from generators.conditions import at_shares as at_shares
from generators.contract import Generator
from generators.decoding import DecodeState, advance, refuse_not_finite, start
from generators.first_pass import FirstPass
from generators.noise import HashNoise, Noise
from generators.rules import DecodeRules
from generators.schedules import PARAMETERS
from generators.tokenizers import Tokenizer, decode_all, refuse_other_codes
from natgym.observations import observe
from natgym.policies import ACTIONS, Decision, Policy, decide, rules_of, told
from natgym.rewards.checks import judged
from natgym.rewards.contract import Reward, needs_batch
from natgym.task import Task

Progress = Callable[[int], object] | None
BATCH = 250  # rows per forward pass; small batches stay in a CPU's cache


class Move(NamedTuple):
    """One step of `play`: what was decided, and where the images stood before and after."""

    before: DecodeState
    decision: Decision
    after: DecodeState


@torch.no_grad()
def play(
    policy: Policy,
    generator: Generator,
    condition: Condition,
    noise: Noise,
    *,
    rules: DecodeRules | None = None,
    first_pass: FirstPass | None = None,
    entropy: bool = False,
) -> Iterator[Move]:
    """Yield the T steps in which a policy draws one image per condition.

    Everything may be revealed earlier; the steps after that change nothing, and whoever needs none stops.

    Args:
        noise: of as many rows.
        rules: of a policy that has none; by default AutoNAT's.
        first_pass: as `generators.decoding` takes it, and `entropy`.
    """
    rules = rules_of(policy, rules)
    remembered = told(policy, condition, noise)
    state = refuse_not_finite(start(generator, condition, steps=policy.steps, first_pass=first_pass))
    while not state.done:
        decision = decide(policy, observe(state, generator.mask_id) | remembered, state.step)
        if decision.previous_action is not None:
            remembered["previous_action"] = decision.previous_action
        chosen = rules.choosing(decision.chosen_BL)
        after = advance(generator, state, decision.params, noise, chosen, entropy=entropy)
        yield Move(state, decision, after)
        state = after


class Step(NamedTuple):
    """What the frame tells of one step of one batch, whose first sample is `first`; tensors (B,)."""

    first: int
    step: int
    decision: Decision
    masked_before_B: Tensor
    masked_after_B: Tensor
    nfe_B: Tensor
    statistics: dict[str, Tensor]
    reward_B: Tensor | None

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns of the frame but for the condition."""
        B, empty = len(self.nfe_B), torch.tensor(torch.nan)
        params, action_B4, value_B, *_ = self.decision
        actions = [empty] * len(ACTIONS) if action_B4 is None else action_B4.unbind(-1)
        columns = {
            "sample": self.first + torch.arange(B),
            "step": torch.tensor(self.step),
            **dict(zip(ACTIONS, actions, strict=True)),
            **dict(zip(PARAMETERS, params, strict=True)),
            "masked_before": self.masked_before_B,
            "masked_after": self.masked_after_B,
            "nfe": self.nfe_B,
            "value": empty if value_B is None else value_B,
            **self.statistics,
        }
        if self.reward_B is not None:
            columns["reward"] = self.reward_B
        return {name: np.broadcast_to(values.cpu().numpy(), B) for name, values in columns.items()}


@dataclass(frozen=True, eq=False)
class Rollout:
    """What `rollout` returns; a batch of it, what `stream` yields.

    Attributes:
        images_NCHW, tokens_NL: the images and their tokens.
        nfe_N: forward passes spent on each.
        condition: what each was drawn from.
        revealed_at_NL: the step (0..T-1) that revealed each token, int16; -1 of those that were given.
        ids_TNL: the tokens after each step, mask ids included; None unless asked for.
        steps: what the frame is made of.
        seconds: that drawing took; of batches drawn side by side, their sum.
    """

    images_NCHW: Tensor
    tokens_NL: Tensor
    nfe_N: np.ndarray
    condition: Condition
    revealed_at_NL: Tensor
    ids_TNL: Tensor | None
    steps: list[Step]
    seconds: float = 0.0

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per sample and step, made when it is first asked for.

        Columns: sample, condition (its name), kind (its group), step; action_<parameter>, empty where the
        policy has none; the four decoding parameters; masked_before, masked_after, nfe; value, empty without
        a critic. With `statistics`: confidence and entropy, means over the tokens that the step revealed, of
        log-probability and entropy of the guided, un-tempered distribution in nats; empty where none was
        revealed. With a reward: reward, 0 before the last step.
        """
        parts = [step.columns() for step in self.steps]
        table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        names = np.asarray(self.condition.names, dtype=object)
        frame = pd.DataFrame(table)
        rows = table["sample"] - self.steps[0].first
        frame.insert(1, "condition", names[rows])
        frame.insert(2, "kind", np.asarray(self.condition.groups, dtype=object)[rows])
        return frame

    @property
    def images(self) -> Tensor:
        """The images, (N, C, H, W) in [0, 1]."""
        return self.images_NCHW

    @classmethod
    def cat(cls, parts: list[Rollout], condition: Condition) -> Rollout:
        """Join the batches of one condition list."""
        trails = [part.ids_TNL for part in parts if part.ids_TNL is not None]
        return cls(
            torch.cat([part.images_NCHW for part in parts]),
            torch.cat([part.tokens_NL for part in parts]),
            np.concatenate([part.nfe_N for part in parts]),
            condition,
            torch.cat([part.revealed_at_NL for part in parts]),
            torch.cat(trails, dim=1) if trails else None,
            [step for part in parts for step in part.steps],
            sum(part.seconds for part in parts),
        )


def rollout(
    policy: Policy,
    generator: Any,
    tokenizer: Tokenizer | None = None,
    condition: Condition | Sequence[str] | None = None,
    *,
    seed: int,
    group: int = 1,
    num_images: int | None = None,
    rules: str | DecodeRules | None = None,
    reward: Reward | None = None,
    first_pass: FirstPass | None = None,
    statistics: bool = False,
    trail: bool = False,
    batch_size: int = BATCH,
    threads: int = 1,
    progress: Progress = None,
) -> Rollout:
    """Draw one image per condition; row i has row seed `seed` + i // `group` whatever the batch size.

    Args:
        generator: live; or the task of generator and tokenizer, a `Task` or what `Task.load` takes.
        tokenizer: of a live generator, or in place of the task's.
        condition: what to draw, of a task also as names of classes or texts; by default `num_images`
            conditions, all of the generator's in turn.
        group: rows in a row that share their noise.
        rules: of a policy that has none of its own; by default AutoNAT's.
        reward: judges the finished images, for the frame: each batch, or all if it compares images.
        first_pass: of the generator, to predict each condition's first step once for many rollouts.
        statistics: True adds confidence and entropy to the frame.
        trail: True keeps the tokens after each step.
        threads: batches drawn at once, for CPUs. Rows don't depend on one another, so that small networks
            gain more from this than from threads inside torch, and the result is the same for any number.
        progress: called with the number of images of each finished batch.
    """
    generator, tokenizer, condition = _drawn(generator, tokenizer, condition, num_images)
    rules = None if rules is None else DecodeRules.of(rules, generator.grid)
    player = _Player(policy, generator, tokenizer, rules, reward, first_pass, statistics, trail)
    parts = list(player.batches(condition, seed, group, batch_size, threads, progress))
    if reward is not None and needs_batch(reward):
        images_NCHW = torch.cat([part.images_NCHW for part in parts])
        rewards_N = judged(reward, images_NCHW, condition).detach()
        for part, reward_B in zip(parts, rewards_N.split(batch_size), strict=True):
            part.steps[-1] = part.steps[-1]._replace(reward_B=reward_B)
    return Rollout.cat(parts, condition)


def stream(
    policy: Policy,
    generator: Any,
    tokenizer: Tokenizer | None = None,
    condition: Condition | Sequence[str] | None = None,
    *,
    seed: int,
    rules: str | DecodeRules | None = None,
    first_pass: FirstPass | None = None,
    threads: int = 1,
    progress: Progress = None,
) -> Iterator[Rollout]:
    """Yield the batches of such a `rollout`, in order; at most `threads` + 1 wait to be looked at."""
    generator, tokenizer, condition = _drawn(generator, tokenizer, condition, None)
    rules = None if rules is None else DecodeRules.of(rules, generator.grid)
    player = _Player(policy, generator, tokenizer, rules, first_pass=first_pass)
    return player.batches(condition, seed, 1, BATCH, threads, progress)


def _drawn(
    generator: Any, tokenizer: Tokenizer | None, condition: Any, num_images: int | None
) -> tuple[Generator, Tokenizer, Condition]:
    """Return what draws and what is drawn, of the arguments of `rollout`."""
    if condition is not None and num_images is not None:
        raise ValueError(f"num_images {num_images} and a condition of {len(condition)} rows; give either")
    if condition is None and (num_images is None or num_images < 1):
        raise ValueError(f"num_images {num_images}: give at least 1, or a condition")
    task = None
    if not hasattr(generator, "mask_id"):
        task = Task.load(generator, tokenizer=tokenizer)
        generator, tokenizer = task.generator, task.tokenizer
    if tokenizer is None:
        raise ValueError("a live generator needs its tokenizer; give it, or a task in place of both")
    refuse_other_codes(generator, tokenizer)
    if condition is None:
        every = generator.conditions() if task is None else task.every
        condition = balanced(every, num_images or 0)
    elif task is not None and isinstance(condition, list | tuple):
        condition = task.named(condition)
    if not isinstance(condition, Condition):
        raise ValueError("names are known by a task; a live generator needs a Condition such as Labels")
    return generator, tokenizer, condition


@dataclass(frozen=True)
class _Player:
    """Draw batches; the arguments are those of `rollout`."""

    policy: Policy
    generator: Generator
    tokenizer: Tokenizer
    rules: DecodeRules | None
    reward: Reward | None = None
    first_pass: FirstPass | None = None
    statistics: bool = False
    trail: bool = False

    def batches(
        self, condition: Condition, seed: int, group: int, size: int, threads: int, progress: Progress
    ) -> Iterator[Rollout]:
        """Yield the batches, in order."""
        noise = HashNoise.from_seed(seed, len(condition), condition.device, group=group)

        def draw(first: int) -> Rollout:
            begun, rows = time.perf_counter(), slice(first, first + size)
            part = self.play(condition[rows], first, noise[rows])
            if progress is not None:
                progress(len(part.nfe_N))
            return replace(part, seconds=time.perf_counter() - begun)

        firsts = range(0, len(condition), size)
        if threads == 1:
            yield from map(draw, firsts)
            return
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[Rollout]] = deque()
            for first in firsts:
                waiting.append(pool.submit(draw, first))
                if len(waiting) > threads:  # no more are begun than are looked at
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def play(self, condition: Condition, first: int, noise: HashNoise) -> Rollout:
        """Draw one batch, whose first sample is `first`."""
        mask_id = self.generator.mask_id
        revealed_at_BL = torch.zeros(len(condition), self.generator.num_tokens, dtype=torch.int16)
        revealed_at_BL = revealed_at_BL.to(condition.device)
        if condition.given_BL is not None:
            revealed_at_BL.masked_fill_(condition.given_BL >= 0, -1)
        steps, ids_TBL = [], []
        how: Any = {"rules": self.rules, "first_pass": self.first_pass, "entropy": self.statistics}
        for move in play(self.policy, self.generator, condition, noise, **how):
            state = move.after
            revealed_at_BL.masked_fill_(state.ids_BL == mask_id, state.step)
            steps.append(self._step(first, move))
            if self.trail:
                ids_TBL.append(state.ids_BL)
            elif not state.masked_B.any():  # trails are all of the same length
                break
        images = decode_all(self.tokenizer, state.ids_BL, condition.device)
        if self.reward is not None and not needs_batch(self.reward):
            steps[-1] = steps[-1]._replace(reward_B=judged(self.reward, images, condition).detach())
        trail = torch.stack(ids_TBL) if self.trail else None
        return Rollout(images, state.ids_BL, state.nfe_B.numpy(), condition, revealed_at_BL, trail, steps)

    def _step(self, first: int, move: Move) -> Step:
        before, decision, after = move
        statistics = _statistics(before, after, self.generator.mask_id) if self.statistics else {}
        reward_B = None if self.reward is None else torch.zeros(len(after.nfe_B))
        counts = before.masked_B, after.masked_B, after.nfe_B
        return Step(first, before.step, decision, *counts, statistics, reward_B)


def _statistics(before: DecodeState, after: DecodeState, mask_id: int) -> dict[str, Tensor]:
    """Return means over the tokens that a step revealed; not a number where it revealed none."""
    assert after.log_probs_BL is not None and after.entropy_BL is not None
    revealed_BL = (before.ids_BL == mask_id) & (after.ids_BL != mask_id)
    count_B = revealed_BL.sum(1)
    values = {"confidence": after.log_probs_BL, "entropy": after.entropy_BL}
    return {
        name: values_BL.masked_fill(~revealed_BL, 0).sum(1) / count_B for name, values_BL in values.items()
    }
