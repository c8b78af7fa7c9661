"""aMUSEd's networks behind our contract: the library's own passes, to the bit."""

import copy
import json
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import pipeline
from torch import Tensor

import natgym
from agents import AdaNATConfig, AdaNATTrainer
from generators.checkpoints import from_pretrained, save_pretrained, weights_hash
from generators.encoders import encode
from generators.others.amused import UVit, UVitConfig, VQModel, networks
from generators.schedules import as_schedule
from generators.texts import Text
from rounding import assert_rounded

diffusers = pytest.importorskip("diffusers", reason="the extra `diffusers` is not installed")
pytest.importorskip("transformers", reason="the extra `pretrained` is not installed")
TEXTS = ["a cat", "a dog on a mat", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipeline(tmp_path_factory.mktemp("amused") / "amused-8")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return networks(folder)


@pytest.fixture(scope="module")
def texts(found: dict[str, Any]) -> Text:
    return encode(TEXTS, found["encoder"])


def some_ids(rows: int) -> Tensor:
    """All masked, none masked, and some."""
    random = torch.Generator().manual_seed(0)
    ids_BL = torch.randint(32, (rows, 16), generator=random)
    share_B1 = torch.tensor([1.0, 0.0, 0.5])[torch.arange(rows) % 3, None]
    return ids_BL.masked_fill(torch.rand(rows, 16, generator=random) < share_B1, 32)


def own_pass(folder: Path, ids_BL: Tensor, tokens_BSE: Tensor, pooled_BP: Tensor, asked: list[float]) -> Any:
    """The library's model on its own, in its own words: masks are 34, and 8 x 8 pixels are asked for."""
    model = diffusers.UVit2DModel.from_pretrained(folder / "transformer", low_cpu_mem_usage=False).eval()
    read = []
    model.mlm_layer.layer_norm.register_forward_hook(lambda layer, inputs, output: read.append(output))
    with torch.no_grad():
        logits_BVHW = model(
            torch.where(ids_BL == 32, 34, ids_BL).view(-1, 4, 4),
            tokens_BSE,
            pooled_BP,
            torch.tensor([asked]).expand(len(ids_BL), -1),
        )
    return logits_BVHW.flatten(2).mT, read[0].flatten(1, 2)


def test_a_pass_is_the_library_s_own(folder: Path, found: dict[str, Any], texts: Text) -> None:
    generator, ids_BL = found["generator"], some_ids(3)
    for condition in (texts, texts.null()):
        told = generator(ids_BL, condition)
        asked = [8.0, 8.0, 0.0, 0.0, 6.0]
        logits_BLV, features_BLD = own_pass(folder, ids_BL, condition.values, condition.vectors, asked)
        assert torch.equal(told.logits_BLV, logits_BLV)
        assert torch.equal(told.features_BLD, features_BLD)
    assert generator.mask_id == 32 and generator.grid == (4, 4) and generator.width == 24


def test_what_is_asked_for_beside_the_text_is_told(folder: Path, texts: Text) -> None:
    """The width before the height, as the library has it."""
    generator = UVit.load(folder, image_size=(256, 512), crop=(3, 5), aesthetic_score=7.5)
    told = generator(some_ids(3), texts).logits_BLV
    logits_BLV, _ = own_pass(folder, some_ids(3), texts.values, texts.vectors, [512.0, 256.0, 3.0, 5.0, 7.5])
    assert torch.equal(told, logits_BLV)


def test_it_keeps_the_contract_and_what_it_lists_is_what_it_was_given(
    found: dict[str, Any], texts: Text
) -> None:
    generator = copy.deepcopy(found["generator"])
    natgym.check_generator(generator, texts)
    with pytest.raises(ValueError, match="has no list of conditions; say what to draw, or set `prompts`"):
        generator.conditions()
    generator.prompts = texts
    assert generator.conditions().names == TEXTS
    natgym.check_generator(generator)


def test_copies_and_what_is_saved_draw_the_same(tmp_path: Path, found: dict[str, Any], texts: Text) -> None:
    generator, ids_BL = found["generator"], some_ids(3)
    told = generator(ids_BL, texts)
    save_pretrained(generator, tmp_path / "nat")
    others = [copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))]
    for other in (*others, from_pretrained(tmp_path / "nat")):
        again = other(ids_BL, texts)
        assert torch.equal(told.logits_BLV, again.logits_BLV)
        assert torch.equal(told.features_BLD, again.features_BLD)
        assert weights_hash(other) == weights_hash(generator) and other.config == generator.config
    kept = json.loads((tmp_path / "nat" / "config.json").read_text())["config"]
    assert kept["text_encoder"] == found["encoder"].name and kept["mask_token"] == 34


def test_threads_do_not_take_each_other_s_features(found: dict[str, Any], texts: Text) -> None:
    generator = found["generator"]
    passes = [(some_ids(rows), texts[torch.arange(rows) % 3]) for rows in range(1, 7)] * 2
    alone = [generator(*one).features_BLD for one in passes]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: generator(*one).features_BLD, passes))
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


