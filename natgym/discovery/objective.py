"""MM-GCD's loss (Su et al. 2024): SimGCD's per branch (Wen et al. 2023, section 4) and two alignments.

The alignments are natgym's reading of the abstract: docs/discovery.md says what is whose, in equations.
Each function returns terms that are already weighted, so that their sum is the loss. Shapes: `B` samples of a
batch, `K` prototypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from natgym.discovery import losses
from natgym.discovery.model import BranchConfig, Heads, fuse

Views = tuple[Heads, Heads]
"""What a branch says of two views of the same B samples."""


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
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: it must be at least 1")
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


def mm_gcd_terms(
    heads: Mapping[str, Views],
    present: Mapping[str, Tensor],
    targets_B: Tensor,
    *,
    log_prior_K: Tensor,
    weights: Mapping[str, float],
    progress: float,
    config: DiscoveryConfig,
) -> dict[str, Tensor]:
    """Return the terms of a batch's loss: SimGCD's, summed over the branches, and the alignments.

    Args:
        heads: modality -> its branch on two views.
        present: modality -> whether a sample has it, (B,).
        targets_B: old category of a labelled sample, -1 of an unlabelled one.
        log_prior_K: logarithms of the categories' expected shares.
        weights: modality -> its share in the fused teacher.
        progress: share of the training that is done.
        config: weights and temperatures.
    """
    teacher = losses.teacher_temperature(
        progress, start=config.teacher_start, end=config.teacher_end, warmup=config.teacher_warmup
    )
    terms: dict[str, Tensor] = {}
    for name, (first, second) in heads.items():
        rows_B = present[name]
        views = Heads(*(v[rows_B] for v in first)), Heads(*(v[rows_B] for v in second))
        for term, value in simgcd_terms(views, targets_B[rows_B], log_prior_K, teacher, config).items():
            terms[term] = terms[term] + value if term in terms else value
    if len(heads) > 1 and config.feature_alignment:
        terms["feature_alignment"] = config.feature_alignment * feature_alignment(heads, present, config)
    if len(heads) > 1 and config.output_alignment:
        aligned = output_alignment(heads, present, weights, teacher, config)
        terms["output_alignment"] = config.output_alignment * aligned
    return terms


def simgcd_terms(
    views: Views, targets_B: Tensor, log_prior_K: Tensor, teacher: float, config: DiscoveryConfig
) -> dict[str, Tensor]:
    """Return SimGCD's terms of one branch, all of whose samples have the modality.

    Args:
        teacher: the teacher's temperature.
    """
    (first, second), labelled_B = views, targets_B >= 0
    student, supervised = config.student_temperature, config.supervised_weight
    cosines_NK = torch.cat([first.cosines_BK, second.cosines_BK])
    teacher_NK = (torch.cat([second.cosines_BK, first.cosines_BK]) / teacher).softmax(-1)
    known_NK = cosines_NK[labelled_B.repeat(2)]
    one_hot_NK = F.one_hot(targets_B[labelled_B].repeat(2), cosines_NK.shape[1]).to(known_NK.dtype)
    instance = losses.instance_contrast(
        first.instance_BP, second.instance_BP, temperature=config.instance_temperature
    )
    same_class = losses.supervised_contrast(
        first.instance_BP[labelled_B],
        second.instance_BP[labelled_B],
        targets_B[labelled_B],
        temperature=config.supervised_temperature,
    )
    divergence = losses.prior_divergence(cosines_NK, log_prior_K, temperature=student)
    return {
        "instance_contrast": (1 - supervised) * instance,
        "supervised_contrast": supervised * same_class,
        "self_distillation": (1 - supervised)
        * losses.distillation(cosines_NK, teacher_NK, temperature=student),
        "prior_divergence": (1 - supervised) * config.entropy_weight * divergence,
        "classification": supervised * losses.distillation(known_NK, one_hot_NK, temperature=student),
    }


def feature_alignment(
    heads: Mapping[str, Views], present: Mapping[str, Tensor], config: DiscoveryConfig
) -> Tensor:
    """Return the contrast between modalities: a mean over both views, a sum over pairs of modalities."""
    terms = []
    for one, other in combinations(heads, 2):
        both_B = present[one] & present[other]
        for mine, theirs in zip(heads[one], heads[other], strict=True):
            shared = mine.shared_BP[both_B], theirs.shared_BP[both_B]
            terms.append(losses.cross_modal_contrast(*shared, temperature=config.alignment_temperature) / 2)
    return torch.stack(terms).sum()


def output_alignment(
    heads: Mapping[str, Views],
    present: Mapping[str, Tensor],
    weights: Mapping[str, float],
    teacher: float,
    config: DiscoveryConfig,
) -> Tensor:
    """Return the distillation of the fused, sharpened prediction into each branch, a mean over both views.

    The teacher of a view is the weighted mean of all branches' cosines of the *other* view, as in
    self-distillation. A sample with one modality has nothing to align and takes no part.
    """
    several_B, terms = torch.stack([*present.values()]).sum(0) > 1, []
    for view in (0, 1):
        others = {name: views[1 - view].cosines_BK.detach() for name, views in heads.items()}
        teacher_BK = (fuse(others, present, weights) / teacher).softmax(-1)
        for name, views in heads.items():
            rows_B = several_B & present[name]
            student_BK = views[view].cosines_BK[rows_B]
            loss = losses.distillation(student_BK, teacher_BK[rows_B], temperature=config.student_temperature)
            terms.append(loss / 2)
    return torch.stack(terms).sum()
