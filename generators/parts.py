"""A batch taken in parts, so that a device never holds what a network needs for all of its rows at once.

Rows don't depend on one another. Their floats differ between one cut and another by rounding, as those of one
row differ between batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.contract import Generator, Prediction
from generators.decoding import DecodeState, advance, refuse_not_finite, start
from generators.first_pass import FirstPass
from generators.noise import HashNoise
from generators.room import cut, decoding_rows
from generators.rules import DecodeRules
from generators.schedules import DecodeParams


class Parts:
    """Images in progress, whose rows are decoded some at a time.

    Args:
        generator, condition, steps, first_pass: of `generators.decoding.start`.
        noise: of as many rows.
        rules: of each step.
        size: rows of a part; by default as many as ROOM holds.

    Attributes:
        condition: of all rows.
        states: of each part; empty after a step that failed halfway.

    Raises:
        ValueError: what is predicted is not finite.
    """

    def __init__(
        self,
        generator: Generator,
        condition: Condition,
        noise: HashNoise,
        rules: DecodeRules,
        steps: int,
        first_pass: FirstPass | None = None,
        size: int | None = None,
    ) -> None:
        self.generator, self.condition, self.noise, self.rules = generator, condition, noise, rules
        size = size or decoding_rows(generator, condition.device)
        self.rows = list(cut(len(condition), size))
        self.states = [
            refuse_not_finite(start(generator, condition[rows], steps=steps, first_pass=first_pass))
            for rows in self.rows
        ]

    @property
    def done(self) -> bool:
        return not self.states or self.states[0].done

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.states[0].step

    @property
    def state(self) -> DecodeState:
        """The state of all rows, made when it is asked for."""
        return joined(self.states)

    def show(
        self, observer: Callable[[DecodeState, Tensor], dict[str, Tensor]], previous_Bk: Tensor
    ) -> dict[str, Tensor]:
        """Return what an observer shows of the rows, part by part: features are joined as it shows them."""
        pairs = zip(self.states, (previous_Bk[rows] for rows in self.rows), strict=True)
        shown = [observer(state, previous) for state, previous in pairs]
        return shown[0] if len(shown) == 1 else {key: torch.cat([o[key] for o in shown]) for key in shown[0]}

    def advance(self, params: DecodeParams, chosen_BL: Tensor | None = None) -> None:
        """Take one step, which reveals the chosen tokens, if any are; what a part was before is let go of as
        soon as it has taken it."""
        try:
            for place, rows in enumerate(self.rows):
                decided = DecodeParams(*(values[rows] for values in params))
                state, noise = self.states[place], self.noise[rows]
                chosen = None if chosen_BL is None else chosen_BL[rows].to(state.ids_BL.device)
                rules = self.rules.choosing(chosen)
                self.states[place] = advance(self.generator, state, decided, noise, rules)
        except BaseException:
            if self.states[0].step != self.states[-1].step:
                self.states.clear()
            raise


def joined(states: Sequence[DecodeState]) -> DecodeState:
    """Return states of consecutive rows as one; of several, what a generator would reuse is left out."""
    if len(states) == 1:
        return states[0]

    def cat(values: list[Any]) -> Any:
        return None if values[0] is None else torch.cat(values)

    predictions = [state.prediction for state in states if state.prediction is not None]
    logits, features = ([one[place] for one in predictions] for place in (0, 1))
    counts = ("masked_B", "nfe_B", "unknown_B")
    drawn = ("drawn_BL", "log_probs_BL", "entropy_BL", "certainty_BL")
    return replace(
        states[0],
        condition=type(states[0].condition).cat([state.condition for state in states]),
        prediction=Prediction(cat(logits), cat(features)) if predictions else None,
        null_cache=None,
        **{name: cat([getattr(state, name) for state in states]) for name in ("ids_BL", *counts, *drawn)},
    )
