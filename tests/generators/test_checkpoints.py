"""Files: exact round trips, whole or not at all, and nothing in them is ever executed."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from packaging.version import Version
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from generators import files
from generators.checkpoints import (
    config_from_dict,
    from_pretrained,
    load_state,
    read_description,
    save_pretrained,
    save_state,
    weights_hash,
    write_atomic,
)
from generators.conditions import Labels
from generators.nat import NAT, NATConfig, nat_digits
from generators.tokenizers import PatchKMeans, PatchKMeansConfig
from generators.weights import read


def nat() -> NAT:
    torch.manual_seed(0)
    return NAT(nat_digits(width=16, heads=2)).eval()


def tokenizer() -> PatchKMeans:
    result = PatchKMeans(PatchKMeansConfig(codebook_size=5, patch=2, image_shape=(1, 4, 6)))
    result.centers.copy_(torch.rand(5, 4, generator=torch.Generator().manual_seed(0)))
    return result


LOADS = """
import sys
from generators.checkpoints import PRETRAINED, from_pretrained

for name in ("nat", "tokenizer", "enat"):
    module = from_pretrained(PRETRAINED / "mnist" / name)
    assert all(weight.device.type == "cpu" and weight.isfinite().all() for weight in module.parameters())
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.skipif(Version(torch.__version__) < Version("2.14"), reason="this torch imports it elsewhere")
def test_loading_imports_no_compiler() -> None:
    """No weights are drawn that are replaced anyway; on the meta device that imports torch's, for seconds."""
    done = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True)
    assert done.stdout.split() == ["False"], done.stderr


@pytest.mark.parametrize("build", [nat, tokenizer])
def test_a_saved_module_comes_back_exactly(tmp_path: Path, build: Any) -> None:
    saved = build()
    save_pretrained(saved, tmp_path / "deep" / "folder", accuracy=0.5, data="digits")
    loaded = from_pretrained(tmp_path / "deep" / "folder")
    assert type(loaded) is type(saved) and loaded.config == saved.config
    assert weights_hash(loaded) == weights_hash(saved)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    description = read_description(tmp_path / "deep" / "folder")
    assert description["metadata"] == {"accuracy": 0.5, "data": "digits"}
    assert sorted(os.listdir(tmp_path / "deep" / "folder")) == ["config.json", "model.safetensors"]


def test_a_loaded_generator_predicts_the_same(tmp_path: Path) -> None:
    saved, condition = nat(), Labels(torch.tensor([1, 2]), 10)
    save_pretrained(saved, tmp_path)
    ids_BL = torch.full((2, 16), saved.mask_id)
    with torch.no_grad():
        expected, found = (
            model(ids_BL, condition).logits_BLV for model in (saved, from_pretrained(tmp_path))
        )
    assert torch.equal(expected, found)


def rewritten(folder: Path, **changes: Any) -> Path:
    """Save a module and change keys of its description."""
    save_pretrained(nat(), folder)
    description = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in description.items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "DiT"}, r"type 'DiT' is not one of \[.*'NAT', "),
        (
            {"config": {"codebook_size": 4, "grid": [2, 2], "widht": 16}},
            "NATConfig has no widht; it has codebook",
        ),
        ({"config": {"codebook_size": 4, "num_classes": 3}}, "NATConfig can't be built .*'grid'"),
        ({"type": None}, "not a module's description; expected the keys type, config"),
        ({"config": None}, "not a module's description"),
    ],
)
def test_a_wrong_description_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_pretrained(rewritten(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_half_a_module_is_none(tmp_path: Path, missing: str) -> None:
    (rewritten(tmp_path) / missing).unlink()
    with pytest.raises(ValueError, match="holds no saved module"):
        from_pretrained(tmp_path)


@dataclass(frozen=True)
class Typed:
    place: Path | None = None
    law: Literal["even", "data"] | None = None
    rate: float = 0.1
    flag: bool = False
    grid: tuple[int, int] = (1, 1)
    seeds: tuple[int, ...] = ()
    any: Any = None


def test_values_become_what_their_fields_are() -> None:
    found = config_from_dict(
        Typed, {"place": "a/b", "law": "data", "rate": 1, "grid": [2, 3], "seeds": [0, 1, 2], "any": [1]}
    )
    assert found == Typed(Path("a/b"), "data", 1, False, (2, 3), (0, 1, 2), (1,))
    assert config_from_dict(Typed, json.loads(json.dumps(asdict(Typed())))) == Typed()


@pytest.mark.parametrize(
    "wrong",
    [
        {"law": "zzz"},
        {"rate": "0.1"},
        {"rate": True},
        {"flag": 1},
        {"place": 3},
        {"grid": [1, 2, 3]},
        {"grid": 2},
        {"seeds": [0.5]},
    ],
)
def test_values_of_another_type_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"Typed: {name} .* is not "):
        config_from_dict(Typed, wrong)


def test_lists_become_tuples() -> None:
    config = config_from_dict(NATConfig, {"codebook_size": 4, "grid": [2, 3], "num_classes": 2})
    assert config.grid == (2, 3) and hash(config) == hash(
        NATConfig(codebook_size=4, grid=(2, 3), num_classes=2)
    )


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"update": 1})

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, failing, crash)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, {"update": 2})
    assert load_state(path) == {"update": 1}


