"""Official checkpoints: every key read or left out by name, files of all kinds, refusals of one line."""

import argparse
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from generators.conditions import Labels
from generators.enat import ENAT, ENATConfig, enat_l
from generators.formats import ENAT_FORMAT, FORMATS, NAT_FORMAT, VQGAN_FORMAT, Format
from generators.nat import NAT, NATConfig, nat_l
from generators.texts import Text
from generators.vqgan import VQGAN, VQGANConfig, vqgan_f16
from generators.weights import convert, other_entries, read

COMPAT = Path(__file__).resolve().parents[3] / "shared" / "compat"
OFFICIAL = {
    "autonat_l": nat_l(),
    "adanat_in256": nat_l(),
    "adanat_cc3m": nat_l(num_classes=None, text_width=1280, width=1152, depth=28, heads=16),
    "enat_l_256": enat_l(),
    "enat_l_512": enat_l(grid=(32, 32)),
    "vqgan_f16": vqgan_f16(),
}

# Our words for theirs, by a list of our own: replaced one after the other.
WORDS = {
    NAT: [
        ("token_embedding", "token_emb"),
        ("condition_embedding.project", "context_embed"),
        ("condition_embedding", "context_embed"),
        (".word.", ".word_embeddings."),
        (".position.", ".position_embeddings."),
        ("emb.norm", "emb.LayerNorm"),
        ("embed.norm", "embed.LayerNorm"),
        ("head.norm", "mlm_layer.ln"),
        ("head.", "mlm_layer."),
    ],
    ENAT: [
        ("token_embedding", "x_embedder"),
        ("condition_embedding", "y_embedder.embedding_table"),
        (".word.", ".word_embeddings."),
        (".position.", ".position_embeddings."),
        ("embedder.norm", "embedder.LayerNorm"),
        ("reuse_projection", "prev_proj"),
        ("kv_context", "kv.A"),
        ("kv_own", "kv.B"),
        ("modulation", "adaLN_modulation.1"),
        ("head.norm", "mlm_layer.ln"),
        ("head.", "mlm_layer."),
    ],
    VQGAN: [
        (r"encoder\.levels\.(\d+)\.(\d+)", r"encoder.down.\1.block.\2"),
        (r"decoder\.levels\.(\d+)\.(\d+)", r"decoder.up.\1.block.\2"),
        (r"upsample\.(\d+)\.1", r"up.\1.upsample.conv"),
        ("shortcut", "nin_shortcut"),
        (r"middle\.0", "mid.block_1"),
        (r"middle\.1", "mid.block_2"),
        (r"coder\.norm", "coder.norm_out"),
        ("codebook", "quantize.embedding"),
    ],
}
SMALL: dict[str, tuple[type[nn.Module], Any]] = {
    "nat": (NAT, NATConfig(codebook_size=24, grid=(4, 4), num_classes=10, width=32, depth=4, heads=4)),
    "text": (
        NAT,
        NATConfig(codebook_size=24, grid=(3, 5), text_width=12, width=32, depth=2, heads=8, qkv_bias=True),
    ),
    "no skips": (
        NAT,
        NATConfig(codebook_size=24, grid=(2, 2), num_classes=3, width=32, depth=2, heads=2, skip=False),
    ),
    "enat": (
        ENAT,
        ENATConfig(
            codebook_size=24, grid=(2, 6), num_classes=5, width=32, encoder_depth=2, decoder_depth=1, heads=4
        ),
    ),
    "vqgan": (
        VQGAN,
        VQGANConfig(
            codebook_size=20, code_width=8, image_shape=(1, 16, 8), width=32, width_multipliers=(1, 2, 1, 3)
        ),
    ),
}


def small(name: str, seed: int = 0) -> nn.Module:
    """A module with nothing at zero."""
    module_class, config = SMALL[name]
    torch.manual_seed(seed)
    module = module_class(config).eval().requires_grad_(False)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module


def official_names(module: nn.Module) -> dict[str, Tensor]:
    """The weights under the names that the official code gives them."""
    result = {}
    for name, tensor in module.state_dict().items():
        for ours, theirs in WORDS[type(module)]:  # type: ignore[index]
            name = re.sub(ours if "\\" in ours else re.escape(ours), theirs, name)
        result[name] = tensor
    return result


