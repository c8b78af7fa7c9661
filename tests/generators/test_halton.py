"""Halton-MaskGIT's weights: its names and shapes by a list of their own, its pass by plain loops."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import natgym
from generators.checkpoints import from_pretrained, save_pretrained
from generators.conditions import Labels
from generators.formats import HALTON_FORMAT, NAT_FORMAT
from generators.others.halton import HaltonMaskGIT, HaltonMaskGITConfig, halton_large
from generators.weights import convert, read
from rounding import assert_rounded

V, SIDE, C, D, DEPTH, HEADS, HIDDEN = 30, 3, 5, 16, 2, 4, 256


def official(registers: int = 2) -> dict[str, Tensor]:
    """A state dict as the published network saves it: every name and shape, random values."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_emb.weight": (C + 1, D),
        "tok_emb.weight": (V + 1, D),
        "pos_emb.weight": (SIDE**2, D),
        "last_norm.norm_final.weight": (D,),
        "last_norm.norm_final.bias": (D,),
        "last_norm.mlp.1.weight": (2 * D, D),
        "last_norm.mlp.1.bias": (2 * D,),
        "head.bias": (V + 1,),
        "reg_tokens.weight": (registers, D),
    }
    for block in range(DEPTH):
        layer = f"transformer.layers.{block}."
        shapes |= {f"{layer}mlp.1.weight": (6 * D, D), f"{layer}mlp.1.bias": (6 * D,)}
        shapes |= {f"{layer}ln1.weight": (D,), f"{layer}ln2.weight": (D,)}
        shapes |= {f"{layer}attn.{name}.weight": (D, D) for name in ("wq", "wk", "wv", "wo")}
        shapes |= {f"{layer}ff.{name}.weight": (HIDDEN, D) for name in ("w1", "w3")}
        shapes |= {f"{layer}ff.w2.weight": (D, HIDDEN)}
    random = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=random) / 3 for name, shape in shapes.items()}
    return state | {"head.weight": state["tok_emb.weight"]}


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def plain_pass(state: dict[str, Tensor], ids: list[int], label: int) -> Tensor:
    """Logits (L, V + 1) of one image in double precision, a token and a head at a time."""
    w = {name: tensor.double() for name, tensor in state.items()}
    asked = w["cls_emb.weight"][label]
    tokens = [w["tok_emb.weight"][one] + w["pos_emb.weight"][place] for place, one in enumerate(ids)]
    x = torch.stack([*tokens, *w["reg_tokens.weight"]])
    for block in range(DEPTH):
        p = {
            name.split(".", 3)[3]: t
            for name, t in w.items()
            if name.startswith(f"transformer.layers.{block}.")
        }
        told = (p["mlp.1.weight"] @ silu(asked) + p["mlp.1.bias"]).view(6, D)
        y = rms(x) * p["ln1.weight"] * (1 + told[1]) + told[0]
        q, k = (rms(torch.stack([p[f"attn.{name}.weight"] @ one for one in y])) for name in ("wq", "wk"))
        v = torch.stack([p["attn.wv.weight"] @ one for one in y])
        mixed = torch.zeros_like(v)
        for head in range(HEADS):
            part = slice(head * D // HEADS, (head + 1) * D // HEADS)
            for row in range(len(x)):
                weights = (k[:, part] @ q[row, part] / math.sqrt(D / HEADS)).exp()
                mixed[row, part] = (weights[:, None] * v[:, part]).sum(0) / weights.sum()
        x = x + told[2] * torch.stack([p["attn.wo.weight"] @ one for one in mixed])
        y = rms(x) * p["ln2.weight"] * (1 + told[4]) + told[3]
        hidden = [silu(p["ff.w1.weight"] @ one) * (p["ff.w3.weight"] @ one) for one in y]
        x = x + told[5] * torch.stack([p["ff.w2.weight"] @ one for one in hidden])
    shift, scale = (w["last_norm.mlp.1.weight"] @ silu(asked) + w["last_norm.mlp.1.bias"]).view(2, D)
    normed = rms(x[: len(ids)]) * w["last_norm.norm_final.weight"] + w["last_norm.norm_final.bias"]
    return (normed * (1 + scale) + shift) @ w["head.weight"].T + w["head.bias"]


def test_a_pass_is_that_of_the_public_description() -> None:
    state = official()
    converted = convert(state, heads=HEADS)
    assert converted.format is HALTON_FORMAT and list(converted.ignored) == ["head.weight"]
    network = converted.build()
    assert network.config == HaltonMaskGITConfig(
        codebook_size=V,
        grid=(SIDE, SIDE),
        num_classes=C,
        width=D,
        depth=DEPTH,
        heads=HEADS,
        mlp_width=HIDDEN,
        registers=2,
    )
    ids_BL = torch.randint(V + 1, (4, SIDE**2), generator=torch.Generator().manual_seed(1))
    ids_BL[0] = V
    labels_B = torch.tensor([0, 3, 4, C])
    told = network(ids_BL, Labels(labels_B, C))
    for row, (ids, label) in enumerate(zip(ids_BL.tolist(), labels_B.tolist(), strict=True)):
        expected_LV = plain_pass(state, ids, label)
        assert_rounded(told.logits_BLV[row], expected_LV[:, :V], size=float(expected_LV.abs().max()))
    natgym.check_generator(network)


def test_it_is_saved_and_read_and_lies_where_its_training_puts_it(tmp_path: Path) -> None:
    """Beside counters and an optimizer, behind the words of a compiled and parallel module."""
    named = {f"module._orig_mod.{name}": tensor for name, tensor in official(registers=1).items()}
    content = {"iter": 3, "global_epoch": 1, "model_state_dict": named, "optimizer_state_dict": None}
    torch.save(content, tmp_path / "ImageNet_384_large.pth")
    network = convert(read(tmp_path / "ImageNet_384_large.pth"), heads=HEADS).build()
    save_pretrained(network, tmp_path / "nat")
    ids_BL, labels = torch.full((1, SIDE**2), V), Labels(torch.tensor([2]), C)
    again = from_pretrained(tmp_path / "nat")
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, official(registers=1)[HALTON_FORMAT.official(name)])
    # Tensors of a file may lie in memory elsewhere, for which processors add up in other orders.
    assert_rounded(again(ids_BL, labels).logits_BLV, network(ids_BL, labels).logits_BLV)


