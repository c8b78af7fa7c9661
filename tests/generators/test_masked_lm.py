"""Masked language models behind our contract: the library's own passes, prompts, and what is never drawn."""

import copy
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import LETTERS, SPECIAL, language_model
from torch import Tensor

import natgym
from generators.checkpoints import from_pretrained, save_pretrained, weights_hash
from generators.conditions import Labels
from generators.decoding import advance, start
from generators.given import DRAWN, Given
from generators.language_models import LanguageModel
from generators.noise import HashNoise
from generators.others.masked_lm import FORBIDDEN, MaskedLM, MaskedLMConfig, prompted
from generators.others.words import Words, WordsConfig
from generators.schedules import DecodeParams, as_schedule
from rounding import assert_rounded

transformers = pytest.importorskip("transformers", reason="the extra `pretrained` is not installed")
PROMPTS = ["a b c", "d"]
MASK, CLS, SEP, V = SPECIAL.index("[MASK]"), SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]"), 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("bert"))[0]


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[MaskedLM, Words]:
    return MaskedLM.load(folder, (2, 4), prompts=PROMPTS)


def some_ids() -> Tensor:
    """All masked, none masked, and some."""
    ids_BL = torch.randint(5, 17, (3, 8), generator=torch.Generator().manual_seed(0))
    ids_BL[0], ids_BL[2, ::2] = V, V
    return ids_BL


def own_pass(folder: Path, ids_BL: Tensor) -> tuple[Tensor, Tensor]:
    """The library's model on its own, between its marks."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    read = []
    model.get_output_embeddings().register_forward_hook(lambda layer, inputs, output: read.append(inputs[0]))
    ids = [[CLS, *(MASK if one == V else one for one in row), SEP] for row in ids_BL.tolist()]
    with torch.no_grad():
        inputs = torch.tensor(ids)
        logits_BLV = model(inputs, attention_mask=torch.ones_like(inputs)).logits
    return logits_BLV[:, 1:-1], read[0][:, 1:-1]


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_a_pass_is_the_library_s_own(tmp_path: Path, kind: str) -> None:
    folder, _ = language_model(tmp_path, kind)
    generator, _ = MaskedLM.load(folder, (2, 4))
    told = generator(some_ids(), Labels(torch.zeros(3, dtype=torch.long), 1))
    logits_BLV, features_BLD = own_pass(folder, some_ids())
    letters = slice(len(SPECIAL), len(SPECIAL) + len(LETTERS))
    assert torch.equal(told.logits_BLV[..., letters], logits_BLV[..., letters])
    assert torch.equal(told.features_BLD, features_BLD)
    forbidden = [number for number in range(V) if not 5 <= number < 17]
    assert bool((told.logits_BLV[..., forbidden] == FORBIDDEN).all())
    assert generator.mask_id == V and generator.width == 16 and generator.grid == (2, 4)


def test_it_keeps_the_contract(folder: Path, both: tuple[MaskedLM, Words]) -> None:
    natgym.check_generator(both[0])
    free, _ = MaskedLM.load(folder, (1, 5))
    natgym.check_generator(free)
    assert free.conditions().names == ["0"] and not free.conditions().guides


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_copies_and_what_is_saved_write_the_same(tmp_path: Path, kind: str) -> None:
    """The library ties two tensors, and computes what no file holds."""
    folder, _ = language_model(tmp_path / "its", kind)
    generator, words = MaskedLM.load(folder, (2, 4), prompts=PROMPTS)
    condition = generator.conditions()[[0, 1, 1]]
    told = generator(some_ids(), condition)
    save_pretrained(generator, tmp_path / "nat")
    save_pretrained(words, tmp_path / "tokenizer")
    others = [copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))]
    for other in (*others, from_pretrained(tmp_path / "nat")):
        again = other(some_ids(), condition)
        assert torch.equal(told.logits_BLV, again.logits_BLV)
        assert torch.equal(told.features_BLD, again.features_BLD)
        assert weights_hash(other) == weights_hash(generator) and other.conditions().names == PROMPTS
    live = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    theirs, _ = MaskedLM.of(live, transformers.AutoTokenizer.from_pretrained(folder), (2, 4))
    assert theirs.model is live and weights_hash(theirs) == weights_hash(generator)
    ids_BL = torch.randint(5, 17, (2, 8))
    assert from_pretrained(tmp_path / "tokenizer").read(ids_BL) == words.read(ids_BL)


def test_prompts_are_given_and_guidance_is_away_from_their_absence(
    folder: Path, both: tuple[MaskedLM, Words]
) -> None:
    """By a slow route: the library's pass with the prompt and without it, row by row."""
    generator, words = both
    condition = generator.conditions()[[0, 1]]
    assert condition.names == PROMPTS and condition.guides
    params = DecodeParams.from_table(torch.tensor([[0.6, 0.0, 1.0, 3.0], [0.6, 0.0, 1.0, 1.5]]).double())
    state = start(generator, condition, steps=2)
    assert words.read(state.ids_BL.masked_fill(state.ids_BL == V, 0)) == PROMPTS
    noise = HashNoise(torch.tensor([5, 9]))
    after = advance(generator, state, params, noise)
    asked, _ = own_pass(folder, state.ids_BL)
    free, _ = own_pass(folder, torch.full_like(state.ids_BL, V))
    scale_B11 = torch.tensor([3.0, 1.5])[:, None, None]
    guided_BLV = asked + scale_B11 * (asked - free)
    forbidden = [number for number in range(V) if not 5 <= number < 17]
    guided_BLV[..., forbidden] = FORBIDDEN
    drawn_BL = noise.categorical(guided_BLV, 0)
    known_BL = condition.given_BL >= 0
    assert torch.equal(after.drawn_BL[~known_BL], drawn_BL[~known_BL])
    log_probs_BL = guided_BLV.log_softmax(-1).gather(-1, drawn_BL[..., None])[..., 0]
    size = float(guided_BLV.abs().max())
    assert_rounded(after.log_probs_BL[~known_BL], log_probs_BL[~known_BL], size=size)
    assert after.nfe_B.tolist() == [3, 3]


