"""The generator's own training as a stream of updates (AutoNAT's recipe, arXiv 2406.05478, code).

Masked cross-entropy on randomly hidden tokens, label dropout for guidance, AdamW, warm-up, an exponential
moving average of the weights; for ENAT also its training with reuse (arXiv 2411.06959, code). All randomness
of update u is a function of (seed, u), so that a resumed training is exact; every rank draws the whole batch
and keeps its share, so that several ranks train as one does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from generators.checks import taken
from generators.conditions import Condition
from generators.config import TrainingConfig as TrainingConfig
from generators.config import small_recipe as small_recipe
from generators.layers import Recomputed
from generators.masking import (
    IGNORE,
    RatioLaw,
    hide_more,
    hide_within,
    mask_tokens,
    masked_cross_entropy,
)
from generators.noise import derive_seed, seeded


def warmup_then_cosine(done: int, peak: float, warmup: int, updates: int) -> float:
    """Return the learning rate of update `done`, counted from 0: linear, then half a cosine to 0."""
    if done < warmup:
        return peak * (done + 1) / warmup
    progress = (done - warmup) / max(1, updates - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def refuse_divergence(update: int, loss: Tensor, network: nn.Module, learning_rate: float) -> None:
    """Raise ValueError if a loss or its gradient is not finite, before a step is taken on it."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if not bool(torch.isfinite(loss + norm)):
        raise ValueError(
            f"update {update} diverged: loss {loss.item():g}, norm of its gradient {norm.item():g}, learning "
            f"rate {learning_rate:g}; weights from before it are kept, lower the learning rate"
        )


def take_ids(tokens_NL: Tensor, rows_B: Tensor) -> Tensor:
    """Return some rows of a token set as int64.

    GPUs index no uint16, which token sets are stored in; the same bits are indexed as int16.
    """
    if tokens_NL.dtype != torch.uint16:
        return tokens_NL[rows_B].long()
    return tokens_NL.view(torch.int16)[rows_B].long() & 0xFFFF


def chances(condition: Condition, power: float) -> np.ndarray:
    """Return the chances (N,) of images by which classes come in proportion to their numbers to a power."""
    _, class_N, counts = np.unique(condition.names, return_inverse=True, return_counts=True)
    weights_N = counts[class_N] ** (power - 1.0)
    return weights_N / weights_N.sum()


class Batch(NamedTuple):
    """What one update learns from: ids with masks, labels (-1 where visible), conditions.

    `earlier_BL` are the ids of an earlier state, for training with reuse; None without.
    """

    ids_BL: Tensor
    labels_BL: Tensor
    condition: Condition
    earlier_BL: Tensor | None


