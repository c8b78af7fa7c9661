"""The rules of the decoding step as one value: what no agent decides.

As text, for flags and JSON: "halton", "threshold,theta=0.7", "confidence,min_reveal=0"; "adanat" is the last
of these, and "autonat" is "confidence,min_masked=1".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generators.reveal import REVEAL, Chosen, Confidence, Ordered, RevealRule

if TYPE_CHECKING:  # a text is checked without torch, so that flags are quick
    from torch import Tensor

# Rows with a smaller scale skip the unconditional pass. The reference schedule's first scale, 0.001 / T, lies
# below it for every T, also after the rounding of an action map.
GUIDANCE_FLOOR = 1.01e-3


COUNTS = ("min_reveal", "min_masked")
GUIDANCE = ("guidance_floor", "guidance_rescale", "guidance_parallel", "guidance_norm")
LIMITS = (*COUNTS, *GUIDANCE, "remask_rate")
# Those of the official code of both papers.
PUBLISHED = {"adanat": "confidence,min_reveal=0", "autonat": "confidence,min_masked=1"}


@dataclass(frozen=True)
class DecodeRules:
    """Rules of a decoding step; the defaults are AutoNAT's.

    Attributes:
        reveal: which tokens are masked again, and perhaps how many.
        min_reveal: tokens that each step reveals at least, as long as any is masked: 1 in AutoNAT; 0 in
            AdaNAT, where a step may reveal nothing.
        min_masked: tokens that stay masked at least, before the last step: 1 is AutoNAT's other clamp.
        guidance_floor: rows whose guidance scale is not above it are not guided.
        guidance_rescale: share of guided logits that have the conditional ones' deviation, in [0, 1].
        guidance_parallel: what is left of guidance along the conditional logits: 1 all, 0 nothing, as in APG.
        guidance_norm: the most that a token's conditional and unconditional logits count as differing.
        remask_rate: share of the revealed tokens that a step masks again, but for the last; where the rate is
            a decoding parameter, both are added (`generators.remasking`).
    """

    reveal: RevealRule = Confidence()
    min_reveal: int = 1
    min_masked: int = 0
    guidance_floor: float = GUIDANCE_FLOOR
    guidance_rescale: float = 0.0
    guidance_parallel: float = 1.0
    guidance_norm: float = math.inf
    remask_rate: float = 0.0

    def __post_init__(self) -> None:
        for name in LIMITS:
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"{name} {value}: it must be at least 0")
        for name in ("guidance_rescale", "remask_rate"):
            if (value := getattr(self, name)) > 1:
                raise ValueError(f"{name} {value}: it is a share in [0, 1]")
        if self.guidance_parallel == math.inf:
            raise ValueError("guidance_parallel inf: it must be finite")

    @classmethod
    def of(cls, rules: str | DecodeRules, grid: tuple[int, int]) -> DecodeRules:
        """Return rules as they are, or those that a text means on a generator's grid.

        Raises:
            ValueError: the text is not NAME,SETTING=NUMBER,... with a name and settings that are known.
        """
        if isinstance(rules, DecodeRules):
            return rules
        name, settings = _split(PUBLISHED.get(rules, rules))
        if name not in REVEAL:
            raise ValueError(f"rule {name!r} in {rules!r} is not one of {', '.join((*REVEAL, *PUBLISHED))}")
        of_reveal = {field: settings.pop(field) for field in reveal_settings(name) if field in settings}
        if unknown := set(settings) - set(LIMITS):
            known = (*reveal_settings(name), *LIMITS)
            raise ValueError(f"{sorted(unknown)[0]!r} in {rules!r} is not one of {', '.join(known)}")
        numbers: dict[str, Any] = {key: _number(text, rules) for key, text in settings.items()}
        if broken := [key for key in numbers if key in COUNTS and numbers[key] % 1]:
            raise ValueError(f"{broken[0]} {numbers[broken[0]]} in {rules!r} is not a whole number")
        reveal = reveal_rule(name, {key: _number(text, rules) for key, text in of_reveal.items()}, grid)
        return cls(reveal, **{key: int(value) if key in COUNTS else value for key, value in numbers.items()})

    def choosing(self, tokens_BL: Tensor | None) -> DecodeRules:
        """Return these rules for a step that reveals chosen tokens (bool), or goes by scores of them (float);
        of None, the same."""
        if tokens_BL is None:
            return self
        kind = Ordered if tokens_BL.is_floating_point() else Chosen
        return dataclasses.replace(self, reveal=kind(tokens_BL, self.reveal))

    @property
    def text(self) -> str:
        """The form that `of` reads; of a rule of one's own it is a description."""
        return ",".join(self._words())

    def _words(self) -> Iterator[str]:
        name = next((name for name, kind in REVEAL.items() if type(self.reveal) is kind), "")
        yield name or repr(self.reveal)
        for field in reveal_settings(name) if name else ():
            if (value := getattr(self.reveal, field)) != getattr(REVEAL[name], field):
                yield f"{field}={_digits(value)}"
        for field in LIMITS:
            if (value := getattr(self, field)) != getattr(DecodeRules, field):
                yield f"{field}={_digits(value)}"

    def mask_counts(self, ratio_B: Tensor, masked_B: Tensor, unknown_B: Tensor | int) -> Tensor:
        """Return how many tokens each row masks again by its ratio: floor(U m), as far as it is allowed.

        Args:
            unknown_B: U, how many were masked at the start: all L of an image, but those that are given.
        """
        return self.allowed_counts((ratio_B * unknown_B).floor().long(), masked_B, unknown_B)

    def allowed_counts(self, wanted_B: Tensor, masked_B: Tensor, unknown_B: Tensor | int) -> Tensor:
        """Return the counts moved into [min_masked, masked now - min_reveal].

        At least one token is drawn in the first step, and no visible token is ever masked again.
        """
        wanted_B = wanted_B.clamp_max(unknown_B - 1)
        allowed_B = wanted_B.minimum(masked_B - self.min_reveal).clamp_min(self.min_masked)
        # Where fewer than min_masked are masked already, these stay; none that is visible joins them.
        return allowed_B.minimum(masked_B)


def reveal_settings(name: str) -> list[str]:
    """Return the names of a reveal rule's settings."""
    return [field.name for field in dataclasses.fields(REVEAL[name]) if field.name != "grid"]


def reveal_rule(name: str, settings: dict[str, float], grid: tuple[int, int]) -> Any:
    """Build a reveal rule by name; ValueError if a setting is out of range."""
    needs_grid = any(field.name == "grid" for field in dataclasses.fields(REVEAL[name]))
    return REVEAL[name](**settings, **({"grid": (grid[0], grid[1])} if needs_grid else {}))


def _split(text: str) -> tuple[str, dict[str, str]]:
    first, *others = [word.strip() for word in text.split(",")]
    if "=" in first:
        others = [first, *others]
        first = "confidence"
    if bad := [word for word in others if word.count("=") != 1]:
        raise ValueError(f"{bad[0]!r} in rules {text!r} is not SETTING=NUMBER")
    names = [word.partition("=")[0] for word in others]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{repeated[0]!r} comes twice in rules {text!r}; say each setting once")
    return first, dict(word.split("=") for word in others)  # type: ignore[misc]


def _digits(value: float) -> str:
    """Return as few digits of a number as are read back as the same."""
    return short if float(short := f"{value:g}") == value else repr(float(value))


def _number(text: str, rules: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} in rules {rules!r} is not a number") from None
