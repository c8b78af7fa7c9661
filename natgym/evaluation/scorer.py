"""Images against real ones: distances, manifold metrics, accuracy, in the features of one extractor."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor

from generators.conditions import Condition
from generators.data import Split
from generators.images import eight_bits
from natgym.metrics import FrechetDistance, kernel_distance, precision_recall_density_coverage
from natgym.metrics.classifier import Classifier
from natgym.metrics.extractors import extract
from natgym.metrics.kernel import mean_within
from natgym.metrics.manifold import ball_radii
from natgym.metrics.reference import Reference
from natgym.metrics.score import inception_score


class Scorer:
    """Compare images with real ones, in the features of an extractor.

    Args:
        classifier: judge of the class, and the extractor unless another one is given; None leaves accuracy
            out.
        real: a part, whose images are untouched by the tokenizer; or a reference made before.
        extractor: another source of features.
        quantise: judge all images as they are after saving, rounded to 8 bits.
    """

    def __init__(
        self,
        classifier: Classifier | None,
        real: Split | Reference,
        *,
        extractor: Any = None,
        quantise: bool = True,
    ) -> None:
        self.classifier = classifier
        self.extractor: Any = classifier if extractor is None else extractor
        if self.extractor is None:
            raise ValueError("a scorer needs a classifier or an extractor; give one")
        self.quantise = quantise
        if not isinstance(real, Reference):
            real = Reference.of(real, self.extractor, quantise=quantise)
        self.reference = real
        self.frechet = FrechetDistance(real.moments)

    def seen(self, images_NCHW: Tensor) -> Tensor:
        """Return images as they are judged: rounded to 8 bits, or as they are."""
        return eight_bits(images_NCHW) if self.quantise else images_NCHW

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Return the features (N, d) that images are compared in."""
        return extract(self.extractor, images_NCHW, self.quantise)[0]

    def distance(self, images_NCHW: Tensor) -> float:
        """Return the Frechet distance alone, which is all that a search needs."""
        return self._frechet(self.features(images_NCHW))

    def distance_and_error(self, images_NCHW: Tensor) -> tuple[float, float]:
        """Return the Frechet distance and its standard error over draws of as many images."""
        features_Nd = self.features(images_NCHW)
        variance = self.frechet.influence(features_Nd).square().mean() / len(features_Nd)
        return self._frechet(features_Nd), variance.sqrt().item()

    def score(self, images_NCHW: Tensor, condition: Condition) -> dict[str, float]:
        """Return those of METRICS that reference and extractor allow; shares in [0, 1].

        `class_drift` is the total variation between the classes asked for and those recognised.
        """
        features_Nd, logits_NK = extract(self.extractor, images_NCHW, self.quantise)
        found = {"distance": self._frechet(features_Nd)}
        real_Nd = self.reference.features_Nd
        if real_Nd is not None:
            found["kernel_distance"] = kernel_distance(features_Nd, real_Nd, within=self._within)
        if logits_NK is not None:
            found["score"] = inception_score(logits_NK)
        if self.classifier is not None:
            classes_NK = logits_NK
            if self.extractor is not self.classifier:
                classes_NK = extract(self.classifier, images_NCHW, self.quantise)[1]
            assert classes_NK is not None
            asked_N, seen_N = condition.vectors.argmax(-1), classes_NK.argmax(-1)
            found["accuracy"] = (asked_N == seen_N).double().mean().item()
            counts = [classes_N.bincount(minlength=classes_NK.shape[1]) for classes_N in (asked_N, seen_N)]
            found["class_drift"] = (counts[0] - counts[1]).abs().sum().item() / (2 * len(asked_N))
        if real_Nd is not None:
            found |= precision_recall_density_coverage(features_Nd, real_Nd, radii_M=self._radii_M)
        return found

    @cached_property
    def _within(self) -> float:
        assert self.reference.features_Nd is not None
        return mean_within(self.reference.features_Nd)

    @cached_property
    def _radii_M(self) -> Tensor:
        assert self.reference.features_Nd is not None
        return ball_radii(self.reference.features_Nd)

    def _frechet(self, features_Nd: Tensor) -> float:
        self.frechet.reset()
        self.frechet.update(features_Nd)
        return self.frechet.compute()
