"""Official checkpoints as data: tables that translate the names of foreign state dicts into ours.

A table maps prefixes of their keys to prefixes of ours, first match first. What a file has to hold is not
listed anywhere: it is what our network of the same geometry holds, built without memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from generators.nat import NAT, NATConfig

# The U-ViT of AutoNAT, AdaNAT (classes and text) and AdaGen.
NAT_KEYS = {
    "token_emb.word_embeddings.": "token_embedding.word.",
    "token_emb.position_embeddings.": "token_embedding.position.",
    "token_emb.LayerNorm.": "token_embedding.norm.",
    "context_embed.word_embeddings.": "condition_embedding.word.",
    "context_embed.position_embeddings.": "condition_embedding.position.",
    "context_embed.LayerNorm.": "condition_embedding.norm.",
    "context_embed.weight": "condition_embedding.project.weight",
    "context_embed.bias": "condition_embedding.project.bias",
    "in_blocks.": "in_blocks.",
    "mid_block.": "mid_block.",
    "out_blocks.": "out_blocks.",
    "norm.": "norm.",
    "mlm_layer.fc.": "head.fc.",
    "mlm_layer.ln.": "head.norm.",
    "mlm_layer.bias": "head.bias",
}


def convert_nat(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of an official U-ViT (a flat `nnet_ema.pth`) under the names of `NAT`.

    Raises:
        ValueError: a key is unknown or missing, or shapes don't fit together.
    """
    names = {key: _translate(key, NAT_KEYS) for key in state_dict if "position_ids" not in key}
    ours = {name: state_dict[key] for key, name in names.items() if name is not None}
    try:
        tokens = len(ours["token_embedding.position.weight"])
        with torch.device("meta"):
            expected = NAT(nat_config_from(ours, (1, tokens), heads=1)).state_dict()
        missing = [key for key in expected if key not in ours]
    except KeyError as error:  # not even the geometry can be told
        expected, missing = dict(ours), [error.args[0]]
    unknown = [key for key, name in names.items() if name not in expected]
    if unknown or missing:
        looks = f"{len(names)} keys under {_roots(names)}, expected {_roots(NAT_KEYS)}"
        wrong = f"unknown: {_listed(unknown)}; missing: {_listed(map(_official, missing))}"
        raise ValueError(f"not the weights of a U-ViT: {looks}; {wrong}")
    for key, name in names.items():
        if name is not None and (found := ours[name].shape) != (fitting := expected[name].shape):
            raise ValueError(f"not the weights of one U-ViT: {key} is {tuple(found)}, not {tuple(fitting)}")
    return ours


def nat_config_from(state_dict: Mapping[str, Tensor], grid: tuple[int, int], heads: int) -> NATConfig:
    """Infer the geometry behind converted weights, whose shapes tell all but `grid` and `heads`."""
    shapes = {key: tensor.shape for key, tensor in state_dict.items()}
    if grid[0] * grid[1] != (tokens := shapes["token_embedding.position.weight"][0]):
        raise ValueError(f"a grid of {grid[0]} x {grid[1]} does not hold the {tokens} tokens of the weights")
    vocabulary, width = shapes["token_embedding.word.weight"]
    text = "condition_embedding.project.weight" in shapes
    return NATConfig(
        codebook_size=vocabulary - 1,
        grid=grid,
        num_classes=None if text else shapes["condition_embedding.word.weight"][0] - 1,
        text_width=shapes["condition_embedding.project.weight"][1] if text else None,
        width=width,
        depth=2 * len({key.split(".")[1] for key in shapes if key.startswith("in_blocks.")}),
        heads=heads,
        mlp_ratio=shapes["mid_block.mlp.fc1.weight"][0] / width,
        qkv_bias="mid_block.attn.qkv.bias" in shapes,
        skip=any("skip_linear" in key for key in shapes),
    )


def _translate(key: str, table: Mapping[str, str]) -> str | None:
    for old, new in table.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return None


def _official(key: str) -> str:
    return _translate(key, {ours: theirs for theirs, ours in NAT_KEYS.items()}) or key


def _roots(keys: Iterable[str]) -> str:
    return _listed(dict.fromkeys(key.split(".")[0] for key in keys), most=8)


def _listed(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
