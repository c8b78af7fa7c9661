"""Draw images with a generator and a policy: a grid, and with --film how it comes to be."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path

from _cli import main

from generators.checks import at_least


@dataclass(frozen=True, kw_only=True)
class Args:
    """Draw images and write them as one PNG, and with --film the image being revealed as a GIF."""

    generator: str = "digits"
    """Shipped generator ("digits", "mnist/enat") or folder of a saved one."""
    policy: str = "maskgit"
    """Name, file or run folder, as in evaluate.py."""
    steps: int | None = None
    """Decoding steps T, by default 8, or the policy's own."""
    label: tuple[str, ...] = ()
    """Classes to draw, by name; by default all in turn."""
    n: int = 64
    """Pictures."""
    columns: int | None = None
    """Of the grid; by default the number of labels in turn, or a square."""
    film: bool = False
    """Also write a GIF of the images being revealed."""
    fps: float = 2.5
    """Steps per second of the GIF."""
    tokenizer: str | None = None
    """Shipped task or folder of a saved tokenizer, by default the generator's task's."""
    seed: int = 0
    """Of the noise: image i has row seed + i."""
    enlarge: int | None = None
    """Factor of the grid's pixels; by default small images are enlarged to about 64 pixels a side."""
    device: str = "cpu"
    """Where to draw."""
    output: Path = Path("samples.png")
    """The PNG; the GIF stands beside it. Neither is overwritten."""

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "n", "columns", "enlarge")
        if self.output.suffix.lower() != ".png":
            raise ValueError(f"output {self.output} does not end in .png; the grid is a PNG")
        for path in self.paths:
            if path.exists():
                raise ValueError(f"{path} exists and is not overwritten; choose another --output")

    @property
    def paths(self) -> tuple[Path, ...]:
        """What will be written."""
        return (self.output, self.output.with_suffix(".gif")) if self.film else (self.output,)


def work(args: Args) -> None:
    import _generate  # torch, only now that the flags are read

    _generate.work(args)


if __name__ == "__main__":
    main(Args, work)
