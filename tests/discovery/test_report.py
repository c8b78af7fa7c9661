"""Weights by reliability, the table of assignments, figures, comparisons over splits, and the audit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

from generators.schedules import as_schedule
from natgym.discovery.audit import audit, audit_figure
from natgym.discovery.balance import branch_weights, reliability
from natgym.discovery.methods import METHODS, changed, parse_settings
from natgym.discovery.modality import FrozenViews, LiveWords, modalities_of
from natgym.discovery.objective import DiscoveryConfig
from natgym.discovery.pairs import PairsConfig, described_digits, load_pairs
from natgym.discovery.report import BETTER, Discovery, differences, format_shares, frame_of, score, summarize
from natgym.discovery.split import split_pairs
from natgym.rollouts import balanced, rollout
from natgym.task import Task


def test_reliability_is_agreement_of_clusters_with_old_categories(blobs: Callable) -> None:
    modalities, labels = blobs(spread=0.1)
    sharp = modalities["image"].features_NVD[:, 0].numpy()
    targets = np.where((labels < 4) & (np.arange(len(labels)) % 2 == 0), labels, -1)
    assert reliability(sharp, targets) == pytest.approx(1)
    noise = np.random.default_rng(0).normal(size=sharp.shape)
    assert reliability(noise, targets) < 0.15
    unlabelled = np.where(targets[:, None] < 0, 1e6, sharp)  # of no consequence
    assert reliability(unlabelled, targets) == reliability(sharp, targets)
    with pytest.raises(ValueError, match="one old category"):
        reliability(sharp, np.where(targets == 0, 0, -1))


def test_weights_follow_reliability_and_sum_to_one(blobs: Callable) -> None:
    modalities, labels = blobs(spread=0.1)
    targets = np.where((labels < 4) & (np.arange(len(labels)) % 2 == 0), labels, -1)
    noise = torch.randn(modalities["text"].features_NVD.shape, generator=torch.Generator().manual_seed(0))
    weak = {"image": modalities["image"], "text": FrozenViews(noise, modalities["text"].present_N)}
    assert branch_weights(weak, targets, "equal") == {"image": 0.5, "text": 0.5}
    found = branch_weights(weak, targets, "reliability")
    assert found["image"] > 0.85 and sum(found.values()) == pytest.approx(1)
    assert branch_weights({"image": weak["image"]}, targets, "reliability") == {"image": 1.0}


def test_methods_see_what_they_say(blobs: Callable) -> None:
    modalities, _ = blobs(K=2, each=4)
    assert set(modalities_of(METHODS["mm-gcd"], modalities)) == {"image", "text"}
    assert set(modalities_of(METHODS["simgcd-text"], modalities)) == {"text"}
    joined = modalities_of(METHODS["simgcd-joined"], modalities)["joined"]
    assert joined.num_features == sum(m.num_features for m in modalities.values())
    modalities["text"].present_N[0] = False
    with pytest.raises(ValueError, match="modality text; mm-gcd can do without"):
        modalities_of(METHODS["simgcd-text"], modalities)
    with pytest.raises(ValueError, match="joined features have to be frozen"):
        modalities_of(METHODS["simgcd-joined"], {"image": modalities["image"], "text": LiveWords(["a"] * 8)})


def test_settings_of_single_methods() -> None:
    read = parse_settings(("mm-gcd:epochs=3,learning_rate=1e-3", "simgcd-text:entropy_weight=1"))
    assert read == {
        "mm-gcd": {"epochs": "3", "learning_rate": "1e-3"},
        "simgcd-text": {"entropy_weight": "1"},
    }
    config = changed(DiscoveryConfig(), read["mm-gcd"])
    assert (config.epochs, config.learning_rate) == (3, 1e-3)
    with pytest.raises(ValueError, match="learning: the settings are epochs"):
        changed(DiscoveryConfig(), {"learning": "1"})
    for bad in ("mmgcd:epochs=1", "mm-gcd", "mm-gcd:epochs"):
        with pytest.raises(ValueError, match="METHOD:NAME=VALUE"):
            parse_settings((bad,))


def results() -> list[dict]:
    rng = np.random.default_rng(0)
    found = []
    for method in ("simgcd-image", "simgcd-text", "mm-gcd"):
        for split in (2, 0, 1):
            shares = dict(zip(("all", "old", "new"), rng.random(3), strict=True))
            found.append({"split": split, "cpu_seconds": 2.0, "rows": {method: shares}})
    return found


def test_rows_and_differences_are_plain_statistics() -> None:
    found = results()
    shares = {(next(iter(r["rows"])), r["split"]): next(iter(r["rows"].values())) for r in found}
    rows = {row["method"]: row for row in summarize(frame_of(found))}
    expected = [shares["mm-gcd", split]["new"] for split in (0, 1, 2)]
    assert rows["mm-gcd"]["new"] == pytest.approx(np.mean(expected))
    assert (
        rows["mm-gcd"]["new_std"] == pytest.approx(np.std(expected, ddof=1)) and rows["mm-gcd"]["splits"] == 3
    )
    minus = {row["method"]: row for row in differences(frame_of(found), "mm-gcd")}
    assert list(minus) == [BETTER, "simgcd-image", "simgcd-text"]
    for name in ("simgcd-text", BETTER):
        apart = []
        for split in (0, 1, 2):
            singles = [shares[m, split] for m in ("simgcd-image", "simgcd-text")]
            theirs = max(singles, key=lambda s: s["all"]) if name == BETTER else singles[1]
            apart.append(shares["mm-gcd", split]["old"] - theirs["old"])
        interval = stats.t.interval(0.95, 2, np.mean(apart), stats.sem(apart))
        assert minus[name]["old"] == pytest.approx(np.mean(apart))
        assert minus[name]["old_half_width"] == pytest.approx((interval[1] - interval[0]) / 2)
    assert differences(frame_of(found), "k-means-text") == []


def test_tables_are_in_percent() -> None:
    row = {"method": "mm-gcd", "splits": 3, "cpu_seconds": 1.25}
    row |= {"all": 0.5, "old": 0.25, "new": np.nan, "all_std": 0.012, "old_std": np.nan, "new_std": np.nan}
    header, _, line = format_shares([row], "std").splitlines()
    assert header.split() == ["method", "All", "Old", "New", "splits", "CPU-s"]
    assert line.split() == ["mm-gcd", "50.0", "±", "1.2", "25.0", "-", "3", "1.2"]
    minus = {"method": "simgcd", "all": -0.1, "old": 0.25, "new": 0.0}
    minus |= {f"{share}_half_width": 0.5 for share in ("all", "old", "new")}
    header, _, line = format_shares([minus], "half_width", "+").splitlines()
    assert header.split() == ["method", "All", "Old", "New"], "a column that no row has is left out"
    assert line.split() == ["simgcd", "-10.0", "±", "50.0", "+25.0", "±", "50.0", "+0.0", "±", "50.0"]


def shows_something(figure: Figure, path: Path) -> bool:
    figure.savefig(path, dpi=60)
    from PIL import Image

    with Image.open(path) as image:
        return len(image.convert("L").getcolors() or []) > 20


def test_a_discovery_is_told_and_drawn(folder: Path, tmp_path: Path) -> None:
    pairs = load_pairs(PairsConfig(data=str(folder), size=16))
    split = split_pairs(pairs, seed=0)
    order = [*split.old, *(c for c in range(4) if c not in split.old)]
    clusters = np.argsort(order)[pairs.labels_N]
    clusters[7] = 3
    features = np.random.default_rng(0).normal(size=(48, 6)) + 5 * np.eye(6)[clusters]
    found = Discovery(pairs, split, clusters, np.linspace(0.3, 1, 48), features, "test")
    old = [pairs.class_names[c] for c in split.old]
    assert found.names == [*old, "new 1", "new 2"]
    table = found.table()
    assert list(table) == ["name", "category", "probability", "labelled", "label", "text"]
    assert table["category"][7] == "new 2" and (table["labelled"] == (split.targets_N >= 0)).all()
    assert (table["label"] == [pairs.class_names[c] for c in pairs.labels_N]).all()
    for name, figure in found.figures().items():
        assert shows_something(figure, tmp_path / f"{name}.png"), name
    assert set(found.figures()) == {"map", "confusion", "examples"}
    assert score(clusters, pairs, split)["all"] == pytest.approx(
        1 - 1 / split.judged_N.sum() * split.judged_N[7]
    )


def test_a_discovery_without_truth_has_no_confusion(folder: Path, edit: Callable) -> None:
    edit(folder, lambda rows: [row.update(label="") for row in rows[20:]])
    pairs = load_pairs(PairsConfig(data=str(folder), size=16))
    split = split_pairs(pairs)
    clusters = np.where(split.targets_N >= 0, split.targets_N, 2)
    found = Discovery(
        pairs, split, clusters, np.ones(48), np.random.default_rng(0).normal(size=(48, 6)), "test"
    )
    assert set(found.figures()) == {"map", "examples"}
    assert score(clusters, pairs, split) == {"all": None, "old": None, "new": None}
    assert isinstance(found.table(), pd.DataFrame)


def test_the_audit_finds_missing_categories_and_a_foreign_cluster(tmp_path: Path) -> None:
    """Planted: real digits without 7, 8 and 9, and noise; in raw pixels."""
    digits = described_digits()
    images, labels = digits.images(np.arange(1797)), digits.labels_N
    pixels = images.flatten(1).numpy()
    noise = torch.rand(150, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    planted = torch.cat([images[1400:][labels[1400:] < 7], noise])
    found = audit(
        pixels[:1000],
        labels[:1000],
        pixels[1000:1400],
        planted.flatten(1).numpy(),
        names=digits.class_names,
        extra=2,
    )
    assert found.covered_K.tolist() == [True] * 7 + [False] * 3
    foreign = np.isin(found.clusters_M, np.flatnonzero(found.nobodys_C))
    assert foreign[-150:].mean() > 0.95 and foreign[:-150].mean() < 0.05
    assert found.generated_C.sum() == pytest.approx(1) and found.control_C.sum() == pytest.approx(1)
    assert [row["verdict"] for row in found.rows()][:10] == ["covered"] * 7 + ["missing"] * 3
    assert shows_something(audit_figure(found, planted, "test"), tmp_path / "audit.png")


def test_the_audit_of_real_images_finds_nothing() -> None:
    digits = described_digits()
    order = np.random.default_rng(0).permutation(1797)  # the data set is sorted by writer
    pixels, labels = digits.images(order).flatten(1).numpy(), digits.labels_N[order]
    found = audit(pixels[:900], labels[:900], pixels[900:1350], pixels[1350:], names=digits.class_names)
    assert found.covered_K.all() and not found.nobodys_C.any()


def test_the_audit_tells_policies_apart() -> None:
    """Digits drawn at once hold a cluster that no real digit is in; those drawn in eight steps don't."""
    task = Task.load("digits")
    generator, tokenizer, classifier = task.generator, task.tokenizer, task.score_extractor
    real, held_out = task.split("train"), task.split("report")

    @torch.no_grad()
    def features(images: torch.Tensor) -> np.ndarray:
        return classifier(images)[0].numpy()

    def verdicts(family: str, steps: int) -> list[str]:
        from natgym.policies import FixedPolicy

        policy = FixedPolicy(as_schedule(family, steps))
        drawn = rollout(policy, generator, tokenizer, balanced(generator.conditions(), 800), seed=0)
        sets = (held_out.images_NCHW, drawn.images_NCHW)
        labels = real.condition.values.numpy()
        found = audit(
            features(real.images_NCHW), labels, *map(features, sets), names=real.class_names, seed=0
        )
        assert found.covered_K.all()
        return [row["verdict"] for row in found.rows()][10:]

    assert "nobody's" in verdicts("reference", 1)
    assert "nobody's" not in verdicts("maskgit", 8)


def test_an_audit_needs_something_to_compare() -> None:
    some = np.random.default_rng(0).normal(size=(6, 2))
    with pytest.raises(ValueError, match="0 generated"):
        audit(some, np.array([0, 1] * 3), some, some[:0], names=("a", "b"))
    with pytest.raises(ValueError, match="each of the 3 categories"):
        audit(some, np.array([0, 1] * 3), some, some, names=("a", "b", "c"))
