"""Tables one can trust: policies on the same conditions and noise, judged on one part of the data, with the
protocol.

By default the distance is the Frechet distance in the features of the task's classifier. It is NOT the
Inception FID and compares only within one protocol; beside it stands the kernel distance, which has no bias
of small samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from generators.checkpoints import weights_hash
from generators.conditions import Condition
from generators.images import Batch, SplitRows, labelled
from generators.noise import derive_seed
from generators.precision import precision_of
from generators.rules import DecodeRules
from generators.tokenizers import refuse_other_codes
from natgym.evaluation.cost import Cost, counted
from natgym.evaluation.protocol import EIGHT_BITS, EvaluationConfig, EvaluationProtocol, against
from natgym.evaluation.scorer import Scorer
from natgym.evaluation.statistics import moments
from natgym.metrics import METRICS
from natgym.metrics.contract import Metrics
from natgym.metrics.extractors import CHUNK
from natgym.metrics.manifold import MOST
from natgym.metrics.score import total_variation
from natgym.rollouts import Policy, at_random, at_shares, balanced, stream
from natgym.task import Task

FAR = 0.1  # total variation between classes that is told
# Columns that a metric of one's own can't have beside the metrics themselves.
RESERVED = (
    "policy",
    "steps",
    "seed",
    "seeds",
    "nfe",
    "gflop",
    "images_per_second",
    "images_spent",
    "rules",
    "difference",
    "per_seed",
    "to_reference",
)


class Evaluator:
    """Evaluate policies of one task's generator against one reference, all on the same conditions and noise.

    Args:
        task: of generator, tokenizer and, unless a scorer is given, of extractor and real images.
        config: how.
        scorer: of the images, with its own reference; by default the task's score extractor on the split.
        rules: of policies that have none of their own; by default AutoNAT's.
        metrics: of one's own, {column: maker of a `Metric`}.
        notes: lines of the legend that say what these are.
        threads: batches drawn at once; results don't depend on it.
    """

    def __init__(
        self,
        task: Task,
        config: EvaluationConfig | None = None,
        *,
        scorer: Scorer | None = None,
        rules: str | DecodeRules | None = None,
        metrics: Metrics | None = None,
        notes: Sequence[str] = (),
        threads: int = 1,
    ) -> None:
        _check_metrics(metrics or {})
        config = config or EvaluationConfig()
        self.task = task
        self.generator = task.generator
        self.tokenizer = task.tokenizer
        refuse_other_codes(self.generator, self.tokenizer)
        if scorer is None:
            if config.split == "-":
                raise ValueError("split '-' stands for statistics from a file; give the scorer that has them")
            scorer = Scorer(task.score_extractor, task.images(config.split))  # type: ignore[arg-type]
        refuse_too_few(config.images, scorer.extractor)
        if task.given and config.conditions is not None:
            raise ValueError(
                f"conditions {config.conditions}: {task} draws the split's own images; leave it out"
            )
        law = config.conditions or task.law
        if law == "data" and scorer.reference.condition is None and not (task.given or task.has("encoder")):
            raise ValueError(
                "conditions data: statistics from a file say nothing of classes; give another law"
            )
        self.scorer = scorer
        self.metrics = metrics or {}
        self.notes = tuple(notes)
        self.threads = threads
        self.rules = None if rules is None else DecodeRules.of(rules, self.generator.grid)
        features = scorer.reference.features_Nd
        self.protocol = EvaluationProtocol(
            task=task.name or "-",
            split=config.split,
            reference_images=0 if features is None else len(features),
            reference=scorer.reference.name,
            generator=weights_hash(self.generator),  # type: ignore[arg-type]
            tokenizer=weights_hash(self.tokenizer),  # type: ignore[arg-type]
            extractor=weights_hash(scorer.extractor),
            images=config.images,
            seeds=tuple(config.seeds),
            conditions=law,
            distance=scorer.extractor.meaning,
            quantisation=EIGHT_BITS if scorer.quantise else "none",
            name=config.convention,
            encoder=task.encoder.name if task.has("encoder") else "",
            precision=precision_of(self.generator),
            neighborhoods=MOST if features is not None and max(config.images, len(features)) > MOST else 0,
        )

    def __call__(self, policy: Policy, progress: Callable[[int], object] | None = None) -> pd.DataFrame:
        """Return one row per seed: METRICS, one's own, nfe and images_per_second (of generation alone)."""
        images = self.protocol.images
        rows = []
        for seed in self.protocol.seeds:
            condition = self.conditions(seed)
            costs: list[Cost] = []
            drawn = stream(
                policy,
                self.generator,
                self.tokenizer,
                condition,
                seed=derive_seed("evaluation", self.protocol.split, seed),
                rules=self.rules,
                threads=self.threads,
                progress=progress,
            )
            scores = self._scores(counted(drawn, costs))
            seconds = sum(cost.seconds for cost in costs) / min(self.threads, len(costs))
            nfe = np.concatenate([cost.nfe_B for cost in costs]).mean()
            rows.append({"seed": seed, **scores, "nfe": nfe, "images_per_second": images / seconds})
        return pd.DataFrame(rows)

    def conditions(self, seed: int) -> Condition:
        """Return what is drawn for an evaluation seed, by the law of the protocol."""
        images, real = self.protocol.images, self.scorer.reference.condition
        if self.task.given:  # the split's own images are completed
            return balanced(self.task.begun(self.protocol.split), images)  # type: ignore[arg-type]
        if self.protocol.conditions == "balanced":
            return balanced(self.generator.conditions(), images)
        if self.protocol.conditions == "random":
            return at_random(self.generator.conditions(), images, derive_seed("conditions", seed))
        if real is None:  # statistics from a file, which say nothing of texts
            real = self.task.images("report").condition
        return at_shares(real, images).to(self.task.place)

    @cached_property
    def mismatch(self) -> float:
        """Total variation, in [0, 1], between the classes drawn and those of the real images; 0 without."""
        real = self.scorer.reference.condition
        if self.protocol.conditions == "data" or real is None or self.task.has("encoder"):
            return 0.0
        drawn = self.conditions(self.protocol.seeds[0])
        return total_variation(drawn.vectors.sum(0).cpu(), real.vectors.sum(0).cpu())

    def floors(self, part: SplitRows) -> list[dict[str, Any]]:
        """Return rows for real images of another split: as they are, and, where the classes drawn are others
        than the real images' by more than a tenth, with the classes drawn."""
        rows = [self.floor(part)]
        if self.mismatch > FAR:
            rng = np.random.default_rng(derive_seed("floor"))
            values, drawn = part.condition.values.cpu().numpy(), self.conditions(self.protocol.seeds[0])
            by_class = {label: np.flatnonzero(values == label) for label in np.unique(values)}
            asked = [label for label in drawn.values.tolist() if label in by_class]
            chosen = torch.from_numpy(np.array([rng.choice(by_class[label]) for label in asked]))
            scores = self._scores(labelled(part.take(chosen), CHUNK))
            name = f"real, {self.protocol.conditions}"
            rows.append({"policy": name, "comparable": len(chosen) == self.protocol.images, **scores})
        return rows

    def floor(self, part: SplitRows) -> dict[str, Any]:
        """Return a table row for real images of another part, which no generator of these tokens should
        beat.

        With enough of them it is taken like the others, as many for each evaluation seed; else the row is of
        all there are, a guide and not comparable to the digit.
        """
        images = self.protocol.images
        total = len(part)
        if total < images:
            scores = self._scores(labelled(part, CHUNK))
            return {"policy": f"real, n={total:,}", "comparable": False, **scores}
        rows = []
        for seed in self.protocol.seeds:
            rng = np.random.default_rng(derive_seed("floor", seed))
            chosen = torch.from_numpy(rng.choice(total, images, replace=False))
            rows.append(self._scores(labelled(part.take(chosen), CHUNK)))
        return {"policy": f"real, n={images:,}", "comparable": True, **moments(pd.DataFrame(rows))}

    def _scores(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return METRICS and those of one's own; ValueError if one is not a finite number."""
        metrics = {name: make() for name, make in self.metrics.items()}
        scores = self.scorer.scores(self.scorer.look(batches, metrics.values()))
        _refuse_not_finite(scores, "see to the images and their extractor")
        values = {name: float(metric.compute()) for name, metric in metrics.items()}
        _refuse_not_finite(values, "compute has to return a finite number")
        return scores | values

    def manifest(self) -> dict[str, Any]:
        """Return the protocol as JSON values."""
        return self.protocol.manifest()

    def legend(self) -> str:
        """Say in three lines what the numbers of a table are, and in further ones what those of one's own."""
        p = self.protocol
        lines = [
            f"{p.distance}; kernel distance: {p.kernel}.",
            f"Against {against(p.reference_images)} ({p.task}, {p.split} split); {p.images:,} generated "
            f"per evaluation seed, {len(p.seeds)} seeds: mean and standard deviation.",
            f"A row of real images with n other than {p.images:,} is a guide, not comparable to the digit.",
        ]
        if p.precision != "float32":
            lines.append(f"The generator computes in {p.precision}.")
        if p.neighborhoods:
            lines.append(
                f"Precision, recall, density and coverage: of {p.neighborhoods:,} images, generated or real, "
                "drawn at random where there are more."
            )
        if self.mismatch > FAR:
            lines.append(
                f"The classes drawn ({p.conditions}) are not distributed as those of the real images (total "
                f"variation {self.mismatch:.2f}); distances hold that, too; --conditions data draws theirs."
            )
        return "\n".join([*lines, *self.notes])


def _refuse_not_finite(values: Mapping[str, float], advice: str) -> None:
    """Raise ValueError if a metric is not a finite number."""
    if wrong := [name for name, value in values.items() if not math.isfinite(value)]:
        raise ValueError(f"metric {wrong[0]!r} is {values[wrong[0]]}; {advice}")


def refuse_too_few(images: int, extractor: Any) -> None:
    """Raise ValueError if there are fewer images than an extractor has features."""
    if images < (width := extractor.num_features):
        raise ValueError(
            f"images {images}: the extractor has {width} features, and a covariance of fewer "
            f"images is singular, so that the distance is mostly bias; give at least {width}"
        )


def _check_metrics(metrics: Metrics) -> None:
    """Raise ValueError if a metric of one's own has a name that is taken, or is not made by a call."""
    for name, make in metrics.items():
        if name in (*METRICS, *RESERVED) or name.endswith("_std"):
            raise ValueError(f"metric {name!r}: the name is taken; choose another")
        if not callable(make):
            raise ValueError(
                f"metric {name!r} is a {type(make).__name__}; give its class, one is made for each row"
            )
