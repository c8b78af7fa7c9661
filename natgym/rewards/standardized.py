"""Features of a task's reward extractor, standardized by its real images."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from generators.images import ImageRows
from natgym.metrics.extractors import extract


class StandardizedFeatures:
    """Features of images, shifted and scaled so that some real images have mean 0 and variance 1 in each.

    Attributes:
        real_Nd: those of the real images.
    """

    def __init__(self, extractor: Any, real: ImageRows) -> None:
        self.extractor = extractor
        features_Nd = self._extracted(real)
        self.mean_d = features_Nd.mean(0)
        self.std_d = features_Nd.std(0).clamp_min(1e-6)
        self.real_Nd = (features_Nd - self.mean_d) / self.std_d

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Return features (B, d)."""
        return (self._extracted(images_BCHW) - self.mean_d) / self.std_d

    def _extracted(self, images: ImageRows) -> Tensor:
        return extract(self.extractor, images, quantise=False)[0]
