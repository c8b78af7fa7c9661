"""Normalized guidance against its formulas, token by token; neutral numbers leave every bit alone."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from generators.conditions import Labels
from generators.decoding import advance, predict, start
from generators.enat import ENAT, enat_digits
from generators.guidance import guide
from generators.nat import NAT, nat_digits
from generators.noise import HashNoise
from generators.rules import DecodeRules
from generators.schedules import DecodeParams

B, T = 5, 4
SCALES = torch.tensor([0.0, 0.5, 2.0, 4.0, 9.0])
RULES: dict[str, dict[str, float]] = {
    "rescale": {"guidance_rescale": 0.7},
    "rescale all": {"guidance_rescale": 1.0},
    "projected": {"guidance_parallel": 0.0},
    "partly projected": {"guidance_parallel": 0.4},
    "bounded": {"guidance_norm": 1.5},
    "apg": {"guidance_parallel": 0.0, "guidance_norm": 1.5},
    "all": {"guidance_rescale": 0.5, "guidance_parallel": 0.2, "guidance_norm": 1.5},
}


def formula(conditional: np.ndarray, free: np.ndarray, w: float, rules: DecodeRules) -> np.ndarray:
    """The papers' formulas for the logits (V,) of one token, in float64, with their scale 1 + w."""
    conditional = conditional - conditional.mean()
    difference = conditional - (free - free.mean())
    if (length := math.sqrt(sum(d * d for d in difference))) > rules.guidance_norm:
        difference = difference * rules.guidance_norm / length
    direction = conditional / math.sqrt(sum(c * c for c in conditional))
    parallel = sum(difference * direction) * direction
    guided = conditional + ((1 + w) - 1) * ((difference - parallel) + rules.guidance_parallel * parallel)
    rescaled = guided * conditional.std() / guided.std()
    return rules.guidance_rescale * rescaled + (1 - rules.guidance_rescale) * guided


