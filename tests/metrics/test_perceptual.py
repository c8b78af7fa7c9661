"""What a frozen network sees between two images: by a slow loop, and as a tokenizer learns from it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg16

from generators.checkpoints import save_pretrained
from generators.tokenizers import ConvVQ, ConvVQConfig, PatchKMeans
from generators.vq import VQTrainer, VQTrainingConfig
from natgym.metrics.classifier import Classifier, ClassifierConfig
from natgym.metrics.perceptual import PerceptualDistance
from rounding import assert_rounded


def by_hand(layers: Any, taps: list[int], x: Tensor, y: Tensor) -> list[float]:
    """LPIPS without weights: an image, a tap and a place at a time."""
    found = []
    for image, other in zip(x, y, strict=True):
        one, two, total = image[None], other[None], 0.0
        for at, layer in enumerate(layers[: max(taps) + 1]):
            one, two = layer(one), layer(two)
            if at not in taps:
                continue
            _, _, height, width = one.shape
            places = [(row, column) for row in range(height) for column in range(width)]
            for row, column in places:
                u, v = one[0, :, row, column], two[0, :, row, column]
                u, v = (w / w.norm().clamp_min(1e-6) for w in (u, v))
                total += (u - v).square().sum().item() / len(places)
        found.append(total / len(taps))
    return found


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = Classifier(ClassifierConfig(image_shape=(3, 16, 16), num_classes=3, channels=8, features=4))
    save_pretrained(network, tmp_path / "classifier")
    return tmp_path / "classifier"


def test_a_classifiers_convolutions_see_it(classifier: Path) -> None:
    distance = PerceptualDistance.load(classifier)
    assert distance.taps == (1, 3, 5), "each non-linearity before the features"
    x, y = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert_rounded(distance(x, y), torch.tensor(by_hand(distance.layers, [1, 3, 5], x, y)))
    assert distance(x, x).tolist() == [0, 0]
    seen = x.clone().requires_grad_(True)
    distance(seen, y).sum().backward()
    assert seen.grad is not None and bool(seen.grad.abs().sum() > 0)
    assert all(parameter.grad is None for parameter in distance.parameters())


def test_vgg_sees_it_where_lpips_looks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = vgg16(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "vgg16.pth")
    distance = PerceptualDistance.load(tmp_path / "vgg16.pth")
    assert distance.taps == (3, 8, 15, 22, 29), "relu1_2, relu2_2, relu3_3, relu4_3, relu5_3"
    grey = torch.rand(2, 1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    x, y = ((image.expand(-1, 3, -1, -1) - mean) / std for image in grey)
    with torch.no_grad():
        expected = by_hand(network.features, list(distance.taps), x, y)
        assert_rounded(distance(*grey), torch.tensor(expected), roundings=4096)


def test_other_places_are_refused(tmp_path: Path) -> None:
    images = torch.rand(8, 1, 8, 8)
    save_pretrained(PatchKMeans.fit(images, patch=2, codebook_size=4), tmp_path / "codes")
    with pytest.raises(ValueError, match="codes holds a PatchKMeans, which is no classifier"):
        PerceptualDistance.load(tmp_path / "codes")
    with pytest.raises(ValueError, match="no VGG16 weights at .*nowhere"):
        PerceptualDistance.load(tmp_path / "nowhere")


def test_a_tokenizer_learns_from_what_is_seen(classifier: Path) -> None:
    """Of two trainings that are alike, the one that is told of it loses less of it."""
    distance = PerceptualDistance.load(classifier)
    images = torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    images = nn.functional.interpolate(images, (16, 16), mode="bilinear").clamp(0, 1)
    lost = []
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        tokenizer = ConvVQ(ConvVQConfig(image_shape=(3, 16, 16), codebook_size=16, width=8, downsampling=4))
        config = VQTrainingConfig(updates=60, batch_size=16, warmup=10, perceptual=weight)
        rows = list(VQTrainer(tokenizer, images, config, distance))
        with torch.no_grad():
            lost.append(distance(tokenizer.decode(tokenizer.encode(images)), images).mean().item())
    assert lost[1] < 0.9 * lost[0] and rows[0]["perceptual"] > rows[-1]["perceptual"] > 0
