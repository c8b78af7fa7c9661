"""The objective against its equations, sample by sample; the training: exact resume, missing modalities."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from natgym.discovery.accuracy import clustering_accuracy
from natgym.discovery.augment import strong
from natgym.discovery.modality import FrozenViews, LiveImages, LiveWords, join
from natgym.discovery.model import Branch, Heads, fuse, pair_prototypes
from natgym.discovery.objective import DiscoveryConfig, mm_gcd_terms
from natgym.discovery.training import DiscoveryTrainer

QUICK = DiscoveryConfig(epochs=12, batch_size=64)


def half_labelled(labels: np.ndarray, num_old: int) -> np.ndarray:
    return np.where((labels < num_old) & (np.arange(len(labels)) % 2 == 0), labels, -1)


def double_heads(B: int, K: int, P: int, seed: int) -> Heads:
    rng = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(B, n, generator=rng, dtype=torch.float64) for n in (K, P, P)]
    return Heads(torch.tanh(drawn[0]), *(F.normalize(d, dim=-1) for d in drawn[1:]))


def test_a_batch_of_one_modality_is_simgcd_written_out() -> None:
    """Loops over samples; the temperatures and weights enter where the paper has them."""
    first, second = double_heads(6, 4, 5, 0), double_heads(6, 4, 5, 1)
    targets = torch.tensor([0, 1, -1, 0, -1, -1])
    config = DiscoveryConfig(supervised_weight=0.3, entropy_weight=2.0)
    log_prior = torch.full((4,), 0.25, dtype=torch.float64).log()
    terms = mm_gcd_terms(
        {"image": (first, second)},
        {"image": torch.ones(6, dtype=torch.bool)},
        targets,
        log_prior_K=log_prior,
        weights={"image": 1.0},
        progress=0.2,
        config=config,
    )
    cosines = [*first.cosines_BK, *second.cosines_BK]
    p = [(c / 0.1).softmax(0) for c in cosines]
    q = [(c / 0.055).softmax(0) for c in cosines]  # half of the way from 0.07 to 0.04
    own = -sum((q[(i + 6) % 12] * p[i].log()).sum() for i in range(12)) / 12
    mean = sum(p) / 12
    entropy = -(mean * mean.log()).sum()
    known = [i for i in range(12) if targets[i % 6] >= 0]
    cross_entropy = -sum(p[i][targets[i % 6]].log() for i in known) / len(known)
    assert terms["self_distillation"].item() == pytest.approx(0.7 * own.item())
    assert terms["prior_divergence"].item() == pytest.approx(0.7 * 2 * (np.log(4) - entropy.item()))
    assert terms["classification"].item() == pytest.approx(0.3 * cross_entropy.item())
    assert set(terms) == {
        "instance_contrast", "supervised_contrast", "self_distillation", "prior_divergence", "classification",
    }  # fmt: skip


def aligned(present: dict[str, Tensor], weights: dict[str, float]) -> tuple[dict[str, Tensor], dict]:
    heads = {
        name: (double_heads(6, 4, 5, 10 * i), double_heads(6, 4, 5, 10 * i + 1))
        for i, name in enumerate(("image", "text"))
    }
    terms = mm_gcd_terms(
        heads,
        present,
        torch.tensor([0, 1, -1, 0, -1, -1]),
        log_prior_K=torch.zeros(4, dtype=torch.float64),
        weights=weights,
        progress=1.0,
        config=DiscoveryConfig(feature_alignment=0.5, output_alignment=2.0),
    )
    return terms, heads


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.2, 0.8), (0.0, 1.0)])
def test_the_alignments_written_out(weights: tuple[float, float]) -> None:
    """Samples 1 and 4 lack the text, sample 2 the image: only 0, 3 and 5 can be aligned."""
    present = {name: torch.ones(6, dtype=torch.bool) for name in ("image", "text")}
    present["text"][[1, 4]], present["image"][2] = False, False
    weighted = dict(zip(("image", "text"), weights, strict=True))
    terms, heads = aligned(present, weighted)
    output = feature = 0.0
    for view in (0, 1):
        one, other = heads["image"][view], heads["text"][view]
        for i in (0, 3, 5):
            teacher = sum(weighted[n] * heads[n][1 - view].cosines_BK[i] for n in heads) / sum(weights)
            q = (teacher / 0.04).softmax(0)
            for name in heads:
                p = (heads[name][view].cosines_BK[i] / 0.1).softmax(0)
                output -= (q * p.log()).sum().item() / 3 / 2
            for mine, theirs in ((one, other), (other, one)):
                scores = torch.stack([mine.shared_BP[i] @ theirs.shared_BP[j] / 0.1 for j in (0, 3, 5)])
                feature -= scores.log_softmax(0)[(0, 3, 5).index(i)].item() / 3 / 2 / 2
    assert terms["output_alignment"].item() == pytest.approx(2 * output, rel=1e-7)
    assert terms["feature_alignment"].item() == pytest.approx(0.5 * feature)


def test_nothing_to_align_costs_nothing() -> None:
    alone = {"image": torch.arange(6) < 3, "text": torch.arange(6) >= 3}
    terms, _ = aligned(alone, {"image": 1.0, "text": 1.0})
    assert terms["output_alignment"] == terms["feature_alignment"] == 0


def test_fusion_is_a_mean_over_what_is_there() -> None:
    values = {"image": torch.tensor([[1.0], [1.0], [1.0]]), "text": torch.tensor([[5.0], [5.0], [5.0]])}
    present = {"image": torch.tensor([True, True, False]), "text": torch.tensor([True, False, True])}
    assert fuse(values, present, {"image": 1, "text": 3}).tolist() == [[4.0], [1.0], [5.0]]
    only_text = fuse(values, present, {"image": 0, "text": 1})
    assert only_text[:, 0].tolist() == pytest.approx([5.0, 1.0, 5.0]), (
        "weight 0 still decides where it is alone"
    )


def test_prototypes_are_paired_by_what_they_say() -> None:
    rng = torch.Generator().manual_seed(0)
    one = (3 * torch.randn(200, 5, generator=rng)).softmax(-1)
    renamed = [0, 1, 4, 2, 3]  # the place in the other branch of each prototype of the first one
    other = torch.empty_like(one)
    other[:, renamed] = one
    assert pair_prototypes(one, other, 2).tolist() == renamed


def test_a_branch_sees_directions_only() -> None:
    branch = Branch(torch.nn.Identity(), 6, 4).eval()
    heads = branch(torch.randn(9, 6))
    assert heads.cosines_BK.shape == (9, 4) and heads.cosines_BK.abs().max() <= 1 + 1e-6
    for projection in (heads.instance_BP, heads.shared_BP):
        torch.testing.assert_close(projection.norm(dim=-1), torch.ones(9))
    with torch.no_grad():
        branch.prototypes_KW *= 7
    torch.testing.assert_close(branch(torch.zeros(1, 6)).cosines_BK, branch(torch.zeros(1, 6)).cosines_BK)


def test_it_discovers_blobs_in_two_modalities(blobs: Callable) -> None:
    modalities, labels = blobs(spread=0.3)
    targets = half_labelled(labels, 3)
    trainer = DiscoveryTrainer(
        modalities, torch.from_numpy(targets), 6, dataclasses.replace(QUICK, epochs=30)
    )
    metrics = list(trainer)
    assert [m["epoch"] for m in metrics] == list(range(1, 31)) and metrics[-1]["loss"] < metrics[0]["loss"]
    parts = sum(value for name, value in metrics[3].items() if name not in ("epoch", "loss"))
    assert metrics[3]["loss"] == pytest.approx(parts, rel=1e-5)
    rows, prediction = targets < 0, trainer.predict()
    found = clustering_accuracy(prediction.fused_NK.argmax(1).numpy()[rows], labels[rows], labels[rows] < 3)
    assert found.old > 0.95 and found.new > 0.8
    torch.testing.assert_close(prediction.fused_NK.sum(1), torch.ones(len(labels)))
    assert trainer.embed().shape == (180, 256)


def test_a_resumed_training_ends_where_the_other_does(blobs: Callable) -> None:
    modalities, labels = blobs(K=4, each=20)
    arguments = (
        modalities,
        torch.from_numpy(half_labelled(labels, 2)),
        4,
        dataclasses.replace(QUICK, epochs=5),
    )
    whole = DiscoveryTrainer(*arguments, seed=3)
    last = list(whole)[-1]
    stopped = DiscoveryTrainer(*arguments, seed=3)
    for _ in range(2):
        stopped.epoch()
    state = stopped.state_dict()
    torch.manual_seed(99)  # of no consequence
    resumed = DiscoveryTrainer(*arguments, seed=3)
    resumed.load_state_dict(state)
    assert list(resumed)[-1] == last
    assert torch.equal(resumed.predict().fused_NK, whole.predict().fused_NK)
    other = DiscoveryTrainer(*arguments, seed=4)
    list(other)
    assert not torch.equal(other.predict().fused_NK, whole.predict().fused_NK)


def test_without_output_alignment_the_branches_are_paired_before_fusion(blobs: Callable) -> None:
    modalities, labels = blobs(spread=0.15)
    config = dataclasses.replace(QUICK, epochs=25, output_alignment=0.0, feature_alignment=0.0)
    trainer = DiscoveryTrainer(modalities, torch.from_numpy(half_labelled(labels, 2)), 6, config)
    list(trainer)
    prediction = trainer.predict()
    one, other = (p.argmax(1) for p in prediction.branches.values())
    assert (one == other).float().mean() > 0.7, "four new prototypes, in orders of their own before"


def test_a_sample_gets_its_category_from_the_branch_it_has(blobs: Callable) -> None:
    modalities, labels = blobs(spread=0.2)
    targets, N = half_labelled(labels, 3), len(labels)
    present = {"image": torch.arange(N) % 5 != 1, "text": torch.arange(N) % 5 != 3}
    partial = {
        name: FrozenViews(m.features_NVD * present[name][:, None, None], present[name])
        for name, m in modalities.items()
    }
    trainer = DiscoveryTrainer(partial, torch.from_numpy(targets), 6, dataclasses.replace(QUICK, epochs=30))
    list(trainer)
    prediction = trainer.predict()
    for name, other in (("image", "text"), ("text", "image")):
        alone = ~present[other]
        torch.testing.assert_close(prediction.fused_NK[alone], prediction.branches[name][alone])
    lacking, clusters = (~(present["image"] & present["text"])).numpy(), prediction.fused_NK.argmax(1).numpy()
    rows = lacking & (targets < 0)
    assert clustering_accuracy(clusters[rows], labels[rows], labels[rows] < 3).old > 0.8


def test_the_prior_moves_the_shares(blobs: Callable) -> None:
    modalities, labels = blobs(K=4, each=20, spread=2.0)
    targets = torch.from_numpy(half_labelled(labels, 1))
    prior = torch.tensor([0.7, 0.1, 0.1, 0.1])
    config = dataclasses.replace(QUICK, entropy_weight=20.0)
    shares = []
    for given in (None, prior):
        trainer = DiscoveryTrainer(modalities, targets, 4, config, prior_K=given)
        list(trainer)
        shares.append(trainer.predict().fused_NK.mean(0)[0].item())
    assert shares[0] == pytest.approx(0.25, abs=0.15) and shares[1] > shares[0] + 0.2


def test_what_cannot_be_trained_is_told(blobs: Callable) -> None:
    modalities, labels = blobs(K=3, each=10)
    targets = torch.from_numpy(half_labelled(labels, 2))
    with pytest.raises(ValueError, match="no sample is labelled"):
        DiscoveryTrainer(modalities, torch.full((30,), -1), 3)
    with pytest.raises(ValueError, match="num_categories 1: there are 2 old ones"):
        DiscoveryTrainer(modalities, targets, 1)
    with pytest.raises(ValueError, match="give 3 shares above 0"):
        DiscoveryTrainer(modalities, targets, 3, prior_K=torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="give one for each of image, text"):
        DiscoveryTrainer(modalities, targets, 3, weights={"image": 1.0})
    nothing = FrozenViews(modalities["image"].features_NVD, torch.arange(30) > 0)
    with pytest.raises(ValueError, match="none of the modalities"):
        DiscoveryTrainer({"image": nothing}, targets, 3)
    for name, value in (
        ("epochs", 0),
        ("supervised_weight", 1.5),
        ("entropy_weight", -1.0),
        ("teacher_end", 0.0),
    ):
        with pytest.raises(ValueError, match=name):
            DiscoveryConfig(**{name: value})


def test_a_training_that_diverges_stops_before_it_steps(
    blobs: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    modalities, labels = blobs(K=3, each=10)
    config = DiscoveryConfig(epochs=3, batch_size=15)
    trainer = DiscoveryTrainer(modalities, torch.from_numpy(half_labelled(labels, 2)), 3, config)
    trainer.epoch()
    before = [weight.clone() for weight in trainer.branches.parameters()]
    losses = trainer.losses
    monkeypatch.setattr(
        trainer, "losses", lambda *batch: {name: term / 0 for name, term in losses(*batch).items()}
    )
    with pytest.raises(ValueError, match="update 3 diverged: loss .*lower the learning rate"):
        trainer.epoch()
    assert all(map(torch.equal, before, trainer.branches.parameters()))


def test_features_have_to_be_finite() -> None:
    features_NVD = torch.zeros(4, 3, 2)
    features_NVD[2, 1, 0] = torch.nan
    with pytest.raises(ValueError, match="features of sample 2 are not finite"):
        FrozenViews(features_NVD, torch.ones(4, dtype=torch.bool))


def test_joined_features_stand_side_by_side(blobs: Callable) -> None:
    modalities, _ = blobs(K=2, each=5)
    modalities["text"].present_N[3] = False
    joined = join([*modalities.values()])
    rows = torch.tensor([0, 3])
    image, text = (m.clean(rows) for m in modalities.values())
    expected = torch.cat([image, text * torch.tensor([[1.0], [0.0]])], -1)
    assert torch.equal(joined.clean(rows), expected) and joined.present_N.all()


def test_views_differ_and_follow_from_the_seed(blobs: Callable) -> None:
    (modality, _), _ = blobs(views=2)[0].values(), None
    rows = torch.arange(50)
    first, second = modality.views(rows, torch.Generator().manual_seed(1))
    again = modality.views(rows, torch.Generator().manual_seed(1))
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    assert (first != second).any(1).all(), "two different views of each sample"
    for view in (first, second):
        assert ((view[:, None] == modality.features_NVD[:50, 1:]).all(-1)).any(1).all()


def test_encoders_learn_along_with_images_and_words() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(12)
    images = torch.rand(36, 3, 8, 8, generator=rng) * 0.3
    images[torch.arange(36), labels] += 0.6
    texts = [f"{('red', 'green', 'blue')[label]} thing {i % 4}" for i, label in enumerate(labels.tolist())]
    texts[5] = ""
    modalities = {
        "image": LiveImages(images, torch.ones(36, dtype=torch.bool), strong(mirror=True)),
        "text": LiveWords(texts),
    }
    assert modalities["text"].present_N.tolist() == [i != 5 for i in range(36)]
    targets = torch.where((labels < 2) & (torch.arange(36) % 2 == 0), labels, -1)
    trainer = DiscoveryTrainer(modalities, targets, 3, DiscoveryConfig(epochs=30, batch_size=18))
    before = {
        name: value.clone() for name, value in trainer.branches.state_dict().items() if "encoder" in name
    }
    list(trainer)
    after = trainer.branches.state_dict()
    assert all(not torch.equal(value, after[name]) for name, value in before.items() if value.ndim > 1)
    rows = (targets < 0).numpy()
    clusters = trainer.predict().fused_NK.argmax(1).numpy()
    assert clustering_accuracy(clusters[rows], labels.numpy()[rows], labels.numpy()[rows] < 2).all > 0.7


def test_a_text_keeps_at_least_one_word() -> None:
    words = LiveWords(["one", "one two three four five six", ""], dropped=0.9)
    rows, rng = torch.tensor([0, 1, 2] * 50), torch.Generator().manual_seed(0)
    for view in words.views(rows, rng):
        kept = (view > 0).sum(1).reshape(50, 3)
        assert (kept[:, 0] == 1).all() and (kept[:, 1] >= 1).all() and (kept[:, 2] == 0).all()
        assert 1 <= kept[:, 1].float().mean() < 3


def test_modalities_move(blobs: Callable) -> None:
    modality = blobs(K=2, each=3)[0]["image"]
    for one in (
        modality,
        LiveWords(["a b", "c"]),
        LiveImages(torch.rand(2, 1, 8, 8), torch.ones(2) > 0, strong(False)),
    ):
        moved = one.to("meta")
        assert moved.present_N.device.type == "meta" and one.present_N.device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
def test_it_trains_on_a_gpu(blobs: Callable) -> None:
    modalities, labels = blobs()
    targets = torch.from_numpy(half_labelled(labels, 3))
    moved = {name: m.to("cuda") for name, m in modalities.items()}
    trainer = DiscoveryTrainer(moved, targets.to("cuda"), 6, QUICK)
    list(trainer)
    assert trainer.predict().fused_NK.device.type == "cuda" and trainer.embed().isfinite().all()
