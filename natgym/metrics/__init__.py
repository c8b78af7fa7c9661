"""Distances between sets of image features: Fréchet (FID), kernel (KID) and manifold metrics."""

from natgym.metrics.frechet import FrechetDistance, Moments, MomentsAccumulator
from natgym.metrics.kernel import kernel_distance
from natgym.metrics.manifold import precision_recall_density_coverage

__all__ = [
    "METRICS",
    "FrechetDistance",
    "Moments",
    "MomentsAccumulator",
    "kernel_distance",
    "precision_recall_density_coverage",
]

# Of a row of scores, in this order; reference and extractor may allow only some.
METRICS = (
    "distance",
    "kernel_distance",
    "score",
    "accuracy",
    "class_drift",
    "precision",
    "recall",
    "density",
    "coverage",
)