def test_other_prompts_are_conditions_as_well(both: tuple[MaskedLM, Words]) -> None:
    """Even one alone, and the same one twice."""
    generator, words = both
    policy = natgym.FixedPolicy(as_schedule("maskgit:w=2", 3))
    texts = ["k l", "k l", "b"]
    drawn = natgym.rollout(policy, generator, words, prompted(texts, words), seed=0)
    assert all(map(str.startswith, words.texts(drawn.images), texts))
    alone = natgym.rollout(policy, generator, words, prompted(["k l"], words), seed=1)
    assert torch.equal(alone.tokens_NL[0], drawn.tokens_NL[1]) and alone.nfe_N[0] == drawn.nfe_N[1]
    with pytest.raises(ValueError, match="has 8 tokens; give 1 to 7"):
        prompted(["a a a a a a a a"], words)


def test_rows_that_are_guided_do_not_take_others_prompts_away(both: tuple[MaskedLM, Words]) -> None:
    """Which tokens the unconditional pass leaves out is a row's own, whatever rows are guided beside it."""
    generator, _ = both
    condition = generator.conditions()[[0, 1, 0, 1]]
    table = torch.tensor([[0.6, 1.0, 1.0, scale] for scale in (0.0, 2.0, 2.0, 0.0)]).double()
    for rows in ([0, 1, 2, 3], [1], [2], [3, 1]):
        params = DecodeParams.from_table(table[rows])
        state = start(generator, condition[rows], steps=3)
        for _ in range(3):
            state = advance(generator, state, params, HashNoise(torch.tensor(rows)))
        if len(rows) == 4:
            together = state
        assert torch.equal(state.ids_BL, together.ids_BL[rows])
        assert torch.equal(state.nfe_B, together.nfe_B[rows])


def test_any_tokens_may_be_given(both: tuple[MaskedLM, Words]) -> None:
    """A text is filled in; what stands there stays, and nothing that is forbidden is drawn."""
    generator, words = both
    tokens_BL = torch.full((40, 8), DRAWN)
    tokens_BL[:, 3], tokens_BL[:, 6] = words.ids("k")[0], SEP  # which may be given, though not drawn
    condition = Given(Labels(torch.zeros(40, dtype=torch.long), 1), tokens_BL)
    policy = natgym.FixedPolicy(as_schedule("reference:sampling=3", 4))
    drawn = natgym.rollout(policy, generator, words, condition, seed=0).tokens_NL
    assert bool((drawn[:, 3] == words.ids("k")[0]).all() and (drawn[:, 6] == SEP).all())
    rest = drawn[:, [0, 1, 2, 4, 5, 7]]
    assert set(rest.unique().tolist()) == set(range(5, 17))


def test_special_tokens_may_be_allowed(folder: Path) -> None:
    generator, _ = MaskedLM.load(folder, (1, 8), allowed=["[SEP]", "[MASK]"])
    assert SEP not in generator.config.forbidden and MASK in generator.config.forbidden
    with pytest.raises(ValueError, match=r"allowed '\[END\]' is not one of the special tokens \["):
        MaskedLM.load(folder, (1, 8), allowed=["[END]"])


def test_tokens_are_colors_of_eight_bits() -> None:
    """Any vocabulary's, through a file of 8 bits and back."""
    words = Words(WordsConfig(codebook_size=256**3, grid=(2, 5), vocabulary=""))
    ids_BL = torch.randint(256**3, (50, 10), generator=torch.Generator().manual_seed(0))
    ids_BL[0, :3] = torch.tensor([0, 256**3 - 1, 70_000])
    images_BCHW = words.decode(ids_BL)
    assert images_BCHW.shape == (50, *words.image_shape) and images_BCHW.max() <= 1
    kept = (255 * images_BCHW).round().byte()
    assert kept[0, :, 0, 2].tolist() == [1, 0x11, 0x70] and 0x011170 == 70_000
    assert torch.equal(words.encode(kept.float() / 255), ids_BL)
    small = Words(WordsConfig(codebook_size=20, grid=(1, 1), vocabulary=""))
    assert small.encode(torch.ones(1, 3, 1, 1)).tolist() == [[19]]


