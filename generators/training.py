"""The generator's own training as a stream of updates (AutoNAT's recipe, arXiv 2406.05478, code).

Masked cross-entropy on randomly hidden tokens, label dropout for guidance, AdamW, warm-up, an exponential
moving average of the weights. All randomness of update u is a function of (seed, u), so that a resumed
training is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from generators.conditions import Condition
from generators.masking import IGNORE, MaskLaw, mask_tokens, masked_cross_entropy
from generators.noise import derive_seed, seeded


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Hyper-parameters of a generator's training; the defaults are those of the small tasks."""

    updates: int = 800
    """Number of optimiser steps."""
    batch_size: int = 128
    """Pictures per step."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW."""
    decay: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up; "constant" is the papers'."""
    warmup: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 0.03
    """Of AdamW, on all parameters."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Of AdamW; the papers have (0.99, 0.99)."""
    ema: float = 0.99
    """Decay of the moving average, which is the trained generator; the papers have 0.9999."""
    label_dropout: float = 0.1
    """Share of conditions replaced by null, for guidance; the papers have 0.15."""
    label_smoothing: float = 0.0
    """Of the cross-entropy; the papers have 0.1."""
    mask_law: MaskLaw = field(default_factory=lambda: MaskLaw("cosine"))
    """Distribution of the share of hidden tokens; the papers have Beta(12, 3)."""
    seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: it must be at least 1")


class Trainer:
    """Train a generator on a cached token set.

    Args:
        generator: trained in place; `ema` holds the averaged copy to keep.
        tokens_NL: the training set's token ids, on the generator's device.
        condition: its N conditions.
        config: hyper-parameters.
    """

    def __init__(
        self, generator: nn.Module, tokens_NL: Tensor, condition: Condition, config: TrainingConfig
    ) -> None:
        if len(tokens_NL) != len(condition):
            raise ValueError(
                f"{len(tokens_NL)} token grids but {len(condition)} conditions; they go together"
            )
        self.generator, self.tokens_NL, self.condition, self.config = generator, tokens_NL, condition, config
        self.average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.optimizer = torch.optim.AdamW(
            generator.parameters(), config.learning_rate, config.betas, weight_decay=config.weight_decay
        )
        self.done = 0

    @property
    def ema(self) -> nn.Module:
        """The averaged generator, in eval mode."""
        return self.average.module.eval()

    def __iter__(self) -> Iterator[dict[str, float]]:
        """Yield the metrics of each remaining update."""
        while self.done < self.config.updates:
            yield self.update()

    def update(self) -> dict[str, float]:
        """Take one optimiser step; return update, loss (nats a hidden token), accuracy and learning rate."""
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        ids_BL, labels_BL, condition = self._batch(
            np.random.default_rng(derive_seed(self.config.seed, self.done, "batch"))
        )
        self.generator.train()
        with seeded(derive_seed(self.config.seed, self.done, "dropout"), ids_BL.device):
            logits_BLV = self.generator(ids_BL, condition).logits_BLV
        loss = masked_cross_entropy(logits_BLV, labels_BL, self.config.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.generator)
        self.done += 1
        hidden_BL = labels_BL != IGNORE
        accuracy = (logits_BLV.argmax(-1) == labels_BL)[hidden_BL].float().mean()
        return {"update": self.done, "loss": loss.item(), "accuracy": accuracy.item(), "learning_rate": rate}

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed training needs beside data and config."""
        return {
            "done": self.done,
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.done = state["done"]
        for name in ("generator", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])

    def _learning_rate(self) -> float:
        config = self.config
        if self.done < config.warmup:
            return config.learning_rate * (self.done + 1) / config.warmup
        if config.decay == "constant":
            return config.learning_rate
        progress = (self.done - config.warmup) / max(1, config.updates - config.warmup)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Condition]:
        """Draw pictures, hide tokens and drop conditions."""
        B, device = self.config.batch_size, self.tokens_NL.device
        rows_B = torch.from_numpy(rng.integers(len(self.tokens_NL), size=B)).to(device)
        ids_BL, condition = self.tokens_NL[rows_B].long(), self.condition[rows_B]
        dropped_B = torch.from_numpy(rng.random(B) < self.config.label_dropout).to(device)
        with_null = type(condition).cat([condition, condition.null()])
        condition = with_null[torch.arange(B, device=device) + B * dropped_B]
        uniform_BL = torch.from_numpy(rng.random(tuple(ids_BL.shape))).to(device)
        mask_id = self.generator.mask_id
        assert isinstance(mask_id, int)
        return *mask_tokens(ids_BL, self.config.mask_law.sample(B, rng), uniform_BL, mask_id), condition
