"""Losses of SimGCD (Wen et al. 2023, section 4) and the two alignments of MM-GCD (Su et al. 2024).

Shapes: `B` samples, `K` prototypes, `P` width of a projection; logits are cosines, divided by a temperature
here; projections have unit length. Every loss is a mean over the samples that take part, 0 if there are none.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def instance_contrast(first_BP: Tensor, second_BP: Tensor, *, temperature: float) -> Tensor:
    """Return the unsupervised contrastive loss: each of 2B views has to find the other view of its sample
    among the 2B - 1 others (InfoNCE; SimGCD section 4.1).
    """
    views_NP = torch.cat([first_BP, second_BP])
    N = len(views_NP)
    logits_NN = (views_NP @ views_NP.T / temperature).fill_diagonal_(-torch.inf)
    partner_N = torch.arange(N, device=views_NP.device).roll(N // 2)  # view i + B of sample i, and back
    return F.cross_entropy(logits_NN, partner_N) if N else views_NP.sum()


def supervised_contrast(
    first_BP: Tensor, second_BP: Tensor, labels_B: Tensor, *, temperature: float
) -> Tensor:
    """Return the supervised contrastive loss (Khosla et al. 2020, L_out; SimGCD section 4.1).

    The positives of a view are all other views of its class, its own second view included.

    Args:
        labels_B: classes of the samples, all known.
    """
    views_NP = torch.cat([first_BP, second_BP])
    labels_N = labels_B.repeat(2)
    logits_NN = (views_NP @ views_NP.T / temperature).fill_diagonal_(-torch.inf)
    positive_NN = (labels_N[:, None] == labels_N).to(views_NP.dtype).fill_diagonal_(0)
    log_p_NN = logits_NN.log_softmax(-1).masked_fill(logits_NN == -torch.inf, 0)  # -inf times 0 would be NaN
    loss_N = -(positive_NN * log_p_NN).sum(-1) / positive_NN.sum(-1).clamp_min(1)
    return loss_N.sum() / max(len(loss_N), 1)


def cross_modal_contrast(one_BP: Tensor, other_BP: Tensor, *, temperature: float) -> Tensor:
    """Return MM-GCD's alignment in feature space: each sample's projection in one modality has to find that
    of the same sample in the other one, and the other way round (symmetric InfoNCE over B samples).
    """
    logits_BB = one_BP @ other_BP.T / temperature
    same_B = torch.arange(len(logits_BB), device=logits_BB.device)
    if not len(same_B):
        return logits_BB.sum()  # 0 that a gradient can pass; the cross-entropy of no sample is NaN
    return (F.cross_entropy(logits_BB, same_B) + F.cross_entropy(logits_BB.T, same_B)) / 2


def distillation(student_BK: Tensor, teacher_BK: Tensor, *, temperature: float) -> Tensor:
    """Return the cross-entropy of a student's softmax(cosines / temperature) with a teacher's probabilities.

    With the teacher from the other view of the same branch it is SimGCD's self-distillation; with a teacher
    that has seen the other modality it is MM-GCD's alignment in output space. No gradient reaches the
    teacher.
    """
    loss_B = -(teacher_BK.detach() * (student_BK / temperature).log_softmax(-1)).sum(-1)
    return loss_B.sum() / max(len(loss_B), 1)


def prior_divergence(logits_BK: Tensor, log_prior_K: Tensor, *, temperature: float) -> Tensor:
    """Return KL(mean prediction || prior): SimGCD's mean-entropy maximization for any prior.

    With the uniform prior it is log K - H(mean prediction), SimGCD's term up to a constant.

    Args:
        log_prior_K: logarithms of the expected shares of the K categories.
    """
    mean_K = (logits_BK / temperature).softmax(-1).mean(0)
    return (torch.xlogy(mean_K, mean_K) - mean_K * log_prior_K).sum()


def teacher_temperature(progress: float, *, start: float, end: float, warmup: float) -> float:
    """Return the teacher's temperature: linear from `start` to `end` over the first `warmup` of the training.

    Args:
        progress: share of the training that is done, in [0, 1].
    """
    return end if progress >= warmup else start + (end - start) * progress / warmup
