"""What drawing an image costs: passes, seconds, floating-point operations.

Of these a multiply-add is 2, as torch counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from torch.nn.attention import SDPBackend, sdpa_kernel

from generators.conditions import Condition
from generators.contract import Generator
from generators.images import Batch
from generators.noise import HashNoise
from generators.rules import DecodeRules
from natgym.rollouts import Policy, Rollout, balanced, play


class Cost(NamedTuple):
    """What a batch took: passes of each image, and seconds of drawing."""

    nfe_B: np.ndarray
    seconds: float


def counted(drawn: Iterable[Rollout], costs: list[Cost]) -> Iterator[Batch]:
    """Yield the images of batches, of which the cost alone is kept."""
    for part in drawn:
        costs.append(Cost(part.nfe_N, part.seconds))
        yield part.images_NCHW, part.condition


def gflop_per_image(
    policy: Policy,
    generator: Generator,
    *,
    condition: Condition | None = None,
    rules: DecodeRules | None = None,
) -> float:
    """Return the mean GFLOP of an image's tokens, generator and policy, without the tokenizer's decoder.

    Counted, not estimated, over the passes that decoding really takes: what is skipped, reused or padded is
    counted as it is. The one unconditional row of the first step is shared by the batch.

    Args:
        condition: of the images counted; by default 64, every class in turn.
        rules: of a policy that has none of its own, as where its images were judged.
    """
    from torch.utils.flop_counter import FlopCounterMode  # which loads triton

    condition = balanced(generator.conditions(), 64) if condition is None else condition
    noise = HashNoise.from_seed(0, len(condition), condition.device)
    # Only the plain form of attention is counted on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for move in play(policy, generator, condition, noise, rules=rules):
            if not move.after.masked_B.any():
                break
    return counter.get_total_flops() / len(condition) / 1e9
