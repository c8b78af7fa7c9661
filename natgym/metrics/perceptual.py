"""A distance of two images as a frozen network sees them, for the training of tokenizers.

Squared differences of feature maps whose channels have length 1 at each place, as LPIPS takes them (Zhang et
al. 2018, arXiv 1801.03924), without its learned weights of the channels. Of VGG16, whose weights are a local
file of torchvision's, or of a saved classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.checkpoints import from_pretrained
from natgym.metrics.dino import IMAGENET_MEAN, IMAGENET_STD
from natgym.metrics.weights import read_weights


class PerceptualDistance(nn.Module):
    """Images (B, C, H, W) in [0, 1], twice -> their distances (B,), differentiable.

    Args:
        layers: of a network that takes such images, frozen.
        taps: places in it whose outputs (B, D, h, w) are compared.
        mean, std: of the channels, which the network takes off first; grey images become as many channels.
    """

    def __init__(
        self,
        layers: nn.Sequential,
        taps: Sequence[int],
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.layers = layers[: max(taps) + 1].eval().requires_grad_(False)
        self.taps = tuple(taps)
        self.mean, self.std = tuple(mean), tuple(std)

    @classmethod
    def load(cls, place: Path | str) -> PerceptualDistance:
        """Read a folder of a saved classifier or a file of VGG16; ValueError if it is neither."""
        return cls.of_classifier(place) if Path(place).is_dir() else cls.of_vgg(place)

    @classmethod
    def of_classifier(cls, folder: Path | str) -> PerceptualDistance:
        """Compare after each non-linearity of a saved classifier's convolutions."""
        network: Any = from_pretrained(folder)
        if not isinstance(getattr(network, "trunk", None), nn.Sequential):
            raise ValueError(f"{folder} holds a {type(network).__name__}, which is no classifier")
        return cls.of_trunk(network.trunk)

    @classmethod
    def of_trunk(cls, trunk: nn.Sequential) -> PerceptualDistance:
        """Compare after each non-linearity of a live classifier's convolutions."""
        convolutions = trunk[: _places(trunk, nn.Flatten)[0]]
        return cls(convolutions, _places(convolutions, nn.ReLU))

    @classmethod
    def of_vgg(cls, weights: Path | str) -> PerceptualDistance:
        """Compare before each pooling of VGG16, where LPIPS does."""
        from torchvision.models import vgg16

        network = vgg16(weights=None, init_weights=False)  # they come from the file
        read_weights(network, weights, "VGG16")
        taps = [at - 1 for at in _places(network.features, nn.MaxPool2d)]
        return cls(network.features, taps, IMAGENET_MEAN, IMAGENET_STD)

    def forward(self, images_BCHW: Tensor, others_BCHW: Tensor) -> Tensor:
        distance_B = torch.zeros(len(images_BCHW), device=images_BCHW.device)
        x, y = self._prepared(images_BCHW), self._prepared(others_BCHW)
        for at, layer in enumerate(self.layers):
            x, y = layer(x), layer(y)
            if at in self.taps:
                distance_B = distance_B + _unit_difference(x, y)
        return distance_B / len(self.taps)

    def _prepared(self, images_BCHW: Tensor) -> Tensor:
        if not self.mean:
            return images_BCHW
        mean, std = (images_BCHW.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (images_BCHW - mean) / std


def _places(layers: nn.Sequential, kind: type[nn.Module]) -> list[int]:
    return [at for at, layer in enumerate(layers) if isinstance(layer, kind)]


def _unit_difference(x_BDhw: Tensor, y_BDhw: Tensor) -> Tensor:
    """Return the squared distance of unit vectors of channels, (B,), mean over places: 0 to 4."""
    difference = F.normalize(x_BDhw, dim=1, eps=1e-6) - F.normalize(y_BDhw, dim=1, eps=1e-6)
    return difference.square().sum(1).mean((1, 2))
