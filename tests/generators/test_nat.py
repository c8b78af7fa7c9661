"""NAT against the recorded official network."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from generators.conditions import Condition, Labels
from generators.formats import NAT_FORMAT
from generators.layers import gelu, plus
from generators.masking import masked_cross_entropy
from generators.nat import NAT, NATConfig, nat_digits, nat_l, nat_sudoku_4
from generators.texts import Text
from generators.weights import convert
from rounding import GOLDEN, UNIT_OF_DOUBLE, assert_rounded

RECORDED = ["nat_tiny", "nat_tiny_noskip", "nat_tiny_t2i"]


def state_dict(tensors: dict[str, Tensor], prefix: str = "sd.") -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def official_nat(official: dict[str, Tensor], kwargs: dict[str, Any]) -> NAT:
    """Build the network behind official weights; the constructor arguments only confirm what shapes tell."""
    converted = convert(official, grid=(kwargs["img_size"],) * 2, heads=kwargs["num_heads"])
    config = converted.config
    assert (config.width, config.depth) == (kwargs["embed_dim"], kwargs["depth"])
    assert (config.skip, config.qkv_bias) == (kwargs["skip"], kwargs["qkv_bias"])
    assert (config.codebook_size, config.mlp_ratio) == (kwargs["codebook_size"], kwargs["mlp_ratio"])
    classes = kwargs.get("num_classes")  # with the null class; none means text
    assert config.num_classes == (classes and classes - 1)
    assert config.text_width == (kwargs["clip_dim"] if classes is None else None)
    model = converted.build()
    assert isinstance(model, NAT)
    return model


def recorded_condition(context: Tensor, num_classes: int | None) -> Condition:
    if num_classes is not None:
        return Labels(context[:, 0], num_classes)
    return Text.of(context, torch.zeros_like(context[0]), ("",) * len(context))


def scaled_nat(**overrides: Any) -> NAT:
    """A small NAT whose logits spread as if trained."""
    torch.manual_seed(0)
    model = NAT(nat_digits(**overrides)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.golden
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_logits_and_features(golden: Any, name: str) -> None:
    tensors, meta = golden(name)
    model = official_nat(state_dict(tensors), meta["kwargs"])
    condition = recorded_condition(tensors["in.context"], model.config.num_classes)
    with torch.no_grad():
        prediction = model(tensors["in.ids"], condition)
    assert sum(parameter.numel() for parameter in model.parameters()) == meta["n_parameters"]
    assert model.mask_id == meta["mask_id"]
    if model.config.num_classes is not None:
        assert condition.null().values.unique().item() == meta["uncond_class"]
    torch.testing.assert_close(prediction.logits_BLV, tensors["out.logits"], **GOLDEN)
    torch.testing.assert_close(prediction.features_BLD, tensors["out.feat"], **GOLDEN)


@pytest.mark.golden
def test_recorded_loss_and_gradients(golden: Any) -> None:
    """The tied embedding's gradient tells whether the output side is detached, as upstream."""
    tensors, meta = golden("nat_tiny")
    model = official_nat(state_dict(tensors), meta["kwargs"]).requires_grad_()
    condition = recorded_condition(tensors["in.context"], model.config.num_classes)
    logits_BLV = model(tensors["in.ids"], condition).logits_BLV
    loss = masked_cross_entropy(logits_BLV, tensors["train.labels"], meta["smoothing"])
    assert_rounded(loss, tensors["train.loss"])
    loss.backward()
    found = {key: parameter.grad for key, parameter in model.named_parameters()}
    ours = {key: NAT_FORMAT.ours(key) for key in state_dict(tensors)}
    expected = state_dict(tensors, "grad.")
    assert expected and set(meta["grad_norms"]) == set(ours)
    for key, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[ours[key]], gradient, atol=1e-4 * scale, rtol=1e-4, msg=key)
    for key, norm in meta["grad_norms"].items():
        assert float(found[ours[key]].norm()) == pytest.approx(norm, rel=1e-4), key


@pytest.mark.parametrize("text_width", [None, 12])
def test_rows_are_independent(text_width: int | None) -> None:
    """Permuting the batch permutes the result, and a row alone gives what it gives in a batch."""
    model = scaled_nat(text_width=text_width, num_classes=None if text_width else 10).double()
    generator = torch.Generator().manual_seed(1)
    ids_BL = torch.randint(129, (6, 16), generator=generator)
    texts_BSE = torch.randn(6, 3, 12, generator=generator).double()
    labels_B = torch.tensor([3, 0, 10, 9, 3, 5])
    condition = Text.of(texts_BSE, texts_BSE[0], tuple("abcdef")) if text_width else Labels(labels_B, 10)
    order_B = torch.randperm(6, generator=generator)
    with torch.no_grad():
        together = model(ids_BL, condition)
        permuted = model(ids_BL[order_B], condition[order_B])
        alone = [model(ids_BL[[row]], condition[[row]]) for row in range(6)]
    assert together.logits_BLV.std() > 0.5 and together.logits_BLV.shape == (6, 16, 128)
    for field in ("logits_BLV", "features_BLD"):
        whole = getattr(together, field)
        assert_rounded(getattr(permuted, field), whole[order_B], unit=UNIT_OF_DOUBLE)
        single = torch.cat([getattr(one, field) for one in alone])
        assert_rounded(single, whole, unit=UNIT_OF_DOUBLE)


