"""The shipped modules still score what their model card says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import load_policy
from generators.checkpoints import PRETRAINED, from_pretrained
from generators.data import Split, SplitName, load_split
from generators.masking import MaskLaw, mask_tokens, masked_cross_entropy
from generators.schedules import Schedule, maskgit, reference
from natgym.evaluation.scorer import Scorer
from natgym.metrics.classifier import judge
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout
from natgym.task import Task

POLICIES = sorted(PRETRAINED.glob("*/*/policies/adanat-T*"))
LARGE = ("mnist", "shapes")  # tasks, whose policies take half a minute each
FOLDERS = sorted({path.parent for path in PRETRAINED.rglob("config.json")} - set(POLICIES))
MEGABYTES = {"digits": 2, "mnist": 11}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PRETRAINED)))
def test_every_shipped_module_loads_and_has_a_model_card(folder: Path) -> None:
    module = from_pretrained(folder)
    assert not module.training and not any(parameter.requires_grad for parameter in module.parameters())
    above = [parent for parent in (folder, *folder.parents) if parent.is_relative_to(PRETRAINED)]
    cards = [parent / "README.md" for parent in above if (parent / "README.md").is_file()]
    assert cards, f"no README.md in {folder} or above it"
    assert "model card" in cards[0].read_text().lower()


def megabytes(*folders: Path) -> float:
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir()) / 10**6


def test_the_digits_are_shipped_and_small() -> None:
    folders = [
        PRETRAINED / "digits" / kind for kind in ("nat", "tokenizer", "extractors/score", "extractors/reward")
    ]
    assert set(folders) <= set(FOLDERS) and megabytes(*folders) < MEGABYTES["digits"]


def test_mnist_is_shipped_and_small() -> None:
    folders = [
        PRETRAINED / "mnist" / kind
        for kind in ("nat", "enat", "tokenizer", "extractors/score", "extractors/reward")
    ]
    assert set(folders) <= set(FOLDERS) and megabytes(*folders) < MEGABYTES["mnist"]


@pytest.mark.parametrize(
    "folder",
    [pytest.param(one, marks=[pytest.mark.slow] if one.parents[2].name in LARGE else []) for one in POLICIES],
    ids=lambda folder: str(folder.relative_to(PRETRAINED)),
)
def test_every_shipped_policy_is_nearer_than_where_it_started(
    folder: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Than the reference, on the report split; it is named by its steps and stands in the card."""
    monkeypatch.setenv("NATGYM_DATA", str(shared_data))
    task: Any = Task.load("/".join(folder.relative_to(PRETRAINED).parts[:2]))
    policy = load_policy(folder, task)
    assert folder.name == f"adanat-T{policy.steps}"
    assert f"policies/{folder.name}" in (folder.parents[2] / "README.md").read_text()
    scorer = Scorer(task.score_extractor, task.split("report"))
    condition = task.asked(500)
    distances = [
        scorer.distance(rollout(one, task, condition=condition, seed=3).images_NCHW)
        for one in (policy, FixedPolicy(reference(policy.steps)))
    ]
    assert distances[0] < 0.7 * distances[1]


@pytest.mark.parametrize(("kind", "share"), [("nat", 0.981), ("enat", 0.969)])
def test_mnist_samples_are_of_their_class(kind: str, share: float) -> None:
    """The card's share of 1,000, on 200; three standard errors of these."""
    generator: Any = from_pretrained(PRETRAINED / "mnist" / kind)
    task: Any = Task.load("mnist")
    tokenizer, classifier = task.tokenizer, task.score_extractor
    condition = balanced(generator.conditions(), 200)
    drawn = rollout(FixedPolicy(maskgit(8)), generator, tokenizer, condition, seed=1)
    right_N = judge(classifier, drawn.images_NCHW)[1].argmax(-1) == condition.values
    assert right_N.float().mean().item() > share - 3 * (share * (1 - share) / 200) ** 0.5


def test_the_tokenizer_loses_little(digits: Any) -> None:
    images = load_split("digits", "select").images_NCHW
    error = (digits.tokenizer.decode(digits.tokenizer.encode(images)) - images).square().mean().item()
    assert error == pytest.approx(0.0036, abs=1e-4)


@pytest.mark.parametrize(("part", "card"), [("select", 0.990), ("report", 0.988)])
def test_the_classifier_is_right(part: SplitName, card: float, digits: Any) -> None:
    real = load_split("digits", part)
    right = digits.score_extractor(real.images_NCHW)[1].argmax(-1) == real.condition.values
    assert right.double().mean().item() == pytest.approx(card, abs=0.006)


def test_the_scale_of_the_features_is_that_of_the_train_part(digits: Any) -> None:
    features = digits.score_extractor(load_split("digits", "train").images_NCHW)[0]
    assert features.var(0).mean().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("part", "card"), [("train", 2.14), ("select", 2.37)])
