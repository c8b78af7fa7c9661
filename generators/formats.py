"""The official forms of weights: their names for ours, and the config that their shapes speak of.

A table maps beginnings of official names to beginnings of ours, first match first; `{}` stands for the number
of a block. What a file has to hold is not listed anywhere: it is what our network of the same geometry holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from generators.enat import ENAT, ENATConfig
from generators.nat import NAT, NATConfig
from generators.others.halton import HaltonMaskGIT, HaltonMaskGITConfig
from generators.vqgan import VQGAN, VQGANConfig

Shapes = Mapping[str, torch.Size]
Given = Mapping[str, Any]

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
ENAT_KEYS = {
    "x_embedder.word_embeddings.": "token_embedding.word.",
    "x_embedder.position_embeddings.": "token_embedding.position.",
    "x_embedder.LayerNorm.": "token_embedding.norm.",
    "y_embedder.embedding_table.": "condition_embedding.",
    "prev_proj.": "reuse_projection.",
    "blocks.{}.attn.kv.A.": "blocks.{}.attn.kv_context.",
    "blocks.{}.attn.kv.B.": "blocks.{}.attn.kv_own.",
    "blocks.{}.adaLN_modulation.1.": "blocks.{}.modulation.",
    "blocks.": "blocks.",
    "norm.": "norm.",
    "mlm_layer.fc.": "head.fc.",
    "mlm_layer.ln.": "head.norm.",
    "mlm_layer.bias": "head.bias",
}
VQGAN_KEYS = {
    "encoder.conv_in.": "encoder.conv_in.",
    "encoder.down.{}.block.{}.nin_shortcut.": "encoder.levels.{}.{}.shortcut.",
    "encoder.down.{}.block.{}.": "encoder.levels.{}.{}.",
    "encoder.mid.block_1.": "encoder.middle.0.",
    "encoder.mid.block_2.": "encoder.middle.1.",
    "encoder.norm_out.": "encoder.norm.",
    "encoder.conv_out.": "encoder.conv_out.",
    "decoder.conv_in.": "decoder.conv_in.",
    "decoder.mid.block_1.": "decoder.middle.0.",
    "decoder.mid.block_2.": "decoder.middle.1.",
    "decoder.up.{}.block.{}.nin_shortcut.": "decoder.levels.{}.{}.shortcut.",
    "decoder.up.{}.block.{}.": "decoder.levels.{}.{}.",
    "decoder.up.{}.upsample.conv.": "decoder.upsample.{}.1.",
    "decoder.norm_out.": "decoder.norm.",
    "decoder.conv_out.": "decoder.conv_out.",
    "quantize.embedding.": "codebook.",
}
HALTON_KEYS = {
    "tok_emb.": "token.",
    "pos_emb.": "position.",
    "cls_emb.": "condition.",
    "reg_tokens.": "register_token.",
    "transformer.layers.{}.mlp.1.": "blocks.{}.modulation.",
    "transformer.layers.{}.ln1.": "blocks.{}.norm1.",
    "transformer.layers.{}.ln2.": "blocks.{}.norm2.",
    "transformer.layers.{}.attn.wq.": "blocks.{}.q.",
    "transformer.layers.{}.attn.wk.": "blocks.{}.k.",
    "transformer.layers.{}.attn.wv.": "blocks.{}.v.",
    "transformer.layers.{}.attn.wo.": "blocks.{}.proj.",
    "transformer.layers.{}.ff.w1.": "blocks.{}.up.",
    "transformer.layers.{}.ff.w2.": "blocks.{}.down.",
    "transformer.layers.{}.ff.w3.": "blocks.{}.gate.",
    "last_norm.norm_final.weight": "norm.weight",
    "last_norm.norm_final.bias": "norm_bias",
    "last_norm.mlp.1.": "modulation.",
    "head.bias": "head_bias",
}

# Neither heads nor where ENAT's decoder begins show in the shapes; official ones are known by (width, depth).
NAT_HEADS = {(768, 24): 8, (1152, 28): 16}
ENAT_HEADS = {(1024, 24): 16}
HALTON_HEADS = {(384, 6): 6, (768, 12): 12, (1024, 24): 16, (1152, 28): 16}
ENAT_DECODER_DEPTH = {(1024, 24): 2}
OFFICIAL_GRID = 16, 16  # of 256 x 256 pixels; a VQGAN itself has none


@dataclass(frozen=True)
class Format:
    """One official form of weights.

    Attributes:
        name: of the architecture, and whose.
        table: beginnings of official names -> beginnings of ours.
        module: what it becomes.
        config_from: (shapes under our names, what the user gave) -> the module's config; KeyError if a
            shape is missing, ValueError if something can't be told or doesn't fit.
        ignored: parts of official names -> why such entries are left out.
        options: what a user may give beside the file, since shapes may not tell it.
    """

    name: str
    table: Mapping[str, str]
    module: type[nn.Module]
    config_from: Callable[[Shapes, Given], Any]
    ignored: Mapping[str, str]
    options: tuple[str, ...]

    @property
    def roots(self) -> list[str]:
        """The first words of its names."""
        return first_words(self.table)

    def ours(self, key: str) -> str | None:
        """Return our name of an official one; None if the table has no line for it."""
        return _translate(key, self.table.items())

    def official(self, name: str) -> str:
        """Return the official name of one of ours."""
        return _translate(name, ((ours, theirs) for theirs, ours in self.table.items())) or name

    def why_ignored(self, key: str) -> str | None:
        """Return why an entry is left out; None if it is not."""
        return next((why for part, why in self.ignored.items() if part in key), None)


def _nat_config(shapes: Shapes, given: Given) -> NATConfig:
    vocabulary, width = _sizes(shapes, "token_embedding.word.weight", 2)
    text = "condition_embedding.project.weight" in shapes
    depth = 2 * _count(shapes, "in_blocks.")
    return NATConfig(
        codebook_size=vocabulary - 1,
        grid=_grid(shapes["token_embedding.position.weight"][0], given),
        num_classes=None if text else shapes["condition_embedding.word.weight"][0] - 1,
        text_width=shapes["condition_embedding.project.weight"][-1] if text else None,
        width=width,
        depth=depth,
        heads=_known("heads", given, NAT_HEADS, width, depth),
        mlp_ratio=shapes["mid_block.mlp.fc1.weight"][0] / width,
        qkv_bias="mid_block.attn.qkv.bias" in shapes,
        skip=any("skip_linear" in name for name in shapes),
    )


def _enat_config(shapes: Shapes, given: Given) -> ENATConfig:
    vocabulary, width = _sizes(shapes, "token_embedding.word.weight", 2)
    blocks = _count(shapes, "blocks.")
    decoder_depth = _known("decoder_depth", given, ENAT_DECODER_DEPTH, width, blocks)
    if not 0 < decoder_depth < blocks:
        raise ValueError(f"decoder_depth {decoder_depth} is not one of 1 to {blocks - 1}, of {blocks} blocks")
    return ENATConfig(
        codebook_size=vocabulary - 1,
        grid=_grid(shapes["token_embedding.position.weight"][0], given),
        num_classes=shapes["condition_embedding.weight"][0] - 1,
        width=width,
        encoder_depth=blocks - decoder_depth,
        decoder_depth=decoder_depth,
        heads=_known("heads", given, ENAT_HEADS, width, blocks),
        mlp_ratio=shapes["blocks.0.mlp.fc1.weight"][0] / width,
    )


def _halton_config(shapes: Shapes, given: Given) -> HaltonMaskGITConfig:
    vocabulary, width = _sizes(shapes, "token.weight", 2)
    depth = _count(shapes, "blocks.")
    return HaltonMaskGITConfig(
        codebook_size=vocabulary - 1,
        grid=_grid(shapes["position.weight"][0], given),
        num_classes=shapes["condition.weight"][0] - 1,
        width=width,
        depth=depth,
        heads=_known("heads", given, HALTON_HEADS, width, depth),
        mlp_width=shapes["blocks.0.up.weight"][0],
        registers=shapes["register_token.weight"][0],
    )


def _vqgan_config(shapes: Shapes, given: Given) -> VQGANConfig:
    codebook_size, code_width = _sizes(shapes, "codebook.weight", 2)
    width, channels, *_ = _sizes(shapes, "encoder.conv_in.weight", 4)
    levels = range(max(1, _count(shapes, "encoder.levels.")))
    rows, columns = given.get("grid", OFFICIAL_GRID)
    factor = 2 ** (len(levels) - 1)
    return VQGANConfig(
        codebook_size=codebook_size,
        code_width=code_width,
        image_shape=(channels, rows * factor, columns * factor),
        width=width,
        width_multipliers=tuple(
            shapes[f"encoder.levels.{level}.0.conv2.weight"][0] // width for level in levels
        ),
        blocks=_count(shapes, "encoder.levels.0."),
    )


def _sizes(shapes: Shapes, name: str, dimensions: int) -> torch.Size:
    if len(shape := shapes[name]) != dimensions or 0 in shape:
        raise ValueError(f"{name} is {tuple(shape)}; expected {dimensions} dimensions, none of them empty")
    return shape


def _grid(tokens: int, given: Given) -> tuple[int, int]:
    rows, columns = grid = given.get("grid", (math.isqrt(tokens),) * 2)
    if rows * columns != tokens:
        raise ValueError(f"a grid of {rows} x {columns} does not hold the {tokens} tokens; give another grid")
    return grid


def _known(name: str, given: Given, official: Mapping[tuple[int, int], int], width: int, depth: int) -> int:
    if name not in given and (width, depth) not in official:
        raise ValueError(f"{name} can't be told from weights of width {width} and depth {depth}; give {name}")
    return given[name] if name in given else official[width, depth]


def _count(names: Iterable[str], beginning: str) -> int:
    """Count the different words that follow `beginning`."""
    return len({name.removeprefix(beginning).split(".")[0] for name in names if name.startswith(beginning)})


NAT_FORMAT = Format(
    "U-ViT of AutoNAT, AdaNAT, AdaGen",
    NAT_KEYS,
    NAT,
    _nat_config,
    ignored={"position_ids": "a count from 0 that the text encoder's library saved"},
    options=("grid", "heads"),
)
ENAT_FORMAT = Format(
    "ENAT",
    ENAT_KEYS,
    ENAT,
    _enat_config,
    ignored={"prev_embedder.": "never used by the official forward pass"},
    options=("grid", "heads", "decoder_depth"),
)
VQGAN_FORMAT = Format("VQGAN", VQGAN_KEYS, VQGAN, _vqgan_config, ignored={}, options=("grid",))
HALTON_FORMAT = Format(
    "Halton-MaskGIT",
    HALTON_KEYS,
    HaltonMaskGIT,
    _halton_config,
    ignored={"head.weight": "the table of tokens, which tok_emb.weight holds as well"},
    options=("grid", "heads"),
)
FORMATS = {form.name: form for form in (NAT_FORMAT, ENAT_FORMAT, VQGAN_FORMAT, HALTON_FORMAT)}
# What people may hold in their hands instead: the first words of its names.
OTHERS = {
    "AdaNAT policy": ["policy", "policy_old"],
    "AdaNAT discriminator": ["dino", "heads", "mapping"],
    "AdaGen policy": ["t_embedder", "adaLN1", "adaLN2", "adaLN3", "dw_conv", "pw_conv", "linear1", "linear2"],
    "Inception network": ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
    + [f"Mixed_{block}" for block in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")],
}


def first_words(keys: Iterable[str]) -> list[str]:
    """Return the different words before the first dot, in order."""
    return list(dict.fromkeys(key.split(".")[0] for key in keys))


def _translate(key: str, table: Iterable[tuple[str, str]]) -> str | None:
    for old, new in table:
        pattern = re.escape(old).replace(r"\{\}", r"(\d+)")
        if match := re.match(pattern, key):
            return new.format(*match.groups()) + key[match.end() :]
    return None