def test_the_published_size_is_that_of_its_page() -> None:
    """480 million parameters on 24 x 24 tokens; its heads are known."""
    with torch.device("meta"):
        network = HaltonMaskGIT(halton_large())
        weights = {HALTON_FORMAT.official(name): tensor for name, tensor in network.state_dict().items()}
        converted = convert(weights)
    assert round(sum(map(Tensor.numel, network.parameters())) / 1e6) == 480
    assert converted.config == halton_large()


def test_what_does_not_fit_is_named() -> None:
    state = official()
    with pytest.raises(
        ValueError, match="heads can't be told from weights of width 16 and depth 2; give heads"
    ):
        convert(state)
    with pytest.raises(ValueError, match="width 16 is not divisible by heads 5"):
        convert(state, heads=5)
    patched = state | {"in_proj.weight": torch.zeros(D, D, 2, 2)}
    with pytest.raises(ValueError, match="looks like a Halton-MaskGIT: .*unknown: in_proj.weight"):
        convert(patched, heads=HEADS)
    del state["transformer.layers.1.attn.wo.weight"]
    with pytest.raises(ValueError, match="missing: transformer.layers.1.attn.wo.weight"):
        convert(state, heads=HEADS)
    with pytest.raises(ValueError, match="looks like a Halton-MaskGIT.*expected a U-ViT"):
        convert(official(), heads=HEADS, expected=NAT_FORMAT)
