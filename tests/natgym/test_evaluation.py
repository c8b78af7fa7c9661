"""Evaluation: numbers recomputed by hand, the same noise for every policy, protocols that tell all."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import ttest_rel
from torch import Tensor

from generators.checkpoints import weights_hash
from generators.conditions import Labels
from generators.data import Split, load_split
from generators.noise import derive_seed
from generators.rules import DecodeRules
from generators.schedules import maskgit, reference
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.evaluation.scorer import Scorer
from natgym.evaluation.statistics import Difference, paired_difference
from natgym.evaluation.tables import COLUMNS, format_table, summarize
from natgym.metrics import METRICS
from natgym.metrics.puzzles import PuzzleReader
from natgym.metrics.scenes import Read
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout

OF_CLASSES = tuple(name for name in METRICS if name not in (*Read._fields, *PuzzleReader.tells, "cmmd"))

IMAGES = 40


@pytest.fixture(scope="module")
def select() -> Split:
    return load_split("digits", "select")


@pytest.fixture(scope="module")
def noisy(select: Split) -> Tensor:
    """Images that are somewhat wrong."""
    images = select.images_NCHW[:150]
    return (images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def evaluator(digits: Any, part: Split, **arguments: Any) -> Evaluator:
    how = {name: arguments.pop(name) for name in ("rules", "threads", "metrics") if name in arguments}
    given = {"split": "select", "images": IMAGES, "seeds": (0, 1)} | arguments
    scorer = Scorer(digits.score_extractor, part)
    return Evaluator(digits, EvaluationConfig(**given), scorer=scorer, **how)


def frechet(first_Nd: np.ndarray, second_Md: np.ndarray) -> float:
    """The textbook formula with scipy's matrix root."""
    means, covariances = zip(*((x.mean(0), np.cov(x.T)) for x in (first_Nd, second_Md)), strict=True)
    root = sqrtm(covariances[0] @ covariances[1]).real
    shift = means[0] - means[1]
    return float(shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root))


def features_of(digits: Any, images_NCHW: Tensor, bits: int | None = 8) -> np.ndarray:
    """Round, then look, image by image."""
    if bits is not None:
        images_NCHW = torch.from_numpy(np.rint(images_NCHW.numpy() * 255).astype(np.uint8)) / 255
    return np.stack([digits.score_extractor(image[None])[0][0].double().numpy() for image in images_NCHW])


def test_distance_is_zero_for_the_part_itself_and_the_textbooks_for_others(
    digits: Any, select: Split, noisy: Tensor
) -> None:
    scorer = Scorer(digits.score_extractor, select)
    assert scorer.distance(select.images_NCHW) == pytest.approx(0, abs=1e-6)
    expected = frechet(*(features_of(digits, images) for images in (noisy, select.images_NCHW)))
    assert expected > 0.1
    for _ in range(2):  # nothing is left over from the call before
        assert scorer.distance(noisy) == pytest.approx(expected, rel=1e-4)
    assert scorer.score(noisy, select.condition[:150])["distance"] == scorer.distance(noisy)


def test_accuracy_is_counted_one_by_one(digits: Any, select: Split, noisy: Tensor) -> None:
    scorer = Scorer(digits.score_extractor, select)
    seen = torch.from_numpy(np.rint(noisy.numpy() * 255).astype(np.uint8)) / 255
    right = [
        int(digits.score_extractor(seen[i : i + 1])[1].argmax()) == int(select.condition.values[i])
        for i in range(150)
    ]
    scores = scorer.score(noisy, select.condition[:150])
    assert 0.2 < sum(right) / 150 < 1 and scores["accuracy"] == pytest.approx(sum(right) / 150)
    assert tuple(scores) == OF_CLASSES and all(math.isfinite(score) for score in scores.values())
    seen_classes = digits.score_extractor(seen)[1].argmax(1).tolist()
    asked = select.condition.values[:150].tolist()
    moved = [abs(asked.count(label) - seen_classes.count(label)) for label in range(10)]
    assert scores["class_drift"] == pytest.approx(sum(moved) / 2 / 150) and sum(moved) > 0
    swapped = Labels((select.condition.values[:150] + 1) % 10, 10)
    assert scorer.score(noisy, swapped)["accuracy"] < 0.2