def test_data_is_on_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushed first, renamed then, within one folder (renames between file systems are copies)."""
    order: list[str] = []
    replace, fsync = os.replace, os.fsync

    def watch_replace(source: Path, target: Path) -> None:
        assert Path(source).parent == Path(target).parent and Path(source).read_text() == "new"
        order.append("replace")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", watch_replace)
    monkeypatch.setattr(files.os, "fsync", lambda file: (order.append("fsync"), fsync(file)))
    write_atomic(tmp_path / "a.txt", "new")
    assert order == ["fsync", "replace"] and os.listdir(tmp_path) == ["a.txt"]


def test_a_state_comes_back_exactly(tmp_path: Path) -> None:
    state = {
        "tensor": torch.randn(3, dtype=torch.float64),
        "low": torch.tensor([1.5], dtype=torch.bfloat16),
        "nested": {"step": 7, "betas": (0.9, 0.99), "names": ["a", None, True]},
    }
    save_state(tmp_path / "state.pt", state)
    loaded = load_state(tmp_path / "state.pt")
    assert loaded["nested"] == state["nested"]
    assert all(torch.equal(loaded[name], state[name]) for name in ("tensor", "low"))


class Payload:
    """What an attacker would put into a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_loading_executes_nothing(tmp_path: Path, write: Any) -> None:
    marker, path = tmp_path / "executed", tmp_path / "state.pt"
    write({"update": Payload(marker)}, path)
    with pytest.raises(ValueError, match="state.pt is not loaded: it asks for .*, which could run code"):
        load_state(path)
    rewritten(tmp_path / "module")
    write(Payload(marker), tmp_path / "module" / "model.safetensors")
    with pytest.raises(ValueError, match="is broken, or was cut"):
        from_pretrained(tmp_path / "module")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists(), "the payload has to work where nobody defends"


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, AveragedModel, lambda m: torch.compile(nn.DataParallel(m))]
)
def test_of_a_wrapped_module_the_inside_is_saved(tmp_path: Path, wrap: Any) -> None:
    module = nat()
    wrapped = wrap(module)
    save_pretrained(wrapped, tmp_path)
    again = from_pretrained(tmp_path)
    assert isinstance(again, NAT) and weights_hash(again) == weights_hash(wrapped) == weights_hash(module)


def test_of_compiled_parts_the_inside_is_saved(tmp_path: Path) -> None:
    module, before = nat(), weights_hash(nat())
    module.in_blocks = nn.ModuleList(map(torch.compile, module.in_blocks))
    module.head = torch.compile(module.head)
    save_pretrained(module, tmp_path)
    assert weights_hash(from_pretrained(tmp_path)) == weights_hash(module) == before


