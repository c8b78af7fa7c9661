"""Every loss against a loop over single samples in float64, written from its definition."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from natgym.discovery import losses

B, K, P = 7, 5, 6


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def unit(rng: torch.Generator, rows: int = B) -> Tensor:
    return F.normalize(torch.randn(rows, P, dtype=torch.float64, generator=rng), dim=-1)


def cosines(rng: torch.Generator, rows: int = B) -> Tensor:
    return torch.rand(rows, K, dtype=torch.float64, generator=rng) * 2 - 1


def loop_softmax(values: list[float]) -> list[float]:
    largest = max(values)
    powers = [math.exp(value - largest) for value in values]
    return [power / sum(powers) for power in powers]


def dot(one: Tensor, other: Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def same(found: Tensor, expected: float) -> None:
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_instance_contrast(rng: torch.Generator, temperature: float) -> None:
    first, second = unit(rng), unit(rng)
    views = [*first, *second]
    total = 0.0
    for i, anchor in enumerate(views):
        others = [j for j in range(2 * B) if j != i]
        p = loop_softmax([dot(anchor, views[j]) / temperature for j in others])
        total -= math.log(p[others.index((i + B) % (2 * B))])
    same(losses.instance_contrast(first, second, temperature=temperature), total / (2 * B))


def test_supervised_contrast(rng: torch.Generator) -> None:
    first, second, labels = unit(rng), unit(rng), torch.tensor([0, 1, 0, 2, 1, 0, 3])
    views, classes = [*first, *second], labels.tolist() * 2
    total = 0.0
    for i, anchor in enumerate(views):
        others = [j for j in range(2 * B) if j != i]
        p = loop_softmax([dot(anchor, views[j]) / 0.1 for j in others])
        positives = [math.log(p[at]) for at, j in enumerate(others) if classes[j] == classes[i]]
        total -= sum(positives) / len(positives)
    same(losses.supervised_contrast(first, second, labels, temperature=0.1), total / (2 * B))


def test_supervised_contrast_of_single_members_is_instance_contrast(rng: torch.Generator) -> None:
    first, second = unit(rng), unit(rng)
    alone = losses.supervised_contrast(first, second, torch.arange(B), temperature=0.3)
    same(alone, losses.instance_contrast(first, second, temperature=0.3).item())


def test_cross_modal_contrast(rng: torch.Generator) -> None:
    one, other = unit(rng), unit(rng)
    total = 0.0
    for i in range(B):
        for anchor, candidates in ((one[i], other), (other[i], one)):
            total -= math.log(loop_softmax([dot(anchor, c) / 0.1 for c in candidates])[i])
    same(losses.cross_modal_contrast(one, other, temperature=0.1), total / (2 * B))


def test_distillation(rng: torch.Generator) -> None:
    student, teacher = cosines(rng), (cosines(rng) / 0.05).softmax(-1)
    total = 0.0
    for i in range(B):
        p = loop_softmax([float(c) / 0.1 for c in student[i]])
        total -= sum(float(q) * math.log(p[k]) for k, q in enumerate(teacher[i]))
    same(losses.distillation(student, teacher, temperature=0.1), total / B)


def test_distillation_from_labels_is_cross_entropy(rng: torch.Generator) -> None:
    student, labels = cosines(rng), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    found = losses.distillation(student, F.one_hot(labels, K).double(), temperature=0.1)
    same(found, F.cross_entropy(student / 0.1, labels).item())


def test_no_gradient_reaches_the_teacher(rng: torch.Generator) -> None:
    student, teacher = cosines(rng).requires_grad_(), cosines(rng).softmax(-1).requires_grad_()
    losses.distillation(student, teacher, temperature=0.1).backward()
    assert teacher.grad is None and student.grad is not None and student.grad.abs().sum() > 0


@pytest.mark.parametrize("prior", [[0.2] * 5, [0.5, 0.2, 0.1, 0.1, 0.1]])
def test_prior_divergence(rng: torch.Generator, prior: list[float]) -> None:
    logits = cosines(rng)
    rows = [loop_softmax([float(c) / 0.1 for c in row]) for row in logits]
    mean = [sum(row[k] for row in rows) / B for k in range(K)]
    expected = sum(p * math.log(p / q) for p, q in zip(mean, prior, strict=True))
    log_prior = torch.tensor(prior, dtype=torch.float64).log()
    same(losses.prior_divergence(logits, log_prior, temperature=0.1), expected)


def test_the_divergence_from_the_uniform_prior_is_the_missing_entropy(rng: torch.Generator) -> None:
    """SimGCD's term: its gradient is that of -H(mean)."""
    logits = cosines(rng).requires_grad_()
    losses.prior_divergence(logits, torch.full((K,), 1 / K).double().log(), temperature=0.1).backward()
    again = logits.detach().clone().requires_grad_()
    mean = (again / 0.1).softmax(-1).mean(0)
    (mean * mean.log()).sum().backward()
    assert logits.grad is not None and again.grad is not None
    torch.testing.assert_close(logits.grad, again.grad, rtol=1e-10, atol=1e-13)


def test_the_divergence_is_smallest_at_the_prior() -> None:
    prior = torch.tensor([0.5, 0.3, 0.1, 0.05, 0.05], dtype=torch.float64)
    at_prior = losses.prior_divergence(0.1 * prior.log()[None], prior.log(), temperature=0.1)
    assert abs(at_prior.item()) < 1e-15
    assert losses.prior_divergence(torch.zeros(1, K).double(), prior.log(), temperature=0.1) > 0.1


def test_the_teacher_sharpens_linearly_and_stays() -> None:
    said = [losses.teacher_temperature(p, start=0.07, end=0.04, warmup=0.4) for p in (0, 0.1, 0.2, 0.4, 0.9)]
    assert said == pytest.approx([0.07, 0.0625, 0.055, 0.04, 0.04])
    assert losses.teacher_temperature(0.0, start=0.07, end=0.04, warmup=0.0) == 0.04


def test_losses_over_nobody_are_zero_and_have_gradients() -> None:
    """A batch may hold no labelled sample, or none with both modalities."""
    nobody, none = torch.zeros(0, P, requires_grad=True), torch.zeros(0, K, requires_grad=True)
    found = [
        losses.instance_contrast(nobody, nobody, temperature=0.1),
        losses.supervised_contrast(nobody, nobody, torch.zeros(0, dtype=torch.long), temperature=0.1),
        losses.cross_modal_contrast(nobody, nobody, temperature=0.1),
        losses.distillation(none, torch.zeros(0, K), temperature=0.1),
    ]
    torch.stack(found).sum().backward()
    assert [value.item() for value in found] == [0] * 4
