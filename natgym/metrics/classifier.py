"""The task's classifier: a small convolutional net whose penultimate features and log-probabilities judge
pictures.

It is the feature extractor of the small tasks' Frechet distance. That is NOT the Inception FID: its numbers
compare only with numbers of the same weights, which manifests name by hash.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generators.checkpoints import register
from generators.noise import seeded


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Geometry of the classifier.

    Attributes:
        image_shape: (channels, height, width), each side divisible by 4.
        num_classes: of the task.
        channels: of the first layer; the second has twice as many.
        features: width d of the penultimate layer.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    channels: int = 32
    features: int = 32


@register(ClassifierConfig)
class Classifier(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> features (B, d) and class logits (B, K)."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        channels, height, width = config.image_shape
        if height % 4 or width % 4:
            raise ValueError(f"image size {height} x {width}: both sides must be divisible by 4")
        self.config, wide = config, 2 * config.channels
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, config.channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.channels, wide, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(wide * (height // 4) * (width // 4), config.features),
        )
        self.head = nn.Linear(config.features, config.num_classes)
        # Features are divided by it, so that their mean variance is 1 on the training part and distances have
        # a scale.
        self.register_buffer("feature_scale", torch.ones(()))
        self.feature_scale: Tensor

    @property
    def num_features(self) -> int:
        return self.config.features

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled features (B, d), taken before the last non-linearity, and logits (B, K)."""
        features_Bd = self.trunk(images_BCHW)
        return features_Bd / self.feature_scale, self.head(features_Bd.relu())


def fit_classifier(
    config: ClassifierConfig, images_NCHW: Tensor, classes_N: Tensor, *, updates: int = 1000, seed: int = 0
) -> Classifier:
    """Train a classifier with AdamW on batches of 128 pictures under Gaussian noise of 0.2."""
    with seeded(seed):
        classifier = Classifier(config).train()
        optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        for _ in range(updates):
            rows = torch.randint(len(images_NCHW), (128,))
            noisy = images_NCHW[rows] + 0.2 * torch.randn_like(images_NCHW[rows])
            optimizer.zero_grad()
            nn.functional.cross_entropy(classifier(noisy)[1], classes_N[rows]).backward()
            optimizer.step()
            schedule.step()
    classifier.eval().requires_grad_(False)
    classifier.feature_scale.copy_(classifier(images_NCHW)[0].var(0).mean().sqrt())
    return classifier
