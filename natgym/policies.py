"""What a policy is and decides; and those that learn nothing: schedules, and rules that reveal what they are
sure of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.contract import Generator
from generators.families import OFFSET, arguments, columns, numbers, split
from generators.noise import Noise
from generators.reveal import COUNTING, REVEAL
from generators.rules import DecodeRules, reveal_rule, reveal_settings
from generators.schedules import (
    FAMILIES,
    PARAMETERS,
    DecodeParams,
    Schedule,
    maskgit,
    of_curves,
    random_order,
    reference,
)
from natgym.names.prices import Price
from natgym.observations import Observation, priced
from natgym.spaces import Map

ACTIONS = tuple(f"action_{name}" for name in PARAMETERS)
# Names beside the families of schedules, and the curve and the rule they stand for.
TOKEN_RULES = {
    "halton": ("arccos", "halton"),
    "margin": ("cosine", "margin"),
    "entropy": ("cosine", "entropy"),
    "threshold": ("cosine", "threshold"),
    "sure": ("cosine", "sure"),
    "entropy-bounded": ("cosine", "entropy-bound"),
}
ADAPTIVE = tuple(name for name, kind in REVEAL.items() if kind in COUNTING)
POLICY_NAMES = (*FAMILIES, "one-step", *TOKEN_RULES)


class Policy(Protocol):
    """Decide the decoding parameters of every row; `steps` is its T.

    The observation is the environment's and `condition`, the values of the rows' conditions, and `kind`, a
    number for their class or kind of text. A policy may also have `rules` of its own, a `DecodeRules`, which
    it is always played by; a `price`, which it then observes: a number, or a range, from which each row
    draws its own; and `draws`, true if it decides by chance: it then observes `row_seeds`, (B,), from which
    alone that follows.
    """

    @property
    def steps(self) -> int: ...

    def __call__(self, observation: Observation, step: int) -> DecodeParams: ...


class Decision(NamedTuple):
    """The decoding parameters of one step, and what a learned policy can tell of them.

    Attributes:
        params: what is played.
        action_B4: what it would give to the environment's `step`; NaN where it decides nothing.
        value_B: the return it expects, if it has a critic.
        previous_action: what the next observation shows under this name, (B, k), if actions are smoothed.
        chosen_BL: the tokens that the step reveals, if the policy and not a rule chooses them.
        log_prob_B: log-density of the action, if it was drawn.
    """

    params: DecodeParams
    action_B4: Tensor | None = None
    value_B: Tensor | None = None
    previous_action: Tensor | None = None
    chosen_BL: Tensor | None = None
    log_prob_B: Tensor | None = None

    @classmethod
    def of(cls, action_map: Map, action_Bk: Tensor, previous_Bk: Tensor, step: int) -> Decision:
        """Return what an action means as the environment plays it, after the one that was played before."""
        played_Bk = action_map.smooth(action_Bk, previous_Bk, step)
        remembered = played_Bk if action_map.smoothing else None
        params = action_map(played_Bk, step)
        told = {"previous_action": remembered, "chosen_BL": action_map.chosen(played_Bk)}
        return cls(params, action_map.spread(action_Bk), **told)


class DecidingPolicy(Protocol):
    """A policy that can tell more than the parameters; `decide` is asked instead of calling it."""

    def decide(self, observation: Observation, step: int) -> Decision: ...


def decide(policy: Policy, observation: Observation, step: int) -> Decision:
    """Return what a policy decides, with what else it can tell of that."""
    if hasattr(policy, "decide"):  # isinstance would look up the protocol's members each time
        return cast(DecidingPolicy, policy).decide(observation, step)
    return Decision(policy(observation, step))


def rules_of(policy: Policy, rules: DecodeRules | None = None) -> DecodeRules:
    """Return the rules that a policy is played by: its own, else those given, else AutoNAT's."""
    own: DecodeRules | None = getattr(policy, "rules", None)
    return own or rules or DecodeRules()


