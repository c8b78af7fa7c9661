"""Any policy on any generator: pictures, and one tidy frame with a row per sample and step.

A policy is `policy(observation, step) -> DecodeParams`. A schedule ignores the observation; a learned policy
plays its mean action. The environment and this module share `observe` and `advance`, so all policies meet the
same step, the same noise and the same conditions.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from generators.conditions import Condition
from generators.contract import Generator
from generators.decoding import advance, start
from generators.noise import HashNoise
from generators.schedules import PARAMETERS, DecodeParams
from generators.tokenizers import Tokenizer
from natgym.env import Observation, observe

BATCH = 250  # rows per forward pass; small batches stay in a CPU's cache


class Policy(Protocol):
    """Decide the decoding parameters of every row; `steps` is its T."""

    @property
    def steps(self) -> int: ...

    def __call__(self, observation: Observation, step: int) -> DecodeParams: ...


@dataclass(frozen=True, eq=False)
class Rollout:
    """What `rollout` returns: images (N, C, H, W), tokens (N, L), passes (N,), and the frame (N * T rows).

    The frame's columns: sample, condition, step, the four decoding parameters, masked_before, masked_after,
    nfe.
    """

    images_NCHW: Tensor
    tokens_NL: Tensor
    nfe_N: np.ndarray
    frame: pd.DataFrame


def rollout(
    policy: Policy,
    generator: Generator,
    tokenizer: Tokenizer,
    condition: Condition,
    *,
    seed: int,
    min_reveal: int = 1,
    batch_size: int = BATCH,
    threads: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Rollout:
    """Draw one picture per condition; row i has row seed `seed` + i whatever the batch size.

    Args:
        threads: batches drawn at once, for CPUs. Rows don't depend on one another, so that small networks
            gain more from this than from threads inside torch, and the result is the same for any number.
        progress: called with the number of pictures of each finished batch.
    """

    def draw(first: int) -> Rollout:
        rows = condition[first : first + batch_size]
        part = _batch(policy, generator, tokenizer, rows, seed + first, min_reveal)
        part.frame["sample"] += first
        if progress is not None:
            progress(len(rows))
        return part

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(draw, range(0, len(condition), batch_size)))
    return Rollout(
        torch.cat([part.images_NCHW for part in parts]),
        torch.cat([part.tokens_NL for part in parts]),
        np.concatenate([part.nfe_N for part in parts]),
        pd.concat([part.frame for part in parts], ignore_index=True),
    )


def _batch(
    policy: Policy,
    generator: Generator,
    tokenizer: Tokenizer,
    condition: Condition,
    seed: int,
    min_reveal: int,
) -> Rollout:
    B, device = len(condition), condition.values.device
    noise = HashNoise.from_seed(seed, B, device)
    state = start(generator, condition, steps=policy.steps)
    names, frames = condition.names, []
    while not state.done:
        observation = observe(state, generator.mask_id) | {"condition": condition.values}
        params = policy(observation, state.step)
        after = advance(generator, state, params, noise, min_reveal=min_reveal)
        columns = dict(zip(PARAMETERS, (values.numpy() for values in params), strict=True))
        counts = {"masked_before": state.masked_B, "masked_after": after.masked_B, "nfe": after.nfe_B}
        columns |= {name: values.numpy() for name, values in counts.items()}
        frames.append(
            pd.DataFrame({"sample": np.arange(B), "condition": names, "step": state.step} | columns)
        )
        state = after
    frame = pd.concat(frames, ignore_index=True)
    return Rollout(tokenizer.decode(state.ids_BL), state.ids_BL, state.nfe_B.numpy(), frame)


def balanced(pool: Condition, num_samples: int) -> Condition:
    """Return `num_samples` conditions, taking the pool's rows in turn."""
    return pool[torch.arange(num_samples, device=pool.values.device) % len(pool)]
