"""CMMD against a double loop and a library's number; it is a column of CLIP's vectors and of no others."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_clip import small_clip
from torch import Tensor, nn
from torch.nn import functional as F

from generators.conditions import Labels
from generators.images import Split, eight_bits
from natgym.evaluation.scorer import Scorer
from natgym.metrics.clip import CLIP, CLIPImages
from natgym.metrics.extractors import load_extractor
from natgym.metrics.kernel import cmmd, mean_gaussian


def vectors(count: int, width: int = 6, *, seed: int = 0, offset: float = 0.0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=random, dtype=torch.float64) + offset, dim=1)


def slowly(first: np.ndarray, second: np.ndarray) -> float:
    """The squared MMD of section 4, one pair at a time."""

    def mean(left: np.ndarray, right: np.ndarray) -> float:
        kernels = [
            math.exp(-sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / (2 * 10**2))
            for x in left.tolist()
            for y in right.tolist()
        ]
        return math.fsum(kernels) / len(kernels)

    return 1000 * (mean(first, first) + mean(second, second) - 2 * mean(first, second))


@pytest.mark.parametrize("block", [3, 1024])
@pytest.mark.parametrize(("count", "other"), [(1, 1), (7, 11), (20, 5)])
def test_it_is_the_double_loop(count: int, other: int, block: int) -> None:
    ours, theirs = vectors(count), vectors(other, seed=1, offset=0.5)
    expected = slowly(ours.numpy(), theirs.numpy())
    assert cmmd(ours, theirs, block=block) == pytest.approx(expected, rel=1e-9)
    within = mean_gaussian(theirs)
    assert cmmd(ours, theirs, within=within, block=block) == pytest.approx(expected, rel=1e-9)


def test_it_is_the_librarys_number() -> None:
    """clip-mmd is a port of the published code to torch; given float64 it computes in it."""
    calculation = pytest.importorskip("clip_mmd.calculation", reason="clip-mmd is not installed")
    for seed, offset in ((0, 0.0), (1, 0.2), (2, 1.0)):
        ours, theirs = vectors(300, 64, seed=seed), vectors(200, 64, seed=seed + 10, offset=offset)
        assert cmmd(ours, theirs) == pytest.approx(float(calculation.mmd(ours, theirs)), rel=1e-9)
        # As it is called on CLIP's float32, whose kernels are all near 1.
        rough = calculation.mmd_efficient(ours.float(), theirs.float())
        assert cmmd(ours.float(), theirs.float()) == pytest.approx(rough, abs=1e-3)


def test_what_is_not_clips_is_refused() -> None:
    good = vectors(5)
    assert cmmd(good, good) == pytest.approx(0, abs=1e-9)
    for pair in ((good * 1.1, good), (good, good * 0.9)):
        with pytest.raises(ValueError, match="length is off 1 by 0.1; CMMD is of CLIP's vectors"):
            cmmd(*pair)
    with pytest.raises(ValueError, match=r"must be \(6,\)"):
        cmmd(good, good[:, :4])
    with pytest.raises(ValueError, match="NaN"):
        cmmd(good * math.nan, good)


def images(count: int, seed: int) -> Split:
    pixels = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) ** (1 + seed)
    return Split(pixels, Labels(torch.arange(count) % 3, 3))


def test_a_row_has_it_of_clips_vectors(tmp_path: Path) -> None:
    """Images of the model's size, whose vectors transformers' own model gives."""
    small_clip(tmp_path / "clip", 32)
    extractor = load_extractor("clip", tmp_path / "clip")
    assert isinstance(extractor, CLIPImages) and "not the Inception FID" in extractor.meaning
    real, drawn = images(20, 0), images(15, 1)
    found = Scorer(None, real, extractor=extractor).score(drawn.images_NCHW, drawn.condition)

    clip = CLIP(str(tmp_path / "clip"))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    seen = []
    for split in (drawn, real):
        pixels = (eight_bits(split.images_NCHW) - mean) / std
        with torch.no_grad():
            told = clip.model.get_image_features(pixel_values=pixels).pooler_output
        seen.append((told / told.norm(dim=1, keepdim=True)).double().numpy())
        assert extractor.num_features == told.shape[1]
        torch.testing.assert_close(clip.images(split.images_NCHW), extractor(split.images_NCHW)[0])
    assert found["cmmd"] == pytest.approx(slowly(*seen), rel=1e-3) and found["cmmd"] > 0.01


def test_nothing_is_fetched() -> None:
    with pytest.raises(ValueError, match="openai/clip is no folder; give a local one"):
        load_extractor("clip", "openai/clip")


class Unit(nn.Module):
    """Vectors of length 1 that are not CLIP's."""

    num_features, meaning = 3, "a distance of colors"

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, None]:
        return F.normalize(images_BCHW.mean((2, 3)), dim=1), None


def test_no_other_features_have_that_name() -> None:
    real, drawn = images(20, 0), images(15, 1)
    found = Scorer(None, real, extractor=Unit()).score(drawn.images_NCHW, drawn.condition)
    assert "kernel_distance" in found and "cmmd" not in found
