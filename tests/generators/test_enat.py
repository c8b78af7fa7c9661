"""ENAT against the recorded official network; its ragged batches against rows run alone; its cost counted."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from generators.checkpoints import from_pretrained, save_pretrained
from generators.conditions import Labels
from generators.decoding import DecodeState, advance, start
from generators.enat import ENAT, Reuse, enat_b, enat_digits, enat_l, enat_s
from generators.masking import masked_cross_entropy
from generators.noise import HashNoise
from generators.packing import Packing
from generators.rules import DecodeRules
from generators.schedules import DecodeParams, reference
from generators.weights import convert
from rounding import GOLDEN, assert_rounded

B, L, MASK = 7, 16, 128


def state_dict(tensors: dict[str, Tensor], prefix: str = "sd.") -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def official_enat(official: dict[str, Tensor], kwargs: dict[str, Any]) -> ENAT:
    converted = convert(official, heads=kwargs["num_heads"], decoder_depth=kwargs["enc_dec"][1])
    config, grid = converted.config, (kwargs["input_size"],) * 2
    assert (config.grid, config.width, config.encoder_depth) == (
        grid,
        kwargs["hidden_size"],
        kwargs["enc_dec"][0],
    )
    assert (config.codebook_size, config.num_classes) == (kwargs["codebook_size"], kwargs["num_classes"])
    model = converted.build()
    assert isinstance(model, ENAT)
    return model


def scaled_enat(**overrides: Any) -> ENAT:
    """A small ENAT with nothing at zero and logits that spread as if trained."""
    torch.manual_seed(0)
    model = ENAT(enat_digits(**overrides)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model


@pytest.fixture(scope="module", params=[True, False], ids=["reproject", "once"])
def model(request: Any) -> ENAT:
    return scaled_enat(reproject=request.param)


def ragged_ids(num_rows: int = B, *, seed: int = 0) -> Tensor:
    """Rows with 0, 1, some and all tokens masked."""
    generator = torch.Generator().manual_seed(seed)
    ids_BL = torch.randint(MASK, (num_rows, L), generator=generator)
    counts_B = torch.tensor([0, 1, L, 3, 8, 15, 11])[:num_rows]
    order_BL = torch.rand(num_rows, L, generator=generator).argsort(1)
    return ids_BL.masked_fill(order_BL < counts_B[:, None], MASK)


def labels(num_rows: int = B) -> Labels:
    return Labels(torch.arange(num_rows) % 11, 10)


class Before:
    """What enters the final norm: the features that the official code returns."""

    def __init__(self, model: ENAT) -> None:
        self.features_BLD = torch.empty(0)
        model.norm.register_forward_pre_hook(lambda _, inputs: setattr(self, "features_BLD", inputs[0]))


@pytest.mark.golden
def test_recorded_logits_and_features(golden: Any) -> None:
    """Without a former state, with one, with an all-masked one, with nothing new, and in a chain."""
    tensors, meta = golden("enat_tiny")
    model = official_enat(state_dict(tensors), meta["kwargs"])
    before, condition = Before(model), Labels(tensors["in.context"][:, 0], meta["uncond_class"])
    dead = sum(tensors[key].numel() for key in tensors if key.startswith("sd.prev_embedder."))
    assert sum(parameter.numel() for parameter in model.parameters()) + dead == meta["n_parameters"]

    def run(case: str, cache: Any = None) -> Any:
        with torch.no_grad():
            prediction = model(tensors[f"{case}.ids"], condition, cache)
        for found, name in ((prediction.logits_BLV, "logits"), (before.features_BLD, "feat")):
            torch.testing.assert_close(found, tensors[f"{case}.{name}"], **GOLDEN, msg=case)
        assert torch.equal(~prediction.cache.visible_BL, tensors[f"{case}.masking"])
        return prediction.cache

    for case in (case for case in meta["cases"] if case.startswith("noprev")):
        run(case)
    for name in ("reuse", "full", "same"):
        run(f"{name}_cur", run(f"{name}_prev"))
    cache = None
    for index in range(len(meta["chain_counts"])):
        cache = run(f"chain{index}", cache)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["loss_noreuse", "loss_reuse"])
def test_recorded_loss_and_gradients(golden: Any, case: str) -> None:
    tensors, meta = golden("enat_tiny")
    official = state_dict(tensors)
    model = official_enat(official, meta["kwargs"]).requires_grad_()
    condition, cache = Labels(tensors["in.context"][:, 0], meta["uncond_class"]), None
    if f"{case}.prev_ids" in tensors:
        with torch.no_grad():
            cache = model(tensors[f"{case}.prev_ids"], condition).cache
    logits_BLV = model(tensors[f"{case}.ids"], condition, cache).logits_BLV
    loss = masked_cross_entropy(logits_BLV, tensors[f"{case}.labels"], meta["smoothing"])
    assert_rounded(loss, tensors[f"{case}.loss"])
    loss.backward()
    form = convert(official, heads=1, decoder_depth=1).format
    found = {form.official(name): parameter.grad for name, parameter in model.named_parameters()}
    for key, gradient in state_dict(tensors, f"grad.{case}.").items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[key], gradient, atol=1e-4 * scale, rtol=1e-4, msg=key)
    norms = meta["cases"][f"{case}_grad_norms"]
    assert set(found) == {key for key in norms if not key.startswith("prev_embedder.")}
    for key, gradient in found.items():
        if norms[key] is None:
            assert gradient is None or not gradient.any(), key
        else:
            assert float(gradient.norm()) == pytest.approx(norms[key], rel=1e-4), key


def test_ragged_rows_are_rows_alone(model: ENAT) -> None:
    """Any mask per row, with what was computed at an earlier state of each row, in one batch."""
    now_BL, condition = ragged_ids(), labels()
    hide = torch.rand(B, L, generator=torch.Generator().manual_seed(1)) < torch.linspace(0, 1, B)[:, None]
    before_BL = now_BL.masked_fill(hide, MASK)
    with torch.no_grad():
        cache = model(before_BL, condition).cache
        batched = model(now_BL, condition, cache)
        again = model(now_BL, condition, batched.cache)
        for row in range(B):
            only = torch.tensor([row])
            alone = model(before_BL[only], condition[only])
            alone = model(now_BL[only], condition[only], alone.cache)
            repeated = model(now_BL[only], condition[only], alone.cache)
            for one, many in ((alone, batched), (repeated, again)):
                assert_rounded(one.logits_BLV[0], many.logits_BLV[row])
                assert_rounded(one.features_BLD[0], many.features_BLD[row])
        order = torch.randperm(B, generator=torch.Generator().manual_seed(2))
        shuffled = model(now_BL[order], condition[order], cache[order])
    assert_rounded(shuffled.features_BLD, batched.features_BLD[order])


def random_tables(steps: int, num_rows: int) -> Tensor:
    """Decoding parameters (T, B, 4) of every row its own; a third of the rows is not guided."""
    table = torch.rand(steps, num_rows, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ratio, scale = table[..., 0], (3 * table[..., 3] - 1).clamp_min(0)
    return torch.stack([ratio, 2 * table[..., 1], 0.5 + table[..., 2], scale], dim=-1)


def decode(model: Any, tables_TB4: Tensor, rows: list[int], **options: Any) -> list[DecodeState]:
    noise = HashNoise(100 + torch.tensor(rows))
    states = [start(model, labels(tables_TB4.shape[1])[rows], steps=len(tables_TB4))]
    for table_B4 in tables_TB4[:, rows]:
        states.append(advance(model, states[-1], DecodeParams.from_table(table_B4), noise, **options))
    return states


@pytest.mark.parametrize("min_reveal", [0, 1])
def test_ragged_decoding_is_one_by_one(model: ENAT, min_reveal: int) -> None:
    """Own ratios, temperatures and guidance per row, both streams reusing: same tokens, same features."""
    tables = random_tables(6, B)
    rules = DecodeRules(min_reveal=min_reveal)
    together = decode(model, tables, list(range(B)), rules=rules)
    counts_TB = torch.stack([state.masked_B for state in together])
    assert (counts_TB[1:-1].unique(dim=1).shape[1]) > 1, "rows differ in their counts"
    for row in range(B):
        for many, one in zip(together, decode(model, tables, [row], rules=rules), strict=True):
            assert torch.equal(many.ids_BL[row], one.ids_BL[0])
            assert many.nfe_B[row] == one.nfe_B[0]
            if many.prediction is not None and one.prediction is not None:
                features = many.prediction.features_BLD[row], one.prediction.features_BLD[0]
                assert_rounded(*features)


def test_kept_features_are_projected_once_or_at_every_step() -> None:
    """The two readings agree as long as nothing is reused twice, and part afterwards."""
    chain, once = scaled_enat(), scaled_enat(reproject=False)
    ids_BL = ragged_ids()[3:]
    hidden = [ids_BL.masked_fill(torch.arange(L) < n, MASK) for n in (14, 8, 4)]
    caches: list[Any] = [None, None]
    with torch.no_grad():
        for index, now_BL in enumerate(hidden):
            answers = [m(now_BL, labels(4), cache) for m, cache in zip((chain, once), caches, strict=True)]
            caches = [answer.cache for answer in answers]
            difference = (answers[0].logits_BLV - answers[1].logits_BLV).abs().max()
            assert (difference > 1e-3) if index == 2 else (difference == 0)
        visible = hidden[0] != MASK
        first = once(hidden[0], labels(4)).cache.features_BLD[visible]
    assert torch.equal(caches[1].features_BLD[visible], first), "what the encoder said is kept as it was"


def test_gradients_of_a_ragged_batch_are_finite_and_its_rows_sum() -> None:
    model = scaled_enat(dropout=0.0)
    ids_BL, condition = ragged_ids(), labels()
    weight_BLV = torch.randn(B, L, 128, generator=torch.Generator().manual_seed(4))
    (model(ids_BL, condition).logits_BLV * weight_BLV).sum().backward()
    found = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    model.zero_grad(set_to_none=True)
    for row in range(B):
        only = torch.tensor([row])
        (model(ids_BL[only], condition[only]).logits_BLV * weight_BLV[only]).sum().backward()
    for name, parameter in model.named_parameters():
        if name in found:
            assert found[name].isfinite().all(), name
            scale = float(found[name].abs().max())
            torch.testing.assert_close(parameter.grad, found[name], atol=1e-4 * scale, rtol=1e-3, msg=name)


@pytest.mark.parametrize("counts", [[2, 0, 3], [2, 2, 2], [0, 0, 0], [0, 0, 4]])
def test_packing(counts: list[int]) -> None:
    chosen_BL = torch.arange(4).flip(0) < torch.tensor(counts)[:, None]
    x_BLD = torch.arange(1.0, 25).view(3, 4, 2)
    packing = Packing.of(chosen_BL, ~chosen_BL)[0]
    packed = packing.pack(x_BLD)
    assert torch.equal(packed.flatten(0, 1), x_BLD[chosen_BL])
    padded, longest = packing.pad(packed), max(counts)
    for row, count in enumerate(counts):
        assert torch.equal(padded[row, :count], x_BLD[row][chosen_BL[row]])
        assert not padded[row, count:].any() and packing.real_BM[row].tolist() == [True] * count + [False] * (
            longest - count
        )
    assert torch.equal(packing.unpad(padded), packed)
    assert torch.equal(packing.unpack(packed, torch.zeros(3, 4, 2)), x_BLD * chosen_BL[..., None])
    spread = packing.spread(torch.tensor([[1.0], [2.0], [3.0]])).expand(*packed.shape[:2], 1)
    assert spread.flatten().tolist() == [row + 1.0 for row, count in enumerate(counts) for _ in range(count)]


def test_a_cache_of_rows() -> None:
    visible_BL = torch.tensor([[True, False], [False, False], [True, True]])
    cache = Reuse(torch.arange(12.0).view(3, 2, 2), visible_BL, visible_BL.sum(1))
    rows = torch.tensor([2, 0])
    assert torch.equal(cache[rows].features_BLD, cache.features_BLD[rows])
    assert cache[rows].visible_B.tolist() == [2, 1]
    other = ~cache[rows].visible_BL
    changed = cache.put(rows, Reuse(-cache[rows].features_BLD, other, other.sum(1)))
    assert torch.equal(changed.features_BLD[[0, 2]], -cache.features_BLD[[0, 2]])
    assert torch.equal(changed.features_BLD[1], cache.features_BLD[1])
    assert changed.visible_BL.tolist() == [[False, True], [False, False], [False, False]]
    assert changed.visible_B.tolist() == [1, 0, 0]


def test_sizes_told_and_sizes_counted_are_the_same(model: ENAT) -> None:
    """Over a pass and a later one, ragged, with and without a record of the first."""
    first, condition = ragged_ids(), labels()
    later = torch.where(torch.arange(L) < 9, first % MASK, first)  # more is visible
    with torch.no_grad():
        counted = model(first, condition)
        told = model(first, condition, None, (first == MASK).sum(1))
        again = model(later, condition, counted.cache)
        told_again = model(later, condition, told.cache, (later == MASK).sum(1))
    for one, two in ((counted, told), (again, told_again)):
        assert torch.equal(one.logits_BLV, two.logits_BLV)
        assert torch.equal(one.cache.features_BLD, two.cache.features_BLD)
        assert one.cache.visible_B.tolist() == two.cache.visible_B.tolist()


def test_sizes_and_files(tmp_path: Any) -> None:
    def parameters(config: Any) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in ENAT(config).parameters())

    dead = 2 * 4 * 1024**2 + 5 * 1024  # the official file holds two layers that it never uses
    assert parameters(enat_l()) + dead == 574_298_113
    assert parameters(enat_l(grid=(32, 32))) + dead == 575_084_545
    assert parameters(enat_b()) == pytest.approx(219e6, rel=0.03)  # the paper counts the dead ones
    assert parameters(enat_s()) < parameters(enat_b()) / 4
    model = scaled_enat()
    save_pretrained(model, tmp_path / "enat")
    loaded: Any = from_pretrained(tmp_path / "enat")
    with torch.no_grad():
        answers = [m(ragged_ids(), labels()).logits_BLV for m in (model, loaded)]
    assert torch.equal(*answers) and loaded.config == model.config
    assert model.conditions().values.tolist() == list(range(10))
    with pytest.raises(ValueError, match="width 10 is not divisible by heads 4"):
        ENAT(enat_digits(width=10))


def zeros_enat(config: Any) -> ENAT:
    """All weights zero: what is computed does not matter to what it costs."""
    with torch.device("meta"):
        model = ENAT(config)
    return model.to_empty(device="cpu").requires_grad_(False).apply(_zero).eval()


def _zero(module: torch.nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.zero_()


class ZeroProducts(TorchDispatchMode):
    """Return what matrix products of zeros are, without taking them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        if func not in (aten.mm.default, aten.addmm.default, aten.bmm.default):
            return func(*args, **(kwargs or {}))
        left, right = args[-2:]
        return left.new_zeros(*left.shape[:-1], right.shape[-1])


