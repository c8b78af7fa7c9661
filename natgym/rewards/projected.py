"""AdaNAT's discriminator: projected (Sauer et al. 2021, 2023) on a frozen DINO ViT-S/16.

Features of a frozen network at five depths, a small spectrally normalized head on each, one logit per token,
conditioned by projection. Sizes and conventions are those of AdaNAT's code, whose files are read by
`natgym.rewards.official`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.checkpoints import from_pretrained, register
from natgym.metrics.weights import read_weights
from natgym.rewards.config import GROUP as GROUP
from natgym.rewards.config import groups_of

DEPTHS = (2, 5, 8, 11)  # blocks whose outputs are read, from 0
ROWS = 128  # judged at once, as on each of the paper's GPUs
FROZEN = "backbone."  # beginning of the names of what does not learn
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and spread of its images


def judged_at_once(num_rows: int) -> int:
    """Return how many of a batch's rows to judge at once: whole groups, about 128 rows of them.

    Raises:
        ValueError: see `groups_of`.
    """
    group = num_rows // groups_of(num_rows)
    return group * max(1, ROWS // group)


def in_groups(num_rows: int) -> int:
    """Return how many rows of a batch are in groups, which are of 8 where not all rows fit equal ones."""
    fits = num_rows % max(1, math.ceil(num_rows / GROUP)) == 0
    return num_rows if fits else num_rows - num_rows % GROUP


class LocalNorm(nn.Module):
    """Batch norm within groups of consecutive rows, by the statistics of the batch in evaluation, too."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCN: Tensor) -> Tensor:
        x_GRCN = x_BCN.unflatten(0, (groups_of(len(x_BCN)), -1))
        variance, mean = torch.var_mean(x_GRCN, (1, 3), correction=0, keepdim=True)
        x_BCN = ((x_GRCN - mean) * (variance + 1e-5).rsqrt()).flatten(0, 1)
        return x_BCN * self.weight[:, None] + self.bias[:, None]


class SpectralConv(nn.Module):
    """Circular convolution whose weight is divided by its largest singular value (Miyato et al. 2018).

    One power iteration per pass in training, v before u, from random vectors; torch's parametrization takes
    u first and starts with fifteen, so that its weights differ from the official ones.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__()
        start = nn.Conv1d(inputs, outputs, kernel)  # for torch's initial weights
        self.weight, self.bias = start.weight, start.bias
        self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(inputs * kernel), dim=0))
        self.u: Tensor
        self.v: Tensor

    def forward(self, x_BCN: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        if self.training:
            with torch.no_grad():
                self.v = F.normalize(matrix.T @ self.u, dim=0)
                self.u = F.normalize(matrix @ self.v, dim=0)
        scale = self.u @ (matrix @ self.v)
        reach = self.weight.shape[-1] // 2
        padded = F.pad(x_BCN, (reach, reach), mode="circular") if reach else x_BCN
        return F.conv1d(padded, self.weight / scale, self.bias)


class EqualizedLinear(nn.Module):
    """Linear layer with weights of unit variance, scaled when used (Karras et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0) -> None:
        super().__init__()
        self.rate = rate
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.rate / math.sqrt(self.weight.shape[1])
        return F.linear(x, self.weight * scale, self.bias * self.rate)


class ConditionMapping(nn.Module):
    """Class vectors (B, K) -> (B, width): embedding of unit second moment, then equalised layers."""

    def __init__(self, inputs: int, width: int, layers: int = 8) -> None:
        super().__init__()
        self.embed = EqualizedLinear(inputs, width)
        self.layers = nn.ModuleList(EqualizedLinear(width, width, rate=0.01) for _ in range(layers))

    def forward(self, vectors_BE: Tensor) -> Tensor:
        x = self.embed(vectors_BE)
        x = x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = math.sqrt(2) * F.leaky_relu(layer(x), 0.2)
        return x


