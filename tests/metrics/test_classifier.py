"""The classifier's geometry and its training on images that are read when asked for."""

import pytest
import torch
from torch import Tensor

from natgym.metrics.classifier import Classifier, ClassifierConfig, fit_classifier, judge


@pytest.mark.parametrize(("side", "halvings"), [(8, 2), (28, 2), (32, 2), (64, 3), (256, 5)])
def test_the_last_grid_is_small_whatever_the_picture(side: int, halvings: int) -> None:
    config = ClassifierConfig(image_shape=(3, side, side), num_classes=5, channels=4, features=6)
    assert config.halvings == halvings and side // 2**halvings <= 8
    features_Bd, logits_BK = Classifier(config).eval()(torch.rand(2, 3, side, side))
    assert features_Bd.shape == (2, 6) and logits_BK.shape == (2, 5)


def test_a_side_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="image size 72 x 60: both sides must be divisible by 16"):
        Classifier(ClassifierConfig(image_shape=(1, 72, 60), num_classes=2))


class Read:
    """Images behind rows, dark or bright, and how many were asked for at once."""

    def __init__(self, number: int, side: int) -> None:
        self.number, self.side, self.asked = number, side, list[int]()

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, rows: Tensor) -> Tensor:
        self.asked.append(len(rows))
        return (rows % 2).float()[:, None, None, None].expand(-1, 1, self.side, self.side)


def test_training_reads_batches_and_says_how_it_goes() -> None:
    images, losses = Read(600, 64), list[float]()
    config = ClassifierConfig(image_shape=(1, 64, 64), num_classes=2, channels=8, features=16)
    classes_N = torch.arange(600) % 2
    classifier = fit_classifier(config, images, classes_N, updates=6, progress=losses.append)
    assert len(losses) == 6 and images.asked == [128] * 6 + [512, 88]
    assert classifier.feature_scale > 0 and not classifier.training


def test_judging_in_chunks_changes_nothing() -> None:
    config = ClassifierConfig(image_shape=(1, 256, 256), num_classes=3, channels=4, features=4)
    classifier, images = Classifier(config).eval(), torch.rand(40, 1, 256, 256)
    with torch.no_grad():
        expected = classifier(images)
    for found, truth in zip(judge(classifier, images), expected, strict=True):
        torch.testing.assert_close(found, truth)
