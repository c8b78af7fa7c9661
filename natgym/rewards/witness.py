"""A discriminator in closed form: the witness of the squared MMD between real images and the policy's own.

Of two distributions the witness is the function that tells them apart best within a kernel's reach: the mean
kernel to the one minus the mean kernel to the other (Gretton et al. 2012, section 2.3). As a reward it is
adversarial, since it is refitted on the policy's images after each update; exactly, and at no further image.
The kernel is (x.y / d + 1)^degree, KID's by default, on features of the task's reward extractor, standardized
by the real images'.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.images import SplitRows
from natgym.rewards.config import WitnessConfig, options_of
from natgym.rewards.contract import Images
from natgym.rewards.standardized import StandardizedFeatures
from natgym.task import Task

# Of the kernel at once: a few megabytes, which stay in the cache and are not fetched anew from the system.
ROWS, BLOCK = 128, 4096


class Sample(NamedTuple):
    """Standardized features (B, d) of images, and the vectors (B, E) of their conditions."""

    features_Bd: Tensor
    vectors_BE: Tensor


class WitnessReward:
    """Mean kernel to real images minus that to the policy's last ones; before there are any, the first alone.

    Args:
        extractor: of the features.
        real: the train split, whose features are kept, and no image.
        config: options.

    Raises:
        ValueError: with `by_class`, a condition comes that no real image has.
    """

    learns_from = "rollout"

    def __init__(self, extractor: Any, real: SplitRows, config: WitnessConfig | None = None) -> None:
        self.config = config or WitnessConfig()
        self.features = StandardizedFeatures(extractor, real)
        self.real = Sample(self.features.real_Nd, real.condition.vectors)
        self.rollouts: list[Sample] = []

    @classmethod
    def from_task(cls, task: Task, **options: Any) -> WitnessReward:
        """Look through the task's reward extractor at its train split.

        Args:
            options: fields of `WitnessConfig`.
        """
        config = options_of(WitnessConfig, "mmd", options)
        if config.by_class and task.has("encoder"):
            raise ValueError("reward 'mmd' by_class: texts have no classes; leave it out")
        return cls(task.reward_extractor, task.images("train"), config)

    def reset(self, seed: int) -> None:
        """Forget the policy's images; nothing is random."""
        self.rollouts = []

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        """Return rewards (B,), each of its image alone."""
        return self._witness(self._sample(images_BCHW, condition))

    @torch.no_grad()
    def update(self, real: Images, fake: Images) -> dict[str, float]:
        """Set real images against a rollout's; `real` is not looked at, since all of the split is known.

        Returns:
            `mmd`: the squared MMD between the real images and those drawn since the last updates, with the
            pairs of an image with itself: it does not fall to 0.
        """
        drawn = self._sample(*fake)
        self.rollouts = [*self.rollouts, drawn][-self.config.window :]
        real_N = self._real_to_real_N - self._mean_kernel(self.real, self.rollouts)
        return {"mmd": (real_N.mean() - self._witness(drawn).mean()).item()}

    def state_dict(self) -> dict[str, Any]:
        """Return the features and conditions of the last rollouts."""
        return {"rollouts": [list(sample) for sample in self.rollouts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.rollouts = [Sample(*parts) for parts in state["rollouts"]]

    def _sample(self, images_BCHW: Tensor, condition: Condition) -> Sample:
        return Sample(self.features(images_BCHW), condition.vectors)

    @cached_property
    def _real_to_real_N(self) -> Tensor:  # of all pairs, and so once: it never changes
        return self._mean_kernel(self.real, [self.real])

    def _witness(self, sample: Sample) -> Tensor:
        witness_B = self._mean_kernel(sample, [self.real])
        return witness_B - self._mean_kernel(sample, self.rollouts) if self.rollouts else witness_B

    def _mean_kernel(self, sample: Sample, others: Sequence[Sample]) -> Tensor:
        """Return each row's mean kernel to all of some samples, or to those of its condition."""
        rows = zip(*(part.split(ROWS) for part in sample), strict=True)
        return torch.cat([self._mean_kernel_of(Sample(*parts), others) for parts in rows])

    def _mean_kernel_of(self, sample: Sample, others: Sequence[Sample]) -> Tensor:
        total_B = torch.zeros_like(sample.features_Bd[:, 0])
        count_B = torch.zeros_like(total_B)
        width = sample.features_Bd.shape[1]
        for other in others:
            for features_Md, vectors_ME in zip(
                other.features_Bd.split(BLOCK), other.vectors_BE.split(BLOCK), strict=True
            ):
                kernel_BM = (sample.features_Bd @ features_Md.T / width + 1).pow(self.config.degree)
                if self.config.by_class:
                    same_BM = (sample.vectors_BE @ vectors_ME.T > 0.5).to(kernel_BM)
                    total_B += (kernel_BM * same_BM).sum(1)
                    count_B += same_BM.sum(1)
                else:
                    total_B += kernel_BM.sum(1)
                    count_B += len(features_Md)
        if not (count_B > 0).all():
            raise ValueError("a condition has no image to compare with; leave by_class out")
        return total_B / count_B
