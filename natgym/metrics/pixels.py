"""A second opinion without a network: kernel distance in principal components of the pixels.

What a policy learns is rewarded through one network of the task and judged through another, and both were
trained on the same images. The components are of the pixels alone: nothing is trained on this view of the
images and nothing chosen by it, so that a gain which it does not share is a gain in the eyes of networks. It
is coarse: it sees brightness and large strokes, and no edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from generators.conditions import Condition
from generators.images import EightBits, ImageRows, batches
from natgym.metrics.extractors import CHUNK
from natgym.metrics.frechet import MomentsAccumulator
from natgym.metrics.kernel import kernel_distance, mean_within

PIXELS = "pixel_distance"  # its name in rows and files
COMPONENTS = 32
SIDE = 32  # pixels; of larger images the view is of their averages over that many by as many fields
AT_ONCE = 50_000  # images whose pixels are in memory, so small
NOTE = (
    f"pixels: kernel distance in {COMPONENTS} principal components of the pixels; no network has a say in it."
)


class PixelView(NamedTuple):
    """Principal components of images: their mean (P,), and the components (P, d) over their deviations."""

    mean_P: Tensor
    components_Pd: Tensor

    @classmethod
    def of(cls, images: ImageRows, components: int = COMPONENTS) -> PixelView:
        """Return the first components of N images, fewer where there are fewer that vary."""
        accumulator: MomentsAccumulator | None = None
        for pixels_BP in _pixels(images):
            accumulator = accumulator or MomentsAccumulator(pixels_BP.shape[1])
            accumulator.update(pixels_BP)
        assert accumulator is not None
        moments = accumulator.compute()
        variance_P, vectors_PP = torch.linalg.eigh(moments.covariance)  # rising
        kept = variance_P > 1e-8 * variance_P[-1]
        components_Pd = (vectors_PP / variance_P.clamp_min(0).sqrt())[:, kept]
        return cls(moments.mean, components_Pd.flip(1)[:, :components])

    def features(self, images: ImageRows) -> Tensor:
        """Return coordinates (N, d), of variance 1 over the images that the view is of."""
        return torch.cat([(pixels_BP - self.mean_P) @ self.components_Pd for pixels_BP in _pixels(images)])


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
    def maker(cls, train: ImageRows, real: ImageRows) -> Callable[[], PixelDistance]:
        """Return what makes one for each row and seed of a table.

        Args:
            train: images whose components are taken.
            real: images to compare with; both are rounded to 8 bits, as all that is judged.
        """
        view = PixelView.of(EightBits(train))
        real_Md = view.features(EightBits(real))
        within = mean_within(real_Md)
        return lambda: cls(view, real_Md, within)

    def update(self, images_BCHW: Tensor, condition: Condition, features_Bd: Tensor) -> None:
        """Take a batch of images."""
        self.features.append(self.view.features(images_BCHW))

    def compute(self) -> float:
        """Return the unbiased squared MMD of all images so far."""
        return kernel_distance(torch.cat(self.features), self.real_Md, within=self.within)


def _pixels(images: ImageRows) -> Iterator[Tensor]:
    """Yield the pixels (B, P) of images that are at most SIDE large, of AT_ONCE of them at a time."""
    held: list[Tensor] = []
    for rows, images_BCHW in batches(images, CHUNK):
        height, width = images_BCHW.shape[2:]
        if (side := max(height, width)) > SIDE:
            small = max(1, height * SIDE // side), max(1, width * SIDE // side)
            images_BCHW = F.adaptive_avg_pool2d(images_BCHW, small)
        held.append(images_BCHW.flatten(1))
        if len(held) * CHUNK == AT_ONCE or int(rows[-1]) + 1 == len(images):
            pixels_BP, held = torch.cat(held).double(), []
            yield pixels_BP
