"""What feeds a branch: frozen features in precomputed views, or raw images and words with an encoder that
learns along.

A modality hands out inputs by rows, clean or in two random views, and makes the encoder that reads them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from natgym.discovery.augment import Augmentation
from natgym.discovery.encoders import ConvEncoder
from natgym.discovery.methods import Method


class Modality(Protocol):
    """N samples in one modality.

    Attributes:
        present_N: whether a sample has it, bool; what is handed out for one without is 0 and means nothing.
        num_features: width D of the encoder's features.
    """

    present_N: Tensor
    num_features: int

    def encoder(self) -> nn.Module:
        """Return a new encoder, inputs (B, ...) -> features (B, D)."""
        ...

    def clean(self, rows_B: Tensor) -> Tensor:
        """Return the inputs of rows as they are."""
        ...

    def views(self, rows_B: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return two random views of the inputs of rows; `rng` is a CPU generator."""
        ...

    def to(self, device: torch.device | str) -> Modality:
        """Return the same on a device."""
        ...


def refuse_not_finite(features_NVD: Tensor) -> None:
    """Raise ValueError if a feature is not finite."""
    if not bool((finite_N := torch.isfinite(features_NVD).flatten(1).all(1)).all()):
        row = int((~finite_N).nonzero()[0])
        raise ValueError(f"features of sample {row} are not finite; see to the encoder, or leave it out")


