"""Pretrained encoders of texts, on small ones built here: CLIP as AdaNAT takes it, T5, BERT."""

from pathlib import Path
from typing import Any

import pytest
import torch
from letters import letter_tokenizer

from generators.checkpoints import from_pretrained, save_pretrained
from generators.encoders import encode, make_encoder
from generators.language_models import LanguageModel, LanguageModelConfig
from generators.texts import Captions
from rounding import assert_rounded

transformers = pytest.importorskip("transformers", reason="the extra `pretrained` is not installed")
TEXTS = ["a cat", "a cat sat", ""]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 2 layers that knows letters."""
    folder = tmp_path_factory.mktemp("clip")
    size = letter_tokenizer(transformers, folder, 77)
    config = transformers.CLIPTextConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=20,
        projection_dim=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    transformers.CLIPTextModelWithProjection(config).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: row for row, word in enumerate(["<pad>", "</s>", "<unk>", "a", "cat", "sat"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=20
    )
    fast.save_pretrained(folder)
    config = transformers.T5Config(vocab_size=6, d_model=16, d_kv=8, d_ff=20, num_layers=1, num_heads=2)
    torch.manual_seed(0)
    transformers.T5EncoderModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


def test_clip_is_read_as_its_official_code_reads_it(clip: Path) -> None:
    """77 states, padding of id 0 included, no attention mask; the projected embedding of length 1."""
    encoder = LanguageModel.load(f"clip:{clip}")
    tokens, pooled = encoder(TEXTS)
    assert tokens.shape == (3, 77, 16) and pooled.shape == (3, 12)
    model = transformers.CLIPTextModelWithProjection.from_pretrained(clip).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(clip)
    for row, text in enumerate(TEXTS):
        ids = tokenizer(text)["input_ids"]
        ids = torch.tensor([ids + [0] * (77 - len(ids))])
        with torch.no_grad():
            told = model(input_ids=ids)
        torch.testing.assert_close(tokens[row].float(), told.last_hidden_state[0], atol=2e-3, rtol=2e-3)
        direction = told.text_embeds[0] / told.text_embeds[0].norm()
        torch.testing.assert_close(pooled[row].float(), direction, atol=2e-3, rtol=2e-3)


def test_of_t5_padding_is_nothing_and_a_text_is_read_as_alone(t5: Path) -> None:
    encoder = LanguageModel.load(f"t5:{t5}")
    tokens, pooled = encoder(TEXTS[:2])
    model = transformers.T5EncoderModel.from_pretrained(t5).eval()
    for row, ids in enumerate(([3, 4], [3, 4, 5])):
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(tokens[row, : len(ids)].float(), states, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(pooled[row].float(), states.mean(0), atol=2e-3, rtol=2e-3)
        assert not tokens[row, len(ids) :].any() and len(tokens[row]) == 20
    alone = encoder(["a cat"])[0][0]
    assert_rounded(alone.float(), tokens[0].float(), size=1)


def test_what_is_encoded_is_kept_by_content(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATGYM_CACHE", str(tmp_path / "kept"))
    encoder = LanguageModel.load(f"clip:{clip}")
    first = encode(TEXTS, encoder)
    assert len(list((tmp_path / "kept" / "texts").iterdir())) == 2
    monkeypatch.setattr(LanguageModel, "forward", lambda *_: pytest.fail("it was encoded before"))
    again = encode(TEXTS, encoder)
    assert torch.equal(again.values, first.values) and torch.equal(again.vectors, first.vectors)
    assert again.values.dtype == torch.float32 and again.table.tokens_MSE.dtype == torch.float16
    with pytest.raises(pytest.fail.Exception):
        encode([*TEXTS, "a dog"], encoder)


def test_it_is_saved_as_a_name_and_refuses_other_weights(clip: Path, tmp_path: Path) -> None:
    captions = Captions((("a cat",),))
    encoder: Any = make_encoder(f"clip:{clip}", captions)
    save_pretrained(encoder, tmp_path / "encoder")
    again: Any = from_pretrained(tmp_path / "encoder")
    assert again.name == encoder.name and again._loaded is None, "nothing is loaded before a text is read"
    assert torch.equal(again(["a cat"])[0], encoder(["a cat"])[0])
    other = LanguageModel(
        LanguageModelConfig(kind="clip", name=str(clip), weights="of another")  # as if the folder had changed
    )
    with pytest.raises(ValueError, match="texts were encoded by of another"):
        other(["a cat"])


def test_it_goes_where_it_is_sent(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded already or not, and wherever a saved one is asked for; by no dtype but its own."""
    loaded: Any = LanguageModel.load(f"clip:{clip}")
    save_pretrained(loaded, tmp_path)
    waiting: Any = from_pretrained(tmp_path)
    monkeypatch.setattr("generators.checkpoints.load_file", lambda *_, **__: {})  # which reads to no meta
    saved: Any = from_pretrained(tmp_path, "meta")
    for encoder in (loaded.to("meta"), waiting.to("meta"), saved):
        assert encoder._both[1].device.type == "meta" and encoder.double()._both[1].dtype == torch.float32


def test_long_texts_are_cut_with_a_warning(clip: Path) -> None:
    encoder = LanguageModel.load(f"clip:{clip}")
    assert encoder.complaint("a" * 500) is None
    with pytest.warns(UserWarning, match="is longer than 77 tokens, and cut there; so are 1 more"):
        tokens, _ = encoder(["a " * 100, "b " * 90, "c"])
    assert tokens.shape == (3, 77, 16)


@pytest.mark.parametrize("spec", ["", "clip", "clip:", "bert:x", "words:x"])
def test_names_of_encoders(spec: str) -> None:
    with pytest.raises(ValueError, match="is not words, minilm, clip:NAME"):
        LanguageModelConfig.of(spec)
    assert LanguageModelConfig.of("minilm") == LanguageModelConfig(kind="transformers", name="minilm")
