"""Co-training: the generator learns in turn with the policy, at the mask ratios that the policy visits.

AdaNAT trains its policy on a frozen generator, whose own training hid other shares of the tokens than a
decoding does. Here the generator goes on learning after each update of the policy, from the train split, and
the next rollout is drawn by its averaged weights.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.adanat.parts import CotrainingConfig
from agents.adanat.teacher import train_ids
from agents.distributed.ranks import Ranks
from generators.checkpoints import save_pretrained
from generators.conditions import Condition
from generators.noise import derive_seed
from generators.recipes import recipe
from generators.training import Trainer, TrainingConfig
from natgym.env.vector import DecodeVectorEnv


@dataclass(frozen=True, eq=False)
class VisitedRatios:
    """The mask ratios that a rollout visited, each with equal chance.

    A ratio is the share of masked tokens that a row has before a step; so the ratio 1, before the first step,
    comes once in T. Rows with nothing masked are left out: their images are finished. Which tokens are
    hidden stays uniformly random, as in all training, whereas decoding hides the least confident ones.

    Args:
        masked_TBL: 1 where a token is masked before a step.
    """

    masked_TBL: Tensor

    def sample(self, num_samples: int, rng: np.random.Generator) -> Tensor:
        """Draw mask ratios (B,), float32."""
        ratios_N = self.masked_TBL.float().mean(-1).flatten().cpu()
        ratios_N = ratios_N[ratios_N > 0]
        return ratios_N[torch.from_numpy(rng.integers(len(ratios_N), size=num_samples))]


class Cotraining:
    """The generator's side of a co-training.

    Args:
        usual: the recipe of the generator's own training.
        generator: where it starts; left as it is.
        ids_NL, condition: the train split's tokens and what they are of.
        seed: all randomness follows from it and the number of updates taken.
    """

    def __init__(
        self,
        config: CotrainingConfig,
        usual: TrainingConfig,
        generator: Any,
        ids_NL: Tensor,
        condition: Condition,
        seed: int,
    ) -> None:
        self.config = config
        changed: dict[str, Any] = dict(learning_rate=config.learning_rate, decay="constant", warmup=0)
        learner = copy.deepcopy(generator).requires_grad_(True)
        self.trainer = Trainer(learner, ids_NL, condition, dataclasses.replace(usual, **changed, seed=seed))
        self.generator: nn.Module = self.trainer.ema.requires_grad_(False)

    @classmethod
    def of(cls, env: DecodeVectorEnv, config: CotrainingConfig, seed: int) -> Cotraining | None:
        """Return the co-training of an environment's generator; None if it stays frozen.

        Raises:
            ValueError: the environment's task has no images to learn from.
        """
        if not config.updates:
            return None
        condition, ids_NL = env.task.images("train").condition, train_ids(env).to(env.device).long()
        usual = recipe(env.task.recipe, "enat" if getattr(env.generator, "reuses", False) else "nat")
        return cls(config, usual, env.generator, ids_NL, condition, derive_seed(seed, "generator"))

    def update(self, masked_TBL: Tensor) -> dict[str, float]:
        """Let the generator learn after a rollout; `generator`, which draws the next, changes in place.

        Args:
            masked_TBL: of this rank's rows.
        """
        if self.config.masks == "visited":
            self.trainer.mask_law = VisitedRatios(Ranks.here().gather(masked_TBL, dim=1))
        losses = [self.trainer.update()["loss"] for _ in range(self.config.updates)]
        return {"generator_updates": self.trainer.done, "generator_loss": float(np.mean(losses))}

    def export(self, folder: Path, task: str | None) -> None:
        """Save the averaged generator."""
        save_pretrained(self.generator, folder, task=task)