def told(policy: Policy, condition: Condition, noise: Noise) -> Observation:
    """Return what a policy observes of rows beside their states: conditions, and prices and the seeds of its
    own draws, if it has such."""
    known: Observation = {"condition": condition.values, "kind": condition.kinds_B}
    price: Price | None = getattr(policy, "price", None)
    if price is not None:
        known["price"] = priced(price, noise.row_seeds_B)  # type: ignore[attr-defined]
    if getattr(policy, "draws", False):
        known["row_seeds"] = noise.row_seeds_B  # type: ignore[attr-defined]
    return known


@dataclass(frozen=True)
class FixedPolicy:
    """Play a schedule, whatever is observed, by rules of its own or by those of whoever plays it."""

    schedule: Schedule
    rules: DecodeRules | None = None

    @property
    def steps(self) -> int:
        return self.schedule.steps

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        return self.schedule.params(step, len(observation["masked"]))


@dataclass(frozen=True)
class AdaptivePolicy:
    """Let a rule decide how many tokens each row reveals, so that each row takes the steps it needs.

    Temperatures and guidance follow the share of the row's tokens that are revealed, in place of the share of
    steps taken; the mask ratio is 0, since the rule alone decides.

    Attributes:
        rules: whose reveal rule returns scores and counts.
        curves: of `generators.families.columns`.
        steps: at most; the last one reveals everything.
    """

    rules: DecodeRules
    curves: Mapping[str, Any]
    steps: int

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        share_B = 1 - observation["masked"].cpu().double().mean(1)
        curves = {**self.curves, "ratio": torch.zeros_like}
        return DecodeParams.from_table(columns(share_B.clamp_min(OFFSET), share_B, **curves))


def baselines(steps: int) -> dict[str, FixedPolicy]:
    """Return the hand-made rows of every table; `one-step` is the reference at T = 1."""
    return {
        "reference": FixedPolicy(reference(steps)),
        "one-step": FixedPolicy(reference(1)),
        "maskgit": FixedPolicy(maskgit(steps)),
        "random-order": FixedPolicy(random_order(steps)),
    }


def named_policies(spec: str, steps: Sequence[int], generator: Generator) -> list[tuple[str, Policy]]:
    """Return (label, policy) for each number of steps at which a policy of POLICY_NAMES exists.

    Args:
        spec: a name, perhaps with settings, as in "linear:remask=9,rule=random,w=2" or "threshold:theta=.7".
        steps: numbers of steps asked for; `one-step` and the adaptive rules have their own.
        generator: that they will play; its grid sets the order of `halton`.

    Raises:
        ValueError: there is no such policy.
    """
    name, settings = split(spec)
    if name not in POLICY_NAMES:
        raise ValueError(f"policy {spec!r} is not one of {', '.join(POLICY_NAMES)}")
    curve, usual = TOKEN_RULES.get(name, ("cosine" if name == "one-step" else name, "confidence"))
    chosen = settings.get("rule", usual)
    if chosen not in REVEAL:
        raise ValueError(f"rule {chosen!r} in {spec!r} is not one of {', '.join(REVEAL)}")
    of_rule = reveal_settings(chosen)
    adaptive = chosen in ADAPTIVE
    keys = ("rule", *of_rule, "remask_rate", *(("steps",) if adaptive else ()))
    left = {key: text for key, text in settings.items() if key not in keys}
    curves = arguments(curve, left, spec, also=keys)
    rules = None
    if chosen != "confidence" or "remask_rate" in settings:
        limits = numbers(settings, ["remask_rate"], spec)
        rules = _rules(chosen, numbers(settings, of_rule, spec), limits, generator, spec)
    if adaptive:
        most = numbers(settings, ["steps"], spec).get("steps", generator.num_tokens)
        if most < 1 or most != int(most):
            raise ValueError(f"steps {most:g} in {spec!r}: at least one is needed, and a whole number")
        assert rules is not None
        return [(spec, AdaptivePolicy(rules, curves, int(most)))]
    played = [1] if name == "one-step" else steps
    return [(spec, FixedPolicy(of_curves(curves, T, spec), rules)) for T in played]


def _rules(
    name: str, settings: dict[str, float], limits: dict[str, float], generator: Generator, spec: str
) -> DecodeRules:
    try:
        return DecodeRules(reveal_rule(name, settings, generator.grid), **limits)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"policy {spec!r}: {error}") from None
