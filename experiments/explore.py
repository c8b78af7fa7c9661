"""Look at images being revealed: one page of HTML with two policies side by side, step by step."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from _cli import main

from generators.checks import at_least
from generators.rules import DecodeRules


@dataclass(frozen=True, kw_only=True)
class Args:
    """Draw the same images under several policies and write a page that needs no server and no network.

    A policy is a run folder of AdaNAT or AutoNAT, a schedule file, or a name as in evaluate.py. The page
    shows two at once: the images with a slider of steps, when and how surely each token was revealed, the
    decoding parameters of each image among those of all, and all images, sorted by what differs or by what a
    judge says.
    """

    policies: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")] = ()
    """Run folders, files or names."""
    against: str | None = None
    """One more policy; by default, beside a single one, what it started from if it has learned, or
    reference."""
    task: str | None = None
    """Shipped task or generator, or the folder of one; by default that of the first run, else digits."""
    steps: int = 4
    """T of policies that are given by name."""
    rules: str = "confidence"
    """Rules of policies that have none of their own, as in evaluate.py."""
    label: tuple[str, ...] = ()
    """Classes to draw, by name; by default all in turn, and of texts or puzzles those of the select split."""
    prompt: tuple[str, ...] = ()
    """Texts to draw, where the generator reads texts."""
    images: int = 64
    """Images drawn with each policy."""
    seed: Annotated[int, tyro.conf.arg(aliases=("--seeds",))] = 0
    """Of the noise: image i has row seed SEED + i."""
    megabytes: float = 50.0
    """What the page may have; nothing larger is written."""
    device: str = "cpu"
    """Where to draw."""
    output: Path = Path("explore.html")
    """The page; it is not overwritten."""

    def __post_init__(self) -> None:
        if not self.policies:
            raise ValueError("no policy is given; name run folders, files or schedules")
        at_least(1, self, "steps", "images")
        DecodeRules.of(self.rules, (1, 1))  # says what is wrong with them before anything is loaded
        if not self.megabytes > 0:
            raise ValueError(f"megabytes {self.megabytes}: it must be positive")
        if self.label and self.prompt:
            raise ValueError("label and prompt are both given; a generator draws classes or texts")
        if self.output.exists():
            raise ValueError(f"{self.output} exists and is not overwritten; choose another --output")


def work(args: Args) -> None:
    import _explore  # torch, only now that the flags are read

    _explore.work(args)


if __name__ == "__main__":
    main(Args, work)