def given(config: Any) -> dict[str, Any]:
    """What the shapes of a small module don't tell."""
    if isinstance(config, VQGANConfig):
        return {"grid": tuple(side // config.factor for side in config.image_shape[1:])}
    extra = {"decoder_depth": config.decoder_depth} if isinstance(config, ENATConfig) else {}
    return {"grid": config.grid, "heads": config.heads} | extra


def output(module: Any) -> Tensor:
    """What a module makes of a fixed input."""
    generator = torch.Generator().manual_seed(5)
    if isinstance(module, VQGAN):
        ids_BL = module.encode(torch.rand(2, *module.image_shape, generator=generator))
        return torch.cat([module.decode(ids_BL).flatten(), ids_BL.flatten()])
    ids_BL = torch.randint(module.codebook_size + 1, (2, module.num_tokens), generator=generator)
    if module.config.num_classes is None:
        texts_BSE = torch.randn(2, 3, module.config.text_width, generator=generator)
        return module(ids_BL, Text.of(texts_BSE, texts_BSE[0], ("a", "b"))).logits_BLV
    return module(ids_BL, Labels(torch.tensor([0, 2]), module.config.num_classes)).logits_BLV


def official_list(name: str) -> dict[str, Any]:
    path = COMPAT / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no list of official keys {path}")
    return json.loads(path.read_text())


def on_meta(schema: dict[str, Any]) -> dict[str, Tensor]:
    return {key: torch.empty(entry["shape"], device="meta") for key, entry in schema["keys"].items()}


@pytest.mark.golden
@pytest.mark.parametrize("name", OFFICIAL)
def test_every_key_of_the_official_checkpoints_is_read(name: str) -> None:
    """Without any argument: the official sizes are known."""
    schema = official_list(name)
    converted = convert(on_meta(schema))
    assert converted.config == OFFICIAL[name]
    assert list(converted.ignored) == schema["meta"].get("unused_keys", [])
    assert len(converted.weights) + len(converted.ignored) == schema["n_keys"]
    for key in set(schema["keys"]) - set(converted.ignored):
        ours = converted.format.ours(key)
        assert ours in converted.weights and converted.format.official(ours) == key
    left_out = sum(torch.Size(schema["keys"][key]["shape"]).numel() for key in converted.ignored)
    found = sum(parameter.numel() for parameter in converted.build().parameters())
    assert found + left_out == schema["n_parameters"]


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("adanat_policy", "an AdaNAT policy: 88 keys under policy, policy_old"),
        ("adanat_policy_cc3m", "an AdaNAT policy"),
        ("adanat_discriminator_full", "an AdaNAT discriminator: 258 keys under mapping, dino, heads"),
        ("adanat_discriminator_full_cc3m", "an AdaNAT discriminator"),
        ("adanat_discriminator_heads", "an AdaNAT discriminator"),
        ("adanat_discriminator_heads_cc3m", "an AdaNAT discriminator: 90 keys under heads"),
        ("inception_fid", "an Inception network: 566 keys under Conv2d_1a_3x3, .* and 9 more"),
    ],
)
def test_other_official_files_are_named(name: str, what: str) -> None:
    expected = "expected a U-ViT .*: token_emb, .* or an ENAT: x_embedder, .* or a VQGAN: encoder, decoder,"
    with pytest.raises(ValueError, match=f"^looks like {what}.*; {expected}") as caught:
        convert(on_meta(official_list(name)))
    assert "\n" not in str(caught.value)


def test_one_format_where_another_is_expected() -> None:
    with pytest.raises(
        ValueError,
        match="^looks like an ENAT: 60 keys under x_embedder, .*; expected a U-ViT .*: token_emb, ",
    ):
        convert(official_names(small("enat")), expected=NAT_FORMAT, heads=4)
    names = official_names(small("nat"))
    assert convert(names, expected=NAT_FORMAT, heads=4).format is NAT_FORMAT


@pytest.mark.parametrize("keys", [["conv1.weight", "norm.weight"], ["state_dict", "epoch"], ["a"]])
def test_an_unknown_file_is_described(keys: list[str]) -> None:
    with pytest.raises(ValueError, match=f"looks like nothing known: {len(keys)} keys under {keys[0][:5]}"):
        convert({key: torch.zeros(2) for key in keys})


