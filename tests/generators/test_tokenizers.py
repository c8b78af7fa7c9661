"""The patch codebook against slow loops over pixels, and the convolutional one and its training."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from generators import tokenizers
from generators.checkpoints import from_pretrained, save_pretrained
from generators.noise import seeded
from generators.tokenizers import ConvVQ, ConvVQConfig, PatchKMeans, PatchKMeansConfig
from generators.vq import VQTrainer, VQTrainingConfig
from rounding import assert_rounded

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
    assert_rounded(fitted.decode(fitted.encode(images)), images)
    assert (fitted.grid, fitted.codebook_size, fitted.image_shape) == (
        (ROWS, COLUMNS),
        9,
        tuple(images.shape[1:]),
    )
    again = PatchKMeans.fit(images, patch=PATCH, codebook_size=9, seed=0)
    assert torch.equal(again.centers, fitted.centers)


class Counted:
    """Images that count how many are read at once."""

    def __init__(self, images_NCHW: Tensor) -> None:
        self.images_NCHW = images_NCHW
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.images_NCHW)

    def __getitem__(self, rows: Tensor) -> Tensor:
        self.read.append(len(rows))
        return self.images_NCHW[rows]


def test_of_many_pictures_some_are_read_at_a_time(
    tokenizer: PatchKMeans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patches are those that are chosen among all patches laid end to end."""
    ids_BL = torch.randint(9, (60, ROWS * COLUMNS), generator=torch.Generator().manual_seed(4))
    images = tokenizer.decode(ids_BL)
    monkeypatch.setattr(tokenizers, "image_rows", lambda shape: 7)
    monkeypatch.setattr(tokenizers, "MOST", 50)
    counted = Counted(images)
    patches = tokenizer._chosen(counted, seed=3)
    laid = tokenizer._patches(images).flatten(0, 1).numpy()
    expected = np.random.default_rng(3).choice(laid, 50, replace=False)
    assert np.array_equal(patches, expected)
    assert max(counted.read) == 7 and sum(counted.read) < 60, "only those with a patch that is chosen"
    monkeypatch.setattr(tokenizers, "MOST", len(laid))
    assert np.array_equal(tokenizer._chosen(counted, seed=3), laid)


def test_a_patch_has_to_divide_the_picture() -> None:
    with pytest.raises(ValueError, match="patch 3 does not divide the image size 8 x 9"):
        PatchKMeans(PatchKMeansConfig(codebook_size=2, patch=3, image_shape=(1, 8, 9)))


SMALL = ConvVQConfig(
    image_shape=(3, 8, 12), codebook_size=12, code_width=4, width=8, downsampling=4, blocks=1
)


def conv(config: ConvVQConfig = SMALL) -> ConvVQ:
    with seeded(0):
        tokenizer = ConvVQ(config)
        tokenizer.codes.normal_()
    return tokenizer.eval().requires_grad_(False)


def colored(number: int = 40, seed: int = 0) -> Tensor:
    """Images of 4x4 squares in 5 colors."""
    generator = torch.Generator().manual_seed(seed)
    colors = torch.rand(5, 3, generator=torch.Generator().manual_seed(9))
    squares = colors[torch.randint(5, (number, 2, 3), generator=generator)].movedim(-1, 1)
    return squares.repeat_interleave(4, -2).repeat_interleave(4, -1)


def test_conv_encode_finds_the_nearest_code_of_each_vector() -> None:
    tokenizer, images = conv(), colored(5)
    ids_BL, vectors_BLd = tokenizer.encode(images), tokenizer.vectors(images)
    assert ids_BL.shape == (5, 6) and ids_BL.dtype == torch.long and tokenizer.grid == (2, 3)
    for ids_L, vectors_Ld in zip(ids_BL, vectors_BLd, strict=True):
        for found, vector in zip(ids_L.tolist(), vectors_Ld, strict=True):
            distances = [float((vector - code).square().sum()) for code in tokenizer.codes]
            assert found == min(range(12), key=distances.__getitem__)


