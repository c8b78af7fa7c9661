"""Frozen features of both modalities, computed once without labels and cached: `encode_pairs`.

Each block of features is centred on its mean over the clean samples and scaled to length 1 per sample, then
the blocks of a modality stand side by side.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from generators.checkpoints import tensors_hash
from generators.files import write_atomic
from generators.noise import derive_seed
from natgym.discovery.augment import Augmentation, strong, weak
from natgym.discovery.config import FeatureConfig
from natgym.discovery.encoders import color_histogram, oriented_gradients, train_encoder
from natgym.discovery.modality import FrozenViews, LiveImages, LiveWords, Modality, drop_words
from natgym.discovery.pairs import Pairs
from natgym.discovery.pretrained import ImageEncoder, SentenceEncoder, weights_stamp

Progress = Callable[[str, int, int], object]
"""Called with what is done, how much of it, and of how much."""

BATCH = 256


def encode_pairs(
    pairs: Pairs,
    config: FeatureConfig,
    cache_folder: Path | str,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Modality]:
    """Return "image" and "text", without one that no sample has; on the CPU.

    Args:
        pairs: the samples.
        config: how to encode them.
        cache_folder: where the features' files are, or will be.
        device: where the encoders run.
        progress: called after each piece.

    Raises:
        ValueError: an image can't be read, or the texts hold no words.
    """
    work = {"image": (pairs.has_image_N, _images), "text": (pairs.has_text_N, _texts)}
    return {
        name: encode(pairs, config, Path(cache_folder), device, progress)
        for name, (present_N, encode) in work.items()
        if present_N.any()
    }


def _images(
    pairs: Pairs, config: FeatureConfig, cache: Path, device: torch.device | str, progress: Progress
) -> Modality:
    rows, present_N = np.flatnonzero(pairs.has_image_N), torch.from_numpy(pairs.has_image_N)
    if config.image_encoder == "conv":
        return LiveImages(_scatter(pairs.images(rows), present_N), present_N, strong(pairs.mirrored))
    made_of: dict[str, Any] = {"encoder": config.image_encoder, "views": config.views}
    made_of |= {"pixels": pairs.pixels.fingerprint()} | weights_stamp(config.image_encoder)
    if config.image_encoder == "simclr":
        made_of["simclr"] = dataclasses.asdict(config.simclr)

    def compute() -> Tensor:
        encode = _image_blocks(pairs, rows, config, device, progress)
        return _image_views(pairs, rows, lambda images: encode(images.to(device)), config.views, progress)

    return FrozenViews(_scatter(_cached(cache, "image", made_of, compute), present_N), present_N)


def _image_blocks(
    pairs: Pairs, rows: np.ndarray, config: FeatureConfig, device: torch.device | str, progress: Progress
) -> Callable[[Tensor], list[Tensor]]:
    """Return the function from images to blocks of features."""
    if config.image_encoder.startswith("timm:"):
        pretrained = ImageEncoder(config.image_encoder.removeprefix("timm:"), device)
        return lambda images: [pretrained(images)]
    done = 0

    def count(loss: float) -> None:
        nonlocal done
        done += 1
        progress(f"image encoder, loss {loss:.3f}", done, config.simclr.updates)

    encoder = train_encoder(pairs.images(rows).to(device), strong(pairs.mirrored), config.simclr, count)
    return lambda images: [encoder(images), color_histogram(images), oriented_gradients(images)]


@torch.no_grad()
def _image_views(
    pairs: Pairs,
    rows: np.ndarray,
    encode: Callable[[Tensor], list[Tensor]],
    views: int,
    progress: Progress,
) -> Tensor:
    augmentation: Augmentation = weak(pairs.mirrored)
    encoded: list[list[list[Tensor]]] = [[] for _ in range(views + 1)]
    for at in range(0, len(rows), BATCH):
        images_BCHW = pairs.images(rows[at : at + BATCH])
        for view, parts in enumerate(encoded):
            rng = torch.Generator().manual_seed(derive_seed("image views", view, at))
            blocks = encode(augmentation(images_BCHW, rng) if view else images_BCHW)
            parts.append([block.cpu() for block in blocks])
        progress("image features", min(at + BATCH, len(rows)), len(rows))
    return normalised([[torch.cat(blocks) for blocks in zip(*parts, strict=True)] for parts in encoded])


def _texts(
    pairs: Pairs, config: FeatureConfig, cache: Path, device: torch.device | str, progress: Progress
) -> Modality:
    if config.text_encoder == "words":
        return LiveWords(pairs.texts, config.word_dropout, config.text_width)
    present_N = torch.from_numpy(pairs.has_text_N)
    texts = [text for text in pairs.texts if text]
    made_of: dict[str, Any] = {
        "encoder": config.text_encoder,
        "views": config.views,
        "dropout": config.word_dropout,
    }
    made_of |= weights_stamp(config.text_encoder)
    made_of |= {"texts": hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]}
    if config.text_encoder == "tfidf":
        made_of["width"] = config.text_width

    def compute() -> Tensor:
        encode = _text_encoder(texts, config, device)
        encoded = []
        for view in range(config.views + 1):
            rng = np.random.default_rng(derive_seed("text views", view))
            encoded.append([encode(drop_words(texts, config.word_dropout, rng) if view else texts)])
            progress("text features", view + 1, config.views + 1)
        return normalised(encoded)

    return FrozenViews(_scatter(_cached(cache, "text", made_of, compute), present_N), present_N)


def _text_encoder(
    texts: Sequence[str], config: FeatureConfig, device: torch.device | str
) -> Callable[[Sequence[str]], Tensor]:
    if config.text_encoder != "tfidf":
        return SentenceEncoder(config.text_encoder.removeprefix("transformers:"), device)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer()
    try:
        counts = words.fit_transform(texts)
    except ValueError as error:  # no words at all
        raise ValueError(f"the texts can't be read by TF-IDF: {error}; see --text-column") from None
    width = max(1, min(config.text_width, counts.shape[1] - 1, counts.shape[0] - 1))
    svd = TruncatedSVD(width, random_state=0).fit(counts)
    return lambda some: torch.from_numpy(svd.transform(words.transform(some))).float()


def normalised(views: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return features (N, V, D) of V views of blocks (N, d): centred on the first view's mean, of length 1,
    and side by side.
    """
    centres = [block.mean(0) for block in views[0]]
    joined = [
        torch.cat([F.normalize(block - c, dim=-1) for block, c in zip(blocks, centres, strict=True)], -1)
        for blocks in views
    ]
    return torch.stack(joined, 1)


def _scatter(values: Tensor, present_N: Tensor) -> Tensor:
    """Spread the rows of the samples that have something over all N, zeros elsewhere."""
    spread = values.new_zeros(len(present_N), *values.shape[1:])
    spread[present_N] = values
    return spread


def _cached(folder: Path, name: str, made_of: dict, compute: Callable[[], Tensor]) -> Tensor:
    """Return the features of a cache file, or compute and write them; one that is damaged is replaced."""
    described = json.dumps(made_of, sort_keys=True)
    path = folder / f"{name}-{hashlib.sha256(described.encode()).hexdigest()[:12]}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            metadata, features = file.metadata() or {}, file.get_tensor("features")
        if metadata == {"made_of": described, "hash": tensors_hash({"features": features})}:
            return features
    except (OSError, SafetensorError):
        pass
    features = compute().half()
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"made_of": described, "hash": tensors_hash({"features": features})}
    write_atomic(path, save({"features": features}, metadata))
    return features