@pytest.mark.parametrize("share", range(0, 10))
def test_a_file_that_was_cut_is_named_in_one_line(tmp_path: Path, share: int) -> None:
    save_pretrained(nat(), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[: share * path.stat().st_size // 10])
    with pytest.raises(
        ValueError, match="model.safetensors is not loaded: it is broken, or was cut"
    ) as caught:
        from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    save_pretrained(nat(), tmp_path / "good")
    module = nat()
    module.token_embedding.norm.bias.data[3] = torch.nan
    with pytest.raises(
        ValueError, match="bad is not written: 1 of 16 values of token_embedding.norm.bias are not"
    ):
        save_pretrained(module, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    save_file(module.state_dict(), tmp_path / "good" / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors is not loaded: 1 of 16 values of token_emb"):
        from_pretrained(tmp_path / "good")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(print)])
def test_a_broken_checkpoint_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint.pt is not loaded: it (is broken|asks for)") as caught:
        load_state(tmp_path / "checkpoint.pt")
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


def test_what_git_keeps_for_a_large_file_is_told(tmp_path: Path) -> None:
    save_pretrained(nat(), tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    (tmp_path / "official.pth").write_text(pointer)
    with pytest.raises(ValueError, match="model.safetensors is a pointer of git-lfs, .* `git lfs pull`"):
        from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="official.pth is a pointer of git-lfs"):
        read(tmp_path / "official.pth")


def test_a_full_disk_is_told_and_what_stood_there_kept(tmp_path: Path) -> None:
    """Here a limit on the size of files, in a process of its own."""
    program = f"""
import resource, signal, sys, torch
from generators.checkpoints import load_state, save_pretrained, save_state
from generators.nat import NAT, nat_digits
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save_state({str(tmp_path / "state.pt")!r}, {{"done": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for write in (
    lambda: save_state({str(tmp_path / "state.pt")!r}, {{"x": torch.zeros(10**6)}}),
    lambda: save_pretrained(NAT(nat_digits()), {str(tmp_path / "nat")!r}),
):
    try:
        write()
    except OSError as error:
        print(error)
print(load_state({str(tmp_path / "state.pt")!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second, state = done.stdout.splitlines()
    assert "File too large" in first and "what was saved before is kept" in first and "state.pt" in first
    assert "model.safetensors could not be written" in second and "too large" in second
    assert state == "{'done': 1}" and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("changed", [{"depth": 1_000_000_000}, {"width": 10**12}, {"grid": [4, 10**9]}])
def test_sizes_that_the_weights_can_not_have_build_nothing(tmp_path: Path, changed: dict[str, Any]) -> None:
    save_pretrained(NAT(nat_digits()), tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    described["config"] |= changed
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=f"config.json: {next(iter(changed))} .* is more than the 172,481"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_in_a_checkpoint_is_told(seed: int, tmp_path: Path) -> None:
    save_state(path := tmp_path / "checkpoint.pt", {"weights": torch.rand(1000), "done": 3})
    data = bytearray(path.read_bytes())
    at = data.index(load_state(path)["weights"].numpy().tobytes()) + 37 * seed
    data[at] ^= 1 << seed
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checkpoint.pt is not loaded: it is broken"):
        load_state(path)


def test_what_a_later_natgym_wrote_is_refused_by_name(tmp_path: Path) -> None:
    """And what one of before there were formats wrote is read."""
    save_pretrained(NAT(nat_digits()), tmp_path / "nat")
    described = json.loads((tmp_path / "nat" / "config.json").read_text())
    assert described.pop("format") == 1
    (tmp_path / "nat" / "config.json").write_text(json.dumps(described))
    from_pretrained(tmp_path / "nat")
    (tmp_path / "nat" / "config.json").write_text(json.dumps(described | {"format": 2}))
    with pytest.raises(ValueError, match="config.json has format 2, and this natgym reads up to 1; update"):
        from_pretrained(tmp_path / "nat")
    torch.save({"done": 3}, tmp_path / "old.pt")
    assert load_state(tmp_path / "old.pt") == {"done": 3}
    save_state(tmp_path / "new.pt", {"done": 3})
    assert load_state(tmp_path / "new.pt") == {"done": 3}
    torch.save({"done": 3, "format": 2}, tmp_path / "later.pt")
    with pytest.raises(ValueError, match="later.pt has format 2"):
        load_state(tmp_path / "later.pt")
    torch.save([3], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="list.pt is not loaded: it holds a list"):
        load_state(tmp_path / "list.pt")


def test_the_hash_names_the_exact_weights() -> None:
    """One weight's last bit or one name changes it; the order of construction and gradients don't."""
    first, second = nat(), nat().requires_grad_(False)
    assert weights_hash(first) == weights_hash(second) and len(weights_hash(first)) == 12
    last = second.head.norm.bias.data
    last[-1] = torch.nextafter(last[-1], torch.tensor(1.0))
    assert weights_hash(first) != weights_hash(second)
    swapped = nn.ModuleDict({"b": nn.Linear(2, 2), "a": nn.Linear(2, 2)})
    straight = nn.ModuleDict({"a": swapped["a"], "b": swapped["b"]})
    crossed = nn.ModuleDict({"a": swapped["b"], "b": swapped["a"]})
    assert weights_hash(swapped) == weights_hash(straight) != weights_hash(crossed)
    assert weights_hash(nn.ModuleDict({"a": straight["a"]})) != weights_hash(
        nn.ModuleDict({"b": straight["a"]})
    )
    assert weights_hash(nat().to(torch.bfloat16)) != weights_hash(nat())
