"""convert_checkpoint.py on files with the official names and containers, made here at small sizes."""

import argparse
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from agents.adanat.actor import ActorConfig, ActorNetwork
from agents.official import ADANAT_POLICY, POLICY_FORMATS
from generators.checkpoints import from_pretrained, read_description
from generators.conditions import Labels
from generators.enat import ENAT, ENATConfig
from generators.formats import ENAT_FORMAT, FORMATS, NAT_FORMAT, VQGAN_FORMAT, Format
from generators.nat import NAT, NATConfig
from generators.rules import DecodeRules
from generators.schedules import Schedule, maskgit, reference
from generators.vqgan import VQGAN, VQGANConfig
from natgym.rewards.official import DISCRIMINATOR
from natgym.rewards.projected import ProjectedConfig, ProjectedDiscriminator

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "convert_checkpoint.py"


class Done(NamedTuple):
    code: int
    out: str
    err: str


Convert = Callable[..., Done]


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Convert:
    """Run the script in this process, in `tmp_path`."""
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # the script changes it
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: Any) -> Done:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        code: Any = 0
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return Done(1, out, err + code + "\n") if isinstance(code, str) else Done(code, out, err)

    return call


def spread(module: nn.Module) -> nn.Module:
    """Nothing at zero."""
    torch.manual_seed(0)
    for parameter in module.requires_grad_(False).eval().parameters():
        nn.init.normal_(parameter, std=0.2)
    return module


def official(module: nn.Module, form: Format) -> dict[str, Tensor]:
    return {form.official(name): tensor for name, tensor in module.state_dict().items()}


def nat(**overrides: Any) -> nn.Module:
    base: dict = dict(codebook_size=24, grid=(3, 5), num_classes=10, width=32, depth=2, heads=4)
    return spread(NAT(NATConfig(**(base | overrides))))


def enat() -> nn.Module:
    size: dict = dict(width=32, encoder_depth=2, decoder_depth=1, heads=4)
    return spread(ENAT(ENATConfig(codebook_size=24, grid=(4, 4), num_classes=10, **size)))


def vqgan() -> nn.Module:
    size: dict = dict(width=32, width_multipliers=(1, 2), blocks=1)
    return spread(VQGAN(VQGANConfig(codebook_size=20, code_width=8, image_shape=(3, 6, 10), **size)))


def assert_same(found: Any, module: Any) -> None:
    """Equal configs, weights and outputs."""
    assert found.config == module.config
    for name, tensor in module.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    ids_BL = torch.arange(2 * module.grid[0] * module.grid[1]).view(2, -1) % module.codebook_size
    if isinstance(module, VQGAN):
        images = module.decode(ids_BL)
        assert torch.equal(found.decode(ids_BL), images)
        assert torch.equal(found.encode(images), module.encode(images))
    else:
        ids_BL[:, ::2] = module.mask_id
        condition = Labels(torch.tensor([3, 10]), 10)
        assert torch.equal(found(ids_BL, condition).logits_BLV, module(ids_BL, condition).logits_BLV)


def assert_one_line(done: Done, *words: str) -> None:
    assert done.code in (1, 2) and not done.out
    assert done.err.count("\n") == 1 and done.err.startswith("convert_checkpoint.py: error: "), done.err
    assert all(word in done.err for word in words), done.err


def test_a_generator(tmp_path: Path, convert: Convert) -> None:
    module = nat()
    torch.save(official(module, NAT_FORMAT), tmp_path / "nnet_ema.pth")
    done = convert("nnet_ema.pth", "converted", "--grid", 3, 5, "--heads", 4)
    assert done.code == 0 and not done.err
    count = sum(parameter.numel() for parameter in module.parameters())
    assert done.out == f"converted: U-ViT of AutoNAT, AdaNAT, AdaGen, 50 tensors, {count:,} parameters\n"
    assert_same(from_pretrained(tmp_path / "converted"), module)
    metadata = read_description(tmp_path / "converted")["metadata"]
    assert metadata == {"source": "nnet_ema.pth", "format": "U-ViT of AutoNAT, AdaNAT, AdaGen"}


def test_what_is_left_out_is_said(tmp_path: Path, convert: Convert) -> None:
    module = enat()
    dead = {f"prev_embedder.fc{layer}.weight": torch.zeros(2, 2) for layer in (1, 2)}
    save_file(official(module, ENAT_FORMAT) | dead, tmp_path / "enat.safetensors")
    done = convert("enat.safetensors", "converted", "--decoder-depth", 1, "--heads", 4)
    assert done.code == 0, done.err
    said = done.out.splitlines()
    assert said[0].startswith("converted: ENAT, 60 tensors, ") and len(said) == 3
    assert said[1] == "left out prev_embedder.fc1.weight: never used by the official forward pass"
    assert_same(from_pretrained(tmp_path / "converted"), module)