class Head(nn.Module):
    """Feature maps (B, C, N) and conditions (B, E) -> one logit per token, (B, N)."""

    def __init__(self, channels: int, condition_width: int, projection: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = SpectralConv(channels, channels), LocalNorm(channels)
        self.conv2, self.norm2 = SpectralConv(channels, channels, 9), LocalNorm(channels)
        self.logits = SpectralConv(channels, projection)
        self.project = EqualizedLinear(condition_width, projection)

    def forward(self, x_BCN: Tensor, condition_BE: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm1(self.conv1(x_BCN)), 0.2)
        x = (F.leaky_relu(self.norm2(self.conv2(x)), 0.2) + x) / math.sqrt(2)
        direction_BP = self.project(condition_BE) / math.sqrt(self.project.weight.shape[0])
        return torch.einsum("bpn,bp->bn", self.logits(x), direction_BP)


class VisionMaps(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] -> the feature maps (B, C, N) of a frozen vision transformer.

    One per depth, then the embedded patches; the class token is added to each patch token. Images are
    resized by areas to the network's side; `crop` is the chance that a batch of larger ones is cropped
    instead, at one place drawn from torch's generator.

    Args:
        network: timm's VisionTransformer, without its own head.
    """

    def __init__(self, network: Any, crop: float) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.crop, self.side = crop, network.patch_embed.img_size[0]

    def train(self, mode: bool = True) -> VisionMaps:
        """Stay in evaluation: the network is frozen."""
        return super().train(False)

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        x = self._cropped(images_BCHW.expand(-1, 3, -1, -1))
        x = F.interpolate(x, (self.side, self.side), mode="area")
        mean, spread = x.new_tensor(IMAGENET)[..., None, None]
        x = self.network._pos_embed(self.network.patch_embed((x - mean) / spread))
        patches, maps = x, []
        for depth, block in enumerate(self.network.blocks):
            x = block(x)
            if depth in DEPTHS:
                maps.append(x)
        return [(x[:, 1:] + x[:, :1]).transpose(1, 2) for x in [*maps, patches]]

    def _cropped(self, images_BCHW: Tensor) -> Tensor:
        height, width = images_BCHW.shape[2:]
        if min(height, width) <= self.side or float(torch.rand(())) >= self.crop:
            return images_BCHW
        top, left = (int(torch.randint(side - self.side + 1, ())) for side in (height, width))
        return images_BCHW[:, :, top : top + self.side, left : left + self.side]


@dataclass(frozen=True, kw_only=True)
class ProjectedConfig:
    """Sizes of discriminator and vision transformer; the defaults are AdaNAT's.

    Attributes:
        condition_width: E, of `Condition.vectors`.
        mapping_width: of the mapped condition; None for text, whose vectors are scaled to length 1 instead.
        projection: width of the conditional projection.
        side, patch, width, depth, heads: of the transformer.
        crop: see `VisionMaps`.
    """

    condition_width: int
    mapping_width: int | None = 512
    projection: int = 64
    side: int = 224
    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    crop: float = 0.5


@register(ProjectedConfig)
class ProjectedDiscriminator(nn.Module):
    """Images in [0, 1] and condition vectors (B, E) -> logits (B, 5 N) of being real."""

    def __init__(self, config: ProjectedConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = VisionMaps(_transformer(config), config.crop)
        E, mapped = config.condition_width, config.mapping_width
        self.mapping = None if mapped is None else ConditionMapping(E, mapped)
        inputs = config.width, E if mapped is None else mapped, config.projection
        self.heads = nn.ModuleList(Head(*inputs) for _ in range(len(DEPTHS) + 1))

    def forward(self, images_BCHW: Tensor, vectors_BE: Tensor) -> Tensor:
        groups_of(len(images_BCHW))  # before the network runs in vain
        condition_BE = F.normalize(vectors_BE) if self.mapping is None else self.mapping(vectors_BE)
        maps = self.backbone(images_BCHW)
        return torch.cat([head(x, condition_BE) for head, x in zip(self.heads, maps, strict=True)], dim=1)


def load_projected(where: str | Path, config: ProjectedConfig) -> ProjectedDiscriminator:
    """Return a discriminator on DINO's weights.

    Args:
        where: "dino" asks timm for the weights; else a local file of them, in timm's or Meta's form, or the
            folder of a saved discriminator, whose heads are kept as well.

    Raises:
        ValueError: timm is missing, or this is something else.
    """
    if Path(where).is_dir():
        return _saved(Path(where), config)
    discriminator = ProjectedDiscriminator(config)
    network: Any = discriminator.backbone.network
    if str(where) == "dino":
        from timm import create_model

        state = create_model("vit_small_patch16_224.dino", pretrained=True, num_classes=0).state_dict()
        network.load_state_dict(state)
    else:
        from timm.models.vision_transformer import checkpoint_filter_fn

        read_weights(network, where, "DINO ViT-S/16", lambda state: checkpoint_filter_fn(state, network))
    return discriminator


def _saved(folder: Path, config: ProjectedConfig) -> ProjectedDiscriminator:
    """Load a saved discriminator, ready to learn, if it takes the same conditions."""
    saved: Any = from_pretrained(folder)
    if not isinstance(saved, ProjectedDiscriminator):
        raise ValueError(f"{folder} holds a {type(saved).__name__}, not a projected discriminator")
    fitting = replace(saved.config, condition_width=config.condition_width)
    if fitting != saved.config or (saved.mapping is None) != (config.mapping_width is None):
        kind = "text" if saved.mapping is None else "class"
        raise ValueError(
            f"{folder} judges {kind} conditions of width {saved.config.condition_width}; "
            f"these have width {config.condition_width}"
        )
    for name, parameter in saved.named_parameters():
        parameter.requires_grad_(not name.startswith(FROZEN))
    return saved


def _transformer(config: ProjectedConfig) -> Any:
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError:
        raise ValueError("the projected discriminator needs timm: pip install 'natgym[pretrained]'") from None
    sizes: Any = {"img_size": config.side, "patch_size": config.patch, "embed_dim": config.width}
    return VisionTransformer(**sizes, depth=config.depth, num_heads=config.heads, num_classes=0)
