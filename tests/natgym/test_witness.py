"""The closed-form discriminator: a slow loop's numbers, the gradient of the MMD, resume."""

from typing import Any

import pytest
import torch

from generators.conditions import Labels
from generators.images import Split
from natgym.check import check_reward
from natgym.rewards import Images, LearningReward, WitnessConfig, WitnessReward, make_reward
from natgym.task import Task
from rounding import assert_rounded


class Pixels:
    """The images themselves as features."""

    num_features = 4

    def __call__(self, images_BCHW: torch.Tensor) -> Any:
        return images_BCHW.flatten(1), None


def some(rows: int, seed: int, shift: float = 0.0) -> Images:
    random = torch.Generator().manual_seed(seed)
    images = (torch.rand(rows, 1, 2, 2, generator=random) + shift).clamp(0, 1)
    return Images(images, Labels(torch.arange(rows) % 3, 3))


def slow(image: torch.Tensor, others: Images, real: Images, label: int | None, degree: int = 3) -> float:
    """The mean kernel of one image to some, one by one, in double precision."""
    known = real.images_BCHW.flatten(1).double()
    mean, std = known.mean(0), known.std(0)
    kernels = []
    for other, its in zip(others.images_BCHW, others.condition.values.tolist(), strict=True):
        if label is None or its == label:
            x, y = ((one.flatten().double() - mean) / std for one in (image, other))
            kernels.append((float(x @ y) / 4 + 1) ** degree)
    return sum(kernels) / len(kernels)


@pytest.mark.parametrize(("by_class", "degree"), [(False, 3), (True, 3), (False, 2)])
def test_the_witness_is_the_loops(by_class: bool, degree: int) -> None:
    real = some(30, 0)
    reward = WitnessReward(Pixels(), Split(*real), WitnessConfig(window=2, by_class=by_class, degree=degree))
    asked = some(6, 9)
    label = [int(value) if by_class else None for value in asked.condition.values]
    first = [
        slow(image, real, real, its, degree) for image, its in zip(asked.images_BCHW, label, strict=True)
    ]
    assert_rounded(reward(*asked), first)
    drawn = [some(12, seed, shift=0.2) for seed in (1, 2, 3)]
    for fake in drawn:
        reward.update(real, fake)
    last = Images(
        torch.cat([fake.images_BCHW for fake in drawn[1:]]),
        Labels(torch.cat([fake.condition.values for fake in drawn[1:]]), 3),
    )
    expected = [
        near - slow(image, last, real, its, degree)
        for near, image, its in zip(first, asked.images_BCHW, label, strict=True)
    ]
    assert_rounded(reward(*asked), expected)


def test_it_rewards_what_is_like_the_real_ones_and_unlike_the_policys() -> None:
    real, near, far = some(300, 0), some(300, 1), some(300, 2, shift=0.5)
    reward = WitnessReward(Pixels(), Split(*real))
    told = [reward.update(real, far)["mmd"] for _ in range(3)]
    assert told[0] == pytest.approx(told[-1]) and told[0] > 0.5
    assert reward(*near).mean() > reward(*far).mean() + 0.5
    for _ in range(2):
        same = reward.update(real, near)["mmd"]
    assert abs(same) < 0.1 * told[0], "nothing is left to tell apart"


def test_it_keeps_the_contract_and_resumes() -> None:
    named: Any = make_reward("mmd", "digits", options={"mmd": {"window": 3}})
    assert isinstance(named, LearningReward) and named.learns_from == "rollout" and named.config.window == 3
    task = Task.load("digits")
    part = task.split("select")
    check_reward(named, (1, 8, 8), part.condition[:12], part.images_NCHW[:12])
    named.reset(0)
    fakes = [Images(part.images_NCHW[i : i + 20], part.condition[i : i + 20]) for i in range(0, 80, 20)]
    for fake in fakes[:2]:
        named.update(fake, fake)
    again: Any = make_reward("mmd", task, options={"mmd": {"window": 3}})
    again.load_state_dict(named.state_dict())
    for reward in (named, again):
        for fake in fakes[2:]:
            reward.update(fake, fake)
    assert torch.equal(named(*fakes[0]), again(*fakes[0])) and len(named.rollouts) == 3


def test_what_can_not_be_compared_is_told() -> None:
    with pytest.raises(ValueError, match="window 0: it must be at least 1"):
        WitnessConfig(window=0)
    real = some(30, 0)
    reward = WitnessReward(Pixels(), Split(*real), WitnessConfig(by_class=True))
    foreign = Labels(torch.tensor([3]), 4)
    reward.real = reward.real._replace(vectors_BE=Labels(real.condition.values, 4).vectors)
    with pytest.raises(ValueError, match="a condition has no image to compare with; leave by_class out"):
        reward(real.images_BCHW[:1], foreign)
