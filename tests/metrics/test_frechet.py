"""The Fréchet distance against closed forms, scipy's matrix root and a recorded official FID."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from natgym.metrics import FrechetDistance, Moments, MomentsAccumulator

Golden = Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]


def draw(count: int, width: int, seed: int, *, offset: float = 0.0) -> Tensor:
    """Correlated float64 Gaussian features (count, width)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixing + offset


def moments(*batches: Tensor) -> Moments:
    accumulator = MomentsAccumulator(batches[0].shape[1])
    for batch in batches:
        accumulator.update(batch)
    return accumulator.compute()


def scipy_distance(first: Moments, second: Moments) -> float:
    """The textbook formula, with the root of the unsymmetric product."""
    root = scipy.linalg.sqrtm(first.covariance.numpy() @ second.covariance.numpy())
    shift = (first.mean - second.mean).numpy()
    traces = first.covariance.numpy().trace() + second.covariance.numpy().trace()
    return float(shift @ shift + traces - 2 * np.real(np.trace(root)))


def test_moments_match_numpy() -> None:
    features = draw(40, 6, seed=0)
    result = moments(features)
    assert result.count == 40
    np.testing.assert_allclose(result.mean, features.numpy().mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.covariance, np.cov(features.numpy(), rowvar=False), rtol=1e-12)


@pytest.mark.parametrize("size", [1, 7, 64, 299])
def test_moments_do_not_depend_on_the_batches(size: int) -> None:
    # The offset is what makes raw sums of squares lose six digits.
    features = draw(300, 8, seed=1, offset=1e3)
    whole, cut = moments(features), moments(*features.split(size))
    assert cut.count == whole.count
    torch.testing.assert_close(cut.mean, whole.mean, rtol=1e-12, atol=0)
    largest = float(whole.covariance.max())
    torch.testing.assert_close(cut.covariance, whole.covariance, rtol=0, atol=1e-12 * largest)


def test_merge_equals_one_stream_and_keeps_the_other() -> None:
    features = draw(50, 5, seed=2)
    left, right = MomentsAccumulator(5), MomentsAccumulator(5)
    left.update(features[:13])
    right.update(features[13:])
    left.merge(right)
    left.merge(MomentsAccumulator(5))
    merged, streamed = left.compute(), moments(features)
    torch.testing.assert_close(merged.covariance, streamed.covariance, rtol=1e-12, atol=1e-12)
    assert right.compute().count == 37


def test_empty_batch_changes_nothing() -> None:
    features = draw(9, 3, seed=3)
    assert torch.equal(moments(features, features[:0]).covariance, moments(features).covariance)


def test_low_precision_features_are_summed_in_float64() -> None:
    features = draw(30, 4, seed=4).to(torch.bfloat16).requires_grad_()
    result = moments(features)
    assert result.covariance.dtype == torch.float64 and not result.covariance.requires_grad
    expected = torch.cov(features.detach().double().T)
    torch.testing.assert_close(result.covariance, expected, rtol=1e-12, atol=1e-12)


def test_diagonal_gaussians_have_a_closed_form() -> None:
    first_mean, second_mean = draw(2, 7, seed=5)
    first_std, second_std = draw(2, 7, seed=6).abs()
    first = Moments(100, first_mean, torch.diag(first_std**2))
    second = Moments(100, second_mean, torch.diag(second_std**2))
    expected = (first_mean - second_mean).square().sum() + (first_std - second_std).square().sum()
    assert FrechetDistance(first).between(second) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("width", [1, 2, 24])
def test_full_rank_matches_scipy_and_is_symmetric(width: int) -> None:
    first, second = moments(draw(90, width, seed=7)), moments(draw(70, width, seed=8, offset=0.3))
    expected = scipy_distance(first, second)
    assert FrechetDistance(first).between(second) == pytest.approx(expected, rel=1e-9)
    assert FrechetDistance(second).between(first) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("count", "width"), [(500, 16), (32, 64), (5, 128), (2, 8)])
def test_identical_sets_are_at_zero(count: int, width: int) -> None:
    same = moments(draw(count, width, seed=9))
    # Rounding is relative to the traces, which cancel.
    assert FrechetDistance(same).between(same) == pytest.approx(0, abs=1e-12 * float(same.covariance.trace()))


@pytest.mark.parametrize(("count", "reference_count"), [(10, 10), (10, 200), (200, 10), (2, 2)])
def test_rank_deficient_matches_the_factored_form(count: int, reference_count: int) -> None:
    features, reference = draw(count, 64, seed=10), draw(reference_count, 64, seed=11)
    first, second = moments(features), moments(reference)
    # tr (S1 S2)^(1/2) is the nuclear norm of A B^T for S1 = A^T A, S2 = B^T B: no root of a singular matrix.
    left = (features - first.mean) / (count - 1) ** 0.5
    right = (reference - second.mean) / (reference_count - 1) ** 0.5
    cross = torch.linalg.matrix_norm(left @ right.T, "nuc")
    traces = first.covariance.trace() + second.covariance.trace()
    expected = float((first.mean - second.mean).square().sum() + traces - 2 * cross)
    # Null directions of the samples alone stay in as roots of rounding noise, hence not 1e-12.
    assert FrechetDistance(second).between(first) == pytest.approx(expected, rel=1e-7)