def test_a_tokenizer(tmp_path: Path, convert: Convert) -> None:
    module = vqgan()
    torch.save({"state_dict": official(module, VQGAN_FORMAT)}, tmp_path / "vqgan.ckpt")
    done = convert("vqgan.ckpt", "converted", "--grid", 3, 5)
    assert done.code == 0 and done.out.startswith("converted: VQGAN, "), done.err
    assert_same(from_pretrained(tmp_path / "converted"), module)


def test_a_strategy_becomes_a_schedule_and_comes_back(tmp_path: Path, convert: Convert) -> None:
    schedule = maskgit(4)
    schedule.save(tmp_path / "maskgit.yaml")
    done = convert("maskgit.yaml", "maskgit.json")
    assert done.code == 0 and "schedule of 4 steps; guidance is l_c + w (l_c - l_u)" in done.out
    assert json.loads((tmp_path / "maskgit.json").read_text())["name"] == "maskgit"
    loaded = Schedule.load(tmp_path / "maskgit.json").table_T4
    assert torch.equal(loaded[:-1], schedule.table_T4[:-1]) and loaded[-1, :2].tolist() == [0, 0]
    assert convert("maskgit.json", "again.yml").code == 0
    assert (tmp_path / "again.yml").read_bytes() == (tmp_path / "maskgit.yaml").read_bytes()


def test_nothing_is_overwritten(tmp_path: Path, convert: Convert) -> None:
    torch.save(official(vqgan(), VQGAN_FORMAT), tmp_path / "vqgan.ckpt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.json").write_text("mine")
    maskgit(3).save(tmp_path / "s.yaml")
    assert_one_line(convert("vqgan.ckpt", "empty"), "empty exists and is not overwritten")
    assert_one_line(convert("s.yaml", "there.json"), "there.json exists")
    assert (tmp_path / "there.json").read_text() == "mine" and not list((tmp_path / "empty").iterdir())


def test_a_training_checkpoint_holds_a_policy_and_a_discriminator(tmp_path: Path, convert: Convert) -> None:
    pytest.importorskip("timm", reason="the projected discriminator needs timm (extra `pretrained`)")
    policy = dict(width=8, channels=4, hidden=(12, 6), frequencies=8)
    config = ActorConfig(
        policy=policy, grid=(4, 4), features_width=12, steps=5, actions="paper", schedule_name="reference"
    )
    network = spread(ActorNetwork(config))
    actor = official(network, ADANAT_POLICY)
    critic = {key.replace("actor", "critic"): tensor for key, tensor in actor.items()}
    scorer = spread(
        ProjectedDiscriminator(ProjectedConfig(condition_width=3, mapping_width=4, side=32, width=6))
    )
    judged = {f"module.{key}": value for key, value in official(scorer, DISCRIMINATOR).items()}
    content = {"model": actor | critic, "discriminator": judged, "args": argparse.Namespace(lr=1e-5)}
    torch.save(content, tmp_path / "ckpt_7.pth")
    done = convert("ckpt_7.pth", "policy", "--steps", 5, "--actions", "paper")
    assert not done.code, done.err
    assert "AdaNAT policy, 22 tensors" in done.out and "5 steps, actions 'paper', smoothing 0" in done.out
    assert done.out.count("left out policy_old.critic.") == 22
    found: Any = from_pretrained(tmp_path / "policy")
    assert found.rules == DecodeRules(min_reveal=0), "as in the official step"
    assert (found.steps, found.config.actions) == (5, "paper")
    assert torch.equal(found.schedule, reference(5).table_T4)
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    done = convert("ckpt_7.pth", "judge", "--entry", "discriminator", "--heads", 6)
    assert not done.code and "AdaNAT discriminator" in done.out, done.err
    found = from_pretrained(tmp_path / "judge")
    assert found.config == scorer.config
    for name, tensor in scorer.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    assert_one_line(
        convert("ckpt_7.pth", "x", "--entry", "ema"), "no entry 'ema'; it has model, discriminator"
    )
    assert_one_line(convert("ckpt_7.pth", "x", "--steps", 0), "steps are at least 1")


PAGE = SCRIPT.parents[1] / "docs" / "official-checkpoints.md"
# What has to be said of small files, since only the official sizes are known.
SMALL = {
    "nnet_ema.pth": ("--heads", "4"),
    "enat_l.pth": ("--heads", "4", "--decoder-depth", "1"),
    "vqgan.ckpt": ("--grid", "4", "4"),
    "ckpt_100.pth": (),
}


