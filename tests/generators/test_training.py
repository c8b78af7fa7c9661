"""The generator's training: resumed exactly, and each part of the recipe against a slow recomputation."""

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from generators.checkpoints import load_state, save_state
from generators.conditions import Labels
from generators.contract import Prediction
from generators.enat import ENAT, enat_digits
from generators.live_bytes import LiveBytes
from generators.masking import MaskLaw
from generators.nat import NAT, nat_digits
from generators.texts import Text
from generators.training import Trainer, TrainingConfig, small_recipe
from rounding import assert_rounded

SMALL = small_recipe(updates=6, batch_size=8, warmup=2, label_smoothing=0.1, ema=0.9)


def tokens(num_pictures: int = 20) -> Tensor:
    return torch.randint(128, (num_pictures, 16), generator=torch.Generator().manual_seed(0))


def trainer(config: TrainingConfig = SMALL, *, seed: int = 0, **sizes: Any) -> Trainer:
    torch.manual_seed(seed)
    model = NAT(nat_digits(width=16, heads=2, **sizes))
    return Trainer(model, tokens(), Labels(torch.arange(20) % 10, 10), config)


def weights(module: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_a_resumed_training_is_exact(tmp_path: Path) -> None:
    """6 updates equal 3, a file and 3 more, bit for bit: dropout, moments, average and counter included."""
    straight = trainer()
    expected = list(straight)
    first = trainer()
    metrics = [first.update() for _ in range(3)]
    save_state(tmp_path / "state.pt", first.state_dict())
    resumed = trainer(seed=1)
    resumed.load_state_dict(load_state(tmp_path / "state.pt"))
    torch.manual_seed(99)  # nothing depends on the global state
    metrics += list(resumed)
    assert metrics == expected and [row["update"] for row in metrics] == list(range(1, 7))
    for name in ("generator", "ema"):
        assert torch.equal(weights(getattr(resumed, name)), weights(getattr(straight, name)))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_classes_are_learned_from_at_a_power_of_their_shares(power: float) -> None:
    """Of classes with 16, 3 and 1 images, over 500 batches, within five standard deviations."""
    labels_N = torch.tensor([0] * 16 + [1] * 3 + [2])
    config = dataclasses.replace(SMALL, class_power=power, batch_size=64, label_dropout=0.0)
    learner = Trainer(NAT(nat_digits(width=16, heads=2)), tokens(), Labels(labels_N, 10), config)
    drawn = [learner._batch(np.random.default_rng(seed)).condition.values for seed in range(500)]
    counts = torch.cat(drawn).bincount(minlength=3)
    weights_3 = np.array([16, 3, 1]) ** power
    for count, share in zip(counts.tolist(), weights_3 / weights_3.sum(), strict=True):
        total = 500 * 64
        assert abs(count - total * share) < 5 * math.sqrt(total * share * (1 - share))
    if power == 1:  # the draws of before there was a choice
        plain = trainer(dataclasses.replace(config))
        rows = np.random.default_rng(3).integers(20, size=64)
        assert torch.equal(
            plain._batch(np.random.default_rng(3)).condition.values, torch.from_numpy(rows % 10)
        )


def test_a_training_that_diverges_stops_before_it_harms_the_weights() -> None:
    learner = trainer(dataclasses.replace(SMALL, learning_rate=1e30, warmup=1))
    with pytest.raises(ValueError, match=r"update \d diverged: loss .*, learning rate 1e\+30; .* lower"):
        list(learner)
    before, broken = trainer(), trainer()
    next(parameter for parameter in broken.generator.parameters()).data[:] = 1e38
    kept = weights(broken.generator).clone()
    with pytest.raises(ValueError, match="update 1 diverged"):
        broken.update()
    assert torch.equal(weights(broken.generator), kept) and before.update()["loss"] > 0


@pytest.mark.parametrize("wrong", [{"learning_rate": math.inf}, {"ema": math.nan}, {"weight_decay": -1.0}])
def test_settings_that_are_no_numbers_are_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} .*: it must be a (finite )?number"):
        dataclasses.replace(SMALL, **wrong)