def test_many_pictures_are_judged_in_chunks_that_do_not_show(digits: Any, select: Split) -> None:
    judge, many = Scorer(digits.score_extractor, select), select.images_NCHW.repeat(6, 1, 1, 1)[:1100]
    expected = frechet(*(features_of(digits, images) for images in (many, select.images_NCHW)))
    assert judge.distance(many) == pytest.approx(expected, abs=1e-5)


def test_scores_follow_from_the_evaluation_seed(digits: Any, select: Split) -> None:
    policy = FixedPolicy(reference(2))
    first, again = (evaluator(digits, select)(policy).drop(columns="images_per_second") for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(
        first, evaluator(digits, select, threads=2)(policy).drop(columns="images_per_second")
    )
    assert first["seed"].tolist() == [0, 1] and first["distance"][0] != first["distance"][1]
    other = evaluator(digits, select, seeds=(7, 1))(policy)
    assert other["distance"][0] not in set(first["distance"]) and other["distance"][1] == first["distance"][1]


def test_a_row_of_scores_is_one_rollout_judged(digits: Any, select: Split) -> None:
    counted: list[int] = []
    row = evaluator(digits, select, seeds=(3,))(FixedPolicy(reference(2)), counted.append).iloc[0]
    condition = balanced(digits.generator.conditions(), IMAGES)
    seed = derive_seed("evaluation", "select", 3)
    drawn = rollout(FixedPolicy(reference(2)), digits.generator, digits.tokenizer, condition, seed=seed)
    scores = Scorer(digits.score_extractor, select).score(drawn.images_NCHW, condition)
    assert {name: row[name] for name in OF_CLASSES} == scores
    assert row["nfe"] == drawn.nfe_N.mean() and sum(counted) == IMAGES and row["images_per_second"] > 0
    played = evaluator(digits, select, seeds=(3,), rules=DecodeRules(min_reveal=0))(
        FixedPolicy(reference(16))
    )
    clamped = evaluator(digits, select, seeds=(3,), rules=DecodeRules(min_reveal=1))(
        FixedPolicy(reference(16))
    )
    assert played["distance"][0] != clamped["distance"][0], "min_reveal reaches the decoding"


def test_the_protocol_names_everything_a_number_depends_on(digits: Any, select: Split) -> None:
    told = evaluator(digits, select).manifest()
    assert json.loads(json.dumps(told)) == told | {"seeds": [0, 1]}
    assert told["generator"] == weights_hash(digits.generator)
    assert told["tokenizer"] == weights_hash(digits.tokenizer)
    assert told["extractor"] == weights_hash(digits.score_extractor)
    assert "not the Inception FID" in told["distance"]
    few = Split(select.images_NCHW[:100], select.condition[:100])
    changes: dict[str, Any] = {
        "split": evaluator(digits, select, split="report"),
        "images": evaluator(digits, select, images=41),
        "seeds": evaluator(digits, select, seeds=(0,)),
        "reference_images": evaluator(digits, few),
    }
    for name, other in changes.items():
        assert other.protocol != evaluator(digits, select).protocol
        assert other.manifest()[name] != told[name]
    altered = Split(select.images_NCHW.flip(0), select.condition)
    assert evaluator(digits, altered).protocol != evaluator(digits, select).protocol
    with pytest.raises(dataclasses.FrozenInstanceError):
        evaluator(digits, select).protocol.images = 1  # type: ignore[misc]


def test_few_real_pictures_make_a_row_that_does_not_compare(digits: Any, select: Split) -> None:
    report = load_split("digits", "report")
    scorer = evaluator(digits, select, images=len(report) + 1)
    row = scorer.floor(report)
    assert row["comparable"] is False and row["policy"] == "real, n=400"
    assert row["distance"] == scorer.scorer.distance(report.images_NCHW)
    assert "not comparable" in scorer.legend() and len(scorer.legend().splitlines()) == 3


def test_real_pictures_are_judged_at_the_tables_number(digits: Any, select: Split) -> None:
    """As many as are generated, others for each seed, none twice."""
    report = load_split("digits", "report")
    scorer = evaluator(digits, select, images=100, seeds=(0, 1))
    seen: list[Any] = []
    look = scorer.scorer.look

    def watched(stream: Any, metrics: Any) -> Any:
        batches = list(stream)
        seen.append(torch.cat([images_BCHW for images_BCHW, _ in batches]))
        return look(batches, metrics)

    scorer.scorer.look = watched  # type: ignore[method-assign]
    row = scorer.floor(report)
    assert row["comparable"] is True and row["policy"] == "real, n=100"
    assert [len(images.unique(dim=0)) for images in seen] == [100, 100] and not seen[0].equal(seen[1])
    distances = [scorer.scorer.distance(images) for images in seen]
    assert row["distance"] == pytest.approx(np.mean(distances))
    assert row["distance_std"] == pytest.approx(np.std(distances, ddof=1))


def frame(distances: list[float], seeds: list[int] | None = None) -> pd.DataFrame:
    columns = {name: distances for name in (*OF_CLASSES, "nfe", "images_per_second")}
    return pd.DataFrame({"seed": seeds or list(range(len(distances)))} | columns)


def test_the_paired_interval_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 10):
        ours, theirs = rng.normal(1, 1, n), rng.normal(0, 1, n)
        found = paired_difference(frame(ours.tolist()), frame(theirs.tolist()))
        interval = ttest_rel(ours, theirs).confidence_interval(0.95)
        ends = found.mean - found.half_width, found.mean + found.half_width
        assert ends == pytest.approx(tuple(interval)) and found.n == n
        assert found.mean == pytest.approx((ours - theirs).mean())
        assert found.each == pytest.approx(tuple(ours - theirs))
    ours, theirs = frame([1.0, 2.0]), frame([1.0, 2.0])
    ours["accuracy"] = [0.5, 0.7]
    none = paired_difference(ours, theirs, policy="a", minus="b")
    assert (none.mean, none.half_width, str(none)) == (0, 0, "+0.000 ± 0.000")
    other = paired_difference(ours, theirs, "accuracy", over="trainings")
    assert other.mean == pytest.approx(0.6 - 1.5) and (other.metric, other.over) == ("accuracy", "trainings")
    assert Difference.of_row(json.loads(json.dumps(none.row()))) == none