def test_near_copies_with_fewer_samples_than_features_stay_non_negative() -> None:
    features = draw(20, 64, seed=12)
    for noise in (0.0, 1e-9, 1e-6, 1e-3):
        near = features + noise * draw(20, 64, seed=13)
        assert FrechetDistance(moments(features)).between(moments(near)) >= -1e-9


def test_constant_reference_leaves_mean_and_trace() -> None:
    reference, other = moments(torch.zeros(4, 3)), moments(draw(20, 3, seed=14))
    expected = float(other.mean.square().sum() + other.covariance.trace())
    assert FrechetDistance(reference).between(other) == pytest.approx(expected, rel=1e-12)


def test_accumulator_interface_equals_between_and_resets() -> None:
    features, distance = draw(60, 8, seed=15), FrechetDistance(moments(draw(80, 8, seed=16)))
    distance.update(draw(5, 8, seed=17))
    distance.reset()
    for batch in features.split(25):
        distance.update(batch)
    assert distance.compute() == pytest.approx(distance.between(moments(features)), rel=1e-12)


def test_small_samples_are_biased_upwards() -> None:
    features, distance = draw(4000, 8, seed=18), FrechetDistance(moments(draw(4000, 8, seed=18)))
    small = np.mean([distance.between(moments(chunk)) for chunk in features.split(20)])
    assert small > 10 * abs(distance.between(moments(features)))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_samples_are_refused(count: int) -> None:
    distance = FrechetDistance(moments(draw(9, 3, seed=19)))
    distance.update(draw(count, 3, seed=20))
    with pytest.raises(ValueError, match=f"{count} samples are too few"):
        distance.compute()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_features_are_refused_and_not_counted(value: float) -> None:
    accumulator = MomentsAccumulator(2)
    with pytest.raises(ValueError, match="1 feature values are NaN or infinite"):
        accumulator.update(torch.tensor([[1.0, value], [0.0, 2.0]]))
    with pytest.raises(ValueError, match="0 samples"):
        accumulator.compute()


def test_other_widths_are_refused() -> None:
    distance = FrechetDistance(moments(draw(9, 3, seed=21)))
    with pytest.raises(ValueError, match=r"shape \(4,\).*must be \(3,\)"):
        distance.update(torch.zeros(5, 4))
    with pytest.raises(ValueError, match=r"shape \(3, 2\).*must be \(3,\)"):
        distance.update(torch.zeros(5, 3, 2))
    with pytest.raises(ValueError, match=r"shape \(4,\).*must be \(3,\)"):
        distance.between(moments(draw(9, 4, seed=22)))
    with pytest.raises(ValueError, match=r"shape \(4,\).*must be \(3,\)"):
        MomentsAccumulator(3).merge(MomentsAccumulator(4))


def golden_reference(tensors: dict[str, Tensor]) -> Moments:
    return Moments(len(tensors["in.ref_features"]), tensors["in.ref_mu"], tensors["in.ref_sigma"])


@pytest.mark.golden
def test_official_fid(golden: Golden) -> None:
    tensors, recorded = golden("fid")
    distance = FrechetDistance(golden_reference(tensors))
    for batch in tensors["in.features"].split(96):
        distance.update(batch)
    # torch-fidelity works in float64 throughout, as we do.
    assert distance.compute() == pytest.approx(recorded["fid_torch_fidelity_float64"], rel=1e-10)
    # Upstream takes mean and covariance in float32: some float32 roundings (6e-8) relative to the result.
    assert distance.compute() == pytest.approx(recorded["fid"], rel=5e-7)


@pytest.mark.golden
def test_official_fid_of_fewer_samples_than_features(golden: Golden) -> None:
    tensors, recorded = golden("fid")
    count = recorded["fid_small_n"]
    sample, reference = moments(tensors["in.features"][:count]), golden_reference(tensors)
    # Upstream's float32 covariance has rounding noise of about eps * its largest eigenvalue in its null
    # directions. The root of that enters the trace term twice and can only lower upstream's distance.
    nullity = len(sample.mean) - (count - 1)
    largest = [float(torch.linalg.matrix_norm(m.covariance, 2)) for m in (sample, reference)]
    bound = 2 * nullity * (torch.finfo(torch.float32).eps * largest[0] * largest[1]) ** 0.5
    excess = FrechetDistance(reference).between(sample) - recorded["fid_small"]
    assert 0 <= excess <= bound


def test_influence_is_the_derivative_by_a_sample_s_weight() -> None:
    """Against a numerical derivative of the distance of weighted moments, at full rank and below."""
    for count, width in ((60, 5), (12, 20)):
        distance = FrechetDistance(moments(draw(count, width, seed=1)))
        fake_Nd, weights_N = draw(count, width, seed=2, offset=0.3), torch.full((count,), 1 / count).double()
        found, here = distance.influence(fake_Nd), weighted(distance, fake_Nd, weights_N)
        for row in (0, count - 1):
            moved_N = (1 - 1e-6) * weights_N + 1e-6 * torch.eye(count, dtype=torch.float64)[row]
            slope = (weighted(distance, fake_Nd, moved_N) - here) / 1e-6
            assert found[row].item() == pytest.approx(slope, rel=1e-3)
        assert abs(found.mean().item()) < 1e-9 * found.abs().max().item()


def weighted(distance: FrechetDistance, features_Nd: Tensor, weights_N: Tensor) -> float:
    mean = weights_N @ features_Nd
    centered = features_Nd - mean
    return distance.between(Moments(len(features_Nd), mean, centered.T @ (weights_N[:, None] * centered)))