def test_seeds_differ_and_the_global_state_is_left_alone() -> None:
    runs = [trainer(dataclasses.replace(SMALL, seed=seed)) for seed in (0, 0, 1)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    losses = [[row["loss"] for row in run] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_it_learns() -> None:
    """Two images, learnt by heart: the loss falls from that of a uniform guess, and every guess is right."""
    torch.manual_seed(0)
    model = NAT(nat_digits(width=32, dropout=0.0))
    config = small_recipe(updates=150, batch_size=32, warmup=10, learning_rate=1e-2, label_dropout=0)
    metrics = list(Trainer(model, tokens(2), Labels(torch.arange(2), 10), config))
    assert metrics[0]["loss"] == pytest.approx(math.log(128), rel=0.1)
    assert metrics[-1]["loss"] < 1.5 and metrics[-1]["accuracy"] > 0.98


def test_the_average_follows_its_recursion() -> None:
    """It starts at the initial weights."""
    run = trainer()
    expected = weights(run.generator)
    for _ in run:
        expected = 0.9 * expected + 0.1 * weights(run.generator)
    assert_rounded(weights(run.ema), expected)
    assert not run.ema.training and not torch.equal(weights(run.ema), weights(run.generator))


@pytest.mark.parametrize("decay", ["cosine", "constant"])
def test_learning_rate(decay: Any) -> None:
    config = dataclasses.replace(SMALL, updates=6, warmup=2, decay=decay, learning_rate=1.0, batch_size=1)
    cosine = [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    expected = [0.5, 1.0, *(cosine if decay == "cosine" else [1.0] * 4)]
    assert [row["learning_rate"] for row in trainer(config)] == pytest.approx(expected)


def test_one_update_is_one_adamw_step_on_the_masked_loss() -> None:
    """The same batch by hand, in a network without dropout."""
    run = trainer(dropout=0.0)
    model, seen = copy.deepcopy(run.generator), Spy(run).batches
    metrics = run.update()
    ids_BL, labels_BL, condition, _ = seen[0]
    logits_BLV = model(ids_BL, condition).logits_BLV
    hidden_BL = ids_BL == model.mask_id
    loss = F.cross_entropy(logits_BLV[hidden_BL], labels_BL[hidden_BL], label_smoothing=0.1)
    loss.backward()
    options: dict[str, Any] = dict(betas=SMALL.betas, weight_decay=SMALL.weight_decay)
    torch.optim.AdamW(model.parameters(), SMALL.learning_rate / 2, **options).step()
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert trainer(dropout=0.9).update()["loss"] != metrics["loss"], "dropout is on"
    right = logits_BLV.argmax(-1)[hidden_BL] == labels_BL[hidden_BL]
    assert metrics["accuracy"] == pytest.approx(right.float().mean().item())
    assert_rounded(weights(run.generator), weights(model))


class Spy:
    """Record what a trainer draws."""

    def __init__(self, run: Trainer) -> None:
        self.batches: list[Any] = []
        draw = run._batch

        def watched(rng: Any) -> Any:
            self.batches.append(draw(rng))
            return self.batches[-1]

        run._batch = watched  # type: ignore[method-assign]


class Flat(torch.nn.Module):
    """The cheapest generator, to draw many batches."""

    mask_id = 128

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(128))

    def forward(self, ids_BL: Tensor, condition: Any) -> Prediction:
        logits_BLV = self.logits.expand(*ids_BL.shape, -1)
        return Prediction(logits_BLV, logits_BLV)


def drawn(config: TrainingConfig, condition: Any) -> tuple[Tensor, Tensor, Any, Tensor]:
    """Return ids, labels and conditions of all updates, and the rows of the training set they came from."""
    run = Trainer(Flat(), tokens(), condition, config)
    spy = Spy(run)
    list(run)
    ids_BL, labels_BL = (torch.cat([batch[index] for batch in spy.batches]) for index in (0, 1))
    originals_BL = torch.where(ids_BL == Flat.mask_id, labels_BL, ids_BL)
    same_BN = (originals_BL[:, None] == tokens()).all(-1)
    assert (same_BN.sum(1) == 1).all(), "every image is one of the training set, hidden tokens restored"
    return (
        ids_BL,
        labels_BL,
        type(condition).cat([batch[2] for batch in spy.batches]),
        same_BN.int().argmax(1),
    )


def test_what_a_training_draws() -> None:
    """Images equally often, the share of null labels, the law of the mask ratio, labels where hidden."""
    config = TrainingConfig(
        updates=60, batch_size=100, label_dropout=0.3, mask_law=MaskLaw("beta", 12.0, 3.0)
    )
    n, condition = 6000, Labels(torch.arange(20) % 10, 10)
    ids_BL, labels_BL, conditions, rows_B = drawn(config, condition)
    null_B = conditions.values == 10
    assert float(null_B.float().mean()) == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / n))
    assert torch.equal(conditions.values[~null_B], condition.values[rows_B[~null_B]])
    assert rows_B.bincount().sub(n / 20).abs().max() < 5 * math.sqrt(n / 20)
    hidden_BL = ids_BL == Flat.mask_id
    assert torch.equal(hidden_BL, labels_BL != -1)
    assert float(hidden_BL.float().mean()) == pytest.approx(0.8, abs=0.01)
    shares_L, shares_B = hidden_BL.float().mean(0), hidden_BL.float().mean(1)
    assert shares_L.sub(0.8).abs().max() < 0.03, "every position alike"
    given_null, given_label = shares_B[null_B].mean(), shares_B[~null_B].mean()
    assert given_null - given_label == pytest.approx(0, abs=0.02), "drawn apart"


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (1.0, True)])
def test_texts_are_dropped_like_labels(share: float, expected: bool) -> None:
    embeddings = torch.randn(20, 2, 3, generator=torch.Generator().manual_seed(0))
    condition = Text.of(embeddings, torch.zeros(2, 3), tuple(map(str, range(20))))
    config = TrainingConfig(updates=2, batch_size=50, label_dropout=share)
    _, _, conditions, rows_B = drawn(config, condition)
    assert (conditions.values == 0).all().item() is expected
    assert conditions.names == ([""] * 100 if expected else condition[rows_B].names)


