"""Rewards: what a slow loop says, what a discriminator learns, and that a resumed one goes on bit-equal."""

import copy
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Conv2d, Linear

from generators.checkpoints import save_pretrained
from generators.conditions import Labels
from generators.data import load_split
from natgym.env.vector import DecodeVectorEnv
from natgym.evaluation.scorer import Scorer
from natgym.metrics.classifier import Classifier, ClassifierConfig, RotationNet, RotationNetConfig
from natgym.rewards import (
    AdversarialConfig,
    AdversarialReward,
    ClassifierReward,
    FeatureDistanceReward,
    Images,
    LearningReward,
    WeightedSum,
    make_reward,
    reward_weights,
)
from natgym.rewards.checks import judged
from rounding import assert_rounded

SMALL = AdversarialConfig(channels=4)


def labels(*classes: int) -> Labels:
    return Labels(torch.tensor(classes), 2)


def test_only_who_looks_at_real_images_loads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(task: str, part: str) -> Any:
        raise AssertionError(f"{task}'s {part} split is loaded")

    monkeypatch.setattr("natgym.task.open_split", refuse)
    images, condition = batch(4)
    make_reward("classifier", "digits")(images, Labels(condition.values, 10))
    for name in ("feature-distance", "influence", "distance"):
        with pytest.raises(AssertionError, match="digits's train split is loaded"):
            make_reward(name, "digits")


def batch(rows: int = 64, seed: int = 0) -> Images:
    """Noise, and classes in turn."""
    images = torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Images(images, Labels(torch.arange(rows) % 2, 2))


def halves(rows: int = 64, seed: int = 0) -> Images:
    """Images that match their class: bright above for class 0, bright below for class 1."""
    images, condition = batch(rows, seed)
    bright = torch.arange(8)[None, :] // 4 == condition.ids_B[:, None]
    return Images(images / 2 + bright[:, None, :, None] / 2, condition)


def parameters(reward: AdversarialReward) -> dict[str, Tensor]:
    return copy.deepcopy(reward.discriminator.state_dict())


def buffers(reward: AdversarialReward) -> list[Tensor]:
    return [buffer.clone() for buffer in reward.discriminator.buffers()]


def test_the_classifier_reward_is_a_slow_loop(digits: Any) -> None:
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    condition = Labels(torch.arange(20) % 10, 10)
    reward = ClassifierReward(digits.score_extractor)(images, condition)
    assert reward.shape == (20,) and not reward.requires_grad
    expected = []
    for row in range(20):
        probabilities = digits.score_extractor(images[row : row + 1])[1][0].double().exp()
        share = probabilities[row % 10] / probabilities.sum()
        expected.append(share.log().item())
    assert_rounded(reward, expected)


def test_rewards_are_found_by_name_or_used_as_they_are(digits: Any) -> None:
    live = AdversarialReward((1, 8, 8), 10, SMALL)
    assert make_reward(live, None) is live
    named, condition = make_reward("classifier", "digits"), Labels(torch.arange(4), 10)
    images = batch(4)[0]
    assert torch.equal(named(images, condition), ClassifierReward(digits.reward_extractor)(images, condition))
    for spec, task, said in (
        ("nonsense", "digits", "'nonsense' is not one of"),
        ("classifier", None, "live"),
        ("feature-distance", None, "live"),
        (
            {"nonsense": 1.0},
            "digits",
            "'nonsense' is not one of adversarial, caption, classifier",
        ),
        ([], "digits", "no rewards"),
    ):
        with pytest.raises(ValueError, match=said):
            make_reward(spec, task)


def test_the_feature_distance_is_a_slow_loop(digits: Any) -> None:
    real = load_split("digits", "train").images_NCHW[:40]
    images, condition = batch(6)[0], Labels(torch.arange(6), 10)
    reward = FeatureDistanceReward(digits.reward_extractor, real)
    real_Nd = digits.reward_extractor(real)[0].double()
    mean = real_Nd.mean(0)
    unit = sum((features - mean).norm().item() for features in real_Nd) / len(real_Nd)
    found = reward(images, condition)
    for row in range(6):
        features = digits.reward_extractor(images[row : row + 1])[0][0].double()
        nearest = min((features - other).norm().item() for other in real_Nd)
        assert found[row].item() == pytest.approx(-nearest / unit, rel=1e-4)
    assert reward(real[:3], condition[:3]).abs().max() < 1e-3, "a real image is its own neighbor"
    named: Any = make_reward("feature-distance", "digits")
    nearer = named(images, condition) * named.unit >= found * reward.unit - 1e-4
    assert len(named.real_Nd) == 1197 and nearer.all(), "more real images come nearer"


