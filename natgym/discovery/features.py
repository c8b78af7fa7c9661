"""Frozen features of both modalities, computed once without labels and cached: `encode_pairs`.

Each block of features is centered on its mean over the clean samples and scaled to length 1 per sample, then
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
from torch import Tensor
from torch.nn import functional as F

from generators import former
from generators.caches import cached
from generators.images import batches
from generators.language_models import LanguageModel
from generators.noise import derive_seed
from natgym.discovery.augment import strong, weak
from natgym.discovery.config import FeatureConfig
from natgym.discovery.encoders import color_histogram, oriented_gradients, train_encoder
from natgym.discovery.modality import (
    FrozenViews,
    LiveImages,
    LiveWords,
    Modality,
    drop_words,
    refuse_not_finite,
)
from natgym.discovery.pairs import PairImages, Pairs
from natgym.discovery.pretrained import ImageEncoder, weights_stamp

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
    cache = Path(cache_folder)
    modalities = {}
    if pairs.has_image_N.any():
        modalities["image"] = _images(pairs, config, cache, device, progress)
    if pairs.has_text_N.any():
        modalities["text"] = _texts(pairs, config, cache, device, progress)
    return modalities


def _images(
    pairs: Pairs, config: FeatureConfig, cache: Path, device: torch.device | str, progress: Progress
) -> Modality:
    present_N = torch.from_numpy(pairs.has_image_N)
    images = PairImages(pairs)
    if config.image_encoder == "conv":
        return LiveImages(_scatter(images.load(), present_N), present_N, strong(pairs.mirrored))
    made_of: dict[str, Any] = {"encoder": config.image_encoder, "views": config.views}
    made_of |= {"pixels": pairs.pixels.fingerprint()} | weights_stamp(config.image_encoder)
    if config.image_encoder == "simclr":
        made_of["simclr"] = dataclasses.asdict(config.simclr)

    def compute() -> Tensor:
        encode = _image_blocks(images, config, device, progress)
        return _image_views(images, lambda view: encode(view.to(device)), config.views, progress)

    return FrozenViews(_scatter(_features(cache, "image", made_of, compute), present_N), present_N)


def _image_blocks(
    images: PairImages, config: FeatureConfig, device: torch.device | str, progress: Progress
) -> Callable[[Tensor], list[Tensor]]:
    """Return the function from images to blocks of features."""
    if config.image_encoder.startswith("timm:"):
        pretrained = ImageEncoder(config.image_encoder.removeprefix("timm:"), device)
        return lambda view_BCHW: [pretrained(view_BCHW)]
    done = 0

    def count(loss: float) -> None:
        nonlocal done
        done += 1
        progress(f"image encoder, loss {loss:.3f}", done, config.simclr.updates)

    views = strong(images.pairs.mirrored)
    encoder = train_encoder(images.load().to(device), views, config.simclr, count)
    return lambda view_BCHW: [encoder(view_BCHW), color_histogram(view_BCHW), oriented_gradients(view_BCHW)]


@torch.no_grad()
def _image_views(
    images: PairImages, encode: Callable[[Tensor], list[Tensor]], views: int, progress: Progress
) -> Tensor:
    augmentation = weak(images.pairs.mirrored)
    encoded: list[list[list[Tensor]]] = [[] for _ in range(views + 1)]  # by view, batch and block
    for rows, images_BCHW in batches(images, BATCH):
        for view, batches_of_view in enumerate(encoded):
            # By the batch's first row: the views of a sample depend on BATCH, which is no setting therefore.
            rng = torch.Generator().manual_seed(derive_seed("image views", view, int(rows[0])))
            blocks = encode(augmentation(images_BCHW, rng) if view else images_BCHW)
            batches_of_view.append([block.cpu() for block in blocks])
        progress("image features", int(rows[-1]) + 1, len(images))
    return normalized([[torch.cat(block) for block in zip(*view, strict=True)] for view in encoded])


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
        return normalized(encoded)

    return FrozenViews(_scatter(_features(cache, "text", made_of, compute), present_N), present_N)


def _text_encoder(
    texts: Sequence[str], config: FeatureConfig, device: torch.device | str
) -> Callable[[Sequence[str]], Tensor]:
    if config.text_encoder != "tfidf":
        return LanguageModel.load(config.text_encoder, device).pooled
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer()
    try:
        counts = vectorizer.fit_transform(texts)
    except ValueError as error:  # no words at all
        raise ValueError(f"the texts can't be read by TF-IDF: {error}; see --text-column") from None
    # A truncated decomposition has to be smaller than the matrix.
    width = max(1, min(config.text_width, counts.shape[1] - 1, counts.shape[0] - 1))
    svd = TruncatedSVD(width, random_state=0).fit(counts)
    return lambda some_texts: torch.from_numpy(svd.transform(vectorizer.transform(some_texts))).float()


def normalized(views: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return features (N, V, D) of V views of blocks (N, d): centered on the first view's mean, of length 1,
    and side by side.
    """
    centers = [block.mean(0) for block in views[0]]
    joined = [
        torch.cat([F.normalize(block - c, dim=-1) for block, c in zip(blocks, centers, strict=True)], -1)
        for blocks in views
    ]
    return torch.stack(joined, 1)


def _scatter(values: Tensor, present_N: Tensor) -> Tensor:
    """Spread the rows of the samples that have something over all N, zeros elsewhere."""
    spread = values.new_zeros(len(present_N), *values.shape[1:])
    spread[present_N] = values
    return spread


def _features(folder: Path, name: str, made_of: dict, compute: Callable[[], Tensor]) -> Tensor:
    """Return the features of the cache file of these settings, float16; computed where there is none."""
    described = json.dumps(made_of, sort_keys=True)
    path = folder / f"{name}-{hashlib.sha256(described.encode()).hexdigest()[:12]}.safetensors"

    def finite() -> Tensor:
        features_NVD = compute().half()
        refuse_not_finite(features_NVD)  # before they are kept
        return features_NVD

    return cached(path, "features", described, finite)


__getattr__ = former.renamed(__name__, {"normalised": "normalized"})
