"""The metrics of tables: each recomputed by a loop, and each one entry that all readers follow."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from generators.conditions import Labels
from natgym.evaluation.tables import COLUMNS, FULL_COLUMNS, format_table
from natgym.metrics import METRICS, NAMED, MomentsAccumulator
from natgym.metrics.named import Judged
from natgym.metrics.puzzles import PuzzleReader
from natgym.metrics.reference import Reference
from natgym.metrics.scenes import Read

N, M, D, K = 40, 50, 3, 4
OF_CLIP = {"cmmd"}  # of vectors of length 1: tests/metrics/test_cmmd.py
TOLD = (*Read._fields, *PuzzleReader.tells)  # by extractors that read images


def reference_of(real_Md: torch.Tensor, keep: bool = True) -> Reference:
    accumulator = MomentsAccumulator(D)
    accumulator.update(real_Md)
    return Reference(accumulator.compute(), "real", real_Md if keep else None)


def judged(**changes: Any) -> Judged:
    rng = torch.Generator().manual_seed(0)
    parts: dict[str, Any] = {
        "features_Nd": torch.randn(N, D, generator=rng, dtype=torch.float64),
        "logits_NK": torch.randn(N, K, generator=rng, dtype=torch.float64),
        "classes_NK": torch.randn(N, K, generator=rng, dtype=torch.float64),
        "condition": Labels(torch.arange(N) % K, K),
        "told": {name: 0.1 * place for place, name in enumerate(TOLD, start=1)},
        "reference": reference_of(0.5 + torch.randn(M, D, generator=rng, dtype=torch.float64)),
    }
    return Judged(**parts | changes)


def slowly(images: Judged) -> dict[str, float]:
    """Every metric from its definition, point by point."""
    assert images.real_Md is not None and images.logits_NK is not None and images.classes_NK is not None
    ours, theirs = images.features_Nd.numpy(), images.real_Md.numpy()
    shift, first, second = ours.mean(0) - theirs.mean(0), np.cov(ours.T), np.cov(theirs.T)
    found = {"distance": shift @ shift + np.trace(first + second - 2 * sqrtm(first @ second).real)}

    def kernel(left: np.ndarray, right: np.ndarray, same: bool) -> float:
        pairs = [(i, j) for i in range(len(left)) for j in range(len(right)) if not (same and i == j)]
        return float(np.mean([(left[i] @ right[j] / D + 1) ** 3 for i, j in pairs]))

    cross = kernel(ours, theirs, same=False)
    found["kernel_distance"] = kernel(ours, ours, same=True) + kernel(theirs, theirs, same=True) - 2 * cross
    order = np.random.RandomState(2020).permutation(N)
    scores = []
    for part in np.split(images.logits_NK.softmax(-1).numpy()[order], 10):
        divergences = [
            sum(p * math.log(p / q) for p, q in zip(row, part.mean(0), strict=True)) for row in part
        ]
        scores.append(math.exp(np.mean(divergences)))
    found["score"] = float(np.mean(scores))

    seen = [int(row.argmax()) for row in images.classes_NK]
    asked = [i % K for i in range(N)]
    found["accuracy"] = sum(a == b for a, b in zip(seen, asked, strict=True)) / N
    found["class_drift"] = sum(abs(seen.count(k) - asked.count(k)) for k in range(K)) / (2 * N)

    def radius(points: np.ndarray, i: int) -> float:
        return sorted(np.linalg.norm(points - points[i], axis=1))[5]

    far = np.array([[np.linalg.norm(a - b) for b in theirs] for a in ours])
    in_real = np.array([[far[i, j] <= radius(theirs, j) for j in range(M)] for i in range(N)])
    in_ours = np.array([[far[i, j] <= radius(ours, i) for j in range(M)] for i in range(N)])
    found |= {"precision": in_real.any(1).mean(), "recall": in_ours.any(0).mean()}
    found |= images.told or {}  # each recomputed where scenes and puzzles are read
    return found | {"density": in_real.sum(1).mean() / 5, "coverage": in_real.any(0).mean()}


def test_every_metric_is_what_a_loop_makes_of_its_definition() -> None:
    images = judged()
    expected = slowly(images)
    assert tuple(NAMED) == METRICS and set(expected) == set(METRICS) - OF_CLIP
    for name, metric in NAMED.items():
        assert metric.name == name and metric.applies(images) == (name in expected)
        if name not in expected:
            continue
        assert metric.compute(images) == pytest.approx(expected[name], rel=1e-9), name


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"logits_NK": None}, {"score"}),
        ({"classes_NK": None}, {"accuracy", "class_drift"}),
        ({"told": None}, set(TOLD)),
        ({"told": {"caption": 0.5}}, set(TOLD) - {"caption"}),
        (
            {"reference": reference_of(torch.randn(M, D), keep=False)},
            {"kernel_distance", "precision", "recall", "density", "coverage"},
        ),
    ],
)
def test_what_is_not_there_leaves_out_what_needs_it(changes: dict[str, Any], missing: set[str]) -> None:
    images = judged(**changes)
    found = {name for name, metric in NAMED.items() if metric.applies(images)}
    assert set(METRICS) - found == missing | OF_CLIP
    assert all(math.isfinite(NAMED[name].compute(images)) for name in found)


def test_the_better_end_is_that_of_images_like_the_real_ones() -> None:
    """Real images beside such as lie elsewhere, of one class, whatever was asked for."""
    real_Md = torch.randn(M, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    condition = Labels(torch.arange(M) % K, K)
    right_MK = 9 * condition.vectors.double()
    wrong_MK = torch.zeros(M, K, dtype=torch.float64) + torch.eye(K, dtype=torch.float64)[0]
    shared = {"condition": condition, "reference": reference_of(real_Md)}
    told = {"told": dict.fromkeys(TOLD, 0.9)}
    good = judged(features_Nd=real_Md + 0.01, logits_NK=right_MK, classes_NK=right_MK, **told, **shared)
    told = {"told": dict.fromkeys(TOLD, 0.2)}
    bad = judged(features_Nd=real_Md * 0.1 + 2, logits_NK=wrong_MK, classes_NK=wrong_MK, **told, **shared)
    for name, metric in [pair for pair in NAMED.items() if pair[0] not in OF_CLIP]:
        values = metric.compute(good), metric.compute(bad)
        assert values[0] != values[1] and metric.best(values) == values[0], name


def test_tables_have_the_columns_that_the_entries_name() -> None:
    row = {name: 0.123456 + number for number, name in enumerate(NAMED)}
    for columns, brief in ((COLUMNS, True), (FULL_COLUMNS, False)):
        shown = [metric for metric in NAMED.values() if metric.header and (metric.brief or not brief)]
        header, _, line = format_table([row], columns).splitlines()
        assert header.split() == [metric.header for metric in shown]
        assert line.split() == [metric.format.format(row[metric.name]) for metric in shown]
    assert NAMED["class_drift"].header is None
