"""Tables one can trust: policies on the same conditions and noise, judged on one part of the data, with the
protocol.

The distance is the Frechet distance in the features of the task's classifier. It is NOT the Inception FID and
compares only within one protocol; beside it stands the kernel distance, which has no bias of small samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from generators.checkpoints import tensors_hash, weights_hash
from generators.conditions import Condition
from generators.data import Part, PartName
from generators.noise import derive_seed
from natgym.metrics import (
    FrechetDistance,
    MomentsAccumulator,
    kernel_distance,
    precision_recall_density_coverage,
)
from natgym.metrics.classifier import Classifier
from natgym.rollouts import Policy, balanced, rollout

METRICS = ("distance", "kernel_distance", "accuracy", "precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Protocol:
    """What a number depends on beside the policy; tables never mix two.

    Attributes:
        task, part: the real pictures compared with.
        reference_images, reference: how many they are, and their hash.
        generator, tokenizer, extractor: hashes of the weights.
        images: generated per seed.
        seeds: evaluation seeds.
        min_reveal: tokens that each step reveals at least.
        conditions: law of the conditions.
    """

    task: str
    part: PartName
    reference_images: int
    reference: str
    generator: str
    tokenizer: str
    extractor: str
    images: int
    seeds: tuple[int, ...]
    min_reveal: int
    conditions: str = "balanced"
    distance: str = "Frechet distance in the classifier's penultimate features; not the Inception FID"
    kernel: str = "unbiased squared MMD, kernel (x.y / d + 1)^3, same features"
    quantisation: str = "none"


class Judge:
    """Compare pictures with the real pictures of one part, in the classifier's features.

    Args:
        classifier: extractor and judge of the class.
        part: the real pictures, untouched by the tokenizer.
    """

    def __init__(self, classifier: Classifier, part: Part) -> None:
        self.classifier = classifier
        self.real_Nd = self._features(part.images_NCHW)[0]
        accumulator = MomentsAccumulator(classifier.num_features)
        accumulator.update(self.real_Nd)
        self.frechet = FrechetDistance(accumulator.compute())

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Return the features (N, d) that pictures are compared in."""
        return self._features(images_NCHW)[0]

    def distance(self, images_NCHW: Tensor) -> float:
        """Return the Frechet distance alone, which is all that a search needs."""
        return self._frechet(self._features(images_NCHW)[0])

    def distance_and_error(self, images_NCHW: Tensor) -> tuple[float, float]:
        """Return the Frechet distance and its standard error over draws of as many pictures."""
        features_Nd = self.features(images_NCHW)
        variance = self.frechet.influence(features_Nd).square().mean() / len(features_Nd)
        return self._frechet(features_Nd), variance.sqrt().item()

    def score(self, images_NCHW: Tensor, condition: Condition) -> dict[str, float]:
        """Return all of METRICS; shares in [0, 1]."""
        features_Nd, logits_NK = self._features(images_NCHW)
        right_N = logits_NK.argmax(-1) == condition.vectors.argmax(-1)
        return {
            "distance": self._frechet(features_Nd),
            "kernel_distance": kernel_distance(features_Nd, self.real_Nd),
            "accuracy": right_N.double().mean().item(),
            **precision_recall_density_coverage(features_Nd, self.real_Nd),
        }

    def _frechet(self, features_Nd: Tensor) -> float:
        self.frechet.reset()
        self.frechet.update(features_Nd)
        return self.frechet.compute()

    @torch.no_grad()
    def _features(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        outputs = [self.classifier(chunk) for chunk in images_NCHW.split(1000)]
        return torch.cat([features for features, _ in outputs]), torch.cat([logits for _, logits in outputs])


class Evaluator:
    """Evaluate policies of one generator on one part, all on the same conditions and noise.

    Args:
        generator, tokenizer, classifier: of one task.
        task, part_name, part: where the real pictures come from.
        images: generated per seed.
        seeds: evaluation seeds; the paired intervals are over these.
        min_reveal: tokens that each step reveals at least.
        threads: batches drawn at once.
    """

    def __init__(
        self,
        generator: Any,
        tokenizer: Any,
        classifier: Classifier,
        *,
        task: str,
        part_name: PartName,
        part: Part,
        images: int = 5000,
        seeds: Sequence[int] = (0, 1, 2),
        min_reveal: int = 1,
        threads: int = 1,
    ) -> None:
        self.generator, self.tokenizer, self.judge = generator, tokenizer, Judge(classifier, part)
        self.min_reveal, self.threads = min_reveal, threads
        self.protocol = Protocol(
            task=task,
            part=part_name,
            reference_images=len(part),
            reference=tensors_hash({"images": part.images_NCHW}),
            generator=weights_hash(generator),
            tokenizer=weights_hash(tokenizer),
            extractor=weights_hash(classifier),
            images=images,
            seeds=tuple(seeds),
            min_reveal=min_reveal,
        )

    def __call__(self, policy: Policy, progress: Callable[[int], object] | None = None) -> pd.DataFrame:
        """Return one row per seed: METRICS, nfe and images_per_second (of generation alone)."""
        images, part = self.protocol.images, self.protocol.part
        condition, rows = balanced(self.generator.conditions(), images), []
        for seed in self.protocol.seeds:
            began = time.perf_counter()
            drawn = rollout(
                policy,
                self.generator,
                self.tokenizer,
                condition,
                seed=derive_seed("evaluation", part, seed),
                min_reveal=self.min_reveal,
                threads=self.threads,
                progress=progress,
            )
            took = time.perf_counter() - began
            scores = self.judge.score(drawn.images_NCHW, condition)
            rows.append(
                {"seed": seed, **scores, "nfe": drawn.nfe_N.mean(), "images_per_second": images / took}
            )
        return pd.DataFrame(rows)

    def floor(self, part: Part) -> dict[str, Any]:
        """Return a table row for real pictures of another part, which no generator of these tokens should
        beat.

        With enough of them it is taken like the others, as many for each evaluation seed; else the row is of
        all there are, a guide and not comparable to the digit.
        """
        images, total = self.protocol.images, len(part)
        if total < images:
            scores = self.judge.score(part.images_NCHW, part.condition)
            return {"policy": f"real, n={total:,}", "comparable": False, **scores}
        rows = []
        for seed in self.protocol.seeds:
            rng = np.random.default_rng(derive_seed("floor", seed))
            chosen = torch.from_numpy(rng.choice(total, images, replace=False))
            rows.append(self.judge.score(part.images_NCHW[chosen], part.condition[chosen]))
        return {"policy": f"real, n={images:,}", "comparable": True, **_moments(pd.DataFrame(rows))}

    def manifest(self) -> dict[str, Any]:
        """Return the protocol as JSON values."""
        return asdict(self.protocol)

    def legend(self) -> str:
        """Say in three lines what the numbers of a table are."""
        p = self.protocol
        return (
            f"{p.distance}; kernel distance: {p.kernel}.\n"
            f"Against {p.reference_images} real pictures ({p.task}, {p.part} part); {p.images:,} generated "
            f"per evaluation seed, {len(p.seeds)} seeds: mean and standard deviation.\n"
            f"A row of real pictures with n other than {p.images:,} is a guide, not comparable to the digit."
        )


def summarize(policy: str, steps: int, per_seed: pd.DataFrame, images_spent: int) -> dict[str, Any]:
    """Return a table row: means over the seeds and, of the distances, the sample standard deviation."""
    means = {name: float(per_seed[name].mean()) for name in ("nfe", "images_per_second")}
    counts = {"seeds": len(per_seed), "images_spent": images_spent}
    return {"policy": policy, "steps": steps, **_moments(per_seed), **means, **counts}


def _moments(per_seed: pd.DataFrame) -> dict[str, float]:
    means = {name: float(per_seed[name].mean()) for name in METRICS}
    spread = {f"{name}_std": float(per_seed[name].std(ddof=1)) for name in ("distance", "kernel_distance")}
    return means | spread


def paired_difference(
    ours: pd.DataFrame, theirs: pd.DataFrame, metric: str = "distance"
) -> tuple[float, float]:
    """Return the mean of ours - theirs over common seeds and the half-width of its 95 % t-interval.

    Raises:
        ValueError: the seeds differ.
    """
    if list(ours["seed"]) != list(theirs["seed"]):
        raise ValueError(
            f"seeds {list(ours['seed'])} and {list(theirs['seed'])} are not paired; use the same ones"
        )
    difference = (ours[metric] - theirs[metric]).to_numpy()
    if len(difference) < 2:
        return float(difference.mean()), float("nan")
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean()), float(stats.t.ppf(0.975, len(difference) - 1) * error)


# Column of a row -> header and format in the printed table.
COLUMNS: Mapping[str, tuple[str, str]] = {
    "policy": ("policy", "{}"),
    "steps": ("T", "{}"),
    "distance": ("distance", "{:.3f}"),
    "distance_std": ("std", "{:.3f}"),
    "to_reference": ("ratio", "{:.2f}"),
    "kernel_distance": ("kernel", "{:.4f}"),
    "accuracy": ("accuracy", "{:.3f}"),
    "recall": ("recall", "{:.3f}"),
    "coverage": ("coverage", "{:.3f}"),
    "nfe": ("NFE", "{:.1f}"),
    "gflop": ("GFLOP", "{:.4g}"),
    "images_per_second": ("images/s", "{:,.0f}"),
    "images_spent": ("images spent", "{:,}"),
}


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of `summarize` as aligned text; a missing value is -, a missing column is left out."""
    columns = {name: column for name, column in COLUMNS.items() if any(name in row for row in rows)}
    lines = [[header for header, _ in columns.values()]]
    for row in rows:
        cells = ((row.get(name), form) for name, (_, form) in columns.items())
        lines.append(["-" if value is None else form.format(value) for value, form in cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines)
    text = ["  ".join(cells) for cells in aligned]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])
