"""Training masks and their loss against the recorded official code and closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta, chisquare, kstest, truncnorm

from generators.masking import (
    IGNORE,
    MaskLaw,
    hide_more,
    hide_within,
    mask_tokens,
    masked_cross_entropy,
)
from rounding import assert_rounded


@pytest.mark.golden
def test_recorded_enat_masks(golden: Any) -> None:
    """One share for the batch, one token visible at least, and the earlier state of the reuse training."""
    tensors, meta = golden("mask_sample_enat")
    for case, facts in meta["cases"].items():
        recorded = {
            key.removeprefix(f"{case}."): value
            for key, value in tensors.items()
            if key.startswith(f"{case}.")
        }
        ids_BL = recorded["x0"].long()
        ratios_B, shares_B = (recorded[name].expand(len(ids_BL)) for name in ("p", "reuse_u"))
        masked_BL, labels_BL = mask_tokens(ids_BL, ratios_B, recorded["rand"], meta["mask_id"], min_visible=1)
        assert (masked_BL == meta["mask_id"]).sum(1).tolist() == facts["n_masked"], case
        assert torch.equal(masked_BL, recorded["masked_ids"].long()), case
        assert torch.equal(labels_BL, recorded["labels"].long()), case
        earlier_BL = hide_more(masked_BL, shares_B, recorded["reuse_rand"], meta["mask_id"])
        assert torch.equal(earlier_BL, recorded["prev_ids"].long()), case


@pytest.mark.golden
def test_recorded_masks_loss_and_gradient(golden: Any) -> None:
    """Half-to-even rounding, the argsort rule and the mean over all hidden tokens, as upstream."""
    tensors, meta = golden("mask_sample_inat")
    masked = mask_tokens(tensors["in.x0"], tensors["in.beta_draws"], tensors["in.rand"], meta["mask_id"])
    ids_BL, labels_BL = masked
    assert IGNORE == meta["ignore_index"]
    assert torch.equal(ids_BL, tensors["out.masked_ids"]) and torch.equal(labels_BL, tensors["out.labels"])
    assert (labels_BL != IGNORE).sum(1).tolist() == meta["n_masked"]
    logits_BLV = tensors["in.logits"].requires_grad_()
    loss = masked_cross_entropy(logits_BLV, labels_BL, meta["smoothing"])
    loss.backward()
    assert_rounded(loss.detach(), tensors["out.loss"])
    assert_rounded(logits_BLV.grad, tensors["out.grad_logits"])


def test_laws_of_the_mask_ratio() -> None:
    """Beta(12, 3) has mean 0.8, the cosine of a uniform angle 2 / pi; both distributions as a whole, too."""
    n = 20_000
    searched = MaskLaw("beta").sample(n, np.random.default_rng(0))
    cosine = MaskLaw("cosine").sample(n, np.random.default_rng(1))
    assert searched.dtype == cosine.dtype == torch.float32
    assert float(searched.mean()) == pytest.approx(0.8, abs=5 * 0.1 / math.sqrt(n))
    assert float(searched.var()) == pytest.approx(0.01, rel=0.05)
    assert float(cosine.mean()) == pytest.approx(2 / math.pi, abs=5 * 0.31 / math.sqrt(n))
    gaussian = MaskLaw("gaussian", 0.7, 0.4).sample(n, np.random.default_rng(2))
    assert gaussian.dtype == torch.float32 and 0 <= gaussian.min() < 0.01 and 0.99 < gaussian.max() <= 1
    assert kstest(gaussian.numpy(), truncnorm(-0.7 / 0.4, 0.3 / 0.4, 0.7, 0.4).cdf).pvalue > 1e-3
    assert kstest(searched.numpy(), beta(12, 3).cdf).pvalue > 1e-3
    assert kstest(cosine.numpy(), lambda m: 1 - 2 / np.pi * np.arccos(m)).pvalue > 1e-3


def test_unknown_laws_are_refused() -> None:
    with pytest.raises(ValueError, match="'cosin' is not one of beta, gaussian, cosine"):
        MaskLaw("cosin")
    with pytest.raises(ValueError, match=r"Beta\(0.0, 3.0\)"):
        MaskLaw("beta", 0.0)
    with pytest.raises(ValueError, match="mean 1.5"):
        MaskLaw("gaussian", 1.5, 0.2)


def test_number_of_hidden_tokens() -> None:
    """At least one, at most all, halves to even; hidden and visible tokens are told apart exactly."""
    ratios, expected = [0.0, 0.01, 1 / 16, 2.5 / 16, 3.5 / 16, 0.5, 0.99, 1.0], [1, 1, 1, 2, 4, 8, 16, 16]
    generator = torch.Generator().manual_seed(0)
    ids_BL = torch.randint(7, (8, 16), generator=generator)
    uniform_BL = torch.rand(8, 16, generator=generator)
    masked_BL, labels_BL = mask_tokens(ids_BL, torch.tensor(ratios), uniform_BL, mask_id=7)
    hidden_BL = masked_BL == 7
    assert hidden_BL.sum(1).tolist() == expected
    assert torch.equal(torch.where(hidden_BL, labels_BL, masked_BL), ids_BL)
    assert (labels_BL[~hidden_BL] == IGNORE).all()


def test_every_token_is_hidden_equally_often() -> None:
    n, L = 20_000, 9
    uniform_BL = torch.rand(n, L, generator=torch.Generator().manual_seed(0))
    masked_BL, _ = mask_tokens(torch.zeros(n, L, dtype=torch.long), torch.full((n,), 1 / 3), uniform_BL, 1)
    assert chisquare(masked_BL.sum(0)).pvalue > 1e-3
    pairs = (masked_BL[:, :1] * masked_BL).float().mean(0)[1:]  # P(both hidden) = 3/9 * 2/8
    torch.testing.assert_close(pairs, torch.full((L - 1,), 1 / 12), atol=5 * 0.28 / math.sqrt(n), rtol=0)


def test_loss_is_the_mean_over_hidden_tokens_of_the_whole_batch() -> None:
    """A slow loop; rows with more hidden tokens weigh more, and visible tokens nothing."""
    generator, smoothing = torch.Generator().manual_seed(0), 0.1
    logits_BLV = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    labels_BL = torch.tensor([[0, IGNORE, 3, 2, 1], [IGNORE] * 4 + [1], [IGNORE] * 5])
    terms = []
    for b, token in (labels_BL != IGNORE).nonzero().tolist():
        log_probs = logits_BLV[b, token].log_softmax(0)
        terms.append(-(1 - smoothing) * log_probs[labels_BL[b, token]] - smoothing * log_probs.mean())
    expected = torch.stack(terms).mean().float()
    torch.testing.assert_close(masked_cross_entropy(logits_BLV, labels_BL, smoothing), expected)


def test_of_rows_that_give_tokens_none_of_these_is_hidden() -> None:
    """As many of the others as the ratio says, each as often; rows that are not meant stay to the bit."""
    rng = np.random.default_rng(0)
    B, L = 4000, 12
    ids = torch.from_numpy(rng.integers(5, size=(B, L)))
    given = torch.where(torch.arange(L) < 4, ids, -1)
    uniform, ratios = torch.from_numpy(rng.random((B, L))), torch.from_numpy(rng.random(B)).float()
    within = torch.arange(B) % 2 == 0
    hidden, labels = mask_tokens(ids, *reversed(hide_within(given, within, uniform, ratios)), 5)
    plain, _ = mask_tokens(ids, ratios, uniform, 5)
    assert torch.equal(hidden[~within], plain[~within])
    assert (hidden[within][:, :4] != 5).all()
    counts = (hidden[within] == 5).sum(1)
    assert torch.equal(counts, (8 * ratios[within]).round().clamp(1).long())
    assert torch.equal(labels == IGNORE, hidden != 5)
    each = (hidden[within] == 5).sum(0)[4:].numpy()
    # Draws without replacement within a row spread less than independent ones.
    assert chisquare(each).pvalue > 1e-3
