"""AdaNAT's adversarial reward (arXiv 2409.00342, section 3.3), of a small or of the paper's discriminator.

All are conditioned by projection (Miyato and Koyama 2018) and trained in turn with the policy on fresh
images against real ones: the small one whole, the others but for their frozen backbone. Their
reward is moving: runs are compared on a frozen metric, never on it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from generators.conditions import Condition
from generators.noise import seeded
from generators.room import image_rows
from natgym.metrics.classifier import Classifier
from natgym.rewards.config import AdversarialConfig, options_of
from natgym.rewards.contract import Images
from natgym.rewards.projected import (
    FROZEN,
    GROUP,
    ProjectedConfig,
    in_groups,
    judged_at_once,
    load_projected,
)
from natgym.task import Task


class Discriminator(nn.Module):
    """Spectrally normalized convolutions down to a grid of at most 4x4, one logit per position."""

    def __init__(self, image_shape: tuple[int, int, int], condition_width: int, channels: int) -> None:
        super().__init__()
        halvings, side = 0, max(image_shape[1:])
        while side > 4:
            halvings, side = halvings + 1, -(-side // 2)
        widths = [channels * min(4, 2**level) for level in range(halvings + 1)]
        layers: list[nn.Module] = [_conv(image_shape[0], widths[0], 3, 1)]
        for narrow, wide in pairwise(widths):
            layers += [nn.LeakyReLU(0.2), _conv(narrow, wide, 4, 2)]
        layers += [nn.LeakyReLU(0.2), _conv(widths[-1], widths[-1], 3, 1), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        self.logit = spectral_norm(nn.Conv2d(widths[-1], 1, 1))
        self.project = spectral_norm(nn.Linear(condition_width, widths[-1], bias=False))

    def forward(self, images_BCHW: Tensor, vectors_BE: Tensor) -> Tensor:
        """Return logits (B, h, w) of images in [0, 1] being real."""
        maps_BFhw = self.trunk(2 * images_BCHW - 1)
        matched_Bhw = torch.einsum("bfhw,bf->bhw", maps_BFhw, self.project(vectors_BE))
        return self.logit(maps_BFhw)[:, 0] + matched_Bhw


class FeatureDiscriminator(nn.Module):
    """Two spectrally normalized layers on a frozen classifier's features, one logit."""

    def __init__(self, classifier: Classifier, condition_width: int, width: int = 128) -> None:
        super().__init__()
        self.backbone = classifier
        layers = [spectral_norm(nn.Linear(inputs, width)) for inputs in (classifier.num_features, width)]
        self.trunk = nn.Sequential(*(part for layer in layers for part in (layer, nn.LeakyReLU(0.2))))
        self.logit = spectral_norm(nn.Linear(width, 1))
        self.project = spectral_norm(nn.Linear(condition_width, width, bias=False))

    def forward(self, images_BCHW: Tensor, vectors_BE: Tensor) -> Tensor:
        """Return logits (B, 1) of images in [0, 1] being real."""
        x_BF = self.trunk(self.backbone(images_BCHW)[0])
        return self.logit(x_BF) + (x_BF * self.project(vectors_BE)).sum(1, keepdim=True)

    def train(self, mode: bool = True) -> FeatureDiscriminator:
        super().train(mode)
        self.backbone.eval()  # no dropout in what is frozen
        return self