def test_pictures_and_conditions_go_together() -> None:
    with pytest.raises(ValueError, match="20 token grids but 3 conditions"):
        Trainer(Flat(), tokens(), Labels(torch.arange(3), 10), SMALL)


def enat_trainer(config: TrainingConfig, *, dropout: float = 0.1) -> Trainer:
    torch.manual_seed(0)
    model = ENAT(enat_digits(width=16, heads=2, encoder_depth=2, dropout=dropout))
    for parameter in model.parameters():  # modulations start at zero, where no context is seen
        torch.nn.init.normal_(parameter, std=0.2)
    return Trainer(model, tokens(), Labels(torch.arange(20) % 10, 10), config)


REUSE = dataclasses.replace(SMALL, batch_size=400, reuse=0.5, mask_law=MaskLaw("beta", 2.0, 2.0))


def test_an_earlier_state_of_each_picture() -> None:
    """Half of the images have one with a uniform share of their visible tokens, the others show nothing."""
    run = enat_trainer(dataclasses.replace(REUSE, batch_size=4000))
    ids_BL, _, _, earlier_BL = run._batch(np.random.default_rng(0))
    visible_BL, before_BL = ids_BL != 128, earlier_BL != 128
    assert not (before_BL & ~visible_BL).any() and torch.equal(earlier_BL[before_BL], ids_BL[before_BL])
    many_B = visible_BL.sum(1) >= 10
    shares_B = (before_BL.sum(1) / visible_BL.sum(1))[many_B]
    n = len(shares_B)
    # Rounding puts half a token's share of the uniform law, at most 1/20, on nothing being left.
    assert float((shares_B == 0).float().mean()) == pytest.approx(0.5 + 0.25 / 12, abs=0.03)
    kept = shares_B[shares_B > 0]
    assert float(kept.mean()) == pytest.approx(0.5, abs=0.05) and kept.max() == 1
    given = before_BL[many_B].float().mean(0)
    assert given.sub(given.mean()).abs().max() < 5 * math.sqrt(0.25 / n), "every position alike"


