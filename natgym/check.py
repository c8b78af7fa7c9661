"""The contracts, executable: hand in a generator, a reward or a policy of your own, and hear what is wrong.

Each check raises ValueError with one line that names what was asked, what came, and what to do; each is quick
and leaves what it is given as it was.
"""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import torch
from torch import Tensor

from generators.conditions import Condition
from generators.contract import Generator, Prediction
from generators.decoding import predict
from generators.noise import HashNoise
from natgym.rewards.checks import as_rewards
from natgym.rewards.contract import (
    Images,
    LearningReward,
    Reward,
    learned_state,
    learns_from,
    load_learned_state,
    needs_batch,
)
from natgym.rollouts import Policy, balanced, play

ROWS = 6
# Of the largest value: some hundreds of roundings in float32; a row that feels another is off by more.
ROUNDING = 1e-4


@torch.no_grad()
def check_generator(generator: Generator, condition: Condition | None = None) -> None:
    """Check a generator: its attributes, its prediction, and that no row depends on another.

    Args:
        generator: in eval mode, as decoding finds it.
        condition: some that it takes, at least 2; by default those that it lists.

    Raises:
        ValueError: it breaks the contract of `generators.contract.Generator`.
    """
    for name in ("codebook_size", "mask_id", "num_tokens", "width"):
        _ask(isinstance(getattr(generator, name, None), int), f"{name} has to be an int")
    _ask(generator.mask_id == generator.codebook_size, "mask_id has to be codebook_size: masks come last")
    rows, columns = generator.grid
    _ask(rows * columns == generator.num_tokens, f"grid {generator.grid} has to have num_tokens tokens")
    condition = balanced(generator.conditions() if condition is None else condition, ROWS)
    ids_BL = _some_ids(generator, condition.device)
    before_BL = ids_BL.clone()
    masked_B = (ids_BL == generator.mask_id).sum(1).cpu()
    prediction = predict(generator, ids_BL, condition, None, masked_B)
    _ask(torch.equal(ids_BL, before_BL), "the tokens handed in were changed; work on a copy")
    _check_prediction(generator, prediction)
    again = predict(generator, ids_BL, condition, None, masked_B)
    _ask(torch.equal(prediction.logits_BLV, again.logits_BLV), "two calls differ; put it into eval mode")
    for row in range(ROWS):
        one = predict(generator, ids_BL[[row]], condition[[row]], None, masked_B[[row]])
        _same(prediction.logits_BLV[[row]], one.logits_BLV, f"logits of row {row} depend on other rows")
        _same(prediction.features_BLD[[row]], one.features_BLD, f"features of row {row} depend on other rows")
    free = predict(generator, ids_BL, condition.null(), None, masked_B)
    _check_prediction(generator, free)


def check_reward(
    reward: Reward, image_shape: tuple[int, int, int], condition: Condition, images_BCHW: Tensor | None = None
) -> None:
    """Check a reward: one finite number per image, of that image alone unless it says `needs_batch`.

    One that learns is trained by a step, and put back if it has `state_dict` and `load_state_dict`.

    Args:
        image_shape: (C, H, W) of the images.
        condition: of some images, at least 2.
        images_BCHW: in [0, 1], one for each of the conditions; by default noise.

    Raises:
        ValueError: it breaks the contract of `natgym.rewards.Reward`.
    """
    _ask(len(condition) >= 2, "two or more conditions are needed")
    if images_BCHW is None:
        random = torch.Generator().manual_seed(0)
        images_BCHW = torch.rand(len(condition), *image_shape, generator=random).to(condition.device)
    before_BCHW = images_BCHW.clone()
    values = torch.from_numpy(as_rewards(reward(images_BCHW, condition), len(condition)))
    _ask(torch.equal(images_BCHW, before_BCHW), "the images handed in were changed; work on a copy")
    if not needs_batch(reward):
        for row in range(len(condition)):
            alone = as_rewards(reward(images_BCHW[[row]], condition[[row]]), 1)
            words = f"the reward of row {row} depends on other rows; say so by needs_batch = True"
            _same(values[[row]], torch.from_numpy(alone), words, float(values.abs().max()))
    if isinstance(reward, LearningReward):
        _check_learning(reward, images_BCHW, condition)


