"""aMUSEd's family: diffusers' `UVit2DModel` as a generator, `VQModel` as its tokenizer (extra "diffusers").

A pipeline's folder has them as transformer/ and vqvae/, beside text_encoder/ and tokenizer/, which read the
prompts; `networks` returns all three as a `natgym.Task` takes them. The library's modules do all passes;
weights are read as safetensors, and no code of a checkpoint is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from generators.checkpoints import register
from generators.checks import at_least
from generators.conditions import NO_LIST, Condition
from generators.contract import Prediction
from generators.files import read_json
from generators.language_models import LanguageModel
from generators.others.library import Seen, first_line, geometry, library

EXTRA = "diffusers"


@dataclass(frozen=True, kw_only=True)
class UVitConfig:
    """Which UVit2DModel it is, and what it is asked for beside the text.

    Attributes:
        library: what diffusers builds the model by.
        mask_token: the id by which the library says that a token is masked.
        image_size: height and width in pixels.
        crop: of the micro-conditions, where the image was cut out of a larger one.
        aesthetic_score: of the micro-conditions, 0..10.
        text_encoder: the name of what reads its texts, if anybody says; those of others are refused.
    """

    library: dict[str, Any]
    mask_token: int
    image_size: tuple[int, int]
    crop: tuple[int, int] = (0, 0)
    aesthetic_score: float = 6.0
    text_encoder: str = ""

    def __post_init__(self) -> None:
        for size in self.image_size:
            if size < 1:
                raise ValueError(f"image_size {self.image_size}: both sides must be at least 1")
        at_least(0, self, "mask_token")


@register(UVitConfig)
class UVit(nn.Module):
    """A UVit2DModel by the contract of `generators.contract`; it reads texts, tokens and pooled vector.

    Features are what the last convolution reads, after the final norm. The unconditional pass is that of the
    empty text, as in the library's pipeline.

    Attributes:
        prompts: what `conditions` returns, since nobody can list all texts; not saved.
    """

    def __init__(self, config: UVitConfig) -> None:
        super().__init__()
        models = library("diffusers", EXTRA)
        self.config = config
        self.model = models.UVit2DModel.from_config(geometry(config.library))
        self.prompts: Condition | None = None
        told = self.model.config
        if not told.codebook_size <= config.mask_token < told.vocab_size:
            raise ValueError(
                f"mask_token {config.mask_token} is not one of {told.codebook_size} to "
                f"{told.vocab_size - 1}, which are no codes"
            )
        self.codebook_size = self.mask_id = told.codebook_size
        self.grid = told.sample_size, told.sample_size
        self.num_tokens = told.sample_size**2
        self.width = told.in_channels
        self._seen = Seen(self.model.mlm_layer.conv2)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu", **fields: Any) -> UVit:
        """Read the transformer of a pipeline's folder.

        Args:
            folder: with transformer/, and perhaps vqvae/ and scheduler/, whose configs say the size of the
                images (else 16 pixels a token) and the mask token (else the last).
            fields: of the config, in place of what the folder says.

        Raises:
            ValueError: there is no such model, or it is not whole.
        """
        model = _loaded("UVit2DModel", Path(folder), "transformer")
        told = model.config
        scheduler = _config(Path(folder) / "scheduler" / "scheduler_config.json")
        levels = _config(Path(folder) / "vqvae" / "config.json").get("block_out_channels", range(5))
        side = told.sample_size * 2 ** (len(levels) - 1)
        usual = {
            "library": geometry(told),
            "mask_token": scheduler.get("mask_token_id", told.vocab_size - 1),
            "image_size": (side, side),
        }
        with torch.device("meta"):
            generator = cls(UVitConfig(**(usual | fields)))
        weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        generator.load_state_dict(weights, assign=True)
        return generator.to(device).eval().requires_grad_(False)

    def forward(self, ids_BL: Tensor, condition: Condition, cache: None = None) -> Prediction:
        """Return logits (B, L, V) and features (B, L, D); nothing is reused, so `cache` stays None."""
        dtype = self.model.dtype
        ids_BL = ids_BL.masked_fill(ids_BL == self.mask_id, self.config.mask_token)
        (height, width), crop = self.config.image_size, self.config.crop
        # The library says the width before the height.
        asked = torch.tensor([width, height, *crop, self.config.aesthetic_score], dtype=dtype)
        logits_BVHW = self.model(
            rearrange(ids_BL, "b (h w) -> b h w", h=self.grid[0]),
            encoder_hidden_states=condition.values.to(dtype),
            pooled_text_emb=condition.vectors.to(dtype),
            micro_conds=asked.to(ids_BL.device).expand(len(ids_BL), -1),
        )
        flat = "b d h w -> b (h w) d"
        return Prediction(rearrange(logits_BVHW, flat), rearrange(self._seen.take(), flat))

    def conditions(self) -> Condition:
        """Return the prompts, on the weights' device; ValueError if there are none."""
        if self.prompts is None:
            raise ValueError(f"{NO_LIST}, or set `prompts`")
        return self.prompts.to(self.model.device)