@pytest.mark.parametrize("name", SMALL)
def test_official_names_survive_a_round_trip(name: str) -> None:
    module = small(name)
    official = official_names(module)
    converted = convert(official, **given(module.config))
    assert converted.config == module.config and not converted.ignored
    assert list(converted.weights) == list(module.state_dict())
    built = converted.build()
    for key, tensor in official.items():
        ours = built.state_dict()[converted.format.ours(key) or ""]
        assert ours.data_ptr() == tensor.data_ptr(), f"{key} was copied"
    assert not built.training and not any(parameter.requires_grad for parameter in built.parameters())
    assert torch.equal(output(built), output(module))
    assert not torch.equal(output(built), output(small(name, seed=1)))


def test_what_is_left_out_is_named() -> None:
    module = small("enat")
    dead = {"prev_embedder.fc1.weight": torch.zeros(3), "prev_embedder.fc2.bias": torch.zeros(1)}
    converted = convert(official_names(module) | dead, **given(module.config))
    assert converted.ignored == dict.fromkeys(dead, "never used by the official forward pass")
    counts = {"text.position_ids": torch.arange(3)}
    converted = convert(official_names(small("text")) | counts, **given(SMALL["text"][1]))
    assert list(converted.ignored) == ["text.position_ids"] and "text" not in "".join(converted.weights)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_tables_lead_there_and_back(form: Format) -> None:
    """No line of a table hides another, in either direction."""
    numbers = iter(range(1000))
    for theirs, ours in form.table.items():
        blocks = [next(numbers) for _ in range(theirs.count("{}"))]
        key, name = theirs.format(*blocks) + "weight", ours.format(*blocks) + "weight"
        assert form.ours(key) == name and form.official(name) == key
        assert theirs.count("{}") == ours.count("{}")


CHANGES: list[tuple[str, dict[str, Tensor | None], str]] = [
    ("nat", {"mid_block.norm1.bias": None}, "unknown: none; missing: mid_block.norm1.bias$"),
    ("nat", {"token_emb.word_embeddings.weight": None}, "missing: token_emb.word_embeddings.weight$"),
    ("nat", {"mlm_layer.ln.weight": None}, "missing: mlm_layer.ln.weight$"),
    ("nat", {"x.mlp.bias": torch.zeros(3)}, "unknown: x.mlp.bias; missing: none$"),
    ("nat", {"in_blocks.0.extra": torch.zeros(3)}, "unknown: in_blocks.0.extra;"),
    ("nat", {"norm.weight": torch.zeros(3)}, r"norm.weight is \(3,\), not \(32,\)"),
    ("nat", {"token_emb.word_embeddings.weight": torch.zeros(3)}, r"is \(3,\); expected 2 dimensions"),
    ("nat", {"token_emb.word_embeddings.weight": torch.zeros(3, 0)}, r"is \(3, 0\); expected 2"),
    ("enat", {"blocks.1.attn.kv.A.bias": None}, "missing: blocks.1.attn.kv.A.bias$"),
    (
        "enat",
        {"blocks.1.attn.kv_own.bias": torch.zeros(64)},
        "unknown: blocks.1.attn.kv_own.bias; missing: no",
    ),
    ("enat", {"blocks.0.mlp.fc1.weight": None}, "missing: blocks.0.mlp.fc1.weight$"),
    ("vqgan", {"quant_conv.weight": torch.zeros(3)}, "unknown: quant_conv.weight; missing: none$"),
    ("vqgan", {"encoder.down.0.block.0.conv2.weight": None}, "missing: encoder.down.0.block.0.conv2.weight$"),
    ("vqgan", {"decoder.up.3.upsample.conv.bias": None}, "missing: decoder.up.3.upsample.conv.bias$"),
    (
        "vqgan",
        {"encoder.conv_in.weight": torch.zeros(32, 3, 3, 3)},
        r"is \(1, 32, 3, 3\), not \(3, 32, 3, 3\)",
    ),
]


