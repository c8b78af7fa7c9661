"""Discover categories in pairs of image and text (MM-GCD), and compare with its baselines over splits."""

import _root  # noqa: F401

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated

import tyro
from _cli import main

from generators.checks import at_least
from natgym.discovery.config import DiscoveryConfig, FeatureConfig, PairsConfig
from natgym.discovery.methods import METHODS, changed, parse_settings

ESTIMATES = ("known", "auto", "agreement")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Assign every pair of image and text to an old or a new category.

    Without --data the images are scikit-learn's digits, with texts made for them: a demonstration. With
    several --methods and --splits the table compares them on the same splits.
    """

    output: Path | None = None
    """Run folder, by default runs/mmgcd_discover-<time>."""
    resume: Path | None = None
    """Run folder to go on with; its own settings are used."""
    methods: tuple[str, ...] = ("mm-gcd",)
    """Which to run: names, or "all"."""
    splits: tuple[int, ...] = (0,)
    """Seeds of the splits into old and new categories, labelled and unlabelled samples."""
    known: float = 0.5
    """Share of the categories that is old."""
    known_names: tuple[str, ...] = ()
    """The old categories by name, instead of a share."""
    labelled: float = 0.5
    """Share of the old categories' samples that is labelled."""
    num_categories: str = "known"
    """A number; "auto", estimated by the share of the old samples that is labelled; "agreement", by clusters
    that agree best with the labels (GCD); "known": the number in the data, auto where labels are missing."""
    max_categories: int | None = None
    """Largest estimate, by default four times the old categories."""
    settings: tuple[str, ...] = ()
    """Hyper-parameters of single methods, before all others: METHOD:NAME=VALUE,NAME=VALUE."""
    pairs: Annotated[PairsConfig, tyro.conf.arg(name="")] = field(default_factory=PairsConfig)
    """The data."""
    features: Annotated[FeatureConfig, tyro.conf.arg(name="")] = field(default_factory=FeatureConfig)
    """Images and texts as features."""
    train: Annotated[DiscoveryConfig, tyro.conf.arg(name="")] = field(default_factory=DiscoveryConfig)
    """The training."""
    cache: Path = Path("cache/discovery")
    """Folder for the frozen features."""
    checkpoint_every: int = 20
    """Epochs between checkpoints."""
    threads: int = 1
    """CPU threads; results are bit-equal for the same number. More pay for large images only."""
    device: str = "cpu"
    """Where to encode and train."""
    seed: int = 0
    """Of trainings and k-means."""

    def __post_init__(self) -> None:
        for name in ("methods", "splits"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one")
        if unknown := [name for name in self.methods if name not in METHODS and name != "all"]:
            raise ValueError(f"methods {', '.join(unknown)}: there are {', '.join(METHODS)} and all")
        for name in ("known", "labelled"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: it must be between 0 and 1")
        if self.num_categories not in ESTIMATES and not self.num_categories.isdecimal():
            raise ValueError(f"num_categories {self.num_categories!r}: give a number, {', '.join(ESTIMATES)}")
        at_least(1, self, "threads", "checkpoint_every", "max_categories")
        for method, values in parse_settings(self.settings).items():
            changed(self.train, {**METHODS[method].changes, **values})

    @cached_property
    def chosen(self) -> list[str]:
        """The methods, in the order of METHODS."""
        return [name for name in METHODS if name in self.methods or "all" in self.methods]


def work(args: Args) -> None:
    import _mmgcd_discover  # torch, only now that the flags are read

    _mmgcd_discover.work(args)


if __name__ == "__main__":
    main(Args, work)
