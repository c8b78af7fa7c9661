"""MM-GCD's loss (Su et al. 2024): SimGCD's per branch (Wen et al. 2023, section 4) and two alignments.

The alignments are natgym's reading of the abstract: docs/discovery.md says what is whose, in equations.
Each function returns terms that are already weighted, so that their sum is the loss. Shapes: `B` samples of a
batch, `K` prototypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from natgym.discovery import losses
from natgym.discovery.config import DiscoveryConfig
from natgym.discovery.model import Heads, fuse

Views = tuple[Heads, Heads]
"""What a branch says of two views of the same B samples."""


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
    first, second = views
    labelled_B = targets_B >= 0
    student = config.student_temperature
    supervised = config.supervised_weight
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
        for one_view, other_view in zip(heads[one], heads[other], strict=True):
            shared = one_view.shared_BP[both_B], other_view.shared_BP[both_B]
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
    several_B = torch.stack([*present.values()]).sum(0) > 1
    terms = []
    for view in (0, 1):
        others = {name: views[1 - view].cosines_BK.detach() for name, views in heads.items()}
        teacher_BK = (fuse(others, present, weights) / teacher).softmax(-1)
        for name, views in heads.items():
            rows_B = several_B & present[name]
            student_BK = views[view].cosines_BK[rows_B]
            loss = losses.distillation(student_BK, teacher_BK[rows_B], temperature=config.student_temperature)
            terms.append(loss / 2)
    return torch.stack(terms).sum()
