"""Judge policies by what their images show of captions: objects, colors, counts, relations, by kind."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path

from _cli import main

from generators.checks import at_least


@dataclass(frozen=True, kw_only=True)
class Args:
    """Draw captions that training has not seen as images, of seen combinations and of held-out ones, and say
    in which share each is right, by kind of caption.

    Beside these stand R@1 (of 16 captions, the image's own is the likeliest; also of real images, and by
    chance) and how much the images of one caption vary, as a share of how real ones do. A figure shows the
    nearest training image to each of some samples.
    """

    task: str = "shapes"
    """Task whose score extractor reads scenes, or one of its generators, as "shapes/enat"."""
    policy: tuple[str, ...] = ("reference", "maskgit", "autonat", "adanat")
    """Names, files or run folders, as in evaluate.py."""
    steps: tuple[int, ...] = (4, 8)
    """Decoding steps T."""
    images: int = 2000
    """Captions, seen and held-out ones each, with one image of every policy."""
    evaluation_seeds: tuple[int, ...] = (0, 1, 2)
    """Of captions and noise; spreads are over them."""
    threads: int = 2
    """Batches drawn at once."""
    device: str = "cpu"
    """Where to draw and judge."""
    output: Path | None = None
    """Run folder, by default runs/evaluate_captions-<time>."""

    def __post_init__(self) -> None:
        at_least(1, self, "threads")
        at_least(100, self, "images")
        for name in ("policy", "steps", "evaluation_seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one")


def work(args: Args) -> None:
    import _evaluate_captions  # torch, only now that the flags are read

    _evaluate_captions.work(args)


if __name__ == "__main__":
    main(Args, work)
