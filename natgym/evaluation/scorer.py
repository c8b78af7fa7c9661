"""Images against real ones: distances, manifold metrics, accuracy, in the features of one extractor."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from generators.conditions import Condition
from generators.data import Split
from generators.images import eight_bits
from natgym.metrics.classifier import Classifier
from natgym.metrics.extractors import extract
from natgym.metrics.frechet import FrechetDistance
from natgym.metrics.named import NAMED, Judged
from natgym.metrics.reference import Reference


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

    @property
    def frechet(self) -> FrechetDistance:
        """The Frechet distance to the real images."""
        return self.reference.frechet

    def seen(self, images_NCHW: Tensor) -> Tensor:
        """Return images as they are judged: rounded to 8 bits, or as they are."""
        return eight_bits(images_NCHW) if self.quantise else images_NCHW

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Return the features (N, d) that images are compared in."""
        return extract(self.extractor, images_NCHW, self.quantise)[0]

    def distance(self, images_NCHW: Tensor) -> float:
        """Return the Frechet distance alone, which is all that a search needs."""
        return self.reference.distance(self.features(images_NCHW))

    def distance_and_error(self, images_NCHW: Tensor) -> tuple[float, float]:
        """Return the Frechet distance and its standard error over draws of as many images."""
        features_Nd = self.features(images_NCHW)
        variance = self.frechet.influence(features_Nd).square().mean() / len(features_Nd)
        return self.reference.distance(features_Nd), variance.sqrt().item()

    def captions(self, images_NCHW: Tensor, condition: Condition) -> dict[str, float]:
        """Return in which share of images each of what captions ask for is right, as the extractor reads."""
        _, logits_NK = extract(self.extractor, images_NCHW, self.quantise)
        return self.extractor.read(condition.names, logits_NK)

    def score(self, images_NCHW: Tensor, condition: Condition) -> dict[str, float]:
        """Return those of METRICS that reference, extractor and classifier allow; shares in [0, 1]."""
        features_Nd, logits_NK = extract(self.extractor, images_NCHW, self.quantise)
        classes_NK = None
        if self.classifier is self.extractor:
            classes_NK = logits_NK
        elif self.classifier is not None:
            classes_NK = extract(self.classifier, images_NCHW, self.quantise)[1]
        if classes_NK is not None and classes_NK.shape[1] != condition[:1].vectors.shape[1]:
            classes_NK = None  # a foreign network's, as Inception's, are other classes
        captions = None
        if hasattr(self.extractor, "read") and logits_NK is not None:
            captions, logits_NK, classes_NK = self.extractor.read(condition.names, logits_NK), None, None
        judged = Judged(
            features_Nd=features_Nd,
            logits_NK=logits_NK,
            classes_NK=classes_NK,
            condition=condition,
            reference=self.reference,
            captions=captions,
        )
        return {metric.name: metric.compute(judged) for metric in NAMED.values() if metric.applies(judged)}
