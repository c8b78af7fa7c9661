"""The view of the pixels: its components by another library, its distance by a loop, what it sees."""

import numpy as np
import pytest
import torch

from generators.images import eight_bits
from natgym.metrics.pixels import PixelDistance, PixelView
from natgym.task import Task


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    images = torch.rand(50, 1, 3, 4, generator=torch.Generator().manual_seed(0)) ** 2
    view = PixelView.of(images, components=5)
    pixels = images.flatten(1).double().numpy()
    centered = pixels - pixels.mean(0)
    _, values, vectors = np.linalg.svd(centered, full_matrices=False)
    expected = centered @ vectors[:5].T / (values[:5] / np.sqrt(49))
    features = view.features(images).numpy()
    for ours, theirs in zip(features.T, expected.T, strict=True):
        assert min(np.abs(ours - theirs).max(), np.abs(ours + theirs).max()) < 1e-8
    assert features.std(0, ddof=1) == pytest.approx(np.ones(5))


def test_pixels_that_never_vary_have_no_component() -> None:
    images = torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    images[:, 0, 0] = 0.5
    assert PixelView.of(images).components_Pd.shape == (4, 2)


def test_the_distance_is_the_mean_over_pairs() -> None:
    random = torch.Generator().manual_seed(0)
    train, real, drawn = (torch.rand(count, 1, 4, 4, generator=random) for count in (40, 7, 9))
    metric = PixelDistance.maker(train, real)()
    drawn = eight_bits(drawn)
    for rows in (slice(0, 4), slice(4, 9)):
        metric.update(drawn[rows], None, None)  # type: ignore[arg-type]
    view = PixelView.of(eight_bits(train))
    x, y = view.features(drawn), view.features(eight_bits(real))

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / x.shape[1] + 1) ** 3)

    expected = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    expected += np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    expected -= 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert metric.compute() == pytest.approx(expected, rel=1e-9)


def test_it_tells_worse_images_from_real_ones() -> None:
    task = Task.load("digits")
    train, real = task.split("train").images_NCHW, task.split("report").images_NCHW
    distances = []
    for images in (task.split("select").images_NCHW, real * 0.9, real.flip(-1)):
        metric = PixelDistance.maker(train, real)()
        metric.update(images, None, None)  # type: ignore[arg-type]
        distances.append(metric.compute())
    assert abs(distances[0]) < 0.05 < distances[1] < distances[2]


def test_many_and_large_images_are_seen_a_few_at_a_time_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 x 48 pixels the averages of fields of 2 x 2; in parts, as a single one."""
    images = torch.rand(45, 1, 64, 48, generator=torch.Generator().manual_seed(0))
    small = images.unflatten(3, (24, 2)).unflatten(2, (32, 2)).mean((3, 5))
    whole, ours = PixelView.of(small, components=5), PixelView.of(images, components=5)
    assert ours.mean_P.shape == (32 * 24,) and torch.allclose(
        ours.features(images).abs(), whole.features(small).abs(), atol=1e-5
    )
    monkeypatch.setattr("natgym.metrics.pixels.CHUNK", 10)
    monkeypatch.setattr("natgym.metrics.pixels.AT_ONCE", 20)
    parts = PixelView.of(small, components=5)
    assert torch.allclose(parts.features(small).abs(), whole.features(small).abs(), atol=1e-5)