@pytest.mark.parametrize("lookup", [True, False])
def test_the_tokenizer_is_the_library_s_own(tmp_path: Path, lookup: bool) -> None:
    """As its pipelines call it, whether the model looks codes up by itself or not."""
    folder = pipeline(tmp_path / "it", lookup=lookup)
    tokenizer = VQModel.load(folder, (4, 4))
    model = diffusers.VQModel.from_pretrained(folder / "vqvae", low_cpu_mem_usage=False).eval()
    random = torch.Generator().manual_seed(0)
    images_BCHW = torch.rand(3, 3, 8, 8, generator=random)
    with torch.no_grad():
        ids = model.quantize(model.encode(images_BCHW).latents)[2][2].view(3, 16)
    assert torch.equal(tokenizer.encode(images_BCHW), ids) and len(ids.unique()) > 3
    ids_BL = torch.randint(32, (3, 16), generator=random)
    with torch.no_grad():
        looked_up = model.quantize.embedding(ids_BL).view(3, 4, 4, 6).permute(0, 3, 1, 2)
        decoded = model.decoder(model.post_quant_conv(looked_up.contiguous())).clip(0, 1)
        latents = ids_BL.view(3, 4, 4) if lookup else looked_up.contiguous()
        theirs = model.decode(latents, force_not_quantize=True, shape=(3, 4, 4, 6)).sample.clip(0, 1)
    assert torch.equal(tokenizer.decode(ids_BL), theirs) and decoded.std() > 0.01
    assert_rounded(theirs, decoded)
    assert tokenizer.image_shape == (3, 8, 8) and tokenizer.codebook_size == 32
    save_pretrained(tokenizer, tmp_path / "tokenizer")
    assert torch.equal(from_pretrained(tmp_path / "tokenizer").decode(ids_BL), tokenizer.decode(ids_BL))


def test_texts_are_read_as_the_pipeline_reads_them(folder: Path, texts: Text) -> None:
    """The states before the last layer, padding included, and the projection as it is; kept in half."""
    import transformers

    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    model = transformers.CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder")
    padded = dict(padding="max_length", truncation=True, max_length=tokenizer.model_max_length)
    with torch.no_grad():
        ids = tokenizer(TEXTS, return_tensors="pt", **padded).input_ids
        told = model(ids, output_hidden_states=True)
    assert torch.equal(texts.values, told.hidden_states[-2].half().float())
    assert torch.equal(texts.vectors, told.text_embeds.half().float())
    assert texts.values.shape == (3, 77, 16)


def test_another_encoder_is_refused(folder: Path, found: dict[str, Any]) -> None:
    task = natgym.Task(generator=UVit.load(folder, text_encoder="amused-other"), encoder=found["encoder"])
    with pytest.raises(ValueError, match="learned from texts read by amused-other"):
        task.generator  # noqa: B018


def test_what_is_missing_or_broken_is_told_in_a_line(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match="has no transformer/config.json; give the folder of a pipeline"):
        UVit.load(tmp_path)
    shutil.copytree(folder, broken := tmp_path / "broken")
    weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    weights.with_suffix(".bin").write_bytes(pickle.dumps(print))  # is not looked at
    for cut in (True, False):
        if not cut:
            weights.unlink()
        with pytest.raises(ValueError, match="holds no UVit2DModel that can be read: ") as caught:
            UVit.load(broken)
        assert "\n" not in str(caught.value)
    config = UVit.load(folder).config
    for token in (31, 36):
        with pytest.raises(ValueError, match=f"mask_token {token} is not one of 32 to 35"):
            UVit(UVitConfig(library=config.library, mask_token=token, image_size=(8, 8)))
    with pytest.raises(ValueError, match="both sides must be at least 1"):
        UVitConfig(library={}, mask_token=1, image_size=(0, 8))


def test_it_is_played_and_learned_on(found: dict[str, Any]) -> None:
    """More of both in tests/natgym/test_others.py."""
    task = natgym.Task("amused", **found)
    policy = natgym.FixedPolicy(as_schedule("maskgit", 3))
    together, alone = (
        natgym.rollout(policy, task, condition=texts, seed=seed, rules="halton")
        for texts, seed in ((TEXTS, 0), (TEXTS[1:2], 1))
    )
    assert together.images.shape == (3, 3, 8, 8)
    assert torch.equal(together.tokens_NL[1:2], alone.tokens_NL)

    def brightness(images: Tensor, condition: Text) -> Tensor:
        return images.mean((1, 2, 3))

    conditions = task.named(TEXTS)
    env = natgym.DecodeVectorEnv(4, task=task, steps=2, reward=brightness, conditions=conditions)
    trainer = AdaNATTrainer(env, AdaNATConfig(updates=2))
    assert [trainer.update()["update"] for _ in range(2)] == [1, 2]


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(
        ValueError, match=r"diffusers is needed for this network .*pip install '.\[diffusers\]'"
    ):
        UVit.load(folder)