def test_one_seed_gives_no_interval() -> None:
    found = paired_difference(frame([2.0]), frame([0.5]))
    assert found.mean == 1.5 and math.isnan(found.half_width) and str(found) == "+1.500"
    before = {"policy": "a", "minus": "b", "mean": 0.25, "half_width": None}
    assert str(Difference.of_row(before)) == "+0.250", "a file of before, which has no n"


@pytest.mark.parametrize("seeds", [[0, 2], [1, 0], [0]])
def test_scores_of_other_seeds_are_not_paired(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="not paired"):
        paired_difference(frame([1.0, 2.0], [0, 1]), frame([1.0] * len(seeds), seeds))


def test_a_summary_has_means_and_sample_deviations() -> None:
    scores = [1.0, 2.0, 4.0]
    row = summarize("adanat", 4, frame(scores), 1234)
    mean = sum(scores) / 3
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / 2)
    assert (row["policy"], row["steps"], row["seeds"], row["images_spent"]) == ("adanat", 4, 3, 1234)
    for name in (*OF_CLASSES, "nfe", "images_per_second"):
        assert row[name] == pytest.approx(mean)
    assert row["distance_std"] == row["kernel_distance_std"] == pytest.approx(deviation)
    json.dumps(row, allow_nan=False)


def test_a_table_is_aligned_and_prints_what_is_missing_as_a_dash() -> None:
    rows = [summarize("a long policy name", 4, frame([1.0, 2.0]), 1234567), {"policy": "real", "steps": None}]
    header, rule, first, second = format_table(rows).splitlines()
    assert len(header) == len(rule) == len(first) == len(second) and set(rule) == {"-"}
    assert header.split()[:3] == ["policy", "T", "distance"] and "images spent" in header
    assert first.startswith("a long policy name") and first.endswith("1,234,567")
    assert "1.500" in first and second.split() == ["real"] + ["-"] * 10
    edge = header.index("policy") + len("policy")
    shown = [title for name, (title, _) in COLUMNS.items() if name in rows[0]]
    assert "GFLOP" not in header and "GFLOP" in format_table([rows[0] | {"gflop": 1.0}])
    for title in shown[1:]:  # right edges of the numbers stand below each other
        edge = header.index(title, edge) + len(title)
        assert first[edge - 1].isdigit() and second[edge - 2 : edge] == " -"


