"""Draw images: a grid, a sheet of prompts, what is missing of given images, or a film of how they arise."""

import _root  # noqa: F401

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import tyro
from _cli import main

from generators.checks import at_least
from generators.files import reading

PAGE = 50  # prompts


@dataclass(frozen=True, kw_only=True)
class Args:
    """Draw images and write them as one PNG, and with --film the image being revealed as a GIF.

    Prompts and several policies make a sheet: a row for each prompt, a panel for each policy, all on the same
    noise. More than 50 prompts go on in OUTPUT-2.png, OUTPUT-3.png, ...

    With --given, images are gone on from: the tokens under a mask or in a region are drawn anew, all others
    never change. Each given image is a row, itself first.
    """

    generator: Annotated[str, tyro.conf.arg(aliases=("--task",))] = "digits"
    """Shipped generator ("digits", "mnist/enat", "shapes") or folder of a saved one."""
    policy: tuple[str, ...] = ()
    """Names, files or run folders, as in evaluate.py; by default maskgit, and for prompts autonat, the
    searched schedule, if one of so many steps is shipped."""
    steps: int | None = None
    """Decoding steps T, by default 8, or the policy's own."""
    label: tuple[str, ...] = ()
    """Classes to draw, by name; by default all in turn."""
    prompt: tuple[str, ...] = ()
    """Texts to draw, where the generator reads texts; "" is anything."""
    prompts: Path | None = None
    """File with a text to draw on each line."""
    given: tuple[str, ...] = ()
    """Image files to go on from, resized and cropped to the task's size; or "select", the first 8 of the
    task's select split, with their own classes."""
    mask: Path | None = None
    """Image whose white pixels are drawn anew: tokens that hold any of them."""
    region: str = "center"
    """What is drawn anew without a mask: left, right, top, bottom, center, or outside, which is all but the
    center; each perhaps with a share of the side, as in center=0.75."""
    paste: bool = False
    """Put the pixels of the given images back where nothing was drawn; without, they are as their tokens."""
    n: Annotated[int | None, tyro.conf.arg(aliases=("--images",))] = None
    """Pictures, by default 64; of each prompt or given image, by default 8."""
    columns: int | None = None
    """Of the grid; by default the number of labels in turn, or a square."""
    film: bool = False
    """Also write a GIF of the images being revealed."""
    fps: float = 2.5
    """Steps per second of the GIF."""
    tokenizer: str | None = None
    """Shipped task or folder of a saved tokenizer, by default the generator's task's."""
    seed: int = 0
    """Of the noise: image i, of each prompt, has row seed + i."""
    enlarge: int | None = None
    """Factor of the grid's pixels; by default small images are enlarged to about 64 pixels a side."""
    device: str = "cpu"
    """Where to draw."""
    output: Path = Path("samples.png")
    """The PNG; the GIF stands beside it. Neither is overwritten."""

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "n", "columns", "enlarge")
        if not 0.1 <= self.fps <= 100:
            raise ValueError(f"fps {self.fps}: a GIF shows 0.1 to 100 steps a second")
        if self.output.suffix.lower() != ".png":
            raise ValueError(f"output {self.output} does not end in .png; the grid is a PNG")
        if self.label and self.texts:
            raise ValueError("label and prompt are both given; a generator draws classes or texts")
        if not self.given and (self.mask is not None or self.region != "center" or self.paste):
            raise ValueError("mask, region and paste are of given images; name some with --given")
        if self.mask is not None and self.region != "center":
            raise ValueError(f"region {self.region} and mask are both given; one says what is drawn anew")
        sheet = bool(self.texts) or len(self.policy) > 1
        if self.columns is not None and (sheet or self.given):
            raise ValueError(
                f"columns {self.columns}: prompts, policies and given images have a row each; leave it out"
            )
        if self.enlarge is not None and sheet and not self.given:
            raise ValueError(f"enlarge {self.enlarge}: a sheet has its own size; leave it out")
        if self.given and self.film:
            raise ValueError("film and given are both asked for; a GIF shows images that begin with nothing")
        if self.film and len(self.policy) > 1:
            raise ValueError(f"film of {len(self.policy)} policies: a GIF shows one; give one --policy")
        for path in self.paths:
            if path.exists():
                raise ValueError(f"{path} exists and is not overwritten; choose another --output")

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All prompts."""
        if self.prompts is None:
            return self.prompt
        with reading(self.prompts, "a text to draw on each line"):
            read = self.prompts.read_text(encoding="utf-8").splitlines()
        return (*self.prompt, *(line.strip() for line in read if line.strip()))

    @property
    def paths(self) -> tuple[Path, ...]:
        """What will be written: the PNGs, and last the GIF, if any."""
        more = range(2, 1 + math.ceil(len(self.texts) / PAGE))
        pages = (self.output, *(self.output.with_stem(f"{self.output.stem}-{page}") for page in more))
        return (*pages, self.output.with_suffix(".gif")) if self.film else pages


def work(args: Args) -> None:
    import _generate  # torch, only now that the flags are read

    _generate.work(args)


if __name__ == "__main__":
    main(Args, work)
