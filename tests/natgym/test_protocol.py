"""Protocols and comparisons: what differs is said in words, and never ranked."""

import dataclasses
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_rel
from torch import Tensor, nn

from generators.data import load_split
from generators.images import eight_bits
from natgym.evaluation.comparison import compare, compare_results, read_results
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.evaluation.protocol import EvaluationProtocol
from natgym.evaluation.scorer import Scorer
from natgym.evaluation.tables import set_against, summarize
from natgym.metrics import METRICS, MomentsAccumulator
from natgym.metrics.extractors import extract, load_extractor
from natgym.metrics.puzzles import PuzzleReader
from natgym.metrics.reference import Reference
from natgym.metrics.scenes import Read
from rounding import assert_rounded

OF_CLASSES = tuple(name for name in METRICS if name not in (*Read._fields, *PuzzleReader.tells, "cmmd"))

BASE = EvaluationProtocol(
    task="digits",
    split="report",
    reference_images=400,
    reference="aaa",
    generator="ggg",
    tokenizer="ttt",
    extractor="eee",
    images=5000,
    seeds=(0, 1, 2),
    distance="a distance",
)
OTHER: dict[str, Any] = {
    "task": "mnist",
    "split": "select",
    "reference_images": 10_000,
    "reference": "bbb",
    "extractor": "fff",
    "images": 2000,
    "conditions": "random",
    "distance": "another distance",
    "kernel": "another kernel",
    "quantisation": "none",
    "neighbors": 3,
    "neighborhoods": 10_000,
    "name": "imagenet256-adm",
}
COMPARABLE: dict[str, Any] = {
    "generator": "hhh",
    "tokenizer": "uuu",
    "encoder": "words-vvv",
    "precision": "bfloat16",
    "seeds": (0, 1),
}


def test_every_field_is_either_compared_or_forbids_it() -> None:
    fields = {field.name for field in dataclasses.fields(EvaluationProtocol)}
    assert fields == set(OTHER) | set(COMPARABLE)


@pytest.mark.parametrize("name", OTHER)
def test_a_difference_that_forbids_a_ranking_is_named(name: str) -> None:
    ours, theirs = BASE.manifest(), dataclasses.replace(BASE, **{name: OTHER[name]}).manifest()
    found = compare(ours, theirs)
    assert len(found.forbidding) == 1 and not found.notes
    line = found.forbidding[0]
    assert line.startswith(f"{name}: ") and " against " in line and "unknown" not in line
    assert str(OTHER[name]) in line.replace(",", "")


@pytest.mark.parametrize("name", COMPARABLE)
def test_what_may_be_compared_is_a_note(name: str) -> None:
    found = compare(BASE.manifest(), dataclasses.replace(BASE, **{name: COMPARABLE[name]}).manifest())
    assert not found.forbidding and len(found.notes) == 1 and found.notes[0].startswith(f"{name}: ")


def test_equal_protocols_have_nothing_to_say_and_unknown_fields_forbid() -> None:
    assert compare(BASE.manifest(), json.loads(json.dumps(BASE.manifest()))) == compare({}, {})
    found = compare(BASE.manifest(), BASE.manifest() | {"crop": 224})
    assert found.forbidding == ["crop: not said against 224 (unknown to this version)"]
    unsaid = compare(BASE.manifest(), {}).forbidding
    assert any(line.startswith("images: 5,000 against not said") for line in unsaid)


def row(policy: str, distances: list[float], steps: int = 4, nfe: float = 7.0) -> dict[str, Any]:
    columns = {name: distances for name in (*OF_CLASSES, "nfe", "images_per_second")}
    frame = pd.DataFrame({"seed": range(len(distances))} | columns)
    return summarize(policy, steps, frame, 0) | {"nfe": nfe}


