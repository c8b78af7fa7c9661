"""The projected discriminator against the recorded official one, and what a batch and a file have to be."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("timm", reason="the projected discriminator needs timm (extra `pretrained`)")

from generators.checkpoints import save_pretrained
from generators.conditions import Labels
from generators.weights import convert
from natgym.rewards import AdversarialConfig, AdversarialReward, Images
from natgym.rewards.official import DISCRIMINATOR, DISCRIMINATOR_FORMATS
from natgym.rewards.projected import (
    LocalNorm,
    ProjectedConfig,
    ProjectedDiscriminator,
    SpectralConv,
    groups_of,
    load_projected,
)
from rounding import GOLDEN, assert_rounded

COMPAT = Path(__file__).resolve().parents[3] / "shared" / "compat"
TINY = ProjectedConfig(condition_width=5, mapping_width=8, projection=4, side=32, width=12, heads=3)


def tiny(seed: int = 0, **changes: Any) -> ProjectedDiscriminator:
    torch.manual_seed(seed)
    return ProjectedDiscriminator(ProjectedConfig(**(vars(TINY) | changes)))


def pictures(rows: int = 8, side: int = 32) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.rand(rows, 3, side, side, generator=random), torch.eye(5)[torch.arange(rows) % 5]


@pytest.fixture
def recorded(golden: Any) -> tuple[dict[str, Tensor], Any]:
    """The recorded tensors, and the official discriminator; its backbone never crops."""
    tensors, meta = golden("disc_heads_tiny")
    official = {key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")}
    heads = meta["kwargs"]["vit"]["num_heads"]
    converted = convert(official, formats=DISCRIMINATOR_FORMATS, heads=heads)
    assert not converted.ignored and len(converted.weights) == meta["n_sd_tensors"]
    discriminator: Any = converted.build()
    discriminator.backbone.crop = 0.0
    return tensors, discriminator


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.reshape(found.shape), **GOLDEN)


def one_hot(labels_B: Tensor, discriminator: Any) -> Tensor:
    return torch.nn.functional.one_hot(labels_B, discriminator.config.condition_width).float()


@pytest.mark.golden
def test_recorded_mapping_and_heads(recorded: Any) -> None:
    tensors, discriminator = recorded
    with torch.no_grad():
        mapped = discriminator.mapping(one_hot(tensors["in.labels"], discriminator))
        close(mapped, tensors["out.mapping"])
        for batch in {key.rpartition(".")[0] for key in tensors if key.startswith("head.B")}:
            features = tensors[f"{batch}.feat"]
            logits = discriminator.heads[0](features, tensors["out.mapping"][: len(features)])
            close(logits, tensors[f"{batch}.logits"])
            assert logits.std() > 0.01


@pytest.mark.golden
def test_recorded_pictures_become_maps_logits_and_rewards(recorded: Any) -> None:
    tensors, discriminator = recorded
    images = tensors["full.image01"].float()
    with torch.no_grad():
        for depth, found in enumerate(discriminator.backbone(images)):
            close(found, tensors[f"full.dino_feat.{depth}"])
        classes = one_hot(tensors["in.labels"][: len(images)], discriminator)
        logits = discriminator(images, classes)
        close(logits, tensors["full.logits_class"])
        close(logits.mean(1).sigmoid(), tensors["full.reward_class"])
        discriminator.mapping = None
        close(discriminator(images, tensors["full.text_embeds"]), tensors["full.logits_text"])
        squashed = discriminator((images + 1) / 2, tensors["full.text_embeds"])
        close(squashed, tensors["full.logits_text_no_data_transform"])


@pytest.mark.golden
def test_recorded_training_passes(recorded: Any) -> None:
    """A real and a generated pass, each with one power iteration; loss and gradients."""
    tensors, discriminator = recorded
    head = discriminator.heads[0].train().requires_grad_(True)
    real_condition, fake_condition = tensors["out.mapping"].split(8)
    real = head(tensors["trainmode.real_feat"], real_condition)
    fake = head(tensors["trainmode.fake_feat"], fake_condition)
    close(real, tensors["trainmode.real_logits"])
    close(fake, tensors["trainmode.fake_logits"])
    loss = torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(fake).mean()
    close(loss, tensors["trainmode.loss"])
    loss.backward()
    compared = 0
    for key, expected in tensors.items():
        part, _, name = key.removeprefix("trainmode.").partition(".")
        if key.startswith("trainmode.") and part in ("grad", "after"):
            *path, leaf = (DISCRIMINATOR.ours(f"heads.0.{name}") or "").removeprefix("heads.0.").split(".")
            tensor = getattr(head.get_submodule(".".join(path)), leaf)
            close(tensor.grad if part == "grad" else tensor, expected)
            compared += 1
    assert compared == 11


@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (7, 1), (10, 2), (128, 16), (9, 0), (15, 0)])
def test_only_equal_groups_are_normalised(rows: int, groups: int) -> None:
    if groups:
        assert groups_of(rows) == groups
        return
    with pytest.raises(ValueError, match=f"batch of {rows} .* 2 equal groups of at most 8; 8 and 16 fit"):
        tiny()(*pictures(rows))


@pytest.mark.parametrize("training", [True, False])
def test_the_local_norm_is_a_loop_over_groups(training: bool) -> None:
    torch.manual_seed(0)
    norm, x = LocalNorm(4).train(training), torch.randn(18, 4, 7) * 3 + 1
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    found = norm(x).double()
    for first in range(0, 18, 6):
        rows = slice(first, first + 6)
        for channel in range(4):
            values = x[rows, channel].double()
            spread = ((values - values.mean()).square().mean() + 1e-5).sqrt()
            expected = (values - values.mean()) / spread * norm.weight[channel] + norm.bias[channel]
            assert_rounded(found[rows, channel], expected)


def test_training_passes_make_the_largest_singular_value_one() -> None:
    torch.manual_seed(0)
    conv, x = SpectralConv(6, 4, 3), torch.randn(2, 6, 9)
    for _ in range(100):
        conv(x)
    scale = torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
    direct = torch.nn.Conv1d(6, 4, 3, padding=1, padding_mode="circular")
    direct.weight.data, direct.bias.data = conv.weight.data / scale, conv.bias.data  # type: ignore[union-attr]
    u = conv.u
    assert_rounded(conv.eval()(x), direct(x))
    assert conv.u is u, "evaluation does not iterate"


def test_a_batch_of_large_pictures_is_cropped_or_resized() -> None:
    backbone = tiny(crop=0.5).backbone
    images, _ = pictures(2, 48)
    seen = []
    for seed in range(20):
        torch.manual_seed(seed)
        seen.append(backbone._cropped(images).shape[-1])
    assert set(seen) == {32, 48}
    small = images[..., :20]
    assert all(backbone._cropped(small) is small for _ in range(5))


def test_the_backbone_is_frozen_and_not_in_what_is_saved() -> None:
    discriminator = tiny().train()
    assert not discriminator.backbone.network.training
    discriminator(*pictures()).mean().backward()
    learning = {name for name, parameter in discriminator.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, _ in discriminator.named_parameters() if "backbone" not in name}


def test_the_reward_learns_goes_on_and_judges_large_batches_by_groups(tmp_path: Path) -> None:
    save_pretrained(tiny(seed=3), tmp_path / "judge")
    config = AdversarialConfig(backbone=str(tmp_path / "judge"), learning_rate=1e-3)
    reward, images, condition = AdversarialReward((3, 32, 32), 5, config), pictures(136)[0], Labels.every(5)
    condition = condition[torch.arange(136) % 5]
    together = reward(images, condition)
    parts = [reward(images[rows], condition[rows]) for rows in torch.arange(136).split(8)]
    assert_rounded(together, torch.cat(parts))
    assert together.std() > 0 and 0 <= together.min() and together.max() <= 1
    for rows in (135, 9):  # no equal groups: those in groups of 8 first, then the last 8 once more
        over = rows % 8
        found, last = reward(images[:rows], condition[:rows]), slice(rows - 8, rows)
        assert_rounded(found[:-over], together[: rows - over])
        assert_rounded(found[-over:], reward(images[last], condition[last])[-over:])

    def update(reward: AdversarialReward) -> dict[str, float]:
        eight = slice(0, 8)
        return reward.update(
            Images(images[8:16], condition[8:16]), Images(images[eight] / 2, condition[eight])
        )

    first = update(reward)["discriminator_loss"]
    state = copy.deepcopy(reward.state_dict())
    assert not any("backbone" in name for name in state["discriminator"])
    again = AdversarialReward((3, 32, 32), 5, config, seed=9)
    again.load_state_dict(state)
    assert update(again) == update(reward)
    for _ in range(20):
        last = update(reward)["discriminator_loss"]
    assert last < first


def test_text_conditions_are_scaled_to_length_one() -> None:
    images, vectors = pictures()
    scorer = tiny(mapping_width=None).eval()
    torch.testing.assert_close(scorer(images, 7 * vectors), scorer(images, vectors))
    assert not torch.equal(scorer(images, vectors.flip(0)), scorer(images, vectors))


def test_dino_weights_come_from_a_local_file_or_a_saved_discriminator(tmp_path: Path) -> None:
    source = tiny(seed=3)
    torch.save(source.backbone.network.state_dict(), tmp_path / "dino.pth")
    loaded = load_projected(tmp_path / "dino.pth", TINY)
    for one, other in zip(loaded.backbone(pictures()[0]), source.backbone(pictures()[0]), strict=True):
        assert torch.equal(one, other)
    save_pretrained(source, tmp_path / "saved")
    again = load_projected(tmp_path / "saved", TINY)
    assert_rounded(again.eval()(*pictures()), source.eval()(*pictures()))
    assert again.heads[0].conv1.weight.requires_grad and not again.backbone.network.pos_embed.requires_grad
    torch.save({"x": torch.zeros(2)}, tmp_path / "other.pth")
    wrong = ProjectedConfig(**(vars(TINY) | {"condition_width": 6}))
    for where, config, said in (
        ("other.pth", TINY, "holds no DINO ViT-S/16 weights"),
        ("absent.pth", TINY, "no DINO ViT-S/16 weights at"),
        ("saved", wrong, "judges class conditions of width 5; these have width 6"),
    ):
        with pytest.raises(ValueError, match=said):
            load_projected(tmp_path / where, config)


@pytest.mark.golden
@pytest.mark.parametrize(("name", "width", "mapped"), [("", 1000, 512), ("_cc3m", 1280, None)])
def test_every_key_of_the_official_discriminators_is_read(name: str, width: int, mapped: int | None) -> None:
    path = COMPAT / f"adanat_discriminator_full{name}.json"
    if not path.is_file():
        pytest.skip(f"no list of official keys {path}")
    schema = json.loads(path.read_text())
    state = {key: torch.empty(entry["shape"], device="meta") for key, entry in schema["keys"].items()}
    converted = convert(state, formats=DISCRIMINATOR_FORMATS)
    assert converted.config == ProjectedConfig(condition_width=width, mapping_width=mapped)
    assert not converted.ignored and len(converted.weights) == schema["n_keys"]
