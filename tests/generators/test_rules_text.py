"""Rules as text: what is read is what is written, and a slip is one line."""

from typing import Any

import pytest

from generators.reveal import Confidence, EntropyBound, Halton, RandomOrder, Threshold
from generators.rules import DecodeRules

GRID = (3, 4)


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("confidence", DecodeRules()),
        ("min_reveal=0", DecodeRules(min_reveal=0)),
        ("adanat", DecodeRules(min_reveal=0)),
        ("autonat", DecodeRules(min_masked=1)),
        ("halton", DecodeRules(Halton(GRID))),
        ("halton, min_reveal=3,guidance_floor=0", DecodeRules(Halton(GRID), min_reveal=3, guidance_floor=0)),
        ("random,min_masked=2", DecodeRules(RandomOrder(), min_masked=2)),
        ("threshold", DecodeRules(Threshold())),
        ("threshold,theta=.7,min_reveal=2", DecodeRules(Threshold(0.7), min_reveal=2)),
        ("entropy-bound,epsilon=0.25", DecodeRules(EntropyBound(0.25))),
        ("threshold,theta=0.1234567", DecodeRules(Threshold(0.1234567))),
        ("guidance_rescale=0.1234567", DecodeRules(guidance_rescale=0.1234567)),
        ("min_reveal=1234567", DecodeRules(min_reveal=1234567)),
    ],
)
def test_what_is_read_is_what_is_written(text: str, rules: DecodeRules) -> None:
    assert DecodeRules.of(text, GRID) == rules
    assert DecodeRules.of(rules.text, GRID) == rules
    assert DecodeRules.of(rules, GRID) is rules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("haltom", "rule 'haltom' in 'haltom' is not one of confidence, margin, entropy, random, halton"),
        ("halton,theta=1", "'theta' in 'halton,theta=1' is not one of min_reveal, min_masked"),
        ("threshold,theta=2", "theta 2.0: it must be in"),
        ("confidence,min_reveal=-1", "min_reveal -1: it must be at least 0"),
        ("confidence,min_reveal=one", "'one' in rules 'confidence,min_reveal=one' is not a number"),
        ("confidence,min_reveal=0.5", "min_reveal 0.5 in .* is not a whole number"),
        ("confidence,min_reveal", "'min_reveal' in rules .* is not SETTING=NUMBER"),
        (
            "threshold,theta=.5,theta=.9",
            "'theta' comes twice in rules 'threshold,theta=.5,theta=.9'; say each",
        ),
    ],
)
def test_a_slip_is_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DecodeRules.of(text, GRID)


def test_a_rule_of_ones_own_is_described() -> None:
    class Mine:
        def __call__(self, *_: Any) -> Any: ...

        def __repr__(self) -> str:
            return "mine"

    assert DecodeRules(Mine(), min_reveal=0).text == "mine,min_reveal=0"
    assert DecodeRules() == DecodeRules(Confidence()) != DecodeRules(RandomOrder())