def write(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    folder.mkdir()
    protocol = dataclasses.replace(BASE, **changes).manifest()
    real = {"policy": "real, n=5,000", "comparable": True, "distance": 0.1}
    (folder / "results.json").write_text(json.dumps({"protocol": protocol, "rows": [*rows, real]}))
    return folder


def test_results_of_one_protocol_are_ranked_with_their_paired_differences(tmp_path: Path) -> None:
    ours, theirs = [1.0, 1.2, 1.1], [1.5, 1.6, 1.9]
    first = write(tmp_path / "a", [row("maskgit", ours), row("reference", [3.0, 3.1, 3.2])])
    second = write(tmp_path / "b", [row("maskgit", theirs)], generator="hhh")
    found, said = compare_results(first, second / "results.json")
    assert not found.forbidding and "Note: generator: ggg against hhh" in said
    table = [line.split()[:2] for line in said.splitlines() if line[:2] in ("A ", "B ")]
    assert table[:3] == [["A", "maskgit"], ["B", "maskgit"], ["A", "reference"]]
    interval = ttest_rel(ours, theirs).confidence_interval(0.95)
    mean = np.mean(ours) - np.mean(theirs)
    assert f"A - B, maskgit, T = 4: {mean:+.3f} ± {(interval[1] - interval[0]) / 2:.3f}" in said


def test_results_of_two_protocols_are_explained_and_not_ranked(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [row("maskgit", [1.0, 1.2])])
    second = write(tmp_path / "b", [row("maskgit", [0.5, 0.6])], images=2000, quantisation="none")
    found, said = compare_results(first, second)
    assert len(found.forbidding) == 2 and "can't be ranked" in said
    assert "images: 5,000 against 2,000 (a Frechet distance falls with the number" in said
    assert "quantisation: 8 bits against none" in said and "1.100" not in said, "no table"


def test_rows_may_carry_protocols_of_their_own(tmp_path: Path) -> None:
    other = dataclasses.replace(BASE, images=7).manifest()
    first = write(tmp_path / "a", [row("maskgit", [1.0]) | {"protocol": other}])
    assert [found["protocol"]["images"] for found in read_results(first)] == [7]
    assert compare_results(first, write(tmp_path / "b", [row("maskgit", [1.0])]))[0].forbidding


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{}", '{"protocol": {}, "rows": [{"policy": "x", "steps": 1}]}']
)
def test_what_is_no_result_is_named(tmp_path: Path, text: str | None) -> None:
    (path := tmp_path / "run").mkdir()
    if text is not None:
        (path / "results.json").write_text(text)
    with pytest.raises(ValueError, match="results.json"):
        read_results(path)


def test_rows_are_set_against_the_baseline_of_their_steps() -> None:
    rows = [
        row("b", [2.0, 2.5], 4, 7),
        row("a", [1.0, 1.5], 4, 7),
        row("a", [1.0, 1.1], 8, 15),
        row("b", [1.0, 1.3], 8, 15),
        row("adaptive", [4.0, 4.0], 49, 12),
    ]
    found = set_against(rows, "a")
    assert [r["nfe"] for r in found] == [7, 7, 12, 15, 15]
    told = {(r["policy"], r["steps"]): r.get("difference") for r in found}
    assert told["a", 4] is None is told["a", 8]
    assert {key: told["b", 4][key] for key in ("policy", "minus", "steps", "mean", "n")} == {
        "policy": "b",
        "minus": "a",
        "steps": 4,
        "mean": 1.0,
        "n": 2,
    }
    assert told["b", 8]["steps"] == 8 and told["b", 8]["mean"] == pytest.approx(0.1)
    assert told["adaptive", 49]["steps"] == 8, "the nearest NFE"
    assert told["adaptive", 49]["mean"] == pytest.approx(4 - 1.05)


class Halves(nn.Module):
    """Two features of an image, the means of its halves; logits of two classes."""

    num_features, meaning = 2, "a distance of halves"

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        halves = torch.stack([half.mean((1, 2, 3)) for half in images_BCHW.chunk(2, dim=3)], dim=1)
        return halves, 10 * halves


def test_eight_bits_are_those_of_a_saved_picture() -> None:
    images = torch.rand(2, 1, 16, 16) * 1.2 - 0.1
    saved = torch.from_numpy((images.clamp(0, 1).numpy() * 255).round().astype(np.uint8)).float() / 255
    assert_rounded(eight_bits(images), saved)
    assert torch.equal(eight_bits(eight_bits(images)), eight_bits(images))
    features, _ = extract(Halves(), images, quantise=False)
    assert torch.equal(features, Halves()(images)[0])
    assert torch.equal(extract(Halves(), images)[0], Halves()(eight_bits(images))[0])


def moments(part: Any) -> dict[str, np.ndarray]:
    features = Halves()(eight_bits(part.images_NCHW))[0].double().numpy()
    return {"mu": features.mean(0), "sigma": np.cov(features.T)}


def test_statistics_of_a_file_give_the_distance_that_their_pictures_give(tmp_path: Path, digits: Any) -> None:
    """All that needs the images themselves is left out."""
    select, report = load_split("digits", "select"), load_split("digits", "report")
    np.savez(tmp_path / "adm.npz", **moments(select), arr_0=np.zeros((3, 8, 8, 3), np.uint8))
    reference = Reference.load(tmp_path / "adm.npz", Halves())
    of_file = Scorer(digits.score_extractor, reference, extractor=Halves())
    of_part = Scorer(digits.score_extractor, select, extractor=Halves())
    found, expected = (judge.score(report.images_NCHW, report.condition) for judge in (of_file, of_part))
    assert set(found) == {"distance", "score", "accuracy", "class_drift"} and set(expected) == set(OF_CLASSES)
    assert found["distance"] == pytest.approx(expected["distance"], rel=1e-9)
    assert (found["score"], found["accuracy"]) == (expected["score"], expected["accuracy"])
    without = Scorer(None, select, extractor=Halves()).score(report.images_NCHW, report.condition)
    assert "accuracy" not in without and without["distance"] == expected["distance"]
    with pytest.raises(ValueError, match="a classifier or an extractor"):
        Scorer(None, select)


