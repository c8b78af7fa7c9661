"""A CLIP of one layer with random weights, of the class and in the files that published ones have."""

from pathlib import Path

import pytest
import torch
from letters import letter_tokenizer


def small_clip(folder: Path, side: int) -> None:
    """Save it with its processor in a new folder; skip the test where transformers is not installed.

    Args:
        side: of the square images that it takes.
    """
    transformers = pytest.importorskip("transformers", reason="the extra `pretrained` is not installed")
    folder.mkdir()
    size = letter_tokenizer(transformers, folder, length=77)
    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": size, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1}
    vision = {**sizes, "image_size": side, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder, safe_serialization=True)
    pixels = transformers.CLIPImageProcessor(size={"shortest_edge": side}, crop_size=side)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    transformers.CLIPProcessor(pixels, tokenizer).save_pretrained(folder)