def write_official_files(folder: Path) -> None:
    """Those that the page names, of one codebook and grid."""
    torch.save(official(nat(grid=(4, 4)), NAT_FORMAT), folder / "nnet_ema.pth")
    torch.save(official(enat(), ENAT_FORMAT), folder / "enat_l.pth")
    pixels: dict = dict(width=32, width_multipliers=(1, 2), blocks=1, image_shape=(3, 8, 8))
    tokenizer = spread(VQGAN(VQGANConfig(codebook_size=24, code_width=8, **pixels)))
    torch.save({"state_dict": official(tokenizer, VQGAN_FORMAT)}, folder / "vqgan.ckpt")
    policy = dict(width=8, channels=4, hidden=(12, 6), frequencies=8)
    config = ActorConfig(
        policy=policy, grid=(4, 4), features_width=32, steps=8, actions="paper", schedule_name="reference"
    )
    actor = official(spread(ActorNetwork(config)), ADANAT_POLICY)
    scorer = ProjectedDiscriminator(ProjectedConfig(condition_width=3, mapping_width=4, side=32, width=6))
    judged = {f"module.{key}": value for key, value in official(spread(scorer), DISCRIMINATOR).items()}
    torch.save({"model": actor, "discriminator": judged}, folder / "ckpt_100.pth")
    reference(8).save(folder / "strategy.yaml")


def test_the_page_on_official_checkpoints_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Every command that it marks as run, and its program, one after the other on small files."""
    pytest.importorskip("timm", reason="the projected discriminator needs timm (extra `pretrained`)")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.chdir(tmp_path)
    write_official_files(tmp_path)
    text = PAGE.read_text()
    lines = [line for line in text.splitlines() if line.startswith("python ") and "# run" in line]
    for line in lines:
        _, script, *words = shlex.split(line, comments=True)
        extra = SMALL.get(words[0], ()) if "discriminator" not in words else ("--heads", "6")
        words = [{"207": "7", "281": "1"}.get(word, word) for word in words]
        monkeypatch.setattr(sys, "argv", [script, *words, *extra])
        runpy.run_path(str(SCRIPT.parents[1] / script), run_name="__main__")
    capsys.readouterr()
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    exec(program, {})
    assert len(lines) == 9 and capsys.readouterr().out.startswith("torch.Size([2, 3, 8, 8]) ")
    written = {"nat-l", "enat-l", "vqgan", "adanat", "judge", "strategy.json"}
    assert written | {"adanat.png", "strategy.png", "enat.png"} <= {path.name for path in tmp_path.iterdir()}


def test_mistakes_are_one_line_and_leave_nothing(tmp_path: Path, convert: Convert) -> None:
    torch.save(official(nat(), NAT_FORMAT), tmp_path / "nnet_ema.pth")
    torch.save({"model": {"policy.actor.weight": torch.zeros(1)}}, tmp_path / "ckpt_7.pth")
    (tmp_path / "broken.pth").write_bytes(b"PK")
    maskgit(3).save(tmp_path / "s.yaml")
    before = sorted(tmp_path.iterdir())
    for arguments, words in (
        (("nnet_ema.pth", "new"), ("nnet_ema.pth: a grid of 3 x 3 does not hold the 15 tokens",)),
        (("nnet_ema.pth", "new", "--grid", 3, 5), ("nnet_ema.pth: heads can't be told", "give heads")),
        (("nnet_ema.pth", "new", "--gird", 3, 5), ("--gird", "--grid")),
        (("nnet_ema.pth", "new", "--grid", 3), ("grid",)),
        (("nnet_ema.pth",), ("OUT",)),
        (("ckpt_7.pth", "new"), ("ckpt_7.pth: looks like an AdaNAT policy", "missing: policy_old")),
        (("broken.pth", "new"), ("broken.pth is not loaded",)),
        (("absent.pth", "new"), ("there is no file absent.pth",)),
        (("absent.yaml", "new.json"), ("no schedule file absent.yaml",)),
        (("s.yaml", "new.json", "--heads", 4), ("s.yaml is a schedule, which has no heads",)),
        (("s.yaml", "new"), ("s.yaml is a schedule", "OUT has to end in .json", "not new")),
    ):
        assert_one_line(convert(*arguments), *words)
    assert sorted(tmp_path.iterdir()) == before


def test_it_runs_from_anywhere(tmp_path: Path) -> None:
    module = vqgan()
    torch.save(official(module, VQGAN_FORMAT), tmp_path / "vqgan.ckpt")
    line = [sys.executable, str(SCRIPT), "vqgan.ckpt", "converted", "--grid", "3", "5"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert_same(from_pretrained(tmp_path / "converted"), module)


def test_the_help_names_whose_weights_are_known(convert: Convert) -> None:
    said = convert("--help").out
    for form in (*FORMATS, *POLICY_FORMATS):
        assert all(name in said for name in re.findall(r"[A-Z][\w-]+", form)), form
