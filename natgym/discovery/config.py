"""Settings of data, features and training; read without torch, so that flags are quick."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from generators.checks import all_finite, at_least, finite
from generators.config import MINILM

DIGITS = "digits"
SHARES = ("all", "old", "new")  # of a discovery: samples rightly assigned, of which categories


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Which pairs, and what of them."""

    data: str = DIGITS
    """"digits", or a folder of images with metadata.csv."""
    text_column: str = "text"
    """Column of metadata.csv with the texts."""
    label_column: str = "label"
    """Column of metadata.csv with the categories; rows where it is empty are unlabelled."""
    exclude: tuple[str, ...] = ()
    """Rows to leave out, each COLUMN=VALUE."""
    min_members: int = 2
    """Categories with fewer samples are left out."""
    size: int = 32
    """Side in pixels of the squares that a folder's images are resized and centre-cropped to."""
    hide_images: float = 0.0
    """Share of the samples whose image is hidden, to see what discovery loses without it."""
    hide_texts: float = 0.0
    """Share whose text is hidden, of other samples."""

    def __post_init__(self) -> None:
        at_least(2, self, "min_members")
        at_least(8, self, "size")
        if not (self.hide_images >= 0 and self.hide_texts >= 0 and self.hide_images + self.hide_texts <= 1):
            raise ValueError(
                f"hide_images {self.hide_images}, hide_texts {self.hide_texts}: no sample may lose both, "
                "so that the two shares add up to 1 at most"
            )
        for rule in self.exclude:
            if "=" not in rule:
                raise ValueError(f"exclude {rule!r}: write COLUMN=VALUE, as in subgroup=country-flag")


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig:
    """The label-free training of the image encoder."""

    updates: int = 400
    """Number of optimizer steps."""
    batch_size: int = 192
    """Images per step, each in two views."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW; cosine."""
    temperature: float = 0.2
    """Of the contrastive loss."""
    seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        at_least(1, self, "updates", "batch_size")
        finite(self, "learning_rate")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature}: it must be above 0")


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How images and texts become features."""

    image_encoder: str = "simclr"
    """"simclr" (trained here; colors and gradients beside), "conv" (learns along), "timm:NAME-OR-FOLDER"."""
    text_encoder: str = "tfidf"
    """"tfidf", "words" (learns along), "minilm", or "transformers:NAME-OR-FOLDER"."""
    views: int = 8
    """Random views per sample of frozen features."""
    text_width: int = 100
    """Width of TF-IDF after the singular value decomposition, and of word vectors."""
    word_dropout: float = 0.3
    """Share of the words that a random view of a text leaves out."""
    simclr: SimCLRConfig = field(default_factory=SimCLRConfig)
    """The image encoder's training."""

    def __post_init__(self) -> None:
        if self.image_encoder not in ("simclr", "conv") and not self.image_encoder.startswith("timm:"):
            raise ValueError(f"image_encoder {self.image_encoder!r}: not simclr, conv or timm:NAME-OR-FOLDER")
        if self.text_encoder not in ("tfidf", "words", MINILM) and not self.text_encoder.startswith(
            "transformers:"
        ):
            raise ValueError(
                f"text_encoder {self.text_encoder!r}: not tfidf, words, {MINILM} or transformers:NAME"
            )
        if self.views < 2 or self.text_width < 1 or not 0 <= self.word_dropout < 1:
            raise ValueError("views must be at least 2, text_width at least 1, word_dropout in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class BranchConfig:
    """Geometry of a branch."""

    hidden: int = 192
    """Width of the hidden layers."""
    width: int = 128
    """Width of the feature that prototypes and projections see."""
    projection: int = 64
    """Width P of the two projections."""
    dropout: float = 0.2
    """Of the encoder's features."""
    scale: float = 8.0
    """Factor of the encoder's features."""

    def __post_init__(self) -> None:
        at_least(1, self, "hidden", "width", "projection")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout}: it must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class DiscoveryConfig:
    """Hyper-parameters of a training."""

    epochs: int = 60
    """Passes over all samples, labelled and unlabelled."""
    batch_size: int = 256
    """Samples per step, at most: an epoch is cut into even batches."""
    learning_rate: float = 6e-3
    """Initial learning rate of AdamW; cosine."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    supervised_weight: float = 0.35
    """Weight lambda of the supervised losses; the unsupervised ones weigh 1 - lambda."""
    entropy_weight: float = 4.0
    """Weight epsilon of the divergence of the mean prediction from the prior."""
    feature_alignment: float = 1.0
    """Weight of the contrast between modalities; 0 leaves it out."""
    output_alignment: float = 1.0
    """Weight of the distillation from the fused prediction; 0 leaves it out."""
    student_temperature: float = 0.1
    """Of every prediction."""
    teacher_start: float = 0.07
    """Temperature of the teachers at first."""
    teacher_end: float = 0.04
    """Temperature of the teachers after the warm-up."""
    teacher_warmup: float = 0.4
    """Share of the training over which the teachers' temperature falls."""
    instance_temperature: float = 0.2
    """Of the unsupervised contrast."""
    supervised_temperature: float = 0.1
    """Of the supervised contrast."""
    alignment_temperature: float = 0.1
    """Of the contrast between modalities."""
    branch: BranchConfig = field(default_factory=BranchConfig)
    """Geometry of the branches."""

    def __post_init__(self) -> None:
        at_least(1, self, "epochs", "batch_size")
        all_finite(self)
        for name in ("supervised_weight", "teacher_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: it must be in [0, 1]")
        for name in ("entropy_weight", "feature_alignment", "output_alignment", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)}: it must not be negative")
        temperatures = [f"{of}_temperature" for of in ("student", "instance", "supervised", "alignment")]
        for name in ("learning_rate", "teacher_start", "teacher_end", *temperatures):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)}: it must be above 0")