def test_conv_tokens_are_in_reading_order() -> None:
    """With equal weights everywhere, a changed square moves the vector of its own token most."""
    tokenizer = conv(ConvVQConfig(image_shape=(3, 32, 32), width=8, downsampling=8, blocks=0))
    convolutions = tokenizer.encoder[:3]
    for parameter in convolutions.parameters():
        parameter.fill_(0.01)
    black = torch.zeros(1, 3, 32, 32)
    for token in range(16):
        row, column = divmod(token, 4)
        changed = black.clone()
        changed[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
        moved_L = (convolutions(changed) - convolutions(black)).norm(dim=1).flatten()
        assert moved_L.argmax() == token


@pytest.mark.parametrize("downsampling", [2, 4, 8])
def test_conv_decode_gives_pictures(downsampling: int) -> None:
    config = ConvVQConfig(image_shape=(1, 16, 24), width=8, downsampling=downsampling, codebook_size=7)
    tokenizer = conv(config)
    assert tokenizer.grid == (16 // downsampling, 24 // downsampling)
    images_BCHW = tokenizer.decode(torch.randint(7, (3, math.prod(tokenizer.grid))))
    assert images_BCHW.shape == (3, 1, 16, 24) and 0 <= images_BCHW.min() <= images_BCHW.max() <= 1


def test_conv_rows_are_independent() -> None:
    tokenizer, images, order = conv(), colored(6), torch.tensor([3, 1, 5, 0, 2, 4])
    ids_BL = tokenizer.encode(images)
    assert torch.equal(tokenizer.encode(images[order]), ids_BL[order])
    decoded = tokenizer.decode(ids_BL)
    assert_rounded(tokenizer.decode(ids_BL[2:3]), decoded[2:3])


def test_using_a_conv_tokenizer_leaves_it_as_it_is() -> None:
    tokenizer, images = conv().train(), colored()
    before = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
    ids_BL = tokenizer.encode(images)
    tokenizer.decode(ids_BL)
    assert torch.equal(tokenizer.encode(images), ids_BL)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tokenizer.state_dict().items())


def test_a_conv_tokenizer_survives_the_disk(tmp_path: Path) -> None:
    tokenizer, images = conv(), colored()
    save_pretrained(tokenizer, tmp_path)
    loaded = from_pretrained(tmp_path)
    assert isinstance(loaded, ConvVQ) and loaded.config == SMALL
    ids_BL = tokenizer.encode(images)
    assert torch.equal(loaded.encode(images), ids_BL)
    assert torch.equal(loaded.to("cpu").decode(ids_BL), tokenizer.decode(ids_BL))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"downsampling": 3}, "downsampling 3 is not a power of 2"),
        ({"downsampling": 1}, "downsampling 1 is not a power of 2"),
        ({"downsampling": 8}, "downsampling 8 does not divide the image size 8 x 12"),
        ({"width": 12}, "width 12: it must be a multiple of 8"),
        ({"codebook_size": 0}, "codebook_size 0: it must be at least 1"),
    ],
)
def test_a_geometry_that_cannot_be_is_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvVQConfig(**{"image_shape": (3, 8, 12), **values})  # type: ignore[arg-type]


def training(updates: int = 300, seed: int = 0) -> VQTrainer:
    with seeded(0):
        tokenizer = ConvVQ(SMALL)
    rates = {"warmup": 5, "learning_rate": 2e-2, "code_decay": 0.9}
    config = VQTrainingConfig(updates=updates, batch_size=16, seed=seed, **rates)  # type: ignore[arg-type]
    return VQTrainer(tokenizer, colored(200), config)


def test_training_learns_the_squares() -> None:
    trainer, images = training(), colored(100, seed=1)
    metrics = list(trainer)
    assert [row["update"] for row in metrics] == list(range(1, 301)) and not trainer.tokenizer.training
    with torch.no_grad():
        coded = trainer.tokenizer.decode(trainer.tokenizer.encode(images))
    error = (coded - images).square().mean().item()
    assert error < 0.35 * images.var(0).mean().item()
    assert metrics[-1]["squared_error"] == pytest.approx(error, rel=1)
    assert metrics[-1]["codes"] >= 5 and metrics[0]["learning_rate"] == pytest.approx(4e-3)


def test_the_trained_codes_are_those_the_decoder_saw() -> None:
    trainer, images = training(20), colored(30)
    list(trainer)
    trainer.quantizer.eval()
    with torch.no_grad():
        quantized_BLd, ids_BL, _ = trainer.quantizer(trainer.tokenizer.vectors(images))
    assert torch.equal(trainer.tokenizer.encode(images), ids_BL)
    assert torch.equal(trainer.tokenizer.codes[ids_BL], quantized_BLd)


def test_training_is_a_function_of_its_seed_and_resumes_exactly() -> None:
    whole, halted, other = training(12), training(12), training(12, seed=1)
    list(whole), list(other)
    for _ in range(5):
        halted.update()
    resumed = training(12)
    resumed.load_state_dict(halted.state_dict())
    with torch.no_grad():
        torch.rand(3)  # nothing may hang on torch's own generator
    list(resumed)
    for name, tensor in whole.tokenizer.state_dict().items():
        assert torch.equal(resumed.tokenizer.state_dict()[name], tensor), name
    assert not torch.equal(other.tokenizer.codes, whole.tokenizer.codes)


@pytest.mark.parametrize(
    "values", [{"updates": 0}, {"batch_size": 0}, {"code_decay": 1.0}, {"reset_below": -0.1}]
)
def test_training_settings_that_cannot_be_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(values))} "):
        VQTrainingConfig(**values)  # type: ignore[arg-type]
