"""What a number depends on beside the policy, and whether two numbers may be compared at all.

A distance means nothing without its protocol: extractor, reference, number of images, law of the
conditions, quantisation. Every result carries its own, and two that differ are explained, not ranked.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from generators.config import ConditionLaw as ConditionLaw
from generators.config import SplitName

KERNEL = "unbiased squared MMD, kernel (x.y / d + 1)^3, same features"
EIGHT_BITS = "8 bits"


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How policies are judged; all of it stands in the protocol."""

    split: SplitName | Literal["-"] = "report"
    """Real images to compare with; "-" for statistics from a file."""
    images: int = 5000
    """Generated per evaluation seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Evaluation seeds; the paired intervals are over these."""
    conditions: ConditionLaw | None = None
    """Every condition in turn (balanced); random ones, anew for each seed; or as often as the real images
    have them (data). None is the task's, balanced unless its task.json says data."""
    convention: str = "natgym"
    """Name of the published protocol that all of this follows."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images {self.images}: at least one is needed")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {tuple(self.seeds)}: give at least one, and none twice")


@dataclass(frozen=True)
class EvaluationProtocol:
    """What a number depends on beside the policy; tables never mix two.

    Attributes:
        task, split: the real images compared with; "-" for statistics from a file.
        reference_images, reference: how many they are (0: the file does not say), and their hash.
        generator, tokenizer, extractor: hashes of the weights.
        encoder: what reads texts, with the hash of its weights; empty where images are drawn from classes.
        images: generated per seed.
        seeds: evaluation seeds.
        distance, kernel: what the numbers of these names are.
        conditions: their law: "balanced" takes every condition in turn, "random" draws them uniformly, "data"
            takes each as often as the real images have it.
        quantisation: of all images before they are judged.
        neighbors: of precision, recall, density and coverage.
        neighborhoods: images, generated and real, that these four are taken of where there are more; 0 where
            there are not.
        name: of a convention that all of this follows, if any.
        precision: in which the generator computes.
    """

    task: str
    split: SplitName | Literal["-"]
    reference_images: int
    reference: str
    generator: str
    tokenizer: str
    extractor: str
    images: int
    seeds: tuple[int, ...]
    distance: str
    conditions: ConditionLaw = "balanced"
    kernel: str = KERNEL
    quantisation: str = EIGHT_BITS
    neighbors: int = 5
    name: str = "natgym"
    encoder: str = ""
    neighborhoods: int = 0
    precision: str = "float32"

    def manifest(self) -> dict[str, Any]:
        """Return the protocol as JSON values."""
        told = asdict(self) | {"seeds": list(self.seeds)}
        usual = {"encoder": "", "neighborhoods": 0, "precision": "float32"}  # not said, as in older files
        return {key: value for key, value in told.items() if key not in usual or value != usual[key]}


def against(reference_images: int) -> str:
    """Say what so many reference images are; 0 stands for a file that does not say."""
    return f"{reference_images:,} real images" if reference_images else "statistics from a file"


class Convention(NamedTuple):
    """A protocol of the field: how many images, of which conditions, in whose features, against what."""

    images: int
    extractor: str
    needs: str


CONVENTIONS = {
    # Dhariwal and Nichol 2021: TensorFlow 1's Inception, statistics of the whole training set. Labels are
    # random in ADM and AdaNAT, 50 of each class in ENAT and AdaGen; the manifest says which.
    "imagenet256-adm": Convention(
        50_000,
        "inception",
        "--weights of the FID Inception network, and as --reference ADM's VIRTUAL_imagenet256_labeled.npz",
    ),
    # U-ViT (Bao et al. 2023), ENAT, AdaNAT: one image of each of 30,000 captions of val2014.
    "coco2014-256": Convention(
        30_000,
        "inception",
        "--weights of the FID Inception network, as --reference the statistics (mu, sigma) of val2014's "
        "images at 256 pixels, and a --task whose report split has its captions",
    ),
}
