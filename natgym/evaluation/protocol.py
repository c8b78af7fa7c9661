"""What a number depends on beside the policy, and whether two numbers may be compared at all.

A distance means nothing without its protocol: extractor, reference, number of pictures, law of the
conditions, quantisation. Every result carries its own, and two that differ are explained, not ranked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from generators import former
from generators.data import PartName

ConditionLaw = Literal["balanced", "random"]
KERNEL = "unbiased squared MMD, kernel (x.y / d + 1)^3, same features"
EIGHT_BITS = "8 bits"


@dataclass(frozen=True)
class Protocol:
    """What a number depends on beside the policy; tables never mix two.

    Attributes:
        task, part: the real pictures compared with; "-" for statistics from a file.
        reference_images, reference: how many they are (0: the file does not say), and their hash.
        generator, tokenizer, extractor: hashes of the weights.
        images: generated per seed.
        seeds: evaluation seeds.
        distance, kernel: what the numbers of these names are.
        conditions: their law: "balanced" takes every condition in turn, "random" draws them uniformly.
        quantisation: of all pictures before they are judged.
        neighbors: of precision, recall, density and coverage.
        name: of a convention that all of this follows, if any.
    """

    task: str
    part: PartName | Literal["-"]
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

    def manifest(self) -> dict[str, Any]:
        """Return the protocol as JSON values."""
        return asdict(self) | {"seeds": list(self.seeds)}


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
}

# What each field of a protocol does to a comparison. A difference in what is not here blocks it.
_WHY = {
    "task": "the pictures are of different tasks",
    "part": "they are compared with different parts of the data",
    "reference_images": "the numbers of real pictures differ, and with them every bias",
    "reference": "the real pictures are not the same",
    "extractor": "the features come from different networks, whose scales have nothing in common",
    "images": "a Frechet distance falls with the number of generated pictures",
    "conditions": "the conditions follow different laws",
    "distance": "the distances are not the same quantity",
    "kernel": "the kernel distances are not the same quantity",
    "quantisation": "pictures of different depth are judged",
    "neighbors": "precision, recall, density and coverage use balls of different size",
    "name": "they follow different conventions",
}
_COMPARABLE = {
    "generator": "different generators, which is what may be compared",
    "tokenizer": "different tokenizers: the reconstruction bounds each distance from below",
    "seeds": "different evaluation seeds: means may be compared, paired intervals can't be formed",
}


@dataclass(frozen=True)
class Comparison:
    """How two protocols differ, in sentences: what forbids a ranking, and what a reader should know."""

    forbidding: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Comparison:
    """Explain where two manifests differ.

    A field that only one of them has, or that no version of natgym knew, forbids a ranking too.
    """
    found, ours, theirs = Comparison(), former.manifest(ours), former.manifest(theirs)
    for name in dict.fromkeys((*ours, *theirs)):
        a, b = (_said(manifest, name) for manifest in (ours, theirs))
        if a == b:
            continue
        if name in _COMPARABLE:
            found.notes.append(f"{name}: {a} against {b} ({_COMPARABLE[name]})")
        else:
            found.forbidding.append(f"{name}: {a} against {b} ({_WHY.get(name, 'unknown to this version')})")
    return found


def _said(manifest: Mapping[str, Any], name: str) -> str:
    if name not in manifest:
        return "not said"
    value = manifest[name]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
