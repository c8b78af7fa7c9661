"""Random views of a batch of images, each image with its own crop, mirror and colors, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a view may be from its image.

    Attributes:
        least_area: of the crop, as a share of the image.
        jitter: brightness, contrast and saturation are multiplied by factors in [1 - jitter, 1 + jitter].
        grey: share of the images that lose their colors.
        mirror: whether half of the images are mirrored.
    """

    least_area: float
    jitter: float
    grey: float
    mirror: bool

    def __call__(self, images_BCHW: Tensor, rng: torch.Generator) -> Tensor:
        """Return one view (B, C, H, W) in [0, 1] of each image.

        Args:
            images_BCHW: images in [0, 1].
            rng: a CPU generator: the same views on every device.
        """
        B = len(images_BCHW)

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            values = torch.rand(B, *shape, generator=rng) * (high - low) + low
            return values.to(images_BCHW.device)

        view = self._crop(images_BCHW, uniform(self.least_area, 1), uniform(-1, 1, 2), uniform(-1, 1))
        factor = uniform(1 - self.jitter, 1 + self.jitter, 3)[..., None, None, None]
        view = view * factor[:, 0]
        view = _towards(view.mean((1, 2, 3), keepdim=True), view, factor[:, 1])
        colorless = uniform(0, 1)[:, None, None, None] < self.grey
        view = _towards(view.mean(1, keepdim=True), view, torch.where(colorless, 0, factor[:, 2]))
        return view.clamp(0, 1)

    def _crop(self, images_BCHW: Tensor, area_B: Tensor, offset_B2: Tensor, side_B: Tensor) -> Tensor:
        """Cut out a square of a share of the area, at an offset in [-1, 1], and scale it to full size."""
        scale_B = area_B.sqrt()
        affine_B23 = torch.zeros(len(images_BCHW), 2, 3, device=images_BCHW.device)
        affine_B23[:, 0, 0] = torch.where(side_B < 0, -scale_B, scale_B) if self.mirror else scale_B
        affine_B23[:, 1, 1] = scale_B
        affine_B23[:, :, 2] = offset_B2 * (1 - scale_B)[:, None]
        grid = F.affine_grid(affine_B23, list(images_BCHW.shape), align_corners=False)
        return F.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)


def _towards(center: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return center + (images - center) * factor


def strong(mirror: bool) -> Augmentation:
    """Views for learning an encoder."""
    return Augmentation(least_area=0.3, jitter=0.4, grey=0.2, mirror=mirror)


def weak(mirror: bool) -> Augmentation:
    """Views of frozen features."""
    return Augmentation(least_area=0.7, jitter=0.2, grey=0.0, mirror=mirror)
