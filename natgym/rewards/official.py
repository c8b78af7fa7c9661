"""Official AdaNAT discriminators (the entry `discriminator` of ckpt_N.pth) as natgym's projected one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from generators.formats import Format, Given, Shapes
from natgym.rewards.projected import ProjectedConfig, ProjectedDiscriminator

HEADS = {384: 6}  # of the attention, by width: shapes don't tell them


def _config(shapes: Shapes, given: Given) -> ProjectedConfig:
    width, _, patch, _ = shapes["backbone.network.patch_embed.proj.weight"]
    tokens = shapes["backbone.network.pos_embed"][1] - 1
    projection, inputs = shapes["heads.0.project.weight"]
    mapped = "mapping.embed.weight" in shapes
    if "heads" not in given and width not in HEADS:
        raise ValueError(f"heads can't be told from weights of width {width}; give heads")
    return ProjectedConfig(
        condition_width=shapes["mapping.embed.weight"][1] if mapped else inputs,
        mapping_width=inputs if mapped else None,
        projection=projection,
        side=patch * math.isqrt(tokens),
        patch=patch,
        width=width,
        depth=len({name.split(".")[3] for name in shapes if name.startswith("backbone.network.blocks.")}),
        heads=given["heads"] if "heads" in given else HEADS[width],
    )


def _spectral(theirs: str, ours: str) -> dict[str, str]:
    """Return the lines of a convolution as torch's hook of spectral normalisation names it."""
    names = {"weight_orig": "weight", "weight_u": "u", "weight_v": "v", "bias": "bias"}
    return {f"heads.{{}}.{theirs}.{key}": f"heads.{{}}.{ours}.{name}" for key, name in names.items()}


DISCRIMINATOR = Format(
    "AdaNAT discriminator",
    {
        "dino.model.model.": "backbone.network.",
        **_spectral("main.0.0", "conv1"),
        "heads.{}.main.0.1.": "heads.{}.norm1.",
        **_spectral("main.1.fn.0", "conv2"),
        "heads.{}.main.1.fn.1.": "heads.{}.norm2.",
        **_spectral("cls", "logits"),
        "heads.{}.cmapper.": "heads.{}.project.",
        "mapping.embed.": "mapping.embed.",
        "mapping.fc{}.": "mapping.layers.{}.",
    },
    ProjectedDiscriminator,
    _config,
    ignored={},
    options=("heads",),
)
DISCRIMINATOR_FORMATS: Mapping[str, Format] = {DISCRIMINATOR.name: DISCRIMINATOR}