def test_a_weight_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="weight nan of a reward: it must be finite"):
        make_reward({"classifier": math.nan}, "digits")


def test_a_weighted_sum_is_one_and_learns_where_a_part_does(digits: Any) -> None:
    images, condition = batch(8)[0], Labels(torch.arange(8), 10)

    def pixels(images_BCHW: Tensor, _: Any) -> Tensor:
        return images_BCHW.sum((1, 2, 3))

    still = make_reward([("classifier", 0.5), (pixels, -2.0)], "digits")
    expected = 0.5 * ClassifierReward(digits.reward_extractor)(images, condition) - 2 * pixels(
        images, condition
    )
    torch.testing.assert_close(still(images, condition), expected)
    assert isinstance(still, WeightedSum) and not isinstance(still, LearningReward)
    ours, alone = (AdversarialReward((1, 8, 8), 10, SMALL, seed=1) for _ in range(2))
    learning = make_reward([(ours, 1.0), (pixels, 0.1)], None)
    assert isinstance(learning, LearningReward)
    fake = batch(8, seed=1)[0]
    assert learning.update(Images(images, condition), Images(fake, condition)) == alone.update(
        Images(images, condition), Images(fake, condition)
    )
    torch.testing.assert_close(
        learning(images, condition), alone(images, condition) + 0.1 * pixels(images, condition)
    )
    assert make_reward({"classifier": 2.0}, "digits")(images, condition).allclose(
        2 * ClassifierReward(digits.reward_extractor)(images, condition)
    )


def test_distance_rewards_are_those_of_a_judge_of_the_train_part(digits: Any) -> None:
    """The shared one group by group; each image's own sums to the change when it is left out, nearly."""
    images, condition = halves(128)
    scorer = Scorer(digits.reward_extractor, load_split("digits", "train"))
    shared = make_reward("distance", "digits")(images, condition)
    for group in (slice(0, 64), slice(64, 128)):
        expected = torch.full((64,), -scorer.distance(images[group]))
        torch.testing.assert_close(shared[group], expected)
    own = make_reward("influence", "digits")(images, condition)
    assert own.mean().abs() < 1e-4
    whole, rows = scorer.distance(images), torch.arange(128)
    left_out = [128 * (scorer.distance(images[rows != row]) - whole) for row in range(128)]
    assert np.corrcoef(own, left_out)[0, 1] > 0.98


def test_a_named_reward_looks_through_the_classifier_it_is_given(digits: Any, tmp_path: Path) -> None:
    images, condition = batch(8)[0], Labels(torch.arange(8), 10)
    other = copy.deepcopy(digits.reward_extractor)
    other.head.weight.mul_(2)
    save_pretrained(other, tmp_path / "other")
    task = digits.like(reward_extractor=tmp_path / "other")
    found = make_reward("classifier", task)(images, condition)
    assert torch.equal(found, ClassifierReward(other)(images, condition))
    assert not torch.equal(found, make_reward("classifier", "digits")(images, condition))


@pytest.mark.parametrize("backbone", ["small", "classifier"])
def test_members_of_an_ensemble_learn_as_if_alone(backbone: str, digits: Any) -> None:
    """Adam's steps don't feel the scale of a loss, so that a mean of losses teaches each on its own."""
    config = AdversarialConfig(channels=4, backbone=backbone, members=2)
    reward = AdversarialReward((1, 8, 8), 10, config, seed=3, classifier=digits.score_extractor)
    first, second = reward.discriminator.members
    alone = AdversarialReward(
        (1, 8, 8), 10, replace(config, members=1), seed=3, classifier=digits.score_extractor
    )
    images, condition = batch(32)[0], Labels(torch.arange(32) % 10, 10)
    before = first(images, condition.vectors)
    assert not torch.equal(before, second(images, condition.vectors))
    fake = batch(32, seed=1)[0]
    for _ in range(5):
        reward.update(Images(images, condition), Images(fake, condition))
        alone.update(Images(images, condition), Images(fake, condition))
    theirs = alone.discriminator(images, condition.vectors)
    away = [(found - theirs).abs().max() for found in (first(images, condition.vectors), before)]
    assert away[0] < 5e-3 and away[1] > 4 * away[0]
    logits = [member(images, condition.vectors).flatten(1).mean(1) for member in (first, second)]
    torch.testing.assert_close(reward(images, condition), ((logits[0] + logits[1]) / 2).sigmoid())
    frozen = [name for name in reward.state_dict()["discriminator"] if "backbone." in name]
    assert not frozen, "what is loaded again is not stored"