class Trainer:
    """Train a generator on a cached token set; one of several ranks where torch.distributed is initialised.

    Args:
        generator: trained in place; `ema` holds the averaged copy to keep.
        tokens_NL: the training set's token ids of any integer type, on the generator's device.
        condition: its N conditions.
        config: hyper-parameters.

    Raises:
        ValueError: tokens and conditions are not equally many, the batch can't be shared among the ranks, or
            `reuse` is asked of a generator that reuses nothing, or `given` of conditions that give nothing.
    """

    def __init__(
        self, generator: nn.Module, tokens_NL: Tensor, condition: Condition, config: TrainingConfig
    ) -> None:
        if len(tokens_NL) != len(condition):
            raise ValueError(
                f"{len(tokens_NL)} token grids but {len(condition)} conditions; they go together"
            )
        self.rank, self.ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if config.batch_size % self.ranks:
            raise ValueError(f"batch_size {config.batch_size} can't be shared by {self.ranks} ranks equally")
        if config.reuse and not getattr(generator, "reuses", False):
            raise ValueError(f"reuse {config.reuse}: {type(generator).__name__} reuses nothing; set it to 0")
        if config.given and condition.given_BL is None:
            raise ValueError(f"given {config.given}: the conditions give no tokens; set it to 0")
        self.generator = generator
        self.tokens_NL = tokens_NL
        self.condition = condition
        self.config = config
        self.average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.average.n_averaged += 1  # else the first update would replace the copy of the initial weights
        self.optimizer = torch.optim.AdamW(
            generator.parameters(), config.learning_rate, config.betas, weight_decay=config.weight_decay
        )
        for module in generator.modules():
            if isinstance(module, Recomputed):
                module.recompute = config.recompute
        # What only reuse reaches has no gradient in a batch without it.
        self._replica = (
            DistributedDataParallel(generator, find_unused_parameters=bool(config.reuse))
            if self.ranks > 1
            else generator
        )
        self.mask_law: RatioLaw = config.mask_law  # may be set to another one between updates
        self._cumulative_N = (
            None if config.class_power == 1 else chances(condition, config.class_power).cumsum()
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
        """Take one optimizer step; return update, loss (nats a hidden token), accuracy and learning rate."""
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed = self.config.seed
        device = self.tokens_NL.device
        batch = self._batch(np.random.default_rng(derive_seed(seed, self.done, "batch")))
        self.generator.train()
        # Rank 0 draws what a training of a single rank draws.
        ranked = ("dropout", self.rank) if self.rank else ("dropout",)
        half = torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")
        with seeded(derive_seed(seed, self.done, *ranked), device), half:
            reused = () if batch.earlier_BL is None else (self._reused(batch.earlier_BL, batch.condition),)
            logits_BLV = self._replica(batch.ids_BL, batch.condition, *reused).logits_BLV
        hidden_BL = batch.labels_BL != IGNORE
        right = (logits_BLV.argmax(-1) == batch.labels_BL)[hidden_BL].sum()
        mean = masked_cross_entropy(logits_BLV, batch.labels_BL, self.config.label_smoothing)
        sums = torch.stack([mean.detach() * hidden_BL.sum(), right, hidden_BL.sum()])
        total = sums.clone()
        if self.ranks > 1:
            dist.all_reduce(total)
        self.optimizer.zero_grad()
        # The mean over all hidden tokens of all ranks, whose gradients are averaged over the ranks.
        (mean * (sums[2] * self.ranks / total[2])).backward()
        refuse_divergence(self.done + 1, mean, self.generator, rate)
        self.optimizer.step()
        self.average.update_parameters(self.generator)
        self.done += 1
        loss, accuracy = (total[:2] / total[2]).tolist()
        return {"update": self.done, "loss": loss, "accuracy": accuracy, "learning_rate": rate}

    @torch.no_grad()
    def _reused(self, earlier_BL: Tensor, condition: Condition) -> Any:
        """Return what the averaged network has computed at an earlier state of the same images."""
        return self.ema(earlier_BL, condition).cache

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
        self.done = taken(state["done"], self.config.updates)
        for name in ("generator", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])

    def _learning_rate(self) -> float:
        config = self.config
        if config.decay == "constant" and self.done >= config.warmup:
            return config.learning_rate
        return warmup_then_cosine(self.done, config.learning_rate, config.warmup, config.updates)

    def _batch(self, rng: np.random.Generator) -> Batch:
        """Draw images, hide tokens and drop conditions: this rank's share of what every rank draws."""
        config = self.config
        device = self.tokens_NL.device
        B = config.batch_size
        L = self.tokens_NL.shape[1]
        mask_id = self.generator.mask_id
        assert isinstance(mask_id, int)

        def share(drawn_B: np.ndarray | Tensor) -> Tensor:
            size = B // self.ranks
            return torch.as_tensor(drawn_B)[self.rank * size : (self.rank + 1) * size].to(device)

        # The order of the draws is part of what a seed stands for.
        if self._cumulative_N is None:
            rows_B = share(rng.integers(len(self.tokens_NL), size=B))
        else:
            last = len(self.tokens_NL) - 1  # for a sum a rounding below 1
            rows_B = share(self._cumulative_N.searchsorted(rng.random(B), side="right").clip(max=last))
        dropped_B = share(rng.random(B) < config.label_dropout)
        uniform_BL = share(rng.random((B, L)))
        ratios_B = share(self.mask_law.sample(1 if config.shared_mask else B, rng).expand(B))
        condition = self.condition[rows_B]
        if config.given and condition.given_BL is not None:
            within_B = share(rng.random(B) < config.given)
            uniform_BL, ratios_B = hide_within(condition.given_BL, within_B, uniform_BL, ratios_B)
        with_null = type(condition).cat([condition, condition.null()])
        condition = with_null[torch.arange(len(rows_B), device=device) + len(rows_B) * dropped_B]
        ids_BL, labels_BL = mask_tokens(
            take_ids(self.tokens_NL, rows_B),
            ratios_B,
            uniform_BL,
            mask_id,
            min_visible=int(config.shared_mask),
        )
        if not config.reuse:
            return Batch(ids_BL, labels_BL, condition, None)
        size = 1 if config.shared_mask else B
        shares = rng.random(size)
        reusing = rng.random(size) < config.reuse
        # An earlier state with nothing visible is the same as none.
        shares_B = share(np.broadcast_to(np.where(reusing, shares, 1.0), B).copy())
        return Batch(
            ids_BL, labels_BL, condition, hide_more(ids_BL, shares_B, share(rng.random((B, L))), mask_id)
        )
