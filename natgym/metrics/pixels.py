"""A second opinion without a network: kernel distance in principal components of the pixels.

What a policy learns is rewarded through one network of the task and judged through another, and both were
trained on the same images. The components are of the pixels alone: nothing is trained on this view of the
images and nothing chosen by it, so that a gain which it does not share is a gain in the eyes of networks. It
is coarse: it sees brightness and large strokes, and no edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.images import eight_bits
from natgym.metrics.kernel import kernel_distance, mean_within

PIXELS = "pixel_distance"  # its name in rows and files
COMPONENTS = 32
NOTE = (
    f"pixels: kernel distance in {COMPONENTS} principal components of the pixels; no network has a say in it."
)


class PixelView(NamedTuple):
    """Principal components of images: their mean (P,), and the components (P, d) over their deviations."""

    mean_P: Tensor
    components_Pd: Tensor

    @classmethod
    def of(cls, images_NCHW: Tensor, components: int = COMPONENTS) -> PixelView:
        """Return the first components of images, fewer where there are fewer that vary."""
        pixels_NP = images_NCHW.flatten(1).double()
        mean_P = pixels_NP.mean(0)
        variance_P, vectors_PP = torch.linalg.eigh(torch.cov(pixels_NP.T))  # rising
        kept = variance_P > 1e-8 * variance_P[-1]
        components_Pd = (vectors_PP / variance_P.clamp_min(0).sqrt())[:, kept]
        return cls(mean_P, components_Pd.flip(1)[:, :components])

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Return coordinates (N, d), of variance 1 over the images that the view is of."""
        return (images_NCHW.flatten(1).double() - self.mean_P) @ self.components_Pd


class PixelDistance:
    """Kernel distance of images from real ones in a view of their pixels; a `Metric`.

    Args:
        view: of the pixels.
        real_Md: features of the real images.
        within: `mean_within` of these.
    """

    def __init__(self, view: PixelView, real_Md: Tensor, within: float) -> None:
        self.view, self.real_Md, self.within = view, real_Md, within
        self.features: list[Tensor] = []

    @classmethod
    def maker(cls, train_NCHW: Tensor, real_MCHW: Tensor) -> Callable[[], PixelDistance]:
        """Return what makes one for each row and seed of a table.

        Args:
            train_NCHW: images whose components are taken.
            real_MCHW: images to compare with; rounded to 8 bits, as all that is judged.
        """
        view = PixelView.of(eight_bits(train_NCHW))
        real_Md = view.features(eight_bits(real_MCHW))
        within = mean_within(real_Md)
        return lambda: cls(view, real_Md, within)

    def update(self, images_BCHW: Tensor, condition: Condition, features_Bd: Tensor) -> None:
        """Take a batch of images."""
        self.features.append(self.view.features(images_BCHW))

    def compute(self) -> float:
        """Return the unbiased squared MMD of all images so far."""
        return kernel_distance(torch.cat(self.features), self.real_Md, within=self.within)