def test_the_generator_predicts_hidden_tokens(part: SplitName, card: float, digits: Any) -> None:
    real, rng = load_split("digits", part), np.random.default_rng(0)
    rows = torch.arange(1200) % len(real)
    ids_BL, condition = digits.tokenizer.encode(real.images_NCHW)[rows], real.condition[rows]
    ratios_B, uniform_BL = (
        MaskLaw("cosine").sample(len(rows), rng),
        torch.from_numpy(rng.random(ids_BL.shape)),
    )
    hidden_BL, labels_BL = mask_tokens(ids_BL, ratios_B, uniform_BL, digits.generator.mask_id)
    loss = masked_cross_entropy(digits.generator(hidden_BL, condition).logits_BLV, labels_BL).item()
    assert loss == pytest.approx(card, abs=0.1)
    shifted = type(condition)((condition.values + 1) % 10, 10)
    wrong = masked_cross_entropy(digits.generator(hidden_BL, shifted).logits_BLV, labels_BL).item()
    assert wrong > loss + 0.2, "the class has to help"


def test_samples_belong_to_their_class(digits: Any) -> None:
    condition = balanced(digits.generator.conditions(), 1000)
    drawn = rollout(FixedPolicy(reference(4)), digits.generator, digits.tokenizer, condition, seed=0)
    right = digits.score_extractor(drawn.images_NCHW)[1].argmax(-1) == condition.values
    assert right.double().mean() > 0.97
    assert len(drawn.tokens_NL.unique(dim=0)) > 950, "and they are not one image"


@pytest.fixture(scope="module")
def mnist(shared_data: Path) -> Split:
    """The first 2,000 images of the select split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NATGYM_DATA", str(shared_data))
        part = load_split("mnist", "select")
    return Split(part.images_NCHW[:2000], part.condition[:2000])


def test_mnist_codes_are_all_used_and_lose_little(mnist: Split) -> None:
    tokenizer = Task.load("mnist").tokenizer
    assert (tokenizer.codebook_size, tokenizer.grid, tokenizer.image_shape) == (256, (7, 7), (1, 28, 28))
    ids_NL = torch.cat([tokenizer.encode(images) for images in mnist.images_NCHW.split(500)])
    coded_NCHW = torch.cat([tokenizer.decode(ids) for ids in ids_NL.split(500)])
    assert ids_NL.unique().numel() == 256
    assert (coded_NCHW - mnist.images_NCHW).square().mean().item() == pytest.approx(0.0041, abs=2e-4)
    classifier = Task.load("mnist").score_extractor
    assert Scorer(classifier, mnist).distance(coded_NCHW) < 0.06


def test_the_mnist_classifier_is_right(mnist: Split) -> None:
    features_Nd, logits_NK = judge(Task.load("mnist").score_extractor, mnist.images_NCHW)
    right_N = logits_NK.argmax(-1) == mnist.condition.values
    assert right_N.double().mean().item() == pytest.approx(0.989, abs=0.005)
    assert features_Nd.shape == (2000, 64) and features_Nd.var(0).mean().item() == pytest.approx(1, abs=0.03)


STRATEGIES = sorted(PRETRAINED.glob("*/*/strategies/autonat-T*.json"))


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: "-".join((*path.parts[-4:-2], path.stem)))
def test_every_shipped_strategy_is_named_by_its_steps(path: Path) -> None:
    schedule = Schedule.load(path)
    assert path.name == f"autonat-T{schedule.steps}.json" and schedule.name == "autonat"
    card = (path.parents[2] / "README.md").read_text()
    assert str(path.relative_to(path.parents[2])) in card


def test_the_searched_digits_are_nearer_than_hand_made_ones() -> None:
    """On the part that it was searched on, and other noise; the part that tables report is left alone."""
    generator: Any = from_pretrained(PRETRAINED / "digits" / "nat")
    task: Any = Task.load("digits")
    tokenizer, classifier = task.tokenizer, task.score_extractor
    judge_select, condition = (
        Scorer(classifier, load_split("digits", "select")),
        balanced(generator.conditions(), 1000),
    )
    searched = Schedule.load(PRETRAINED / "digits" / "nat" / "strategies" / "autonat-T4.json")
    distances = [
        judge_select.distance(
            rollout(FixedPolicy(schedule), generator, tokenizer, condition, seed=77).images_NCHW
        )
        for schedule in (searched, maskgit(4), reference(4))
    ]
    assert distances == sorted(distances) and distances[0] < 0.6 * distances[2]


def test_a_run_folder_with_a_tasks_name_does_not_hide_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert Task.load("digits").folder == PRETRAINED / "digits"