def test_policies_differ_by_more_than_their_names(digits: Any, select: Split) -> None:
    scorer = evaluator(digits, select)
    found = paired_difference(scorer(FixedPolicy(reference(4))), scorer(FixedPolicy(maskgit(4))))
    assert found.mean != 0


def long_tailed(split: Split, seed: int) -> Split:
    """Nine tenths of the class 0, drawn from half of a split's images of each class."""
    rng, labels = np.random.default_rng(seed), split.condition.values.numpy()
    halves = [np.flatnonzero(labels == label)[seed::2] for label in range(10)]
    rows = np.concatenate([rng.choice(half, 450 if label == 0 else 5) for label, half in enumerate(halves)])
    return Split(split.images_NCHW[rows], split.condition[torch.from_numpy(rows)])


def test_classes_can_be_drawn_as_often_as_the_data_have_them(digits: Any) -> None:
    train = load_split("digits", "train")
    real, others = long_tailed(train, 0), long_tailed(train, 1)
    even, like = (evaluator(digits, real, conditions=law, images=990) for law in ("balanced", "data"))
    assert like.conditions(0).values.bincount(minlength=10).tolist() == [900, *[10] * 9]
    assert like.mismatch == 0 and even.mismatch == pytest.approx(450 / 495 - 0.1)
    assert "total variation 0.81" in even.legend() and "total variation" not in like.legend()
    (floor,) = like.floors(others)
    as_they_are, balanced_too = even.floors(others)
    assert floor["distance"] == as_they_are["distance"]
    assert balanced_too["policy"] == "real, balanced"
    assert balanced_too["distance"] > 20 * as_they_are["distance"], "real images, under another law"
    assert even.protocol != like.protocol


def test_too_few_real_images_are_refused_and_few_are_told(digits: Any, select: Split) -> None:
    def few(number: int) -> Split:
        return Split(select.images_NCHW[:number], select.condition[:number])

    with pytest.raises(ValueError, match="5 real images are too few to judge by"):
        Scorer(digits.score_extractor, few(5))
    with pytest.warns(UserWarning, match="20 real images judge in 32 features"):
        Scorer(digits.score_extractor, few(20))


def test_fewer_images_than_the_score_has_parts_have_none(digits: Any, select: Split) -> None:
    judge = evaluator(digits, select)
    nine, ten = (judge.floor(Split(select.images_NCHW[:n], select.condition[:n])) for n in (9, 10))
    assert "score" not in nine and nine["policy"] == "real, n=9" and nine["accuracy"] > 0.5
    assert set(ten) == {*nine, "score"} and ten["score"] == 1, "each part is of one"


def test_statistics_from_a_file_and_the_datas_classes_are_refused_at_once(digits: Any, select: Split) -> None:
    scorer = Scorer(digits.score_extractor, select)
    scorer.reference = dataclasses.replace(scorer.reference, condition=None)
    with pytest.raises(ValueError, match="conditions data: statistics from a file say nothing of classes"):
        Evaluator(digits, EvaluationConfig(split="-", images=IMAGES, conditions="data"), scorer=scorer)
