"""What images show of their captions: by kind of caption, beside other captions, and how much they vary.

For tasks whose score extractor reads scenes; the same judges as in the tables, in finer rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from generators.images import ImageRows
from generators.noise import derive_seed
from generators.shapes.captions import Asked
from natgym.metrics.extractors import extract
from natgym.metrics.scenes import Read, SceneReader, log_probability, read

CHOICES = 16  # captions that an image's own one is set among
ALL = "all"


def by_kind(texts: Sequence[str], logits_BN: Tensor) -> pd.DataFrame:
    """Return the shares of images that are right, a row for each kind of caption and one for all.

    Columns: kind, n, and those of `Read`; NaN where no caption of the kind asks for it.

    Args:
        texts: captions of B images.
        logits_BN: what a reader says of the images.
    """
    frame = pd.DataFrame(read(texts, logits_BN), columns=list(Read._fields))
    kinds = [asked.kind if (asked := Asked.parse(text)) else "other" for text in texts]
    frame.insert(0, "kind", kinds)
    rows = [frame, frame.assign(kind=ALL)]
    grouped = pd.concat(rows).groupby("kind", sort=False)
    counts = grouped.size().rename("n")
    return pd.concat([counts, grouped.mean()], axis=1).reset_index()


def retrieval(texts: Sequence[str], logits_BN: Tensor, seed: int = 0) -> float:
    """Return R@1: the share of images to which, of CHOICES captions that ask for different things, the
    reader finds their own one the likeliest. Chance is 1 / CHOICES.

    Args:
        texts: captions of B images, of at least CHOICES different meanings.
        logits_BN: what a reader says of the images.
        seed: of the other captions.

    Raises:
        ValueError: there are too few different captions.
    """
    meanings = [Asked.parse(text) for text in texts]
    if len(set(meanings)) < CHOICES:
        raise ValueError(f"{len(set(meanings))} different captions; R@1 sets {CHOICES} beside each other")
    right = 0
    for row, meaning in enumerate(meanings):
        rng = np.random.default_rng(derive_seed(seed, "choices", row))
        others: dict[Asked | None, str] = {}
        for other in rng.permutation(len(texts)):
            if meanings[other] != meaning:
                others.setdefault(meanings[other], texts[other])
            if len(others) == CHOICES - 1:
                break
        choices = [texts[row], *others.values()]
        likely = log_probability(choices, logits_BN[[row]].expand(CHOICES, -1))
        right += bool(likely[0] > likely[1:].max())  # a tie is a miss
    return right / len(texts)


def variety(images_NCHW: Tensor, each: int, reader: SceneReader) -> float:
    """Return the mean distance, in the reader's features, between two images of one caption.

    Args:
        images_NCHW: `each` images of every caption, one caption after the other.
    """
    features_Nd = extract(reader, images_NCHW)[0].unflatten(0, (-1, each))
    distances = torch.cdist(features_Nd, features_Nd)
    return float(distances.sum((1, 2)).mean() / (each * (each - 1)))


def nearest(images_BCHW: Tensor, among: ImageRows, reader: SceneReader) -> Tensor:
    """Return the row of the nearest of many images to each, in the reader's features, (B,), on the host."""
    ours_Bd, theirs_Nd = extract(reader, images_BCHW)[0], extract(reader, among)[0]
    return torch.cdist(ours_Bd, theirs_Nd).argmin(1).cpu()