def test_a_large_vocabulary_and_long_texts_are_loaded(tmp_path: Path) -> None:
    """As BERT's, whose words are more than any number in a file without weights."""
    words = Words(WordsConfig(codebook_size=30_522, grid=(1, 4096), vocabulary=""))
    save_pretrained(words, tmp_path)
    again = from_pretrained(tmp_path)
    assert again.config == words.config and again.image_shape == (3, 1, 4096)


def test_what_a_config_says_of_code_is_not_asked_for(tmp_path: Path, folder: Path) -> None:
    """Neither another's class, nor kernels or quantizers that the library would fetch."""
    config = json.loads((folder / "config.json").read_text())
    shutil.copytree(folder, asking := tmp_path / "asking")
    for kernels in ({"_attn_implementation": "a/b"}, {"part": {"experts_implementation": {"": "a/b"}}}):
        (asking / "config.json").write_text(json.dumps(config | kernels))
        with pytest.raises(ValueError, match="a/b.* is code of a repository, which is not run"):
            MaskedLM.load(asking, (1, 3))
        with pytest.raises(ValueError, match="a/b.* is code of a repository, which is not run"):
            LanguageModel.load(f"transformers:{asking}")
    told = MaskedLM.load(folder, (1, 3))[0].config
    foreign = {"auto_map": {"AutoModelForMaskedLM": "x--y"}, "quantization_config": {"quant_method": "awq"}}
    with pytest.raises(ValueError, match="a/b.* is code of a repository, which is not run"):
        MaskedLM(MaskedLMConfig(**(vars(told) | {"library": told.library | {"_attn_implementation": "a/b"}})))
    built = MaskedLM(MaskedLMConfig(**(vars(told) | {"library": told.library | foreign})))
    assert built.model.config._attn_implementation in ("sdpa", "eager")
    assert not hasattr(built.model.config, "auto_map")


class Diffusion(torch.nn.Module):
    """A live model of no library: what LLaDA and others have of the surface, and not more."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = torch.nn.Embedding(V, 6), torch.nn.Linear(6, V)
        self.config = transformers.PretrainedConfig()

    def get_output_embeddings(self) -> Any:
        return self.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        x = self.embedding(input_ids)
        return transformers.modeling_outputs.MaskedLMOutput(logits=self.head(x + x.mean(1, keepdim=True)))


def test_a_live_model_of_the_same_surface_plays(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    generator, words = MaskedLM.of(Diffusion(), tokenizer, (1, 6), prompts=["a"])
    natgym.check_generator(generator)
    assert not generator.training and not any(weight.requires_grad for weight in generator.parameters())
    policy = natgym.FixedPolicy(as_schedule("maskgit", 3))
    drawn = natgym.rollout(policy, generator, words, num_images=5, seed=0)
    assert all(text.startswith("a ") and len(text.split()) == 6 for text in words.texts(drawn.images))
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="the tokenizer has no mask token; give `mask_token`"):
        MaskedLM.of(Diffusion(), tokenizer, (1, 6))


def test_what_is_wrong_is_told_in_a_line(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for prompt, told in (("a a a", "has 3 tokens; give 1 to 2"), ("", "has 0 tokens; give 1 to 2")):
        with pytest.raises(ValueError, match=told):
            MaskedLM.load(folder, (1, 3), prompts=[prompt])
    with pytest.raises(ValueError, match="33 tokens, those around included: the model reads at most 32"):
        MaskedLM.load(folder, (1, 31))
    with pytest.raises(ValueError, match="holds no masked language model that can be read: ") as caught:
        MaskedLM.load(tmp_path, (1, 3))
    assert "\n" not in str(caught.value)
    told = MaskedLM.load(folder, (1, 3))[0].config
    changes: list[tuple[dict[str, Any], str]] = [
        ({"architecture": "AutoTokenizer"}, "'AutoTokenizer' is no model of transformers"),
        ({"architecture": "system"}, "'system' is no model of transformers"),
        ({"mask_token": 20}, "token 20 is none of the 20"),
        ({"forbidden": (25,)}, "token 25 is none of the 20"),
        ({"library": {"hidden_size": "x"}}, "can't be built: "),
        ({"prompts": (("a", (5, 5, 5)),)}, "has 3 tokens"),
    ]
    for change, words in changes:
        with pytest.raises(ValueError, match=words):
            MaskedLM(MaskedLMConfig(**(vars(told) | change)))
    with pytest.raises(ValueError, match="colors tell 16,777,216 tokens apart"):
        WordsConfig(codebook_size=256**3 + 1, grid=(1, 1), vocabulary="")
    with pytest.raises(ValueError, match="the vocabulary can't be read"):
        Words(WordsConfig(codebook_size=3, grid=(1, 1), vocabulary="{}")).ids("a")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"transformers is needed .*pip install '.\[pretrained\]'"):
        MaskedLM.load(folder, (1, 3))
