"""Operations are counted on the very steps that are judged."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from generators.decoding import advance, start
from generators.noise import HashNoise
from generators.rules import DecodeRules
from generators.schedules import DecodeParams, reference
from natgym.evaluation.cost import gflop_per_image
from natgym.observations import Observation
from natgym.rollouts import Decision, balanced
from natgym.spaces import ActionMap


class Smoothed:
    """A policy whose guidance depends on the action played before; with a zero one it is never guided."""

    def __init__(self, steps: int) -> None:
        self.steps, self.seen = steps, list[float]()
        # Without residual, a zero action guides by softplus(0): these actions switch guidance on and off.
        schedule = reference(steps)
        self.map = ActionMap.preset("paper-no-residual", schedule, smoothing=0.5)

    def __call__(self, observation: Observation, step: int) -> Any:
        return self.decide(observation, step).params

    def decide(self, observation: Observation, step: int) -> Decision:
        rows = len(observation["step"])
        previous_B4 = observation.get("previous_action", torch.zeros(rows, 4))
        self.seen.append(float(previous_B4[0, 3]))
        action_B4 = torch.zeros(rows, 4)
        action_B4[:, 3] = 4.0 if step == 0 or previous_B4[0, 3] > 0 else -40.0
        return Decision.of(self.map, action_B4, previous_B4, step)


def by_hand(policy: Any, generator: Any, min_reveal: int) -> float:
    """Count a loop that remembers what was played."""
    condition = balanced(generator.conditions(), 64)
    noise = HashNoise.from_seed(0, 64)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        state, previous_B4 = start(generator, condition, steps=policy.steps), torch.zeros(64, 4)
        while not state.done:
            observation = {"step": torch.full((64, 1), float(state.step)), "previous_action": previous_B4}
            decision = policy.decide(observation, state.step)
            previous_B4 = decision.previous_action
            state = advance(generator, state, decision.params, noise, DecodeRules(min_reveal=min_reveal))
    return counter.get_total_flops() / 64 / 1e9


@pytest.mark.parametrize("min_reveal", [0, 1])
def test_a_smoothed_policy_is_counted_as_it_plays(digits: Any, min_reveal: int) -> None:
    policy = Smoothed(3)
    found = gflop_per_image(policy, digits.generator, rules=DecodeRules(min_reveal=min_reveal))
    assert policy.seen == [0.0, 4.0, 4.0], "each step sees what was played before"
    assert found == by_hand(Smoothed(3), digits.generator, min_reveal)


def test_what_reveals_nothing_costs_passes(digits: Any) -> None:
    """With min_reveal 0, a mask ratio of 1 stays where it is; the count follows the rules it is told."""

    class Idle:
        steps = 16

        def __call__(self, observation: Observation, step: int) -> Any:
            ratio_B, *others = reference(16).params(step, len(observation["step"]))
            return DecodeParams(torch.ones_like(ratio_B), *others)

    every, none = (
        gflop_per_image(Idle(), digits.generator, rules=DecodeRules(min_reveal=least)) for least in (4, 0)
    )
    assert every < 0.5 * none
