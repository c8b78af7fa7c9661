"""Options of rewards, and the text of their sums; read without torch, so that flags are quick."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from generators.checks import at_least, finite

Options = Mapping[str, Mapping[str, Any]]
Config = TypeVar("Config")
GROUP = 8  # rows that a local norm sees together
BACKBONES = ("small", "classifier", "dino")  # that have names


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """Hyper-parameters of the discriminator and of its training."""

    backbone: str = "small"
    """"small" trains a network of its own; "classifier" is two layers on the features of a frozen classifier;
    "dino" is the paper's, on DINO ViT-S/16 (timm gets the weights); else a local file of those weights, or
    the folder of a saved discriminator to go on with."""
    members: int = 1
    """Discriminators that are trained alike from different weights; the reward takes their mean logit."""
    mismatched: float = 0.0
    """Weight of real images under another's condition among the negatives; generated ones have the rest."""
    condition: Literal["class", "text"] = "class"
    """How the projected discriminator reads conditions: mapped classes, or text vectors of length 1."""
    crop: float = 0.5
    """Chance that it sees one place of a batch of images larger than 224, not all of them made smaller."""
    channels: int = 32
    """Of the small network's first layer; doubled at each halving of the image, up to 4 times as many."""
    learning_rate: float = 1e-3
    """Of Adam."""
    betas: tuple[float, float] = (0.5, 0.99)
    """Of Adam."""
    loss: Literal["logistic", "hinge"] = "logistic"
    """Loss of the discriminator."""

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES and Path(self.backbone).exists():
            # A worker has another folder at hand.
            object.__setattr__(self, "backbone", str(Path(self.backbone).resolve()))
        at_least(1, self, "members", "channels")
        finite(self, "learning_rate")
        if not 0 <= self.crop <= 1:
            raise ValueError(f"crop {self.crop}: it is a chance between 0 and 1")
        if not 0 <= self.mismatched < 1:
            raise ValueError(f"mismatched {self.mismatched}: it is a share in [0, 1)")

    def refuse_absent(self) -> None:
        """Raise ValueError if the weights are not there, which a run that is only read does not need."""
        if self.backbone not in BACKBONES and not Path(self.backbone).exists():
            raise ValueError(
                f"backbone {self.backbone!r} is not {', '.join(BACKBONES)}, a file or a folder; give one of "
                "these"
            )

    @property
    def projected(self) -> bool:
        """Whether the discriminator is the paper's, whose batches have to be cut into equal groups."""
        return self.backbone not in ("small", "classifier")


@dataclass(frozen=True, kw_only=True)
class WitnessConfig:
    """Options of the reward mmd."""

    window: int = 2
    """Rollouts of the policy that real images are set against."""
    by_class: bool = False
    """Compare each image with those of its own condition alone."""
    degree: int = 3
    """Of the kernel (x.y / d + 1)^degree; 1 sees means alone, 2 covariances, 3 is KID's."""

    def __post_init__(self) -> None:
        at_least(1, self, "window", "degree")


@dataclass(frozen=True, kw_only=True)
class QuadraticConfig:
    """Options of the reward quadratic."""

    window: int = 4
    """Updates whose real and generated images it is fitted on."""
    components: int = 64
    """Principal components of the real images' features, and at most as many as there are features."""
    decay: float = 0.3
    """Weight of the squared weights in the loss; without, few images are told apart by chance."""

    def __post_init__(self) -> None:
        at_least(1, self, "window", "components")
        if not self.decay > 0:
            raise ValueError(f"decay {self.decay}: it must be positive, so that there is one optimum")


@dataclass(frozen=True, kw_only=True)
class FeatureDistanceOptions:
    """Options of the reward feature-distance."""

    real_images: int = 5000
    """Real images of the train split that it compares with."""

    def __post_init__(self) -> None:
        at_least(1, self, "real_images")


@dataclass(frozen=True, kw_only=True)
class HTTPConfig:
    """Options of the reward http, which asks a server."""

    url: str = ""
    """Of the server, http or https."""
    batch: int = 32
    """Images of a request."""
    parallel: int = 1
    """Requests at once."""
    timeout: float = 60.0
    """Seconds to wait for an answer; one that comes in pieces may take as many in all."""
    retries: int = 3
    """Times that a request is sent again where the server is away, late or busy."""
    pause: float = 1.0
    """Seconds before the first of these, doubled before each further one."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if self.url and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError(f"url {self.url!r}: give the address of a server, as http://127.0.0.1:8000/")
        if parts.username is not None:
            raise ValueError("url: a name or password in it would stand in files; leave it out, give headers")
        at_least(1, self, "batch", "parallel")
        at_least(0, self, "retries")
        finite(self, "pause")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout {self.timeout}: it must be a positive number of seconds")


@dataclass(frozen=True, kw_only=True)
class RewardOptions:
    """Options of the named rewards that have any."""

    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """The discriminator."""
    feature_distance: FeatureDistanceOptions = field(default_factory=FeatureDistanceOptions)
    """The nearest real images."""
    http: HTTPConfig = field(default_factory=HTTPConfig)
    """The server that is asked."""
    mmd: WitnessConfig = field(default_factory=WitnessConfig)
    """The witness of the squared MMD."""
    quadratic: QuadraticConfig = field(default_factory=QuadraticConfig)
    """The logistic regression on features and their products."""

    def of(self, names: Sequence[str]) -> Options:
        """Return those of some rewards that are not the defaults, as `make_reward` takes them."""
        return self.only(names).changed

    def only(self, names: Sequence[str]) -> RewardOptions:
        """Return the options of some rewards beside the defaults of all others."""
        known = {field_.name.replace("_", "-"): field_.name for field_ in fields(self)}
        return RewardOptions(**{known[name]: getattr(self, known[name]) for name in names if name in known})

    @property
    def changed(self) -> Options:
        """All that are not the defaults."""
        usual, found = RewardOptions(), {}
        for field_ in fields(self):
            ours, theirs = vars(getattr(self, field_.name)), vars(getattr(usual, field_.name))
            if changed := {key: value for key, value in ours.items() if value != theirs[key]}:
                found[field_.name.replace("_", "-")] = changed
        return found


def options_of(config: type[Config], reward: str, options: Mapping[str, Any]) -> Config:
    """Return a named reward's options as their config; ValueError if it has none of a name."""
    known = [one.name for one in fields(config)]  # type: ignore[arg-type]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"reward {reward!r} has no option {unknown[0]!r}; it has {', '.join(known)}")
    return config(**options)


def groups_of(num_rows: int) -> int:
    """Return in how many groups of equal size the local norm cuts a batch: ceil(B / 8).

    Raises:
        ValueError: they are not equal.
    """
    groups = math.ceil(num_rows / GROUP)
    if num_rows < 1 or num_rows % groups:
        below, above = num_rows - num_rows % GROUP, num_rows + -num_rows % GROUP
        raise ValueError(
            f"a batch of {num_rows} does not fit the discriminator, whose norm cuts it into {groups} equal "
            f"groups of at most {GROUP}; {below} and {above} fit, as all multiples of {GROUP} do"
        )
    return groups


def reward_weights(text: str) -> dict[str, float]:
    """Return {name: weight} of a sum as text, "adversarial=1,influence=0.5"; a name alone weighs 1.

    Raises:
        ValueError: a part is not NAME=NUMBER, or a name comes twice.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        try:
            weight = float(number or 1)
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight) or name in weights:
            raise ValueError(f"{part.strip()!r} in reward {text!r}: give NAME=NUMBER, each name once")
        weights[name] = weight
    return weights