def test_other_files_are_no_reference(tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.savez(tmp_path / "mean.npz", mu=np.zeros(2))
    np.savez(tmp_path / "evil.npz", mu=np.array([print], dtype=object), sigma=np.eye(2))
    (tmp_path / "text.npz").write_text("x")
    with pytest.raises(ValueError, match="wide.npz holds statistics of 3 features, the extractor gives 2"):
        Reference.load(tmp_path / "wide.npz", Halves())
    for name in ("mean", "evil", "text", "absent"):
        with pytest.raises(ValueError, match=f"{name}.npz holds no statistics"):
            Reference.load(tmp_path / f"{name}.npz", Halves())


@pytest.mark.parametrize(
    ("sigma", "said"),
    [
        ([[1.0, 0.5], [0.0, 1.0]], "sigma is no covariance, it is not symmetric"),
        ([[-1.0, 0.0], [0.0, -1.0]], "sigma is no covariance, its least eigenvalue is -1"),
        ([[1.0, math.nan], [math.nan, 1.0]], "its values are not all real and finite"),
        ([[1.0, 1j], [-1j, 1.0]], "its values are not all real and finite"),
    ],
)
def test_statistics_that_can_be_of_no_images_are_refused(tmp_path: Path, sigma: Any, said: str) -> None:
    np.savez(tmp_path / "x.npz", mu=np.zeros(2), sigma=np.array(sigma))
    with pytest.raises(ValueError, match=f"x.npz.*{said}"):
        Reference.load(tmp_path / "x.npz", Halves())


@pytest.mark.parametrize("share", [0, 3, 7, 9])
def test_statistics_that_were_cut_are_no_reference(tmp_path: Path, share: int) -> None:
    np.savez(tmp_path / "x.npz", mu=np.zeros(2), sigma=np.eye(2))
    data = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(data[: share * len(data) // 10])
    with pytest.raises(ValueError, match="x.npz holds no statistics"):
        Reference.load(tmp_path / "x.npz", Halves())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "of images 0 to 199 some have pixels that are not finite"),
        (math.inf, "of images 0 to 199 some have pixels that are not finite"),
        (1e9, r"pixels of images 0 to 199 go from 0 to 1e\+09; they have to lie in \[0, 1\]"),
        (-5.0, "pixels of images 0 to 199 go from -5 to 1;"),
    ],
)
def test_pixels_that_are_none_are_told(digits: Any, value: float, said: str) -> None:
    """Clamping would hide them; a small overshoot is clamped."""
    select = digits.split("select")
    images_NCHW = select.images_NCHW.clone()
    images_NCHW[7, 0, 0, 0] = value
    with pytest.raises(ValueError, match=said):
        Scorer(digits.score_extractor, select).score(images_NCHW, select.condition)
    images_NCHW[7, 0, 0, 0] = 1.1
    Scorer(digits.score_extractor, select).score(images_NCHW, select.condition)


def test_extractors_by_name() -> None:
    for kind in ("inception", "dinov2", "dinov2-small"):
        with pytest.raises(ValueError, match=f"{kind} needs its --weights"):
            load_extractor(kind, None)
    with pytest.raises(ValueError, match="'resnet' is not one of classifier, inception, clip, dinov2"):
        load_extractor("resnet", None)


def test_the_law_of_the_conditions(digits: Any) -> None:
    given: dict[str, Any] = {"split": "select", "images": 300}
    even = Evaluator(digits, EvaluationConfig(**given)).conditions(0)
    assert even.names == [str(i % 10) for i in range(300)]
    law = Evaluator(digits, EvaluationConfig(**given, conditions="random"))
    counts = np.bincount([int(name) for name in law.conditions(1).names], minlength=10)
    assert counts.sum() == 300 and counts.min() < 30 < counts.max() and ((counts - 30) ** 2 / 30).sum() < 27.9
    assert law.conditions(1).names == law.conditions(1).names != law.conditions(2).names
    assert law.protocol.conditions == "random"


def test_what_is_kept_of_the_real_pictures_changes_no_number(digits: Any) -> None:
    """Radii and kernel means of the reference are taken once, and are those taken anew."""
    select, report = load_split("digits", "select"), load_split("digits", "report")
    scorer = Scorer(digits.score_extractor, select)
    first = scorer.score(report.images_NCHW, report.condition)
    assert scorer.score(report.images_NCHW, report.condition) == first
    assert Scorer(digits.score_extractor, select).score(report.images_NCHW, report.condition) == first
    accumulator = MomentsAccumulator(32)
    accumulator.update(extract(digits.score_extractor, select.images_NCHW)[0])
    assert torch.equal(accumulator.compute().mean, scorer.reference.moments.mean)


def test_an_archive_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    """Zeros pack to a thousandth of their size."""
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("mu.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(  # type: ignore[attr-defined]
                file, {"descr": "<f8", "fortran_order": False, "shape": (40_000_000,)}
            )
            for _ in range(40):
                file.write(bytes(8_000_000))
    assert (tmp_path / "bomb.npz").stat().st_size < 1e6
    with pytest.raises(ValueError, match=r"bomb.npz holds no .*mu.npy unpacks to 320,000,128 bytes"):
        Reference.load(tmp_path / "bomb.npz", Halves())
