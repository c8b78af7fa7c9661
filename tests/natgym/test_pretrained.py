"""The shipped modules still score what their model card says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.fixed import FixedPolicy
from generators.checkpoints import PRETRAINED, from_pretrained
from generators.data import PartName, load_part
from generators.masking import MaskLaw, mask_tokens, masked_cross_entropy
from generators.schedules import reference
from natgym.rollouts import balanced, rollout

FOLDERS = sorted(path.parent for path in PRETRAINED.rglob("config.json"))
MEGABYTES = 2


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PRETRAINED)))
def test_every_shipped_module_loads_and_has_a_model_card(folder: Path) -> None:
    module = from_pretrained(folder)
    assert not module.training and not any(parameter.requires_grad for parameter in module.parameters())
    above = [parent for parent in (folder, *folder.parents) if parent.is_relative_to(PRETRAINED)]
    cards = [parent / "README.md" for parent in above if (parent / "README.md").is_file()]
    assert cards, f"no README.md in {folder} or above it"
    assert "model card" in cards[0].read_text().lower()


def test_the_digits_are_shipped_and_small() -> None:
    folder = PRETRAINED / "digits"
    assert {path.name for path in FOLDERS} >= {"nat", "tokenizer", "classifier"}
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < MEGABYTES * 10**6


def test_the_tokenizer_loses_little(digits: Any) -> None:
    images = load_part("digits", "select").images_NCHW
    error = (digits.tokenizer.decode(digits.tokenizer.encode(images)) - images).square().mean().item()
    assert error == pytest.approx(0.0036, abs=1e-4)


@pytest.mark.parametrize(("part", "card"), [("select", 0.990), ("report", 0.988)])
def test_the_classifier_is_right(part: PartName, card: float, digits: Any) -> None:
    real = load_part("digits", part)
    right = digits.classifier(real.images_NCHW)[1].argmax(-1) == real.condition.values
    assert right.double().mean().item() == pytest.approx(card, abs=0.006)


def test_the_scale_of_the_features_is_that_of_the_train_part(digits: Any) -> None:
    features = digits.classifier(load_part("digits", "train").images_NCHW)[0]
    assert features.var(0).mean().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("part", "card"), [("train", 2.14), ("select", 2.37)])
def test_the_generator_predicts_hidden_tokens(part: PartName, card: float, digits: Any) -> None:
    real, rng = load_part("digits", part), np.random.default_rng(0)
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
    right = digits.classifier(drawn.images_NCHW)[1].argmax(-1) == condition.values
    assert right.double().mean() > 0.97
    assert len(drawn.tokens_NL.unique(dim=0)) > 950, "and they are not one picture"
