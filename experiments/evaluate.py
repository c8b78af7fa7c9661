"""Judge any number of policies side by side: one table, one protocol, one command."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from _cli import main

from generators.checks import at_least
from generators.config import SplitName
from generators.precision import Precision
from generators.rules import DecodeRules
from natgym.evaluation.protocol import CONVENTIONS, ConditionLaw


@dataclass(frozen=True, kw_only=True)
class Args:
    """Evaluate policies, all on the same conditions, noise and real images; or compare two results.

    A policy is a name (reference, maskgit, random-order, one-step, cosine, linear, square, root, pow, arccos,
    exp, log, sigmoid, beta-cdf, halton, margin, entropy, threshold, sure,
    entropy-bounded, autonat, adanat), perhaps with settings such as
    beta-cdf:a=2,b=3,guidance=interval,w=2 or threshold:theta=.7; a schedule or strategy file; or a run folder
    of AdaNAT or AutoNAT, with @price=.03 behind it if it learned a range of prices and shall be told one.
    Guidance is l_c + w (l_c - l_u): w = 0 is none. The rows are sorted by NFE.
    """

    task: str | None = None
    """Task of tokenizer, classifier and real images: digits, mnist, cifar10 or an image folder; by default
    the first generator's."""
    policy: tuple[str, ...] = ("reference", "maskgit", "random-order")
    """Policies."""
    steps: tuple[int, ...] = (4, 8)
    """Decoding steps T; a file or a run folder stands for its own number only."""
    against: str | None = None
    """Policy that all others are set against, by paired differences; by default the first."""
    generators: tuple[str, ...] = ()
    """Shipped generators ("digits", "mnist/enat") or folders of saved ones; by default the task's."""
    tokenizer: str | None = None
    """Shipped task or folder of a saved tokenizer, by default the task's."""
    classifier: str | None = None
    """Shipped task or folder of a saved classifier, by default the task's, if there is one."""
    extractor: str = "classifier"
    """Features: classifier, inception, dinov2 (or dinov2-small, dinov2-large), or clip, which brings CMMD."""
    weights: Path | None = None
    """Local weights file of inception or dinov2; of clip a folder, as transformers has it."""
    clip: str | None = None
    """A CLIP model's name or folder: one more column, how well images and texts agree in its eyes."""
    reference: Path | None = None
    """Statistics of real images (.npz with mu and sigma) in place of the task's split."""
    protocol: Literal["natgym", "imagenet256-adm", "coco2014-256"] = "natgym"
    """A published convention, which fixes images, extractor and kind of reference."""
    conditions: ConditionLaw | None = None
    """Every condition in turn (balanced); random ones; or as often as the real images have them (data); by
    default the task's."""
    precision: Precision = "float32"
    """In which generators compute: float32, tf32 (a GPU's matrix products), or bfloat16 weights."""
    split: SplitName = "report"
    """Real images to compare with."""
    images: int | None = None
    """Images generated per evaluation seed, by default 5,000 or the convention's."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Evaluation seeds; the intervals are over them."""
    rules: str = "confidence"
    """Rules of policies that have none of their own: confidence, random, halton, with limits if need be
    (generators.rules); adanat lets a step reveal nothing."""
    quantise: bool = True
    """Judge images rounded to 8 bits."""
    threads: int = 2
    """Batches drawn at once."""
    device: str = "cpu"
    """Where to draw and judge."""
    compare: tuple[Path, ...] = ()
    """Two results.json or run folders: say where their protocols differ, or rank their rows."""
    output: Path | None = None
    """Run folder, by default runs/evaluate-<time>."""
    resume: Path | None = None
    """Run folder to go on with, whose finished rows are kept; its own settings are used."""

    def __post_init__(self) -> None:
        for name in ("policy", "steps", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one")
        at_least(1, self, "images", "threads")
        if bad := [steps for steps in self.steps if steps < 1]:
            raise ValueError(f"steps {bad[0]}: decoding takes at least one step")
        DecodeRules.of(self.rules, (1, 1))  # says what is wrong with them before anything is loaded
        if self.compare and len(self.compare) != 2:
            raise ValueError(f"compare takes two results, not {len(self.compare)}")
        if self.weights is not None and self.extractor == "classifier":
            raise ValueError(f"weights {self.weights}: whose? name the network with --extractor")
        if self.reference is not None and self.split != "report":
            raise ValueError(f"split {self.split}: --reference stands in its place; leave out one of them")
        if self.protocol in CONVENTIONS:
            self._check_convention()

    def _check_convention(self) -> None:
        convention = CONVENTIONS[self.protocol]
        if self.extractor != convention.extractor or self.weights is None or self.reference is None:
            needs = f"--extractor {convention.extractor}, {convention.needs}"
            raise ValueError(f"protocol {self.protocol} needs {needs}")
        if self.images not in (None, convention.images) or not self.quantise:
            raise ValueError(
                f"protocol {self.protocol} is of {convention.images:,} images of 8 bits; leave --images and "
                "--quantise as they are, or the protocol"
            )

    @property
    def num_images(self) -> int:
        """Images generated per evaluation seed."""
        default = CONVENTIONS[self.protocol].images if self.protocol in CONVENTIONS else 5000
        return default if self.images is None else self.images


def work(args: Args) -> None:
    import _evaluate  # torch, only now that the flags are read

    _evaluate.work(args)


if __name__ == "__main__":
    main(Args, work)