def gflop_per_image(model: Any, ratios_TB: Tensor) -> float:
    steps, rows = ratios_TB.shape
    schedule = reference(steps)
    # Only the plain form of attention is counted on a CPU. Products are counted before they are left out.
    with sdpa_kernel(SDPBackend.MATH), ZeroProducts(), FlopCounterMode(display=False) as counter:
        state = start(model, labels(rows), steps=steps)
        for step, ratio_B in enumerate(ratios_TB):
            params = schedule.params(step, rows)._replace(mask_ratio=ratio_B)
            state = advance(model, state, params, HashNoise.from_seed(0, rows))
    return counter.get_total_flops() / rows / 1e9


@pytest.mark.slow
def test_cost_at_the_official_geometry() -> None:
    """Two blocks of the 24, counted as one encoder and one decoder block at L width; the law is linear in
    both, so that the whole network's count follows from three small ones."""
    steps, rows = 8, 3
    cosine_T = reference(steps).table_T4[:, 0]
    factors_B = 0.7 + 0.6 * torch.rand(rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    equal_TB = cosine_T[:, None]
    ragged_TB = (equal_TB * factors_B).clamp(0, 1)

    def whole(ratios_TB: Tensor) -> float:
        counts = {}
        for depths in ((1, 1), (2, 1), (1, 2)):
            config = enat_l(encoder_depth=depths[0], decoder_depth=depths[1], num_classes=10)
            counts[depths] = gflop_per_image(zeros_enat(config), ratios_TB)
        base = counts[1, 1]
        return base + 21 * (counts[2, 1] - base) + (counts[1, 2] - base)

    equal, ragged = whole(equal_TB), whole(ragged_TB)
    assert equal <= 493, equal
    assert ragged <= 1.25 * equal, (ragged, equal)
    assert equal > 490, "everything was counted"
