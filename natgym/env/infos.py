"""Info as Gymnasium's vector environments give it: arrays with a mask each, and what ended apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from natgym.observations import Observation

Info = dict[str, Any]


def own(values: Tensor) -> np.ndarray:
    """Return a contiguous numpy copy, which its receiver may keep and change."""
    host = values.detach().cpu()
    return (host if host.dtype.itemsize > 2 or not host.is_floating_point() else host.float()).numpy().copy()


def masked(info: Info, num_envs: int) -> Info:
    """Return info with `_key` beside each key, bool (num_envs,): every row has it."""
    return info | {f"_{key}": np.ones(num_envs, dtype=bool) for key in info}


def with_final(info: Info, observation: Observation, num_envs: int) -> Info:
    """Return the masked info of a step in which all rows ended and began anew.

    Args:
        info: of the step, masked; it also becomes `final_info`, with copies of its arrays.
        observation: the last one of the episode, (num_envs, ...) each; it becomes `final_obs`, an array of
            one dict per row.
    """
    final_obs = np.empty(num_envs, dtype=object)
    final_obs[:] = [{key: values[row] for key, values in observation.items()} for row in range(num_envs)]
    final = {"final_obs": final_obs, "final_info": {key: values.copy() for key, values in info.items()}}
    return info | masked(final, num_envs)


def check_options(options: Info | None, num_envs: int) -> None:
    """Refuse options of `reset` that are unknown, or a reset of some rows only.

    Raises:
        ValueError: a key is not one of 'condition', 'prompt', 'price' and 'reset_mask'; the mask is not bool
            (num_envs,), all True.
    """
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise TypeError(f"options {options!r} are no mapping; give {{'condition': ...}} or None")
    if strangers := set(options) - {"condition", "prompt", "price", "reset_mask"}:
        raise ValueError(
            f"options {sorted(strangers)} are not known; there are only 'condition', 'prompt', 'price' and "
            "'reset_mask'"
        )
    if {"condition", "prompt"} <= set(options):
        raise ValueError("options 'condition' and 'prompt' say the same; give one of them")
    if "reset_mask" not in options:
        return
    mask = np.asarray(options["reset_mask"])
    if mask.dtype != np.bool_ or mask.shape != (num_envs,):
        raise ValueError(f"reset_mask is {mask.dtype} {mask.shape}; give bool ({num_envs},)")
    if not mask.all():
        raise ValueError(
            f"reset_mask has {mask.sum()} of {num_envs} rows: rows begin and end together; reset all of them"
        )
