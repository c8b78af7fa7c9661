"""The patch codebook against slow loops over pixels."""

import pytest
import torch
from torch import Tensor

from generators.tokenizers import PatchKMeans, PatchKMeansConfig

ROWS, COLUMNS, PATCH = 3, 2, 2


@pytest.fixture
def tokenizer() -> PatchKMeans:
    config = PatchKMeansConfig(codebook_size=9, patch=PATCH, image_shape=(2, ROWS * PATCH, COLUMNS * PATCH))
    tokenizer = PatchKMeans(config)
    tokenizer.centers.copy_(torch.rand(9, 2 * PATCH**2, generator=torch.Generator().manual_seed(0)))
    return tokenizer


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 2, ROWS * PATCH, COLUMNS * PATCH, generator=torch.Generator().manual_seed(1))


def patch_at(image_CHW: Tensor, token: int) -> Tensor:
    """The patch of a token, in reading order, channels first."""
    row, column = divmod(token, COLUMNS)
    return image_CHW[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]


def test_encode_finds_the_nearest_center_of_each_patch(tokenizer: PatchKMeans, images: Tensor) -> None:
    ids_BL = tokenizer.encode(images)
    assert ids_BL.shape == (5, ROWS * COLUMNS) and ids_BL.dtype == torch.long
    for image, ids_L in zip(images, ids_BL, strict=True):
        for token, found in enumerate(ids_L.tolist()):
            patch = patch_at(image, token).flatten()
            distances = [float((patch - center).square().sum()) for center in tokenizer.centers]
            assert found == min(range(9), key=distances.__getitem__)


def test_decode_puts_each_center_in_its_place(tokenizer: PatchKMeans) -> None:
    ids_BL = torch.randint(9, (4, ROWS * COLUMNS), generator=torch.Generator().manual_seed(2))
    images_BCHW = tokenizer.decode(ids_BL)
    assert images_BCHW.shape == (4, *tokenizer.image_shape)
    for image, ids_L in zip(images_BCHW, ids_BL, strict=True):
        for token, code in enumerate(ids_L.tolist()):
            assert torch.equal(patch_at(image, token).flatten(), tokenizer.centers[code])


def test_a_coded_picture_stays(tokenizer: PatchKMeans, images: Tensor) -> None:
    coded = tokenizer.decode(tokenizer.encode(images))
    assert torch.equal(tokenizer.decode(tokenizer.encode(coded)), coded)
    assert (images - coded).square().mean() < (images - images.roll(1, 0)).square().mean()


def test_near_centers_are_told_apart() -> None:
    """Distances from squares and products would mix up centres this close."""
    generator = torch.Generator().manual_seed(3)
    tokenizer = PatchKMeans(PatchKMeansConfig(codebook_size=64, patch=2, image_shape=(1, 16, 16)))
    tokenizer.centers.copy_(0.5 + 1e-4 * torch.randn(64, 4, generator=generator))
    ids_BL = torch.arange(64)[torch.randperm(64, generator=generator)][None]
    assert torch.equal(tokenizer.encode(tokenizer.decode(ids_BL)), ids_BL)


def test_pictures_stay_in_range(tokenizer: PatchKMeans) -> None:
    """k-means centres may leave [0, 1] by rounding."""
    tokenizer.centers[0], tokenizer.centers[1] = -1e-7, 1 + 1e-7
    images_BCHW = tokenizer.decode(torch.tensor([[0, 1] * (ROWS * COLUMNS // 2)]))
    assert images_BCHW.min() == 0 and images_BCHW.max() == 1


def test_fit_recovers_the_patches_pictures_are_made_of(tokenizer: PatchKMeans) -> None:
    ids_BL = torch.randint(9, (60, ROWS * COLUMNS), generator=torch.Generator().manual_seed(4))
    images = tokenizer.decode(ids_BL)
    fitted = PatchKMeans.fit(images, patch=PATCH, codebook_size=9, seed=0)
    torch.testing.assert_close(fitted.decode(fitted.encode(images)), images, atol=1e-5, rtol=0)
    assert (fitted.grid, fitted.codebook_size, fitted.image_shape) == (
        (ROWS, COLUMNS),
        9,
        tuple(images.shape[1:]),
    )
    again = PatchKMeans.fit(images, patch=PATCH, codebook_size=9, seed=0)
    assert torch.equal(again.centers, fitted.centers)


def test_a_patch_has_to_divide_the_picture() -> None:
    with pytest.raises(ValueError, match="patch 3 does not divide the image size 8 x 9"):
        PatchKMeans(PatchKMeansConfig(codebook_size=2, patch=3, image_shape=(1, 8, 9)))
