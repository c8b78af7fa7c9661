"""Images against real ones: distances, manifold metrics, accuracy, in the features of one extractor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.images import Batch, ImageRows, SplitRows, eight_bits, regrouped
from natgym.metrics.classifier import Classifier
from natgym.metrics.clip import CLIPImages
from natgym.metrics.contract import Metric
from natgym.metrics.extractors import CHUNK, extract, joined, look
from natgym.metrics.frechet import FrechetDistance
from natgym.metrics.named import NAMED, Judged
from natgym.metrics.reference import Reference


class Looked(NamedTuple):
    """What networks see in N images, of which that is kept.

    Attributes:
        features_Nd, logits_NK: of the extractor; no logits if it has none.
        classes_NK: logits of a classifier beside it; None without one.
        condition: that the images were asked for by.
    """

    features_Nd: Tensor
    logits_NK: Tensor | None
    classes_NK: Tensor | None
    condition: Condition

    def to(self, device: torch.device | str) -> Looked:
        """Move to a device."""
        logits_NK = None if self.logits_NK is None else self.logits_NK.to(device)
        classes_NK = None if self.classes_NK is None else self.classes_NK.to(device)
        return Looked(self.features_Nd.to(device), logits_NK, classes_NK, self.condition.to(device))

    @classmethod
    def cat(cls, parts: Sequence[Looked]) -> Looked:
        """Join what networks saw in parts of the images."""
        features_Nd, logits_NK = joined([(part.features_Nd, part.logits_NK) for part in parts])
        classes = [part.classes_NK for part in parts if part.classes_NK is not None]
        condition = type(parts[0].condition).cat([part.condition for part in parts])
        return cls(features_Nd, logits_NK, torch.cat(classes) if classes else None, condition)


class Scorer:
    """Compare images with real ones, in the features of an extractor.

    Args:
        classifier: judge of the class, and the extractor unless another one is given; None leaves accuracy
            out.
        real: a split, whose images are untouched by the tokenizer; or a reference made before.
        extractor: another source of features.
        quantise: judge all images as they are after saving, rounded to 8 bits.
    """

    def __init__(
        self,
        classifier: Classifier | None,
        real: SplitRows | Reference,
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

    def features(self, images: ImageRows) -> Tensor:
        """Return the features (N, d) that images are compared in."""
        return extract(self.extractor, images, self.quantise)[0]

    def distance(self, images: ImageRows) -> float:
        """Return the Frechet distance alone."""
        return self.reference.distance(self.features(images))

    def distance_and_error(self, images: ImageRows) -> tuple[float, float]:
        """Return the Frechet distance and its standard error over draws of as many images."""
        return self.reference.distance_and_error(self.features(images))

    def look(self, stream: Iterable[Batch], metrics: Iterable[Metric] = ()) -> Looked:
        """Look at images as they come, and keep none.

        Args:
            stream: batches of any sizes; networks and metrics are given CHUNK images at a time.
            metrics: of one's own, to be fed along.

        Raises:
            ValueError: a pixel is not finite.
        """
        metrics, beside = tuple(metrics), self.classifier is not self.extractor
        seen, classes, conditions, first = [], [], list[Condition](), 0
        for images_BCHW, condition in regrouped(stream, CHUNK):
            seen.append(look(self.extractor, images_BCHW, self.quantise, first=first))
            if beside and self.classifier is not None:
                classes.append(look(self.classifier, images_BCHW, self.quantise))
            for metric in metrics:  # features of its own, since it may write into them
                metric.update(self.seen(images_BCHW), condition, seen[-1][0].clone())
            conditions.append(condition)
            first += len(condition)
        features_Nd, logits_NK = joined(seen)
        classes_NK = joined(classes)[1] if classes else None if beside else logits_NK
        return Looked(features_Nd, logits_NK, classes_NK, type(conditions[0]).cat(conditions))

    def score(self, images_NCHW: Tensor, condition: Condition) -> dict[str, float]:
        """Return the `scores` of images that are all in memory."""
        return self.scores(self.look([(images_NCHW, condition)]))

    def scores(self, looked: Looked) -> dict[str, float]:
        """Return those of METRICS that reference, extractor and classifier allow; shares in [0, 1]."""
        features_Nd, logits_NK, classes_NK, condition = looked
        if classes_NK is not None and classes_NK.shape[1] != condition[:1].vectors.shape[1]:
            classes_NK = None  # a foreign network's, as Inception's, are other classes
        told = None
        if hasattr(self.extractor, "read") and logits_NK is not None:
            told, logits_NK, classes_NK = self.extractor.read(condition.names, logits_NK), None, None
        judged = Judged(
            features_Nd=features_Nd,
            logits_NK=logits_NK,
            classes_NK=classes_NK,
            condition=condition,
            reference=self.reference,
            clip_Nd=features_Nd if isinstance(self.extractor, CLIPImages) else None,
            told=told,
        )
        return {metric.name: metric.compute(judged) for metric in NAMED.values() if metric.applies(judged)}
