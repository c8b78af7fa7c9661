"""Inception and DINOv2 from local weights files: recorded features, other implementations, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from generators.checkpoints import from_pretrained, save_pretrained
from natgym.evaluation.scorer import Scorer
from natgym.metrics.dino import DINOv2
from natgym.metrics.extractors import load_extractor
from natgym.metrics.inception import Inception, InceptionConfig
from natgym.task import Task
from rounding import assert_rounded


def by_recipe(recipe: dict[str, Any], base_seed: int, shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Build the recorded network's weights, which are too large to record."""
    state = {}
    for key, entry in recipe.items():
        if entry == "zero int":
            state[key] = torch.zeros((), dtype=torch.long)
            continue
        rng = np.random.RandomState(base_seed * 1000 + entry["index"])
        u = torch.from_numpy(rng.randint(-128, 128, size=shapes[key].numel()).astype(np.float32) / 128)
        rule = entry["rule"]
        if rule.startswith("1+"):
            value = 1 + float(rule[2:-1]) * u
        else:
            value = u * float(rule.removeprefix("u*").removesuffix("u"))
        state[key] = value.reshape(shapes[key].shape)
    return state


@pytest.fixture(scope="module")
def weights(golden: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, meta = golden("inception_recipe")
    state = by_recipe(meta["recipe"], meta["base_seed"], Inception().state_dict())
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(state, path)
    return path


@pytest.mark.golden
def test_inception_gives_the_recorded_features(golden: Any, weights: Path) -> None:
    tensors, _ = golden("inception_recipe")
    network, images = Inception.load(weights, resize="torch"), tensors["in.image01"].float()
    with torch.no_grad():
        features, logits = network(images)
        alone, _ = network(images[1:])
    assert_rounded(features, tensors["out.2048"])
    assert_rounded(logits, tensors["out.logits_unbiased"])
    assert_rounded(alone, features[1:])


@pytest.mark.golden
def test_inception_is_torch_fidelitys(golden: Any, weights: Path) -> None:
    """Its resizing and scaling too, on images of 8 bits."""
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    theirs = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(weights))
    network = Inception.load(weights)
    for shape in ((32, 32), (40, 300)):
        pixels = torch.randint(256, (2, 3, *shape), generator=torch.Generator().manual_seed(0)).byte()
        with torch.no_grad():
            expected, found = theirs(pixels)[0], network(pixels.float() / 255)[0]
        assert_rounded(found, expected)


@pytest.mark.parametrize("size", [8, 28, 299, 400])
def test_tf1_resizing_pixel_by_pixel(size: int) -> None:
    image = torch.rand(1, 3, size, size + 3, generator=torch.Generator().manual_seed(1))
    found = Inception()._enlarged(image)
    for i, j in ((0, 0), (17, 200), (298, 298), (150, 3)):
        y, x = i * size / 299, j * (size + 3) / 299
        top, left = int(y), int(x)
        below, right = min(top + 1, size - 1), min(left + 1, size + 2)
        across = [
            image[0, :, k, left] * (1 - (x - left)) + image[0, :, k, right] * (x - left) for k in (top, below)
        ]
        expected = (255 * (across[0] * (1 - (y - top)) + across[1] * (y - top)) - 128) / 128
        assert_rounded(found[0, :, i, j], expected)


def test_grey_pictures_become_three_channels() -> None:
    network = Inception().eval()
    grey = torch.rand(1, 1, 20, 20)
    with torch.no_grad():
        assert torch.equal(network(grey)[0], network(grey.repeat(1, 3, 1, 1))[0])


@pytest.fixture(scope="module")
def vit() -> Any:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()


def test_dino_reads_a_file_and_gives_the_class_token(vit: Any, tmp_path: Path) -> None:
    save_file(vit.state_dict(), tmp_path / "dino.safetensors")
    images = torch.rand(2, 3, 48, 48)
    resized = F.interpolate(images, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    mean, spread = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    with torch.no_grad():
        tokens = vit.norm(
            vit.blocks(vit.norm_pre(vit._pos_embed(vit.patch_embed((resized - mean) / spread))))
        )
        features, logits = DINOv2.load(tmp_path / "dino.safetensors", "small")(images)
    assert_rounded(features, tokens[:, 0])
    assert logits is None and features.shape == (2, 384)


def test_dino_reads_metas_own_file(vit: Any, tmp_path: Path) -> None:
    """There is a mask token, and images were of 518 pixels."""
    state = vit.state_dict() | {
        "mask_token": torch.zeros(1, 384),
        "pos_embed": torch.randn(1, 37 * 37 + 1, 384),
    }
    torch.save(state, tmp_path / "meta.pth")
    network = DINOv2.load(tmp_path / "meta.pth", "small").network
    assert network.pos_embed.shape == vit.pos_embed.shape
    assert torch.equal(network.blocks[3].mlp.fc1.weight, vit.blocks[3].mlp.fc1.weight)


def test_a_foreign_network_can_stand_in_a_task(vit: Any, tmp_path: Path) -> None:
    """It is saved as any other, and its features are the same; its logits, if any, are of other classes."""
    save_file(vit.state_dict(), tmp_path / "dino.safetensors")
    network = load_extractor("dinov2-small", tmp_path / "dino.safetensors")
    folder = tmp_path / "score"
    save_pretrained(network, folder)
    found = Task.load("digits", score_extractor=str(folder)).score_extractor
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found(images)[0], network(images)[0])

    class Foreign:
        meaning, num_features = "", 4

        def __call__(self, images_BCHW: Any) -> Any:
            return images_BCHW.flatten(1)[:, :4], images_BCHW.flatten(1)

    digits = Task.load("digits").split("select")
    for beside in (None, Task.load("digits").reward_extractor):
        judge = Scorer(Foreign(), digits, extractor=beside)  # type: ignore[arg-type]
        scores = judge.score(digits.images_NCHW, digits.condition)
        assert "accuracy" not in scores and "class_drift" not in scores
        assert {"distance", "score"} <= scores.keys()


def test_inception_is_saved_as_it_prepares_images(tmp_path: Path) -> None:
    network = Inception(InceptionConfig("torch")).eval()
    save_pretrained(network, tmp_path / "inception")
    again = from_pretrained(tmp_path / "inception")
    assert again.config == network.config and again(torch.ones(1, 1, 8, 8))[0].shape == (1, 2048)  # type: ignore[operator]


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_other_files_are_refused_in_one_line(tmp_path: Path, vit: Any, capsys: Any) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("no weights")
    loaders = {"FID Inception": Inception.load, "DINOv2 small": lambda path: DINOv2.load(path, "small")}
    for name, load in loaders.items():
        with pytest.raises(ValueError, match=f"no {name} weights at .*absent.pth"):
            load(tmp_path / "absent.pth")
        for file in ("other.pth", "evil.pth", "text.pth"):
            with pytest.raises(ValueError, match=f"{file} holds no {name} weights") as caught:
                load(tmp_path / file)
            assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="size 'tiny' is not one of small, base, large"):
        DINOv2.load(tmp_path / "other.pth", "tiny")
