"""Distances between sets of image features: Fréchet (FID), kernel (KID) and manifold metrics."""

from natgym.metrics.frechet import FrechetDistance, Moments, MomentsAccumulator
from natgym.metrics.kernel import kernel_distance
from natgym.metrics.manifold import precision_recall_density_coverage
from natgym.metrics.named import METRICS, NAMED, NamedMetric

__all__ = [
    "METRICS",
    "NAMED",
    "FrechetDistance",
    "Moments",
    "MomentsAccumulator",
    "NamedMetric",
    "kernel_distance",
    "precision_recall_density_coverage",
]