@torch.no_grad()
def check_policy(policy: Policy, generator: Generator, condition: Condition | None = None) -> None:
    """Check a policy by playing it: decisions within their ranges, the same again, and row by row.

    Args:
        generator: that it plays.
        condition: some to draw, as texts; by default those that the generator lists.

    Raises:
        ValueError: it breaks the contract of `natgym.rollouts.Policy`.
    """
    steps = getattr(policy, "steps", None)
    _ask(isinstance(steps, int) and steps >= 1, f"steps is {steps!r}; it has to be an int of at least 1")
    condition = balanced(generator.conditions() if condition is None else condition, ROWS)
    together, again = (_decisions(policy, generator, condition, 0) for _ in range(2))
    _ask(torch.equal(together, again), "two runs on the same noise differ; decide by the mean action")
    for row in range(ROWS):
        alone = _decisions(policy, generator, condition[[row]], row)
        words = f"what is decided for row {row} depends on other rows"
        _same(together[:, [row]], alone, words)


def _some_ids(generator: Generator, device: torch.device) -> Tensor:
    """Return tokens (ROWS, L): all masked, none masked, and some in between."""
    random = torch.Generator().manual_seed(0)
    L = generator.num_tokens
    ids_BL = torch.randint(generator.codebook_size, (ROWS, L), generator=random)
    rank_BL = torch.rand(ROWS, L, generator=random).argsort(1)
    masked_B1 = torch.linspace(0, L, ROWS).round().long()[:, None]
    return ids_BL.masked_fill(rank_BL < masked_B1, generator.mask_id).to(device)


def _check_prediction(generator: Generator, prediction: Prediction) -> None:
    shapes = {"logits_BLV": generator.codebook_size, "features_BLD": generator.width}
    for name, last in shapes.items():
        values = getattr(prediction, name)
        expected = (ROWS, generator.num_tokens, last)
        _ask(tuple(values.shape) == expected, f"{name} has shape {tuple(values.shape)}, not {expected}")
        _ask(bool(torch.isfinite(values).all()), f"{name} is not finite everywhere")


def _check_learning(reward: Any, images_BCHW: Tensor, condition: Condition) -> None:
    state = copy.deepcopy(learned_state(reward))
    learns_from(reward)
    real, fake = Images(images_BCHW, condition), Images(images_BCHW.flip(0), condition)
    metrics = reward.update(real, fake)
    try:
        finite = all(math.isfinite(float(value)) for value in metrics.values())
    except (AttributeError, TypeError, ValueError):
        finite = False
    _ask(finite, f"update returned {metrics!r}; return a dict of finite numbers, its metrics")
    learned = as_rewards(reward(images_BCHW, condition), len(condition))
    if learned_state(reward):
        load_learned_state(reward, _as_saved(learned_state(reward)))
        resumed = as_rewards(reward(images_BCHW, condition), len(condition))
        _ask((learned == resumed).all(), "load_state_dict of its own state_dict changes the rewards")
        if hasattr(reward, "reset"):
            again = []
            for _ in range(2):
                reward.reset(0)
                again.append(as_rewards(reward(images_BCHW, condition), len(condition)))
            _ask((again[0] == again[1]).all(), "two resets by one seed differ; take all chance from the seed")
        load_learned_state(reward, state)


def _as_saved(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as a checkpoint gives it back."""
    file = io.BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        return torch.load(file, weights_only=True)
    except Exception as error:  # of pickle, of many kinds
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"state_dict can't be saved and read; give tensors, numbers, texts: {reason}"
        ) from None


def _decisions(policy: Policy, generator: Generator, condition: Condition, seed: int) -> Tensor:
    """Return what is played, (steps, rows, parameters); one that decides wrongly raises ValueError there."""
    noise = HashNoise.from_seed(seed, len(condition), condition.device)
    shape = (len(condition),)
    played = []
    try:
        for move in play(policy, generator, condition, noise):
            params = move.decision.params
            shapes = [tuple(values.shape) for values in params]
            _ask(shapes == [shape] * len(shapes), f"decisions have shapes {shapes}, not each {shape}")
            played.append(type(params).from_table(torch.stack([*params], -1)).table)
    except RuntimeError as error:  # of shapes that decoding trips over
        raise ValueError(f"what is decided can't be played, each has to be {shape}: {error}") from None
    return torch.stack(played)


def _same(values: Tensor, expected: Tensor, words: str, size: float | None = None) -> None:
    size = float(expected.abs().max()) if size is None else size
    _ask(float((values - expected).abs().max()) <= ROUNDING * size, words)


def _ask(holds: bool, words: str) -> None:
    if not holds:
        raise ValueError(words)