def test_one_update_with_reuse_by_hand() -> None:
    """The averaged network looks at the earlier state, without gradient; the loss is on the present one."""
    run = enat_trainer(dataclasses.replace(REUSE, batch_size=12), dropout=0.0)
    run.update()  # so that average and weights differ
    model, average, seen = copy.deepcopy(run.generator), copy.deepcopy(run.ema), Spy(run).batches
    metrics = run.update()
    ids_BL, labels_BL, condition, earlier_BL = seen[0]
    cache = average(earlier_BL, condition).cache
    cache = dataclasses.replace(cache, features_BLD=cache.features_BLD.detach())
    logits_BLV = model(ids_BL, condition, cache).logits_BLV
    hidden_BL = labels_BL != -1
    loss = F.cross_entropy(logits_BLV[hidden_BL], labels_BL[hidden_BL], label_smoothing=0.1)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    plain = model(ids_BL, condition).logits_BLV[hidden_BL]
    assert (plain - logits_BLV[hidden_BL]).abs().max() > 0.01, "reuse changes the prediction"
    loss.backward()
    assert model.reuse_projection.mlp.fc1.weight.grad.abs().max() > 0
    norms = {name: parameter.grad for name, parameter in run.generator.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(norms[name], parameter.grad, atol=1e-6, rtol=1e-3, msg=name)


def test_a_shared_mask_is_the_official_one() -> None:
    """One number of hidden tokens per batch, one token visible at least, all of the batch reusing or none."""
    run = enat_trainer(dataclasses.replace(REUSE, shared_mask=True, mask_law=MaskLaw("beta", 12.0, 0.5)))
    reused = set()
    for seed in range(20):
        ids_BL, _, _, earlier_BL = run._batch(np.random.default_rng(seed))
        hidden_B, before_B = (ids_BL == 128).sum(1), (earlier_BL == 128).sum(1)
        assert hidden_B.unique().numel() == before_B.unique().numel() == 1 and hidden_B[0] <= 15
        reused.add(bool(before_B[0] < 16))
    assert reused == {True, False}


def test_a_generator_that_reuses_nothing_says_so() -> None:
    with pytest.raises(ValueError, match="reuse 0.5: NAT reuses nothing; set it to 0"):
        trainer(dataclasses.replace(SMALL, reuse=0.5))
    with pytest.raises(ValueError, match="reuse 1.5: it is a share"):
        dataclasses.replace(SMALL, reuse=1.5)


def test_bfloat16_learns_in_float32_weights() -> None:
    run = trainer(dataclasses.replace(SMALL, precision="bfloat16"))
    losses = [row["loss"] for row in run]
    assert all(math.isfinite(loss) for loss in losses) and weights(run.generator).dtype == torch.float32
    exact = [row["loss"] for row in trainer()]
    assert losses != exact and losses == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("name", ["nat", "enat"])
def test_recomputing_takes_less_and_learns_the_same(name: str) -> None:
    """Dropout included, of which there is none within blocks, and of ENAT reuse."""

    def run(recompute: bool) -> tuple[list[dict[str, float]], Tensor, int]:
        config = dataclasses.replace(SMALL, batch_size=64, recompute=recompute)
        made = trainer(config) if name == "nat" else enat_trainer(dataclasses.replace(config, reuse=0.5))
        made.update()  # which makes Adam's moments
        with LiveBytes() as memory:
            rows = list(made)
        return rows, weights(made.ema), memory.peak

    (expected, kept, most), (found, again, peak) = run(False), run(True)
    assert found == expected and torch.equal(again, kept)
    assert peak < 0.7 * most


def _without_dropout() -> dict[str, Trainer]:
    enat = enat_trainer(dataclasses.replace(REUSE, batch_size=12), dropout=0.0)
    return {"nat": trainer(SMALL, dropout=0.0), "enat": enat}


def _rank(rank: int, ranks: int, folder: str) -> None:
    """One of several processes that train together."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=ranks)
    for name, run in _without_dropout().items():
        rows = list(run)
        if rank == ranks - 1:
            torch.save({"rows": rows, "weights": weights(run.ema)}, f"{folder}/{name}.pt")
    dist.barrier()  # gloo's threads abort a process that leaves while another still talks to it
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes come to, one after the other for each generator: they take seconds to start."""
    folder = tmp_path_factory.mktemp("ranked")
    torch.multiprocessing.spawn(_rank, (2, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("name", ["nat", "enat"])
def test_two_ranks_train_as_one(ranked: Path, name: str) -> None:
    one = _without_dropout()[name]
    expected = list(one)
    together = torch.load(ranked / f"{name}.pt", weights_only=True)
    for row, other in zip(expected, together["rows"], strict=True):
        assert other == pytest.approx(row, rel=1e-4)
    torch.testing.assert_close(together["weights"], weights(one.ema), atol=1e-4, rtol=1e-3)
