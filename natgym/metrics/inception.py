"""The FID Inception network: InceptionV3 with the pools of the 2015 TensorFlow graph (torch-fidelity's keys).

Four things set it apart from torchvision's: average pools leave the padding out, the last block pools by
maximum, there are 1,008 classes, and images are enlarged as TensorFlow 1 does it. Weights are read from a
local file, `pt_inception-2015-12-05-6726825d.pth` of torch-fidelity; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.checkpoints import register
from natgym.metrics.weights import read_weights

SIDE = 299
Pool = Literal["average", "maximum"]
Kernel = int | tuple[int, int]
Chain = list[tuple[str, int, Kernel]]


class Unit(nn.Module):
    """Convolution without bias, normalisation, ReLU."""

    def __init__(self, inner: int, outer: int, kernel: Kernel, stride: int = 1, pad: bool = True) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if pad else 0
        self.conv = nn.Conv2d(inner, outer, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outer, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Parallel branches, joined by channel.

    Args:
        width: channels of the input.
        branches: each a chain of (name, channels, kernel); two names in one entry, "a|b", end it in two
            parallel convolutions of kernels (1, k) and (k, 1).
        pool: how the last branch pools.
        pooled: channels of its convolution "branch_pool"; 0 for none.
        halve: the last convolution of each chain, and the pool, have stride 2 and no padding.
    """

    def __init__(
        self,
        width: int,
        branches: Sequence[Chain],
        *,
        pool: Pool = "average",
        pooled: int = 0,
        halve: bool = False,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.halve = halve
        self.pooled = pooled
        self.chains = [[name for name, _, _ in chain] for chain in branches]
        for chain in branches:
            inner = width
            for place, (name, outer, kernel) in enumerate(chain):
                reduced = halve and place == len(chain) - 1
                kernels = [(1, kernel), (kernel, 1)] if "|" in name else [kernel]
                for part, shape in zip(name.split("|"), kernels, strict=True):
                    stride = 2 if reduced else 1
                    self.add_module(part, Unit(inner, outer, shape, stride, pad=not reduced))  # type: ignore[arg-type]
                inner = outer
        if pooled:
            self.branch_pool = Unit(width, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for chain in self.chains:
            y = x
            for name in chain:
                y = torch.cat([self.get_submodule(part)(y) for part in name.split("|")], dim=1)
            outputs.append(y)
        pooled = self._pooled(x)
        return torch.cat([*outputs, self.branch_pool(pooled) if self.pooled else pooled], dim=1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.halve:
            return F.max_pool2d(x, 3, 2)
        if self.pool == "maximum":
            return F.max_pool2d(x, 3, 1, 1)
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _small(width: int, pooled: int) -> Mixed:
    five: Chain = [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)]
    three: Chain = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
    return Mixed(width, [[("branch1x1", 64, 1)], five, three], pooled=pooled)


def _seven(inner: int) -> Mixed:
    shapes: list[Kernel] = [1, (7, 1), (1, 7), (7, 1), (1, 7)]
    widths = [inner] * 4 + [192]
    once: Chain = [("branch7x7_1", inner, 1), ("branch7x7_2", inner, (1, 7)), ("branch7x7_3", 192, (7, 1))]
    names = [f"branch7x7dbl_{i}" for i in range(1, 6)]
    twice: Chain = list(zip(names, widths, shapes, strict=True))
    return Mixed(768, [[("branch1x1", 192, 1)], once, twice], pooled=192)


def _last(width: int, pool: Pool) -> Mixed:
    once: Chain = [("branch3x3_1", 384, 1), ("branch3x3_2a|branch3x3_2b", 384, 3)]
    twice: Chain = [
        ("branch3x3dbl_1", 448, 1),
        ("branch3x3dbl_2", 384, 3),
        ("branch3x3dbl_3a|branch3x3dbl_3b", 384, 3),
    ]
    return Mixed(width, [[("branch1x1", 320, 1)], once, twice], pool=pool, pooled=192)


@dataclass(frozen=True)
class InceptionConfig:
    """How images are prepared.

    Attributes:
        resize: "tf1" enlarges like TensorFlow 1 and torch-fidelity, and scales by (255 x - 128) / 128;
            "torch" is bilinear between pixel centres and scales by 2 x - 1, as AutoNAT and AdaNAT do.
    """

    resize: Literal["tf1", "torch"] = "tf1"


@register(InceptionConfig)
class Inception(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] -> pool features (B, 2048) and logits without bias (B, 1008)."""

    num_features = 2048
    meaning = "Frechet distance in FID Inception pool features (FID)"

    def __init__(self, config: InceptionConfig | None = None) -> None:
        super().__init__()
        self.config = config or InceptionConfig()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2, pad=False)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _small(192, 32), _small(256, 64), _small(288, 64)
        double: Chain = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
        self.Mixed_6a = Mixed(288, [[("branch3x3", 384, 3)], double], halve=True)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = map(_seven, (128, 160, 160, 192))
        shapes: list[Kernel] = [1, (1, 7), (7, 1), 3]
        seven: Chain = [(f"branch7x7x3_{i}", 192, kernel) for i, kernel in enumerate(shapes, 1)]
        three: Chain = [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)]
        self.Mixed_7a = Mixed(768, [three, seven], halve=True)
        self.Mixed_7b, self.Mixed_7c = _last(1280, "average"), _last(2048, "maximum")
        self.fc = nn.Linear(2048, 1008)

    @classmethod
    def load(cls, path: Path | str, resize: Literal["tf1", "torch"] = "tf1") -> Inception:
        """Read a local weights file; ValueError if it is not there or holds something else."""
        network = cls(InceptionConfig(resize))
        read_weights(network, path, "FID Inception")
        return network

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits; grey images become three equal channels."""
        x = self._enlarged(images_BCHW.expand(-1, 3, -1, -1))
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        features_Bd = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))
        return features_Bd, features_Bd @ self.fc.weight.T

    def _enlarged(self, x: Tensor) -> Tensor:
        if self.config.resize == "torch":
            return 2 * F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1
        rows, columns = (_tf1_weights(size).to(x) for size in x.shape[2:])
        return (rows @ (255 * x) @ columns.T - 128) / 128


def _tf1_weights(size: int) -> Tensor:
    """Return (299, size): output pixel i reads the input at i size / 299, between two pixels."""
    at = torch.arange(SIDE, dtype=torch.float64) * size / SIDE
    low = at.floor().long()
    share = at - low
    weights = torch.zeros(SIDE, size, dtype=torch.float64)
    output = torch.arange(SIDE)
    weights[output, low] += 1 - share
    weights[output, (low + 1).clamp_max(size - 1)] += share
    return weights