def spread(model: Any) -> Any:
    """Give a network logits that spread as if it were trained."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module", params=["nat", "enat"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return spread(NAT(nat_digits()) if request.param == "nat" else ENAT(enat_digits()))


def states(model: Any, rules: DecodeRules, rows: list[int] | None = None) -> list[Any]:
    """Return the states of an episode of some rows, the first included."""
    rows = list(range(B)) if rows is None else rows
    state = start(model, Labels(torch.arange(B), 10)[rows], steps=T)
    found = [state]
    for step in range(T):
        one = torch.ones(len(rows), dtype=torch.float64)
        params = DecodeParams(one * (T - 1 - step) / T, one, 0.8 * one, SCALES[rows].double())
        found.append(advance(model, found[-1], params, HashNoise(torch.tensor(rows)), rules))
    return found


@pytest.mark.parametrize("name", RULES)
def test_every_step_follows_the_formula(model: Any, name: str) -> None:
    """What is drawn has the log-probabilities that a loop over tokens says."""
    rules = DecodeRules(**RULES[name])
    played = states(model, rules)
    for before, after in zip(played, played[1:], strict=False):
        # All tokens masked: one unconditional pass serves all rows; else ENAT's goes on from its cache.
        if before.step == 0 or not before.null_cache:
            cache = None
        else:
            cache = before.null_cache
        null = before.condition.null()
        with torch.no_grad():
            passed = predict(model, before.ids_BL, null, cache, before.masked_B)
        free = passed.logits_BLV.double().numpy()
        told = before.prediction.logits_BLV.double().numpy()
        for row in range(B):
            for token in range(0, model.num_tokens, 5):
                logits = formula(told[row, token], free[row, token], float(SCALES[row]), rules)
                if SCALES[row] == 0:
                    logits = told[row, token]
                logits = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
                drawn = int(after.drawn_BL[row, token])
                # Two passes of a network in float32, whose difference guidance multiplies.
                bound = 1e-4 * (1 + float(SCALES[row]))
                assert float(after.log_probs_BL[row, token]) == pytest.approx(logits[drawn], abs=bound)


@pytest.mark.parametrize("name", ["apg", "all"])
def test_no_row_feels_another(model: Any, name: str) -> None:
    rules = DecodeRules(**RULES[name])
    together = states(model, rules)[-1]
    for row in range(B):
        alone = states(model, rules, [row])[-1]
        assert torch.equal(alone.ids_BL[0], together.ids_BL[row]) and alone.nfe_B[0] == together.nfe_B[row]


def some_logits(seed: int) -> Tensor:
    return 3 * torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(seed)) + seed


def test_neutral_numbers_leave_every_bit_alone() -> None:
    conditional, free, scale = some_logits(1), some_logits(2), torch.tensor([0.0, 1.0, 5.0])[:, None, None]
    expected = conditional + scale * (conditional - free)
    assert torch.equal(guide(conditional, free, scale, DecodeRules()), expected)
    said = DecodeRules.of("guidance_rescale=0,guidance_parallel=1,guidance_norm=inf", (1, 1))
    assert said == DecodeRules() and torch.equal(guide(conditional, free, scale, said), expected)


@pytest.mark.parametrize("name", RULES)
def test_what_is_not_guided_is_left_alone(name: str) -> None:
    conditional, scale = some_logits(1), torch.zeros(3, 1, 1)
    guided = guide(conditional, some_logits(2), scale, DecodeRules(**RULES[name]))
    assert torch.equal(guided, conditional)
    flat, one = torch.ones(3, 7, 11), torch.ones(3, 1, 1)
    for pair in ((flat, flat), (flat, conditional), (conditional, flat), (conditional, conditional)):
        assert bool(guide(*pair, one, DecodeRules(**RULES[name])).isfinite().all())
    leveled = guide(conditional, 2 * conditional, one, DecodeRules(**RULES[name]))  # plain guidance leaves 0
    assert bool(leveled.isfinite().all())
    nothing = guide(conditional, some_logits(2), one, DecodeRules(guidance_norm=0))
    torch.testing.assert_close(nothing, conditional)


@pytest.mark.parametrize("name", ["plain", *RULES])
def test_codes_that_are_forbidden_are_as_if_they_were_not_there(name: str) -> None:
    """Token by token, the guided logits are those of the allowed codes alone."""
    conditional, free = some_logits(1), some_logits(2)
    scale, rules = torch.tensor([0.0, 1.0, 5.0])[:, None, None], DecodeRules(**RULES.get(name, {}))
    forbidden = torch.rand(3, 7, 11, generator=torch.Generator().manual_seed(3)) < 0.4
    conditional[forbidden] = -math.inf
    for hidden in (free, free.masked_fill(forbidden, -math.inf)):  # with a condition alone, or always
        guided = guide(conditional, hidden, scale, rules)
        assert torch.equal(guided.isneginf(), forbidden) and not guided.isnan().any()
        for row in range(3):
            for token in range(7):
                place = row, token, ~forbidden[row, token]
                pair = (logits[place][None, None] for logits in (conditional, free))
                torch.testing.assert_close(guided[place], guide(*pair, scale[[row]], rules)[0, 0])
    flat = torch.zeros_like(free).masked_fill(forbidden, -math.inf)
    guided = guide(flat, free, scale, rules)
    assert torch.equal(guided.isneginf(), forbidden) and not guided.isnan().any(), "all others alike"


def test_a_constant_added_to_a_tokens_logits_means_nothing() -> None:
    conditional, free, scale = some_logits(1), some_logits(2), torch.full((3, 1, 1), 2.0)
    rules = DecodeRules(**RULES["all"])
    expected = guide(conditional, free, scale, rules).log_softmax(-1)
    shifted = guide(conditional + 8, free - 4, scale, rules).log_softmax(-1)
    torch.testing.assert_close(shifted, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("guidance_rescale=1.5", "guidance_rescale 1.5: it is a share in"),
        ("guidance_rescale=-1", "guidance_rescale -1.0: it must be at least 0"),
        ("guidance_parallel=inf", "guidance_parallel inf: it must be finite"),
        ("guidance_norm=nan", "guidance_norm nan: it must be at least 0"),
    ],
)
def test_a_number_that_can_not_be_is_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DecodeRules.of(text, (1, 1))


def test_its_text_is_read_again() -> None:
    rules = DecodeRules.of("halton,guidance_rescale=.7,guidance_parallel=0,guidance_norm=5", (2, 2))
    assert rules.text == "halton,guidance_rescale=0.7,guidance_parallel=0,guidance_norm=5"
    assert DecodeRules.of(rules.text, (2, 2)) == rules