@dataclass(frozen=True, kw_only=True)
class VQModelConfig:
    """Which VQModel it is, and the grid of its images.

    Attributes:
        library: what diffusers builds the model by.
        grid: rows and columns of tokens; the decoder takes any, a generator has one.
    """

    library: dict[str, Any]
    grid: tuple[int, int]


@register(VQModelConfig)
class VQModel(nn.Module):
    """A VQModel of diffusers by the contract of `generators.tokenizers`; it knows images in [0, 1]."""

    def __init__(self, config: VQModelConfig) -> None:
        super().__init__()
        models = library("diffusers", EXTRA)
        self.config = config
        self.model = models.VQModel.from_config(geometry(config.library))
        told = self.model.config
        factor = 2 ** (len(told.block_out_channels) - 1)
        self.codebook_size = told.num_vq_embeddings
        self.grid = config.grid
        self.image_shape = told.out_channels, config.grid[0] * factor, config.grid[1] * factor

    @classmethod
    def load(cls, folder: Path | str, grid: tuple[int, int], device: torch.device | str = "cpu") -> VQModel:
        """Read vqvae/ of a pipeline's folder; ValueError if there is none."""
        model = _loaded("VQModel", Path(folder), "vqvae")
        with torch.device("meta"):
            tokenizer = cls(VQModelConfig(library=geometry(model.config), grid=grid))
        weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        tokenizer.load_state_dict(weights, assign=True)
        return tokenizer.to(device).eval().requires_grad_(False)

    def encode(self, images_BCHW: Tensor) -> Tensor:
        latents_BdHW = self.model.encode(images_BCHW).latents
        _, _, (_, _, ids) = self.model.quantize(latents_BdHW)
        return ids.view(len(images_BCHW), -1)

    def decode(self, ids_BL: Tensor) -> Tensor:
        shape = len(ids_BL), *self.grid, self.model.quantize.vq_embed_dim
        latents = ids_BL  # which aMUSEd's models look up by themselves
        if not self.model.config.lookup_from_codebook:
            latents = self.model.quantize.get_codebook_entry(ids_BL, shape)
        return self.model.decode(latents, force_not_quantize=True, shape=shape).sample.clamp(0, 1)


def networks(folder: Path | str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return generator, tokenizer and encoder of a pipeline's folder, as `natgym.Task` takes them.

    The generator is bound to the encoder: texts that another has read are refused.

    Raises:
        ValueError: a part is missing.
    """
    encoder = LanguageModel.load(f"amused:{folder}", device)
    generator = UVit.load(folder, device, text_encoder=encoder.name)
    tokenizer = VQModel.load(folder, generator.grid, device)
    return {"generator": generator, "tokenizer": tokenizer, "encoder": encoder}


def _loaded(name: str, folder: Path, part: str) -> Any:
    """Return a model of diffusers from a folder at hand; ValueError if there is none."""
    models = library("diffusers", EXTRA)
    if not (folder / part / "config.json").is_file():
        raise ValueError(f"{folder} has no {part}/config.json; give the folder of a pipeline of diffusers")
    try:
        return getattr(models, name).from_pretrained(
            folder,
            subfolder=part,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
        )
    except Exception as error:  # the library raises what its parts do
        raise ValueError(f"{folder / part} holds no {name} that can be read: {first_line(error)}") from None


def _config(path: Path) -> dict[str, Any]:
    """Return what a part's config says; nothing if there is no such part."""
    return read_json(path) if path.is_file() else {}