def test_mismatched_pairs_teach_the_condition() -> None:
    """Real images against themselves: only those under another's condition tell them apart."""
    images, condition = halves(64)
    taught, plain = (
        AdversarialReward((1, 8, 8), 2, AdversarialConfig(channels=4, mismatched=share)) for share in (0.9, 0)
    )
    other = Labels(1 - condition.ids_B, 2)
    gaps = []
    for reward in (taught, plain):
        for _ in range(60):
            reward.update(Images(images, condition), Images(images, condition))
        gaps.append((reward(images, condition) - reward(images, other)).mean().item())
    assert gaps[0] > 0.4 and gaps[1] < 0.1


def test_only_a_reward_that_learns_is_a_learning_reward(digits: Any) -> None:
    assert isinstance(AdversarialReward((1, 8, 8), 10, SMALL), LearningReward)
    assert not isinstance(ClassifierReward(digits.score_extractor), LearningReward)
    assert not isinstance(lambda images, condition: images.sum((1, 2, 3)), LearningReward)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 12), (1, 28, 28), (3, 4, 4), (1, 9, 7)])
def test_the_adversarial_reward_takes_pictures_of_any_shape(shape: tuple[int, int, int]) -> None:
    reward = AdversarialReward(shape, 5, SMALL)
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    condition = Labels(torch.tensor([0, 4, 5]), 5)  # the last one is the null class
    maps = reward.discriminator.eval()(images, condition.vectors)
    assert maps.ndim == 3 and max(maps.shape[1:]) <= 4
    found = reward(images, condition)
    assert found.shape == (3,) and not found.requires_grad
    for row in range(3):
        logits = maps[row].flatten().tolist()
        expected = 1 / (1 + torch.tensor(-sum(logits) / len(logits)).exp().item())
        assert 0 < found[row] < 1 and found[row].item() == pytest.approx(expected, abs=1e-6)


