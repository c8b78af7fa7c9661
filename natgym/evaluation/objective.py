"""What searches and trainings make small: a distance, or what is not as asked for; and passes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from natgym.names.prices import Price, checked, text

if TYPE_CHECKING:  # settings are read without torch
    from natgym.evaluation.scorer import Looked, Scorer
    from natgym.rollouts import Rollout

ObjectiveName = Literal["distance", "caption", "valid"]


class Measurement(NamedTuple):
    """What is made small, usually the distance from a split, and its standard error over draws of as many
    images."""

    distance: float
    error: float


@dataclass(frozen=True)
class Objective:
    """What is made small.

    Attributes:
        name: "distance"; or, where the score extractor tells it, the share of images that are not as their
            captions ask, "caption", or not all by the rules of a puzzle, "valid".
        price: added for each forward pass of an image; or the range from which each image has its own.
    """

    name: ObjectiveName = "distance"
    price: Price = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "price", checked(self.price))

    @property
    def title(self) -> str:
        """What it is on the select split, for figures."""
        return self._titled(" from the select split" if self.name == "distance" else ", select split")

    @property
    def words(self) -> str:
        """What it is on any split, for figures."""
        return self._titled("")

    def _titled(self, where: str) -> str:
        names = {"distance": "distance", "caption": "share not as asked"}
        what = names.get(self.name, f"share not {self.name}") + where
        return f"{what}, + {text(self.price)} a pass" if self.price else what

    def refuse_untold(self, extractor: Any, task: Any) -> None:
        """Raise ValueError if an extractor does not tell it."""
        if self.name != "distance" and self.name not in getattr(extractor, "tells", ()):
            raise ValueError(f"objective {self.name}: the score extractor of {task} does not tell it")

    def costs(self, nfe_N: np.ndarray, seed: int | None) -> np.ndarray:
        """Return what the passes of images cost, each (N,).

        Args:
            seed: image i has row seed `seed` + i, by which its price is drawn; of use for a range alone.
        """
        if not isinstance(self.price, tuple):
            return self.price * nfe_N
        from generators.noise import HashNoise  # torch, only where something is drawn
        from natgym.observations import priced

        if seed is None:
            raise ValueError(
                f"price {text(self.price)}: prices of a range are drawn by seeds; give the first"
            )
        price_N1 = priced(self.price, HashNoise.from_seed(seed, len(nfe_N)).row_seeds_B)
        return price_N1[:, 0].double().numpy() * nfe_N

    def value(self, scores: Mapping[str, float], nfe_N: np.ndarray, seed: int | None = None) -> float:
        """Return what is made small, of the scores of images that took some passes; `seed` as of `costs`."""
        found = scores[self.name] if self.name == "distance" else 1 - scores[self.name]
        return float(found + self.costs(nfe_N, seed).mean())

    def of(self, scorer: Scorer, drawn: Iterable[Rollout]) -> Measurement:
        """Measure images as they are drawn."""
        from natgym.evaluation.cost import Cost, counted  # torch, only where something is drawn

        costs: list[Cost] = []
        looked = scorer.look(counted(drawn, costs))
        return self(scorer, looked, np.concatenate([cost.nfe_B for cost in costs]))

    def __call__(
        self, scorer: Scorer, looked: Looked, nfe_N: np.ndarray, seed: int | None = None
    ) -> Measurement:
        """Measure images as a scorer saw them, each drawn in some passes; `seed` as of `costs`."""
        if self.name == "distance":
            value, error = scorer.reference.distance_and_error(looked.features_Nd)
        else:
            value = 1 - scorer.extractor.read(looked.condition.names, looked.logits_NK)[self.name]
            error = math.sqrt(value * (1 - value) / len(nfe_N))
        cost_N = self.costs(nfe_N, seed)
        cost_error = cost_N.std() / math.sqrt(len(cost_N))
        return Measurement(float(value + cost_N.mean()), float(math.hypot(error, cost_error)))