class Ensemble(nn.Module):
    """Discriminators side by side: all their logits, whose mean loss teaches each as if it were alone."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images_BCHW: Tensor, vectors_BE: Tensor) -> Tensor:
        """Return logits (B, members, ...)."""
        return torch.stack([member(images_BCHW, vectors_BE) for member in self.members], 1)


class AdversarialReward:
    """Sigmoid of the discriminator's mean logit, in (0, 1); learns by `update`.

    Args:
        image_shape: (C, H, W).
        condition_width: width of `Condition.vectors`.
        config: hyper-parameters.
        seed: of the initial weights.
        classifier: of the backbone "classifier".
    """

    threshold = 0.5

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        condition_width: int,
        config: AdversarialConfig,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        classifier: Classifier | None = None,
    ) -> None:
        config.refuse_absent()
        self.config, self.needs_batch = config, config.projected
        self._sizes = image_shape, condition_width
        self._classifier, self._device = classifier, device
        self.reset(seed)

    @classmethod
    def from_task(cls, task: Task, *, seed: int = 0, **options: Any) -> AdversarialReward:
        """Build the discriminator for a task's images and conditions.

        Args:
            options: fields of `AdversarialConfig`.
        """
        config = options_of(AdversarialConfig, "adversarial", options)
        real = task.images("train")
        return cls(
            real.image_shape,
            real.condition.vectors.shape[1],
            config,
            seed=seed,
            device=task.device,
            classifier=task.reward_extractor if config.backbone == "classifier" else None,  # type: ignore[arg-type]
        )

    def reset(self, seed: int) -> None:
        """Begin anew, with initial weights from a seed."""
        with seeded(seed):
            members = [
                _discriminator(*self._sizes, self.config, self._classifier)
                for _ in range(self.config.members)
            ]
        self.discriminator = (members[0] if len(members) == 1 else Ensemble(members)).to(self._device)
        learning = [parameter for parameter in self.discriminator.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(learning, self.config.learning_rate, self.config.betas)

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        """Return rewards (B,).

        The paper's discriminator compares images in groups; those that are left over are judged among the
        last eight.
        """
        images, vectors_BE = images_BCHW, condition.vectors
        if not self.config.projected:
            return self._judged(images, vectors_BE, image_rows(images.shape[1:]))
        grouped = in_groups(len(images))
        rewards_B = self._judged(images[:grouped], vectors_BE[:grouped], judged_at_once(grouped))
        if over := len(images) - grouped:
            last_G = self._judged(images[-GROUP:], vectors_BE[-GROUP:], GROUP)
            rewards_B = torch.cat([rewards_B, last_G[-over:]])
        return rewards_B

    def _judged(self, images_BCHW: Tensor, vectors_BE: Tensor, rows: int) -> Tensor:
        """Return rewards (B,), of some rows at once."""
        judge = self.discriminator.eval()
        chunks = zip(images_BCHW.split(rows), vectors_BE.split(rows), strict=True)
        return torch.cat([judge(*chunk).flatten(1).mean(1) for chunk in chunks]).sigmoid()

    def update(self, real: Images, fake: Images) -> dict[str, float]:
        """Take one Adam step on a real and a generated batch; return loss and share judged rightly."""
        self.discriminator.train()  # each training pass moves the power iteration on by one step
        asked = real.condition.vectors
        real_logits = self.discriminator(real.images_BCHW, asked)
        fake_logits = self.discriminator(fake.images_BCHW, fake.condition.vectors)
        penalty = F.softplus if self.config.loss == "logistic" else lambda logits: F.relu(1 + logits)
        negative = penalty(fake_logits).mean()
        if share := self.config.mismatched:
            others = asked.roll(1, 0)
            wrong_B = (others != asked).any(1)  # a neighbor's condition may be the same
            mismatch_B = penalty(self.discriminator(real.images_BCHW, others)).flatten(1).mean(1)
            mismatch = (mismatch_B * wrong_B).sum() / wrong_B.sum().clamp_min(1)
            negative = (1 - share) * negative + share * mismatch
        loss = penalty(-real_logits).mean() + negative
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        real_B, fake_B = real_logits.flatten(1).mean(1), fake_logits.flatten(1).mean(1)
        right = ((real_B > 0).float().mean() + (fake_B < 0).float().mean()) / 2
        return {"discriminator_loss": loss.item(), "discriminator_accuracy": right.item()}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; a frozen backbone is loaded again instead."""
        state = self.discriminator.state_dict()
        learned = {name: value for name, value in state.items() if FROZEN not in name}
        return {"discriminator": learned, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        present = self.discriminator.state_dict()
        frozen = {name: value for name, value in present.items() if FROZEN in name}
        self.discriminator.load_state_dict(frozen | state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])


def _discriminator(
    image_shape: tuple[int, int, int],
    condition_width: int,
    config: AdversarialConfig,
    classifier: Classifier | None,
) -> nn.Module:
    if config.backbone == "small":
        return Discriminator(image_shape, condition_width, config.channels)
    if config.backbone == "classifier":
        if classifier is None:
            raise ValueError("backbone classifier needs a classifier; pass one")
        return FeatureDiscriminator(classifier, condition_width)
    mapping_width = 512 if config.condition == "class" else None
    sizes = ProjectedConfig(condition_width=condition_width, mapping_width=mapping_width, crop=config.crop)
    return load_projected(config.backbone, sizes)


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding=1))
