"""The quadratic discriminator: another optimizer's numbers on a loop's features, and resume."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from generators.conditions import Labels
from natgym.check import check_reward
from natgym.rewards import Images, LearningReward, QuadraticConfig, QuadraticReward, make_reward
from natgym.task import Task

WIDTH = 3


class Pixels:
    """The images themselves as features."""

    num_features = WIDTH

    def __call__(self, images_BCHW: torch.Tensor) -> Any:
        return images_BCHW.flatten(1), None


def some(rows: int, seed: int, power: float = 1.0) -> Images:
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(rows, WIDTH, 1, 1, generator=random).pow(power)
    return Images(images, Labels(torch.arange(rows) % 3, 3))


def inputs(images: Images, known: Images) -> np.ndarray:
    """Standardized pixels, their products and 1, one by one; all components are a rotation of the pixels."""
    real = known.images_BCHW.flatten(1).double().numpy()
    pixels = images.images_BCHW.flatten(1).double().numpy()
    return np.array([(image - real.mean(0)) / real.std(0, ddof=1) for image in pixels])


def products(x_Bk: np.ndarray) -> np.ndarray:
    pairs = [(i, j) for i in range(WIDTH) for j in range(i, WIDTH)]
    return np.column_stack([x_Bk, *(x_Bk[:, i] * x_Bk[:, j] for i, j in pairs), np.ones(len(x_Bk))])


def test_it_ends_where_another_optimizer_does() -> None:
    known, config = some(200, 0), QuadraticConfig(window=2, decay=0.1)
    reward = QuadraticReward(Pixels(), known.images_BCHW, config)
    assert (reward(*known) == 0.5).all()
    lessons = [(some(40, seed), some(40, 10 + seed, power=2.0)) for seed in range(3)]
    told = [reward.update(*lesson) for lesson in lessons][-1]

    basis = np.linalg.eigh(np.cov(inputs(known, known).T, bias=True))[1]
    real, fake = (
        products(np.concatenate([inputs(lesson[kind], known) for lesson in lessons[1:]]) @ basis)
        for kind in (0, 1)
    )

    def loss(weights: np.ndarray) -> float:
        cost = np.logaddexp(0, -real @ weights).mean() + np.logaddexp(0, fake @ weights).mean()
        return cost / 2 + config.decay / 2 * float(weights[:-1] @ weights[:-1])

    best = minimize(loss, np.zeros(real.shape[1]), method="BFGS", options={"gtol": 1e-7})
    assert told["discriminator_loss"] == pytest.approx(best.fun, rel=1e-5)
    right = ((real @ best.x > 0).mean() + (fake @ best.x < 0).mean()) / 2
    assert told["discriminator_accuracy"] == pytest.approx(right, abs=0.02)
    asked = some(20, 30)
    logits = products(inputs(asked, known) @ basis) @ best.x
    expected = torch.from_numpy(1 / (1 + np.exp(-logits)))
    assert (reward(*asked).double() - expected).abs().max() < 1e-3


def test_it_sees_covariances_where_means_are_alike() -> None:
    """Pixels that move together against pixels that don't: no linear function tells them apart."""
    random = torch.Generator().manual_seed(0)

    def drawn(tied: bool) -> Images:
        common, own = torch.rand(400, 1, generator=random), torch.rand(400, WIDTH, generator=random)
        pixels = common.expand(-1, WIDTH) if tied else own
        return Images(pixels.reshape(-1, WIDTH, 1, 1), Labels(torch.zeros(400, dtype=torch.long), 1))

    reward = QuadraticReward(Pixels(), drawn(True).images_BCHW, QuadraticConfig(decay=0.01))
    told = reward.update(drawn(True), drawn(False))
    assert told["discriminator_accuracy"] > 0.9 and told["discriminator_loss"] < math.log(2) / 2
    assert reward(*drawn(True)).mean() > reward(*drawn(False)).mean() + 0.5


def test_it_keeps_the_contract_and_resumes() -> None:
    options = {"quadratic": {"components": 5, "window": 2}}
    named: Any = make_reward("quadratic", "digits", options=options)
    assert isinstance(named, LearningReward) and named.learns_from == "rollout"
    task = Task.load("digits")
    part = task.split("select")
    check_reward(named, (1, 8, 8), part.condition[:12], part.images_NCHW[:12])
    named.reset(0)
    parts = [Images(part.images_NCHW[i : i + 20], part.condition[i : i + 20]) for i in range(0, 120, 20)]
    for fake in parts[:2]:
        named.update(parts[-1], fake)
    again: Any = make_reward("quadratic", task, options=options)
    again.load_state_dict(named.state_dict())
    for reward in (named, again):
        for fake in parts[2:4]:
            reward.update(parts[-1], fake)
    assert torch.equal(named(*parts[4]), again(*parts[4])) and len(named.batches) == 2
    named.reset(1)
    assert (named(*parts[4]) == 0.5).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"window": 0}, "window 0: it must be at least 1"),
        ({"components": 0}, "components 0: it must be at least 1"),
        ({"decay": 0.0}, "decay 0.0: it must be positive"),
    ],
)
def test_what_can_not_be_fitted_is_told(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        QuadraticConfig(**values)
