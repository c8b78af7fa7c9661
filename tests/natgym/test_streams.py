"""Evaluation of images as they come: the numbers of all images at once, in the memory of a few."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.checkpoints import tensors_hash
from generators.conditions import Labels
from generators.data import load_split, open_split
from generators.images import Pictures, Split, eight_bits, regrouped
from generators.live_bytes import LiveBytes
from generators.noise import derive_seed
from generators.schedules import reference
from natgym.evaluation import evaluator as evaluators
from natgym.evaluation import scorer as scorers
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.evaluation.scorer import Scorer
from natgym.metrics import extractors, named
from natgym.metrics import reference as references
from natgym.metrics.manifold import drawn, precision_recall_density_coverage
from natgym.metrics.named import NAMED, Judged
from natgym.metrics.reference import Reference
from natgym.policies import FixedPolicy
from natgym.rollouts import Rollout, balanced, rollout, stream

SIDE = 96  # of images that are large beside all that is kept of them


class Large(nn.Module):
    """A tokenizer whose images are blown up."""

    image_shape = (1, SIDE, SIDE)

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.codebook_size, self.grid = tokenizer.codebook_size, tokenizer.grid

    def decode(self, ids_BL: Tensor) -> Tensor:
        return F.interpolate(self.tokenizer.decode(ids_BL), scale_factor=SIDE // 8)


class Shrunk(nn.Module):
    """An extractor that looks at the images as they were."""

    meaning = "of small images"

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.extractor = extractor
        self.num_features = extractor.num_features

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.extractor(images_BCHW[..., :: SIDE // 8, :: SIDE // 8])


class Files:
    """Pixels that are nowhere before they are asked for."""

    def __getitem__(self, rows: Tensor) -> Tensor:
        rows, places = rows.view(-1, 1, 1, 1), torch.arange(SIDE * SIDE).view(1, SIDE, SIDE)
        return ((rows * 37 + places * (rows % 7)) % 256).byte()

    def fingerprint(self) -> str:
        return ""


class Seen:
    """A metric that remembers what it was fed."""

    fed: list[Any] = []

    def __init__(self) -> None:
        Seen.fed = []

    def update(self, images_BCHW: Tensor, condition: Any, features_Bd: Tensor) -> None:
        Seen.fed.append((images_BCHW.clone(), condition.values.clone(), features_Bd.clone()))
        features_Bd.zero_()  # is its own affair

    def compute(self) -> float:
        return float(len(Seen.fed))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that look at 50 images at once, and batches of 20."""
    for module in (evaluators, scorers, references, extractors):
        monkeypatch.setattr(module, "CHUNK", 50)
    monkeypatch.setattr("natgym.rollouts.BATCH", 20)


def most(what: Callable[[], Any]) -> int:
    with LiveBytes() as live:
        what()
    return live.peak


def test_memory_does_not_grow_with_the_images(digits: Any, small_chunks: None) -> None:
    """Drawn or real: three times as many cost no more but for their features, and would if they were kept."""
    assert digits.generator is not None, "loaded before anything is counted"
    task = digits.like(tokenizer=Large(digits.tokenizer))
    extractor: Any = Shrunk(digits.score_extractor)
    policy, one = FixedPolicy(reference(1)), SIDE * SIDE * 4

    def real(number: int) -> Pictures:
        rows = torch.arange(number)
        return Pictures(Files(), rows, Labels(rows % 10, 10))

    def evaluate(number: int) -> Evaluator:
        config = EvaluationConfig(images=number, seeds=(0,))
        return Evaluator(task, config, scorer=Scorer(extractor, real(60)))

    few, many = 100, 300
    for ways in (
        [most(lambda n=n: evaluate(n)(policy)) for n in (few, many)],
        [most(lambda n=n: Scorer(extractor, real(n))) for n in (few, many)],
        [most(lambda n=n: evaluate(few).floors(real(n))) for n in (few, many)],
    ):
        assert ways[1] - ways[0] < 0.2 * (many - few) * one, ways

    def joined(number: int) -> None:
        judge, kept = evaluate(number), rollout(policy, task, num_images=number, seed=0)
        judge.scorer.score(kept.images_NCHW, kept.condition)

    assert np.diff([most(lambda n=n: joined(n)) for n in (few, many)]).item() > 0.9 * (many - few) * one


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_is_that_of_all_images_at_once(digits: Any, small_chunks: None, threads: int) -> None:
    """To the bit: drawn whole, seen by the networks in the same chunks, and judged by each metric alone."""
    select = load_split("digits", "select")
    judge = Scorer(digits.score_extractor, open_split("digits", "select"))
    config = EvaluationConfig(split="select", images=130, seeds=(3,))
    judged = Evaluator(digits, config, scorer=judge, metrics={"seen": Seen}, threads=threads)
    row = judged(FixedPolicy(reference(2))).iloc[0]

    whole = rollout(
        FixedPolicy(reference(2)),
        digits,
        condition=balanced(digits.generator.conditions(), 130),
        seed=derive_seed("evaluation", "select", 3),
    )
    seen = [digits.score_extractor(eight_bits(chunk)) for chunk in whole.images_NCHW.split(50)]
    features_Nd, logits_NK = (torch.cat(parts).detach() for parts in zip(*seen, strict=True))
    slow = Judged(
        features_Nd=features_Nd,
        logits_NK=logits_NK,
        classes_NK=logits_NK,
        condition=whole.condition,
        reference=Reference.of(select, digits.score_extractor),
    )
    found = {name: metric.compute(slow) for name, metric in NAMED.items() if metric.applies(slow)}
    assert found == {name: row[name] for name in found} and len(found) == 9
    assert row["nfe"] == whole.nfe_N.mean() and row["images_per_second"] > 0

    assert row["seen"] == 3
    images, labels, features = (torch.cat(parts) for parts in zip(*Seen.fed, strict=True))
    assert torch.equal(images, eight_bits(whole.images_NCHW)) and torch.equal(features, features_Nd)
    assert torch.equal(labels, whole.condition.values)