def test_the_seed_decides_the_initial_weights_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, same, other = (AdversarialReward((1, 8, 8), 2, SMALL, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for key, tensor in parameters(first).items():
        assert torch.equal(tensor, parameters(same)[key])
    assert any(not torch.equal(tensor, parameters(other)[key]) for key, tensor in parameters(first).items())


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_it_learns_to_tell_two_easy_sets_apart(loss: Any) -> None:
    reward = AdversarialReward((1, 8, 8), 2, AdversarialConfig(channels=4, loss=loss))
    metrics = [reward.update(halves(seed=2 * i), batch(seed=2 * i + 1)) for i in range(100)]
    assert metrics[-1]["discriminator_loss"] < 0.5 * metrics[0]["discriminator_loss"]
    assert metrics[-1]["discriminator_accuracy"] > 0.95
    real, fake = reward(*halves(seed=1000)), reward(*batch(seed=1001))
    assert (real > 0.5).double().mean() > 0.9 and (fake < 0.5).double().mean() > 0.9
    assert real.mean() - fake.mean() > 0.2


def test_it_looks_at_the_condition() -> None:
    """Real images match their class, generated ones are the same images of the other class."""
    reward = AdversarialReward((1, 8, 8), 2, SMALL)
    images, condition = halves()
    swapped = Labels(1 - condition.ids_B, 2)
    untrained = reward.discriminator.eval()
    assert not torch.allclose(untrained(images, condition.vectors), untrained(images, swapped.vectors))
    for i in range(80):
        images, condition = halves(seed=i)
        reward.update(Images(images, condition), Images(images, Labels(1 - condition.ids_B, 2)))
    images, condition = halves(seed=1000)
    right, wrong = reward(images, condition), reward(images, Labels(1 - condition.ids_B, 2))
    assert (right > wrong).all() and right.mean() > 0.7 > 0.3 > wrong.mean()


def test_judging_leaves_the_power_iteration_alone_and_learning_moves_it_on() -> None:
    reward = AdversarialReward((1, 8, 8), 2, SMALL)
    assert len(buffers(reward)) == 2 * 5, "two vectors for each of five normalized layers"
    for _ in range(2):  # freshly made, and after training
        before = buffers(reward)
        first = reward(*batch())
        assert torch.equal(first, reward(*batch()))
        assert all(torch.equal(old, new) for old, new in zip(before, buffers(reward), strict=True))
        reward.update(halves(), batch())
        moved = [not torch.equal(old, new) for old, new in zip(before, buffers(reward), strict=True)]
        # The vectors of a matrix with one row or column are 1.
        assert sum(moved) >= 8


def test_every_layer_is_spectrally_normalised() -> None:
    reward = AdversarialReward((1, 8, 8), 2, SMALL)
    reward.update(halves(), batch())
    images, condition = batch()
    with torch.no_grad():
        for _ in range(100):  # the power iteration converges while the weights stand still
            reward.discriminator.train()(images, condition.vectors)
    layers = [layer for layer in reward.discriminator.eval().modules() if isinstance(layer, Conv2d | Linear)]
    assert len(layers) == 5
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_the_losses_are_their_closed_forms(loss: Any) -> None:
    reward = AdversarialReward((1, 8, 8), 2, AdversarialConfig(channels=4, loss=loss))
    for i in range(5):
        reward.update(halves(seed=i), batch(seed=i))
    twin = copy.deepcopy(reward)
    told = reward.update(halves(seed=10), batch(seed=11))
    # Real first, then generated: each pass takes one step of the power iteration.
    twin.discriminator.train()
    images, condition = halves(seed=10)
    real = twin.discriminator(images, condition.vectors).detach().double()
    images, condition = batch(seed=11)
    fake = twin.discriminator(images, condition.vectors).detach().double()
    if loss == "logistic":
        expected = -(1 / (1 + (-real).exp())).log().mean() - (1 / (1 + fake.exp())).log().mean()
    else:
        expected = (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
    assert told["discriminator_loss"] == pytest.approx(expected.item(), rel=1e-5)
    right = [row.mean() > 0 for row in real] + [row.mean() < 0 for row in fake]
    assert told["discriminator_accuracy"] == pytest.approx(sum(map(bool, right)) / len(right))


def test_a_saved_discriminator_goes_on_bit_equal() -> None:
    def teach(reward: AdversarialReward, updates: range) -> list[dict[str, float]]:
        return [reward.update(halves(seed=i), batch(seed=-i - 1)) for i in updates]

    through = AdversarialReward((1, 8, 8), 2, SMALL)
    teach(through, range(4))
    file = io.BytesIO()
    torch.save(through.state_dict(), file)
    expected = teach(through, range(4, 8))
    file.seek(0)
    resumed = AdversarialReward((1, 8, 8), 2, SMALL, seed=99)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert teach(resumed, range(4, 8)) == expected
    for key, tensor in parameters(through).items():
        assert torch.equal(tensor, parameters(resumed)[key]), key
    assert torch.equal(through(*batch()), resumed(*batch()))


def test_a_sum_may_be_said_as_text() -> None:
    images, condition = batch(12)
    condition = Labels(condition.values, 10)
    said = make_reward("classifier=2, influence=-0.5", "digits")
    expected = make_reward({"classifier": 2.0, "influence": -0.5}, "digits")
    assert torch.equal(said(images, condition), expected(images, condition))
    assert reward_weights("adversarial,influence=.5") == {"adversarial": 1.0, "influence": 0.5}
    for text in ("classifier=1,classifier=2", "classifier=much", "classifier=nan", "classifier=1=2"):
        with pytest.raises(ValueError, match="in reward .*give NAME=NUMBER, each name once"):
            make_reward(text, "digits")


def test_the_default_reward_is_refused_where_the_extractor_tells_no_classes(digits: Any) -> None:
    sizes: dict[str, Any] = {"image_shape": (1, 8, 8), "channels": 2, "features": 3}
    turned = digits.like(reward_extractor=RotationNet(RotationNetConfig(**sizes)).eval())
    with pytest.raises(ValueError, match="'digits' has no logits, the generator 10 classes; take mmd"):
        DecodeVectorEnv(4, task=turned, steps=1)
    others = Classifier(ClassifierConfig(**sizes, num_classes=1)).eval()
    with pytest.raises(ValueError, match="has logits of 1 classes, the generator 10 classes; take mmd"):
        make_reward("classifier", digits.like(reward_extractor=others))
    assert make_reward("mmd", turned)(*batch(4)).shape == (4,)


@pytest.mark.parametrize("name", ["adversarial", "feature-distance", "http", "mmd", "quadratic"])
def test_an_option_that_a_reward_has_not_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"reward '{name}' has no option 'colour'; it has .*[a-z]"):
        make_reward(name, "digits", options={name: {"colour": 1}})


def test_options_of_the_nearest_images_are_checked() -> None:
    with pytest.raises(ValueError, match="real_images 0: it must be at least 1"):
        make_reward("feature-distance", "digits", options={"feature-distance": {"real_images": 0}})


def test_what_a_part_says_is_moved_to_the_images() -> None:
    images = torch.rand(3, 1, 8, 8, device="meta")
    assert judged(lambda images, condition: torch.ones(3), images, None).device.type == "meta"
