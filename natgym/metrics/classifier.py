"""The task's classifier: a small convolutional net whose penultimate features and log-probabilities judge
images.

It is the feature extractor of the small tasks' Frechet distance. That is NOT the Inception FID: its numbers
compare only with numbers of the same weights, which manifests name by hash.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from generators.checkpoints import register
from generators.images import ImageRows
from generators.noise import seeded
from generators.training import refuse_divergence
from natgym.metrics.extractors import extract


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Geometry of the classifier.

    Attributes:
        image_shape: (channels, height, width), each side divisible by 2 ** halvings.
        num_classes: of the task.
        channels: of the first layer; the second has twice as many.
        features: width d of the penultimate layer.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    channels: int = 32
    features: int = 32

    @property
    def halvings(self) -> int:
        """Convolutions of stride 2: two, or as many as leave a grid of at most 8 x 8."""
        return max(2, math.ceil(math.log2(max(self.image_shape[1:]) / 8)))


@register(ClassifierConfig)
class Classifier(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> features (B, d) and class logits (B, K)."""

    meaning = "Frechet distance in the classifier's penultimate features; not the Inception FID"

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        channels, height, width = config.image_shape
        factor = 2**config.halvings
        if height % factor or width % factor:
            raise ValueError(f"image size {height} x {width}: both sides must be divisible by {factor}")
        self.config = config
        wide = 2 * config.channels
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, config.channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.channels, wide, 3, stride=2, padding=1),
            nn.ReLU(),
            *(layer for _ in range(config.halvings - 1) for layer in _halved(wide)),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(wide * (height // factor) * (width // factor), config.features),
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


@dataclass(frozen=True, kw_only=True)
class RotationNetConfig(ClassifierConfig):
    """Geometry of a network that tells the four right-angled rotations."""

    num_classes: int = 4


@register(RotationNetConfig)
class RotationNet(Classifier):
    """Features of images without classes: of a network that was taught to tell how an image is turned.

    Gidaris et al. 2018, "Unsupervised Representation Learning by Predicting Image Rotations". It has no
    logits of classes, so that no accuracy is taken with it.
    """

    meaning = "Frechet distance in the features of a network that tells rotations; not the Inception FID"

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        return super().forward(images_BCHW)[0], None


class Rotated:
    """Square images in each of the four rotations: row 4 i + k is image i, turned k times by 90 degrees."""

    def __init__(self, images: ImageRows) -> None:
        height, width = images[torch.tensor([0])].shape[-2:]
        if height != width:
            raise ValueError(
                f"images of {width} x {height} pixels can't be turned; make them square, #size=N"
            )
        self.images = images

    def __len__(self) -> int:
        return 4 * len(self.images)

    def __getitem__(self, rows: Tensor) -> Tensor:
        upright_BCHW = self.images[rows // 4]
        turns = (rows % 4).tolist()
        return torch.stack(
            [image.rot90(turn, (-2, -1)) for image, turn in zip(upright_BCHW, turns, strict=True)]
        )


def fit_rotations(config: RotationNetConfig, images: ImageRows, **how: Any) -> RotationNet:
    """Train a `RotationNet`; the arguments are those of `fit_classifier`."""
    turned = Rotated(images)
    taught = fit_classifier(config, turned, torch.arange(len(turned)) % 4, **how)
    network = RotationNet(config).to(taught.feature_scale.device)
    network.load_state_dict(taught.state_dict())
    return network.eval().requires_grad_(False)


def _halved(wide: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(wide, wide, 3, stride=2, padding=1), nn.ReLU()


def fit_classifier(
    config: ClassifierConfig,
    images: ImageRows,
    classes_N: Tensor,
    *,
    updates: int = 1000,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[float], object] = lambda loss: None,
) -> Classifier:
    """Train a classifier with AdamW on batches of 128 images under Gaussian noise of 0.2.

    Args:
        config: its geometry.
        images: N images, in memory or read when asked for.
        classes_N: their classes.
        updates: optimizer steps; the learning rate falls to 0 on a cosine.
        seed: of weights, batches, noise and dropout.
        device: where it trains, and stays.
        progress: called with the loss after each update.
    """
    with seeded(seed, device):
        classifier = Classifier(config).to(device).train()
        optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        for update in range(updates):
            rows = torch.randint(len(images), (128,))
            clean = images[rows]
            noisy = (clean + 0.2 * torch.randn_like(clean)).to(device)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(classifier(noisy)[1], classes_N[rows].to(device))
            loss.backward()
            refuse_divergence(update + 1, loss.detach(), classifier, float(schedule.get_last_lr()[0]))
            optimizer.step()
            schedule.step()
            progress(loss.item())
    classifier.eval().requires_grad_(False)
    classifier.feature_scale.copy_(judge(classifier, images)[0].var(0).mean().sqrt())
    return classifier


def judge(classifier: Classifier, images: ImageRows) -> tuple[Tensor, Tensor]:
    """Return features (N, d) and logits (N, K) of many images, a few megapixels at a time, on the host."""
    _, height, width = classifier.config.image_shape
    together = max(1, 2**21 // (height * width))
    features_Nd, logits_NK = extract(
        classifier, images, quantise=False, chunk=together, device=classifier.feature_scale.device
    )
    assert logits_NK is not None
    return features_Nd.cpu(), logits_NK.cpu()