class FrozenViews:
    """Features computed once.

    Args:
        features_NVD: of N samples, first clean and then in V - 1 >= 2 random views; float16 or float32.
        present_N: whether a sample has the modality.

    Raises:
        ValueError: they have another shape, or one is not finite.
    """

    def __init__(self, features_NVD: Tensor, present_N: Tensor) -> None:
        if features_NVD.ndim != 3 or features_NVD.shape[1] < 3:
            shape = tuple(features_NVD.shape)
            raise ValueError(
                f"features {shape}: expected (N, V, D) with a clean and at least two random views"
            )
        refuse_not_finite(features_NVD)
        self.features_NVD = features_NVD
        self.present_N = present_N
        self.num_features = features_NVD.shape[2]

    def encoder(self) -> nn.Module:
        return nn.Identity()

    def clean(self, rows_B: Tensor) -> Tensor:
        return self.features_NVD[rows_B, 0].float()

    def views(self, rows_B: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return two different ones of the random views."""
        number = self.features_NVD.shape[1] - 1
        # From the first view 1 to number - 1 places onwards, in a circle, is never the first view again.
        first_B = torch.randint(number, (len(rows_B),), generator=rng)
        second_B = (first_B + torch.randint(1, number, (len(rows_B),), generator=rng)) % number
        return self.features_NVD[rows_B, 1 + first_B].float(), self.features_NVD[rows_B, 1 + second_B].float()

    def to(self, device: torch.device | str) -> FrozenViews:
        moved = copy.copy(self)
        moved.features_NVD = self.features_NVD.to(device)
        moved.present_N = self.present_N.to(device)
        return moved


def join(modalities: Sequence[FrozenViews]) -> FrozenViews:
    """Return one modality whose features are those of all, side by side; zeros stand for what is missing."""
    features = [m.features_NVD * m.present_N[:, None, None] for m in modalities]
    return FrozenViews(torch.cat(features, -1), torch.stack([m.present_N for m in modalities]).any(0))


class UnitLength(nn.Module):
    """Scale vectors to length 1, as frozen features are."""

    def forward(self, x_BD: Tensor) -> Tensor:
        return F.normalize(x_BD, dim=-1)


class LiveImages:
    """Images, augmented anew in each batch, with a convolutional encoder that learns along.

    Args:
        images_NCHW: in [0, 1], anything where there is none.
        present_N: whether a sample has an image.
        augmentation: of the random views.
    """

    def __init__(self, images_NCHW: Tensor, present_N: Tensor, augmentation: Augmentation) -> None:
        self.images_NCHW = images_NCHW
        self.present_N = present_N
        self.augmentation = augmentation
        self.num_features = 2 * ConvEncoder.widths[-1]

    def encoder(self) -> nn.Module:
        _, channels, height, width = self.images_NCHW.shape
        return nn.Sequential(ConvEncoder((channels, height, width)), UnitLength())

    def clean(self, rows_B: Tensor) -> Tensor:
        return self.images_NCHW[rows_B]

    def views(self, rows_B: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        images_BCHW = self.images_NCHW[rows_B]
        return self.augmentation(images_BCHW, rng), self.augmentation(images_BCHW, rng)

    def to(self, device: torch.device | str) -> LiveImages:
        return LiveImages(self.images_NCHW.to(device), self.present_N.to(device), self.augmentation)


class LiveWords:
    """Texts as bags of words, of which each batch drops some, with word vectors that learn along.

    Args:
        texts: N of them, "" where there is none.
        dropped: share of the words that a random view leaves out.
        width: of a word vector.
    """

    def __init__(self, texts: Sequence[str], dropped: float = 0.3, width: int = 100) -> None:
        words = [sorted(set(words_of(text))) for text in texts]
        # From 1 on, since 0 fills up short texts and stands for a word that a view leaves out.
        vocabulary = {
            word: index for index, word in enumerate(sorted({w for row in words for w in row}), start=1)
        }
        longest = max(map(len, words), default=0)
        ids = [[vocabulary[w] for w in row] + [0] * (longest - len(row)) for row in words]
        self.ids_NW = torch.tensor(ids).reshape(len(words), longest)
        self.present_N = torch.tensor([bool(row) for row in words])
        self.num_words = len(vocabulary)
        self.dropped = dropped
        self.num_features = width

    def encoder(self) -> nn.Module:
        bag = nn.EmbeddingBag(self.num_words + 1, self.num_features, mode="mean", padding_idx=0)
        return nn.Sequential(bag, UnitLength())

    def clean(self, rows_B: Tensor) -> Tensor:
        return self.ids_NW[rows_B]

    def views(self, rows_B: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return self._drop(self.ids_NW[rows_B], rng), self._drop(self.ids_NW[rows_B], rng)

    def to(self, device: torch.device | str) -> LiveWords:
        moved = copy.copy(self)
        moved.ids_NW = self.ids_NW.to(device)
        moved.present_N = self.present_N.to(device)
        return moved

    def _drop(self, ids_BW: Tensor, rng: torch.Generator) -> Tensor:
        uniform_BW = torch.rand(ids_BW.shape, generator=rng).to(ids_BW.device).masked_fill(ids_BW == 0, -1)
        luckiest_BW = uniform_BW == uniform_BW.amax(1, keepdim=True)  # a text keeps at least one word
        return ids_BW.masked_fill((uniform_BW < self.dropped) & ~luckiest_BW, 0)


def words_of(text: str) -> list[str]:
    """Return the words of a text in small letters, as TF-IDF cuts them but with those of one letter."""
    return re.findall(r"\w+", text.lower())


def drop_words(texts: Sequence[str], dropped: float, rng: np.random.Generator) -> list[str]:
    """Return texts without a random share of their words, each with at least one where it had one."""

    def thinned(text: str) -> str:
        words = text.split()
        uniform = rng.random(len(words))
        return " ".join(w for w, u in zip(words, uniform, strict=True) if u >= min(dropped, uniform.max()))

    return [thinned(text) for text in texts]


def modalities_of(method: Method, available: Mapping[str, Modality]) -> dict[str, Modality]:
    """Return what a method's branches see.

    Raises:
        ValueError: the data has not what it needs for every sample, or features that learn can't be joined.
    """
    if method.sees == "both":
        return dict(available)
    if method.sees == "joined":
        frozen = [modality for modality in available.values() if isinstance(modality, FrozenViews)]
        if len(frozen) < len(available):
            raise ValueError("joined features have to be frozen ones; choose encoders that don't learn along")
        return {"joined": join(frozen)}
    if method.sees not in available or not available[method.sees].present_N.all():
        raise ValueError(f"not every sample has the modality {method.sees}; mm-gcd can do without")
    return {method.sees: available[method.sees]}


def clean_features(modality: Modality) -> np.ndarray:
    """Return the frozen features (N, D) of the samples as they are."""
    if not isinstance(modality, FrozenViews):
        raise ValueError("k-means and the estimate of the number of categories need frozen features")
    return modality.features_NVD[:, 0].float().cpu().numpy()
