"""Settings of the searches; read without torch, so that flags are quick."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from generators.checks import all_finite, at_least

OptimizerName = Literal["paper", "grid", "random", "spsa", "gradient", "coordinate", "cma", "tpe"]
Warm = Literal["grid", "family", "none"]
Ratio = Literal["power-cosine", "beta-cdf"]
SearchSplit = Literal["train", "select"]
BUDGET = 85_000  # images of a search that stands alone
PER_EVALUATION = 300  # a population averages noise better than single evaluations do
FINALISTS_SHARE, MOST_FINAL = 0.1, 2000


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """Scales of the reference schedule whose combinations are all tried."""

    remask: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    """Factors of the re-mask temperature 1 - r."""
    sampling: tuple[float, ...] = (0.8, 0.9, 1.0)
    """Sampling temperatures."""
    guidance: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    """Factors of the guidance ramp k / T."""

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError("a grid needs at least one value of each scale")
        all_finite(self)
        if min(self.sampling) <= 0 or min(*self.remask, *self.guidance) < 0:
            raise ValueError("a grid's sampling temperatures must be positive, its other scales at least 0")

    @property
    def points(self) -> list[tuple[float, float, float]]:
        """All combinations, in the order of evaluation."""
        return list(product(self.remask, self.sampling, self.guidance))


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How to search, and how many images to spend."""

    images_per_evaluation: int | None = None
    """Images per evaluated schedule; by default 300, in the optimizer `grid` the budget shared by its points.
    """
    budget: int | None = None
    """Images that the whole search may spend, its finalists included; by default 85,000, and beside a
    training as many as that spends."""
    split: SearchSplit = "train"
    """Real images that candidates are measured against; the finalists' are always those of select."""
    race: int = 4
    """Chunks that the evaluations of a grid are drawn in; after each, schedules that are shown to lose by
    what was drawn so far get no more. 1 gives each schedule all its images."""
    finalists: int = 5
    """Schedules evaluated again at the end; the choice is made on this second look alone."""
    final_images: int | None = None
    """Images per finalist, on fresh noise; by default 2,000, or less if they would take more than a tenth of
    the budget."""
    grid: GridConfig = field(default_factory=GridConfig)
    """Points of the optimizer `grid`."""
    warm: Warm = "grid"
    """Where random, spsa, gradient, coordinate, cma and tpe begin: around the winner of a coarse grid, of a
    family of five or six numbers searched by cma, or around `start` (none)."""
    coarse: GridConfig = field(
        default_factory=lambda: GridConfig(
            remask=(2.0, 6.0, 16.0), sampling=(0.9, 1.0), guidance=(0, 0.5, 1, 2)
        )
    )
    """Points of the coarse grid."""
    family: Ratio = "power-cosine"
    """Mask ratios of the family."""
    family_share: float = 0.3
    """Share of the budget for the family."""
    start: str = "reference"
    """Schedule to search around without a warm start: a name or a file."""

    def __post_init__(self) -> None:
        at_least(1, self, "images_per_evaluation", "race", "finalists", "final_images")
        each = PER_EVALUATION if self.images_per_evaluation is None else self.images_per_evaluation
        if each < self.race:
            raise ValueError(f"race {self.race}: an evaluation has {each} images; take fewer chunks")
        if not 0 < self.family_share < 1:
            raise ValueError(
                f"family_share {self.family_share}: it is a share of the budget, between 0 and 1"
            )
        if self.explored < each:
            raise ValueError(
                f"budget {self.total}: {self.finalists} finalists take {self.finalists * self.per_finalist} "
                f"images, an evaluation {each}; raise it or take fewer"
            )

    def beside(self, images: int) -> SearchConfig:
        """Return the search of as many images as something else spends, unless a budget is given."""
        return dataclasses.replace(self, budget=images) if self.budget is None else self

    def unguided(self) -> SearchConfig:
        """Return the search whose grids leave guidance out, where there is nothing to guide by."""
        grid, coarse = (dataclasses.replace(one, guidance=(0.0,)) for one in (self.grid, self.coarse))
        return dataclasses.replace(self, grid=grid, coarse=coarse)

    @property
    def total(self) -> int:
        """Images that the whole search may spend."""
        return BUDGET if self.budget is None else self.budget

    @property
    def per_finalist(self) -> int:
        """Images that a finalist gets."""
        if self.final_images is not None:
            return self.final_images
        return max(1, min(MOST_FINAL, int(FINALISTS_SHARE * self.total) // self.finalists))

    @property
    def explored(self) -> int:
        """Images for all but the finalists."""
        return self.total - self.finalists * self.per_finalist

    def per_evaluation(self, optimizer: OptimizerName) -> int:
        """Images that an evaluation gets in a search by some optimizer."""
        if self.images_per_evaluation is not None:
            return self.images_per_evaluation
        if optimizer == "grid":
            return max(self.race, self.explored // len(self.grid.points))
        return PER_EVALUATION


@dataclass(frozen=True, kw_only=True)
class ClassTableConfig:
    """How many schedules to try for each class, and on how many images."""

    candidates: int = 0
    """Schedules tried for every class, such as 26; the first is the static one. 0 leaves the class table out.
    """
    images_per_class: int = 300
    """Images per candidate and class."""
    split: Literal["train", "select"] = "train"
    """Real images that the assignment is chosen by; what fits a few hundred of them does not carry over."""
    reach: float = 0.7
    """Standard deviation of the candidates around the static schedule, in units of the action map."""

    def __post_init__(self) -> None:
        at_least(0, self, "candidates")
        at_least(2, self, "images_per_class")
        if not self.reach > 0:
            raise ValueError(f"reach {self.reach}: it must be positive")


@dataclass(frozen=True, kw_only=True)
class LawSearchConfig:
    """How many laws to try, and how long to train each."""

    laws: int = 12
    """Laws tried in each round; the first two are MaskGIT's cosine and AutoNAT's Beta(12, 3)."""
    rung: int = 200
    """Updates before the first comparison, where the worse half stops; the next rungs are twice as long."""
    images: int = 1000
    """Images per measurement, all on the same noise."""

    def __post_init__(self) -> None:
        at_least(2, self, "laws")
        at_least(1, self, "rung")
        at_least(2, self, "images")
