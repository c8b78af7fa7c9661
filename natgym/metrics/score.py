"""Into which classes images fall: the Inception score (Salimans et al. 2016), and a distance of shares."""

import numpy as np
import torch
from torch import Tensor

SPLITS = 10  # of the published score


def inception_score(logits_NK: Tensor, *, splits: int = SPLITS, seed: int | None = 2020) -> float:
    """Return the mean over `splits` of exp(mean KL(p(y|x) | p(y))), in [1, K].

    Only with the FID Inception network's logits (without the bias) is it the published score. The images are
    put into another order first, as torch-fidelity does, since they may come class by class.

    Args:
        logits_NK: one row per image; the arithmetic is float64.
        splits: equal parts, each with its own p(y).
        seed: of the order; None keeps it.

    Raises:
        ValueError: there are fewer images than splits, or a logit is not finite.
    """
    if len(logits_NK) < splits:
        raise ValueError(f"{len(logits_NK)} images are too few for {splits} splits: pass more images")
    if not bool(torch.isfinite(logits_NK).all()):
        raise ValueError("a logit is NaN or infinite, all must be finite: check the extractor")
    log_p_NK = logits_NK.detach().double().log_softmax(-1)
    if seed is not None:
        order = np.random.RandomState(seed).permutation(len(log_p_NK))
        log_p_NK = log_p_NK[torch.from_numpy(order).to(log_p_NK.device)]
    bounds = [i * len(log_p_NK) // splits for i in range(splits + 1)]
    parts = (log_p_NK[first:last] for first, last in zip(bounds, bounds[1:], strict=False))
    return float(torch.stack([_score(part) for part in parts]).mean())


def _score(log_p_NK: Tensor) -> Tensor:
    p_NK = log_p_NK.exp()
    marginal_K = p_NK.mean(0)
    # A class whose probability underflows everywhere adds 0 log 0 = 0.
    divergence_NK = p_NK * (log_p_NK - marginal_K.clamp_min(torch.finfo(p_NK.dtype).tiny).log())
    return divergence_NK.sum(-1).mean().exp()


def total_variation(counts_K: Tensor, others_K: Tensor) -> float:
    """Return the total variation, in [0, 1], between two distributions of K classes, given as counts."""
    one_K, other_K = counts_K.double() / counts_K.sum(), others_K.double() / others_K.sum()
    return (one_K - other_K).abs().sum().item() / 2  # whoever leaves a class arrives in another
