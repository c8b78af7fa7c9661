"""CLIP score on a small CLIP built here, image by image."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from small_clip import small_clip

from generators.conditions import Labels
from natgym.metrics.clip import CLIP, CLIPScore

transformers = pytest.importorskip("transformers", reason="the extra `pretrained` is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "clip"
    small_clip(folder, 32)
    return folder


def test_the_score_is_that_of_single_images(folder: Path) -> None:
    """By the model's own logits, which are cosines times a scale; images of its size are not resized."""
    clip = CLIP(str(folder))
    random = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 32, 32, generator=random)
    names = ("cat", "dog", "owl")
    condition = Labels(torch.arange(6) % 3, 3, names)
    metric = CLIPScore(clip)
    metric.update(images[:4], condition[:4], torch.zeros(4, 1))
    metric.update(images[4:], condition[4:], torch.zeros(2, 1))
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    total = 0.0
    for row, image in enumerate((images * 255).round().byte()):
        shown = Image.fromarray(image.permute(1, 2, 0).numpy())
        pixels = processor(images=shown, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            told = model(pixel_values=pixels, **tokenizer([names[row % 3]], return_tensors="pt"))
        total += max(0.0, float(told.logits_per_image / model.logit_scale.exp()))
    assert metric.compute() == pytest.approx(100 * total / 6, abs=0.2)


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="transformers finds no CLIP"):
        CLIP(str(tmp_path))
