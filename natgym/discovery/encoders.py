"""Image features without labels: a small convolutional encoder trained by SimCLR (Chen et al. 2020), a color
histogram and histograms of oriented gradients (Dalal and Triggs 2005).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from generators.noise import derive_seed, seeded
from generators.training import refuse_divergence
from natgym.discovery.augment import Augmentation
from natgym.discovery.config import SimCLRConfig
from natgym.discovery.losses import instance_contrast

GRID = 4  # side of the last feature map


class ConvEncoder(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> features (B, D): four convolutions, then mean and maximum.

    As many of the convolutions halve the map as leave a side of at least GRID.
    """

    widths = (24, 48, 96, 160)

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels = image_shape[0]
        side = min(image_shape[1:])
        layers: list[nn.Module] = []
        for width in self.widths:
            # The first layer sees every pixel: small images have none to spare.
            stride = 2 if side >= 2 * GRID and width > self.widths[0] else 1
            side //= stride
            layers += [
                nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        # On CPUs the channels' last place makes a training step 1.6 times faster.
        self.trunk = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.num_features = 2 * channels

    def forward(self, images_BCHW: Tensor) -> Tensor:
        map_BDhw = self.trunk((2 * images_BCHW - 1).contiguous(memory_format=torch.channels_last))
        return torch.cat([map_BDhw.mean((2, 3)), map_BDhw.amax((2, 3))], dim=1)


def train_encoder(
    images_NCHW: Tensor,
    views: Augmentation,
    config: SimCLRConfig,
    progress: Callable[[float], object] = lambda loss: None,
) -> ConvEncoder:
    """Return an encoder, in eval mode, that tells images apart whatever view it sees.

    Args:
        images_NCHW: all images, labelled or not; no label is used.
        views: its two views per image.
        progress: called with the loss of each update.

    Raises:
        ValueError: it diverges.
    """
    with seeded(derive_seed(config.seed, "simclr")):
        encoder = ConvEncoder((images_NCHW.shape[1], images_NCHW.shape[2], images_NCHW.shape[3]))
        width = encoder.num_features
        projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64))
    net = nn.Sequential(encoder, projector).to(images_NCHW.device)
    optimizer = torch.optim.AdamW(net.parameters(), config.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.updates)
    for update, (images_BCHW, rng) in enumerate(_batches(images_NCHW, config), start=1):
        pair = torch.cat([views(images_BCHW, rng), views(images_BCHW, rng)])
        first_BP, second_BP = F.normalize(net(pair), dim=-1).chunk(2)
        loss = instance_contrast(first_BP, second_BP, temperature=config.temperature)
        optimizer.zero_grad()
        loss.backward()
        refuse_divergence(update, loss.detach(), net, float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
        progress(loss.item())
    return encoder.eval().requires_grad_(False)


def _batches(images_NCHW: Tensor, config: SimCLRConfig) -> Iterator[tuple[Tensor, torch.Generator]]:
    number = min(config.batch_size, len(images_NCHW))
    for update in range(config.updates):
        rng = torch.Generator().manual_seed(derive_seed(config.seed, update, "views"))
        rows = torch.randperm(len(images_NCHW), generator=rng)[:number]
        yield images_NCHW[rows], rng


def color_histogram(images_BCHW: Tensor, levels: int = 4) -> Tensor:
    """Return square roots of the shares of pixels by color: levels ** C bins, levels ** 2 for grey ones."""
    levels = levels**2 if images_BCHW.shape[1] == 1 else levels
    level_BCN = (images_BCHW.flatten(2) * levels).long().clamp_max(levels - 1)
    place_C = levels ** torch.arange(images_BCHW.shape[1], device=images_BCHW.device)
    bin_BN = (level_BCN * place_C[:, None]).sum(1)
    counts = bin_BN.new_zeros(len(bin_BN), levels ** images_BCHW.shape[1], dtype=torch.float32)
    return (
        counts.scatter_add_(1, bin_BN, torch.ones_like(bin_BN, dtype=torch.float32))
        .div(bin_BN.shape[1])
        .sqrt()
    )


def oriented_gradients(images_BCHW: Tensor, orientations: int = 8, cells: int = 4) -> Tensor:
    """Return square roots of gradient magnitude by unsigned direction and cell, (B, orientations cells^2)."""
    padded = F.pad(images_BCHW.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")[:, 0]
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    direction = torch.atan2(down, across) / np.pi * orientations  # period `orientations`: the sign is dropped
    centers = torch.arange(orientations, device=images_BCHW.device)
    apart = (direction[:, None] - centers[:, None, None]) % orientations
    share = (1 - torch.minimum(apart, orientations - apart)).clamp_min(0)  # linear between two directions
    energy = share * torch.hypot(across, down)[:, None]
    return rearrange(F.adaptive_avg_pool2d(energy, cells), "b o h w -> b (o h w)").sqrt()
