"""What a reward returned, as numbers that an environment can hand on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def judged(reward: Any, images_BCHW: Tensor, condition: Any) -> Tensor:
    """Return what a reward says of images, a tensor (B,) where they are; arrays and lists are taken.

    Raises:
        ValueError: see `as_rewards`.
    """
    returned = reward(images_BCHW, condition)
    rewards_B = as_rewards(returned, len(images_BCHW))
    said_B = returned if isinstance(returned, Tensor) else torch.from_numpy(rewards_B)
    return said_B.to(images_BCHW.device)


def as_rewards(returned: Any, num_images: int) -> np.ndarray:
    """Return rewards as float64 (num_images,), a copy; tensors, numpy arrays and lists are taken.

    Raises:
        ValueError: they are not real numbers, one per image, or not all finite.
    """
    asked = f"return one finite number per image, shape ({num_images},)"
    try:
        values = returned.detach() if isinstance(returned, Tensor) else torch.as_tensor(np.asarray(returned))
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"the reward is a {type(returned).__name__}; {asked}") from None
    if values.is_complex():
        raise ValueError(f"the reward is {values.dtype}; {asked}")
    if values.shape != (num_images,):
        raise ValueError(f"the reward has shape {tuple(values.shape)}; {asked}")
    rewards_B = values.to("cpu", torch.float64, copy=True).numpy()
    if not (finite_B := np.isfinite(rewards_B)).all():
        raise ValueError(f"the reward of row {finite_B.argmin()} is {rewards_B[finite_B.argmin()]}; {asked}")
    return rewards_B