@pytest.mark.parametrize(("name", "change", "message"), CHANGES)
def test_a_wrong_file_is_named_in_one_line(name: str, change: dict[str, Tensor | None], message: str) -> None:
    official = official_names(small(name)) | change
    with pytest.raises(ValueError, match=message) as caught:
        convert({key: value for key, value in official.items() if value is not None}, **given(SMALL[name][1]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("nat", {}, "heads can't be told from weights of width 32 and depth 4; give heads"),
        ("nat", {"heads": 5}, "width 32 is not divisible by heads 5"),
        ("nat", {"heads": 4, "grid": (5, 4)}, "5 x 4 does not hold the 16 tokens"),
        ("text", {"heads": 4}, "3 x 3 does not hold the 15 tokens; give another grid"),
        (
            "nat",
            {"heads": 4, "decoder_depth": 1},
            "decoder_depth can't be given for a U-ViT .*; only grid, heads",
        ),
        ("enat", {"heads": 4, "grid": (2, 6)}, "decoder_depth can't be told from .* width 32 and depth 3"),
        ("enat", {"heads": 4, "grid": (2, 6), "decoder_depth": 3}, "decoder_depth 3 is not one of 1 to 2"),
        ("vqgan", {"heads": 4}, "heads can't be given for a VQGAN; only grid can"),
    ],
)
def test_what_shapes_do_not_tell_is_asked_for(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(official_names(small(name)), **given)


def save_legacy(content: Any, path: Path) -> None:
    """The form of torch before 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)


def save_wrapped(content: Any, path: Path) -> None:
    torch.save({"state_dict": content, "epoch": 3}, path)


def save_adanat(content: Any, path: Path) -> None:
    """A checkpoint of AdaNAT's training, whose arguments are an object."""
    arguments = argparse.Namespace(lr=1e-5, ratios=[0.5], name="x", nested=argparse.Namespace(a=None))
    torch.save({"model": content, "args": arguments, "global_step": 7, "optimizer": {"state": {}}}, path)


def save_parallel(content: Any, path: Path) -> None:
    torch.save({f"module.{key}": value for key, value in content.items()}, path)


CONTAINERS: list[tuple[Callable[[Any, Path], Any], str]] = [
    (torch.save, "nnet_ema.pth"),
    (save_legacy, "old.ckpt"),
    (save_wrapped, "vqgan.ckpt"),
    (save_adanat, "ckpt_7.pth"),
    (save_parallel, "parallel.pth"),
    (save_file, "model.safetensors"),
]


@pytest.mark.parametrize("name", ["nat", "vqgan"])
@pytest.mark.parametrize(("write", "file"), CONTAINERS)
def test_containers(tmp_path: Path, write: Callable[[Any, Path], Any], file: str, name: str) -> None:
    module = small(name)
    official = official_names(module)
    write(official, tmp_path / file)
    found = read(tmp_path / file)
    assert found.keys() == official.keys()
    assert all(torch.equal(found[key], official[key]) for key in official)
    assert torch.equal(output(convert(found, **given(module.config)).build()), output(module))


@pytest.mark.parametrize("inside", ["", "_orig_mod.", "_fsdp_wrapped_module._checkpoint_wrapped_module."])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."]
)
def test_wrappers_prefixes_come_off(tmp_path: Path, prefix: str, inside: str) -> None:
    weights = {"norm.weight": torch.arange(3.0), "module_list.0": torch.ones(1)}
    wrapped = {prefix + name.replace(".", f".{inside}"): tensor for name, tensor in weights.items()}
    torch.save({"model": wrapped}, tmp_path / "x.pth")
    found = read(tmp_path / "x.pth")
    assert found.keys() == weights.keys() and torch.equal(found["norm.weight"], weights["norm.weight"])


def test_the_file_of_an_average_is_read(tmp_path: Path) -> None:
    """torch's own, of a model whose parts are compiled."""
    module = small("nat")
    weights = module.state_dict()
    module.norm = torch.compile(module.norm)
    torch.save(AveragedModel(nn.DataParallel(module)).state_dict(), tmp_path / "ema.pth")
    found = read(tmp_path / "ema.pth")
    assert list(found) == list(weights) and all(torch.equal(found[name], weights[name]) for name in found)


def test_what_else_a_file_holds_is_known(tmp_path: Path) -> None:
    weights = {"a": torch.zeros(2), "b": torch.ones(1)}
    torch.save({"model": weights, "ema": dict(weights), "step": 7, "none": {}}, tmp_path / "two.pth")
    torch.save(weights, tmp_path / "flat.pth")
    assert other_entries(tmp_path / "two.pth") == {"ema": 2}
    assert other_entries(tmp_path / "flat.pth") == {}