def test_a_reference_read_in_chunks_is_that_of_the_whole(digits: Any, small_chunks: None) -> None:
    whole, lazy = load_split("digits", "report"), open_split("digits", "report")
    ours, theirs = (Reference.of(part, digits.score_extractor) for part in (lazy, whole))
    assert ours.name == theirs.name == tensors_hash({"images": whole.images_NCHW})
    assert torch.equal(ours.moments.covariance, theirs.moments.covariance)
    rows = torch.tensor([7, 3, 3])
    for part in (lazy, whole):
        taken = part.take(rows)
        assert torch.equal(taken[torch.arange(3)], whole.images_NCHW[rows]) and len(taken) == 3
        assert taken.condition.values.tolist() == whole.condition.values[rows].tolist()


@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_regrouped_batches_hold_the_same_rows(size: int) -> None:
    images, labels = torch.rand(23, 1, 2, 2), Labels(torch.arange(23) % 5, 5)
    cuts = [0, 3, 3, 4, 12, 20, 23]
    batches = [(images[a:b], labels[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
    found = list(regrouped(iter(batches), size))
    assert [len(part) for part, _ in found] == [len(part) for part in images.split(size)]
    assert torch.equal(torch.cat([part for part, _ in found]), images)
    assert torch.equal(torch.cat([condition.values for _, condition in found]), labels.values)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_is_the_rollout_in_order_and_runs_not_far_ahead(
    digits: Any, small_chunks: None, threads: int
) -> None:
    condition = balanced(digits.generator.conditions(), 210)
    told = {"condition": condition, "seed": 4, "threads": threads}
    done: list[int] = []
    parts: list[Rollout] = []
    for part in stream(FixedPolicy(reference(2)), digits, progress=done.append, **told):
        parts.append(part)
        assert len(done) <= len(parts) + threads
        assert part.frame["condition"].tolist() == part.condition.names * 2
    whole = rollout(FixedPolicy(reference(2)), digits, **told)  # in batches of another size
    again = Rollout.cat(parts, condition)
    assert torch.equal(again.images_NCHW, whole.images_NCHW) and len(parts) == 11
    assert again.frame["sample"].unique().tolist() == list(range(210)) and again.seconds > 0


def test_a_stream_that_breaks_tells_why(digits: Any, small_chunks: None) -> None:
    class Breaks(FixedPolicy):
        def __call__(self, observation: Any, step: int) -> Any:
            raise ValueError("no more")

    condition = balanced(digits.generator.conditions(), 50)
    for threads in (1, 2):
        with pytest.raises(ValueError, match="no more"):
            list(stream(Breaks(reference(1)), digits, condition=condition, seed=0, threads=threads))


def test_large_sets_are_drawn_from_for_neighborhoods(
    digits: Any, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = torch.arange(100.0)[:, None]
    some = drawn(points, 30)
    assert len(some.unique()) == 30 and some.equal(some.sort(0).values) and some.equal(drawn(points, 30))
    assert some.max() > 60 and drawn(points, 100) is points

    select = load_split("digits", "select")
    for module in (named, references):
        monkeypatch.setattr(module, "drawn", lambda points: drawn(points, 80))
    monkeypatch.setattr(evaluators, "MOST", 80)
    config = EvaluationConfig(images=120, seeds=(0,))
    judged = Evaluator(digits, config, scorer=Scorer(digits.score_extractor, select))
    assert "of 80 images, generated or real" in judged.legend() and judged.manifest()["neighborhoods"] == 80
    images = select.images_NCHW[:120].flip(-1)
    found = judged.scorer.score(images, select.condition[:120])
    both = (drawn(judged.scorer.features(part), 80) for part in (images, select.images_NCHW))
    for name, value in precision_recall_density_coverage(*both).items():
        assert found[name] == value
    monkeypatch.setattr(evaluators, "MOST", 200)
    judged = Evaluator(digits, config, scorer=judged.scorer)
    assert "neighborhoods" not in judged.manifest() and "drawn at random" not in judged.legend()


def test_networks_see_fewer_of_large_images(digits: Any) -> None:
    given: list[int] = []

    def extractor(images_BCHW: Tensor) -> Any:
        given.append(len(images_BCHW))
        return images_BCHW.mean((2, 3)), None

    images = torch.rand(5, 1, 1500, 1500)
    features, _ = extractors.extract(extractor, images, quantise=False)  # type: ignore[arg-type]
    assert given == [1] * 5 and torch.allclose(features[:, 0], images.mean((1, 2, 3)))


def test_a_wrong_pixel_is_named_by_its_place_in_the_stream(digits: Any, small_chunks: None) -> None:
    select = load_split("digits", "select")
    images = select.images_NCHW.clone()
    images[120] = torch.nan
    judge = Scorer(digits.score_extractor, select)
    with pytest.raises(ValueError, match="of images 100 to 149 some have pixels that are not finite"):
        judge.score(images, select.condition)
    with pytest.raises(ValueError, match="of images 100 to 149"):
        Scorer(digits.score_extractor, Split(images, select.condition))