def test_long_skips_come_back_last_in_first_out() -> None:
    """The forward pass written out for depth 4; the condition's token leaves before the head."""
    model, condition = scaled_nat(depth=4), Labels(torch.tensor([2, 7]), 10)
    ids_BL = torch.arange(32).view(2, 16)
    with torch.no_grad():
        tokens = model.token_embedding(ids_BL)
        first = model.in_blocks[0](torch.cat([model.condition_embedding(condition.values), tokens], dim=1))
        second = model.in_blocks[1](first)
        x = model.out_blocks[0](model.mid_block(second), second)
        features_BLD = model.norm(model.out_blocks[1](x, first))[:, 1:]
        hidden = model.head.norm(torch.nn.functional.gelu(model.head.fc(features_BLD)))
        logits_BLV = hidden @ model.token_embedding.word.weight.T + model.head.bias
        prediction = model(ids_BL, condition)
    assert_rounded(prediction.features_BLD, features_BLD)
    assert_rounded(prediction.logits_BLV, logits_BLV[..., :-1])


def test_condition_position_and_mask_all_matter() -> None:
    model = scaled_nat()
    ids_BL = torch.full((1, 16), model.mask_id)
    with torch.no_grad():
        first = model(ids_BL, Labels(torch.tensor([0]), 10)).logits_BLV
        other_class = model(ids_BL, Labels(torch.tensor([1]), 10)).logits_BLV
        one_visible = model(
            ids_BL.index_fill(1, torch.tensor([5]), 7), Labels(torch.tensor([0]), 10)
        ).logits_BLV
    assert (first[:, 0] - first[:, 1]).abs().max() > 0.01, "positions"
    assert (first - other_class).abs().amax(-1).min() > 0.01, "every token sees the class"
    assert (first - one_visible).abs().amax(-1).min() > 0.01, "every token sees every other"


def test_sizes() -> None:
    """The documented counts: digits here, NAT-L against the official file's."""
    assert sum(parameter.numel() for parameter in NAT(nat_digits()).parameters()) == 172_481
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in NAT(nat_l()).parameters()) == 193_655_297


def test_bad_geometry_is_refused() -> None:
    with pytest.raises(ValueError, match="depth 3 is odd"):
        NAT(nat_digits(depth=3))
    with pytest.raises(ValueError, match="width 64 is not divisible by heads 5"):
        NAT(nat_digits(heads=5))
    with pytest.raises(ValueError, match="exactly one of the two"):
        NAT(nat_digits(text_width=8))


def test_conditions_are_listed_for_classes_only() -> None:
    assert NAT(nat_digits()).conditions().values.tolist() == list(range(10))
    with pytest.raises(ValueError, match="has no list of conditions"):
        NAT(nat_digits(text_width=8, num_classes=None)).conditions()


def test_dropout_acts_on_token_embeddings_in_training_only() -> None:
    model, condition = scaled_nat(), Labels(torch.tensor([1]), 10)
    ids_BL = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.equal(model(ids_BL, condition).logits_BLV, model(ids_BL, condition).logits_BLV)
        model.train()
        assert not torch.equal(model(ids_BL, condition).logits_BLV, model(ids_BL, condition).logits_BLV)


def test_cost_at_the_official_geometry() -> None:
    """104 GFLOP a pass on ImageNet-256; that T = 8 takes 15 of them is tested with the decoding step."""
    with torch.device("meta"):
        model, ids_BL = NAT(nat_l()), torch.zeros(1, 256, dtype=torch.long)
        condition = Labels(torch.zeros(1, dtype=torch.long), 1000)
        with FlopCounterMode(display=False) as counter:
            model(ids_BL, condition)
    assert counter.get_total_flops() / 1e9 == pytest.approx(104, abs=0.5)


@pytest.mark.parametrize("config", [nat_digits(), nat_sudoku_4()], ids=["plain", "relative"])
def test_memory_that_is_used_again_changes_nothing(config: NATConfig) -> None:
    """With a gradient each layer keeps what it was given; without one its output is overwritten."""
    nat = NAT(config).eval()
    ids_BL = torch.randint(config.codebook_size + 1, (3, nat.num_tokens))
    condition = Labels(torch.arange(3) % (config.num_classes or 1), config.num_classes or 1)
    kept = {name: tensor.clone() for name, tensor in nat.state_dict().items()}
    with_gradient = nat(ids_BL, condition)
    with torch.no_grad():
        without = [nat(ids_BL, condition) for _ in range(2)]
    for prediction in without:
        assert torch.equal(prediction.logits_BLV, with_gradient.logits_BLV)
        assert torch.equal(prediction.features_BLD, with_gradient.features_BLD)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in nat.state_dict().items())


def test_the_gelu_overwrites_only_what_no_gradient_needs() -> None:
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    expected = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    needed = x.clone().requires_grad_() * 1
    assert torch.allclose(gelu(needed), expected) and torch.equal(needed, x)
    spare = x.clone()
    assert torch.allclose(gelu(spare), expected) and torch.allclose(spare, expected)
    assert torch.autograd.gradcheck(lambda x: plus(x, gelu(2 * x)), x.clone().requires_grad_())
    half = x.bfloat16()
    assert plus(x, half).dtype == torch.float64, "what is summed under autocast keeps its digits"