def test_half_precision_is_cast() -> None:
    model = NAT(NATConfig(codebook_size=4, grid=(2, 2), num_classes=3, width=8, depth=2, heads=2))
    official = {NAT_FORMAT.official(name): tensor.half() for name, tensor in model.state_dict().items()}
    built = convert(official, heads=2).build()
    assert all(parameter.dtype == torch.float32 for parameter in built.parameters())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mapped files")
def test_weights_stay_in_the_file(tmp_path: Path) -> None:
    """Every tensor, also of the module that is built, lies where the file is mapped."""
    torch.save(official_names(small("nat")), tmp_path / "nnet_ema.pth")
    built = convert(read(tmp_path / "nnet_ema.pth"), heads=4).build()
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    spans = [line[0].split("-") for line in maps if line[-1] == str(tmp_path / "nnet_ema.pth")]
    assert spans
    for name, tensor in built.state_dict().items():
        at = tensor.data_ptr()
        assert any(int(first, 16) <= at < int(end, 16) for first, end in spans), f"{name} was copied"


class Payload:
    """What an attacker would put into a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.parametrize(
    "write",
    [torch.save, save_legacy, save_wrapped, lambda content, path: path.write_bytes(pickle.dumps(content, 2))],
)
def test_reading_executes_nothing(tmp_path: Path, write: Callable[[Any, Path], Any]) -> None:
    marker, path = tmp_path / "executed", tmp_path / "weights.pth"
    for content in ({"a": Payload(marker)}, {"args": argparse.Namespace(a=Payload(marker))}):
        write(content, path)
        with pytest.raises(ValueError, match=r"weights.pth is not loaded: it .*; expected") as caught:
            read(path)
        assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
        assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists(), "the payload has to work where nobody defends"


def test_what_a_file_asks_for_is_named(tmp_path: Path) -> None:
    torch.save({"path": Path("x")}, tmp_path / "weights.pth")
    asked = f"{type(Path()).__module__}.PosixPath"  # which is another place from Python 3.13 on
    with pytest.raises(ValueError, match=f"it asks for {asked}, which could run code; expected"):
        read(tmp_path / "weights.pth")


def test_the_allowance_ends_with_the_file(tmp_path: Path) -> None:
    save_adanat(official_names(small("nat")), tmp_path / "ckpt.pth")
    read(tmp_path / "ckpt.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "ckpt.pth", weights_only=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", b"PK\x03\x04 broken", pickle.dumps({"a": 1}), b"\x80\x02garbage", b"manual_ratios: [0.5]"],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_broken_file_gives_one_line(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the pickle protocol
        with pytest.raises(ValueError, match=rf"weights.{suffix} (is not loaded|holds no weights)") as caught:
            read(path)
    assert "\n" not in str(caught.value)


def test_half_a_file_gives_one_line(tmp_path: Path) -> None:
    for write, file in CONTAINERS:
        write(official_names(small("nat")), tmp_path / file)
        data = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=f"{file} is not loaded") as caught:
            read(tmp_path / file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [{}, [1, 2], torch.zeros(3), {"epoch": 3}, {1: torch.zeros(1)}, {"model": {}}]
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="weights.pth holds no weights; expected named tensors"):
        read(tmp_path / "weights.pth")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file .*absent.pth"):
        read(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)


def test_formats_are_told_apart() -> None:
    """A few keys lost or added change nothing; the roots that formats share decide nothing."""
    for name, form in {
        "nat": NAT_FORMAT,
        "text": NAT_FORMAT,
        "enat": ENAT_FORMAT,
        "vqgan": VQGAN_FORMAT,
    }.items():
        official = official_names(small(name)) | {"epoch": torch.zeros(1)}
        with pytest.raises(ValueError, match=f"looks like an? {re.escape(form.name)}: .*unknown: epoch"):
            convert(official, **given(SMALL[name][1]))
    with pytest.raises(ValueError, match="looks like nothing known"):
        convert({key: torch.zeros(1) for key in ("norm.weight", "mlm_layer.bias", "other", "another")})
