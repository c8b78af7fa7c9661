"""The VQGAN against the recorded official network and against slow loops."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from generators import vqgan
from generators.checkpoints import from_pretrained, save_pretrained
from generators.vqgan import VQGAN, ResidualBlock, VQGANConfig, vqgan_f16
from generators.weights import convert
from rounding import GOLDEN, assert_rounded


def tiny(**overrides: Any) -> VQGAN:
    """A small VQGAN of 12 x 8 pixels whose latents use many codes."""
    base: dict = dict(codebook_size=40, code_width=6, image_shape=(3, 12, 8), width=32, blocks=1)
    config = VQGANConfig(**(base | {"width_multipliers": (1, 2, 1)} | overrides))
    torch.manual_seed(0)
    model = VQGAN(config).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.1 if "conv" in name else 1.0)
    model.requires_grad_(False)
    latents = model.encoder(pictures(1, 3, 48, 32))  # codes where latents are
    model.codebook.weight.copy_(latents[0].flatten(1).T[torch.arange(config.codebook_size) % 96])
    model.codebook.weight.add_(0.1 * torch.randn_like(model.codebook.weight))
    return model


def pictures(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def recorded_vqgan(tensors: dict[str, Tensor]) -> VQGAN:
    official = {key[3:]: tensor for key, tensor in tensors.items() if key.startswith("sd.")}
    rows, columns = tensors["out.pre_quant"].shape[-2:]
    model = convert(official, grid=(rows, columns)).build()
    assert isinstance(model, VQGAN)
    return model


@pytest.mark.golden
def test_recorded_latents_codes_and_pictures(golden: Any) -> None:
    tensors, meta = golden("vqgan_tiny")
    model, geometry = recorded_vqgan(tensors), meta["kwargs"]["ddconfig"]
    assert sum(parameter.numel() for parameter in model.parameters()) == meta["n_parameters"]
    assert model.config == VQGANConfig(
        codebook_size=meta["kwargs"]["n_embed"],
        code_width=geometry["z_channels"],
        image_shape=(geometry["in_channels"], geometry["resolution"], geometry["resolution"]),
        width=geometry["ch"],
        width_multipliers=tuple(geometry["ch_mult"]),
        blocks=geometry["num_res_blocks"],
    )
    latents = model.latents(tensors["in.image"])
    torch.testing.assert_close(latents, tensors["out.pre_quant"], **GOLDEN)
    ids_BL = model.encode(tensors["in.image"])
    assert torch.equal(ids_BL.flatten(), tensors["out.indices"])
    painted = model.paint(ids_BL.view(-1, *tensors["out.pre_quant"].shape[-2:]))
    torch.testing.assert_close(painted, tensors["out.recon_from_indices"], **GOLDEN)
    painted = model.paint(tensors["in.codes"])
    torch.testing.assert_close(painted, tensors["out.image_from_codes"], **GOLDEN)
    assert torch.equal(model.decode(tensors["in.codes"].flatten(1)), painted.clamp(0, 1))


@pytest.mark.golden
def test_recorded_picture_that_is_not_square(golden: Any) -> None:
    tensors, _ = golden("vqgan_tiny")
    model, image = recorded_vqgan(tensors), tensors["in.image_nonsquare"]
    torch.testing.assert_close(model.latents(image), tensors["out.pre_quant_nonsquare"], **GOLDEN)
    assert torch.equal(model.encode(image).flatten(), tensors["out.indices_nonsquare"])


def test_each_latent_gets_its_nearest_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """In reading order, also where the comparison goes in parts that don't end with an image."""
    model, images = tiny(), pictures(5, 3, 12, 8)
    monkeypatch.setattr(vqgan, "ROWS_AT_ONCE", 7)
    ids_BL, latents = model.encode(images), model.latents(images).double()
    assert ids_BL.shape == (5, 6) and ids_BL.dtype == torch.long and model.grid == (3, 2)
    assert ids_BL.unique().numel() > 5
    for row in range(5):
        for token in range(6):
            vector = latents[row, :, token // 2, token % 2]
            distances = (model.codebook.weight.double() - vector).square().sum(1)
            assert ids_BL[row, token] == distances.argmin()


def test_near_codes_are_told_apart() -> None:
    """Distances from squares and products would mix up codes this far from the origin."""
    model, images = tiny(codebook_size=64), pictures(8, 3, 12, 8)
    assert model.encoder.conv_out.bias is not None
    model.encoder.conv_out.bias.add_(100)
    vectors = model.latents(images).permute(0, 2, 3, 1).reshape(-1, 6)
    codes = vectors.mean(0) + 1e-2 * torch.randn(64, 6, generator=torch.Generator().manual_seed(3))
    model.codebook.weight.copy_(codes)
    distances = (vectors[:, None].double() - codes.double()).square().sum(-1)
    found = distances.gather(1, model.encode(images).view(-1, 1))[:, 0]
    assert_rounded(found, distances.amin(1))
    mixed_up = (vectors.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * vectors @ codes.T).argmin(
        1
    )
    assert (distances.gather(1, mixed_up[:, None])[:, 0] / distances.amin(1)).max() > 1 + 1e-4


def normed(x_BCHW: Tensor, scale_C: Tensor, shift_C: Tensor) -> Tensor:
    """GroupNorm of 32 groups and swish, group by group."""
    groups = x_BCHW.double().chunk(32, dim=1)
    parts = []
    for group in groups:
        mean = group.mean((1, 2, 3), keepdim=True)
        variance = (group - mean).square().mean((1, 2, 3), keepdim=True)
        parts.append((group - mean) / (variance + 1e-6).sqrt())
    x = torch.cat(parts, dim=1) * scale_C[:, None, None] + shift_C[:, None, None]
    return x / (1 + (-x).exp())


@pytest.mark.parametrize("outputs", [64, 32])
def test_the_shortcut_projects_the_branch(outputs: int) -> None:
    """Where channels change, the input reaches the output through the branch alone."""
    torch.manual_seed(2)
    block, x = ResidualBlock(64, outputs).double(), torch.randn(2, 64, 5, 3).double()
    torch.nn.init.normal_(block.norm1.bias)
    with torch.no_grad():
        branch = F.conv2d(normed(x, block.norm1.weight, block.norm1.bias), block.conv1.weight, padding=1)
        branch = F.conv2d(normed(branch, block.norm2.weight, block.norm2.bias), block.conv2.weight, padding=1)
        if block.shortcut is None:
            expected = branch + x
        else:
            expected = branch + torch.einsum("oi,bihw->bohw", block.shortcut.weight[..., 0, 0], branch)
        torch.testing.assert_close(block(x), expected)


def test_levels_change_size_by_average_and_by_repetition() -> None:
    """The whole encoder and decoder, with 2 x 2 means and repeated pixels written out."""
    model, images = tiny(), pictures(2, 3, 12, 8)
    encoder, decoder = model.encoder, model.decoder
    x = encoder.levels[0](encoder.conv_in(images))
    for level in encoder.levels[1:]:
        x = level((x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4)
    latents = encoder.conv_out(F.silu(encoder.norm(encoder.middle(x))))
    assert_rounded(model.latents(images), latents)
    ids_Bhw = model.encode(images).view(2, 3, 2)
    x = decoder.levels[2](decoder.middle(decoder.conv_in(model.codebook.weight[ids_Bhw].permute(0, 3, 1, 2))))
    for level in (1, 0):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = decoder.levels[level](decoder.upsample[level + 1][1](x))
    painted = decoder.conv_out(F.silu(decoder.norm(x)))
    assert painted.shape == images.shape
    assert_rounded(model.paint(ids_Bhw), painted)


def test_decoded_pictures_are_clamped() -> None:
    model = tiny()
    ids_BL = torch.arange(12).view(2, 6)
    painted, decoded = model.paint(ids_BL.view(2, 3, 2)), model.decode(ids_BL)
    assert painted.min() < 0 and painted.max() > 1
    assert torch.equal(decoded, painted.clamp(0, 1)) and decoded.shape == (2, *model.image_shape)


def test_rows_are_independent() -> None:
    model, images = tiny(), pictures(4, 3, 12, 8)
    ids_BL = model.encode(images)
    for row in range(4):
        assert torch.equal(model.encode(images[[row]]), ids_BL[[row]])
        alone = model.decode(ids_BL[[row]])
        assert_rounded(alone, model.decode(ids_BL)[[row]])


def test_other_sizes_are_encoded_and_wrong_ones_refused() -> None:
    model = tiny()
    assert model.encode(pictures(2, 3, 4, 16)).shape == (2, 4)
    with pytest.raises(ValueError, match="10 x 8 pixels are not divisible by the 4 of a token"):
        model.encode(pictures(1, 3, 10, 8))
    with pytest.raises(ValueError, match="7 tokens don't fill a grid of 3 x 2"):
        model.decode(torch.zeros(1, 7, dtype=torch.long))
    with pytest.raises(ValueError, match="12 x 6 pixels"):
        tiny(image_shape=(3, 12, 6))
    with pytest.raises(ValueError, match="width 48 is not divisible by the 32 groups"):
        tiny(width=48)


def test_a_saved_tokenizer_comes_back(tmp_path: Path) -> None:
    model, images = tiny(), pictures(2, 3, 12, 8)
    save_pretrained(model, tmp_path)
    loaded: Any = from_pretrained(tmp_path)
    assert loaded.config == model.config and torch.equal(loaded.encode(images), model.encode(images))


def test_the_official_size() -> None:
    with torch.device("meta"):
        model = VQGAN(vqgan_f16())
        assert VQGAN(vqgan_f16(image_shape=(3, 512, 512))).grid == (32, 32)
    assert (model.grid, model.codebook_size, model.config.factor) == ((16, 16), 1024, 16)
    assert sum(parameter.numel() for parameter in model.parameters()) == 54_515_587
