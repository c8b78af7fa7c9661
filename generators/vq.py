"""Training of `ConvVQ` as a stream of updates: VQ-VAE with the codebook of vector-quantize-pytorch.

The codes follow the encoder's vectors as moving averages; a code that is hardly used is put on a vector of
the batch. All randomness of update u is a function of (seed, u), so that a resumed training is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generators.checks import taken
from generators.config import VQTrainingConfig as VQTrainingConfig
from generators.images import ImageRows
from generators.noise import derive_seed, seeded
from generators.tokenizers import ConvVQ
from generators.training import refuse_divergence, warmup_then_cosine


class VQTrainer:
    """Train a convolutional tokenizer.

    Args:
        tokenizer: trained in place; its codes are those of the last update.
        images: the training set.
        config: hyper-parameters.
        perceptual: distances (B,) of images (B, C, H, W) and others, as a network sees them; None leaves
            pixels alone.
    """

    def __init__(
        self,
        tokenizer: ConvVQ,
        images: ImageRows,
        config: VQTrainingConfig,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        from vector_quantize_pytorch import VectorQuantize  # seconds to import, and only needed here

        geometry = tokenizer.config
        device = tokenizer.codes.device
        even_use = config.batch_size * math.prod(tokenizer.grid) / geometry.codebook_size
        self.tokenizer = tokenizer
        self.images = images
        self.config = config
        self.perceptual = perceptual
        self.quantizer = VectorQuantize(
            geometry.code_width,
            geometry.codebook_size,
            decay=config.code_decay,
            commitment_weight=config.commitment,
            threshold_ema_dead_code=config.reset_below * even_use,
            kmeans_init=True,
        ).to(device)
        self.optimizer = torch.optim.AdamW(
            tokenizer.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.done = 0

    def __iter__(self) -> Iterator[dict[str, float]]:
        """Yield the metrics of each remaining update."""
        while self.done < self.config.updates:
            yield self.update()
        self.tokenizer.eval()

    def update(self) -> dict[str, float]:
        """Take one optimizer step; return update, squared error (pixels in [0, 1]), codes used in the batch,
        learning rate and, where a network looks, the distance that it sees."""
        config = self.config
        rate = warmup_then_cosine(self.done, config.learning_rate, config.warmup, config.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images_BCHW = self._batch()
        self.tokenizer.train()
        with seeded(derive_seed(self.config.seed, self.done, "codes"), images_BCHW.device):
            quantized_BLd, ids_BL, commitment = self.quantizer(self.tokenizer.vectors(images_BCHW))
        coded_BCHW = self.tokenizer.pictures(quantized_BLd)
        error = (coded_BCHW - images_BCHW).square().mean()
        loss = 4 * error + commitment  # 4 times: the papers' pixels are in [-1, 1]
        seen: dict[str, float] = {}
        if self.perceptual is not None:
            distance = self.perceptual(coded_BCHW, images_BCHW).mean()
            loss = loss + config.perceptual * distance
            seen = {"perceptual": distance.item()}
        self.optimizer.zero_grad()
        loss.backward()
        refuse_divergence(self.done + 1, loss.detach(), self.tokenizer, rate)
        self.optimizer.step()
        self.tokenizer.codes.copy_(self.quantizer.codebook)
        self.done += 1
        used = ids_BL.unique().numel()
        metrics = {"update": self.done, "squared_error": error.item(), "codes": used, "learning_rate": rate}
        return metrics | seen

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed training needs beside data and config."""
        return {
            "done": self.done,
            "tokenizer": self.tokenizer.state_dict(),
            "quantizer": self.quantizer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.done = taken(state["done"], self.config.updates)
        for name in ("tokenizer", "quantizer", "optimizer"):
            getattr(self, name).load_state_dict(state[name])

    def _batch(self) -> Tensor:
        rng = np.random.default_rng(derive_seed(self.config.seed, self.done, "batch"))
        rows_B = torch.from_numpy(rng.integers(len(self.images), size=self.config.batch_size))
        return self.images[rows_B].to(self.tokenizer.codes.device)
