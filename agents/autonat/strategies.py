"""Spaces of static strategies: vectors of numbers that an optimizer moves, and the schedules they mean.

AutoNAT (arXiv 2406.05478) moves the 4T - 2 decoding parameters themselves; here they can also be moved in
the pre-activation units of the environment's action map, where a step of 1 weighs about the same in each, or
along a family of few numbers, which is a cheap warm start. Guidance is l_c + w (l_c - l_u).
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from agents.autonat.config import Ratio
from generators.families import beta_cdf, cosine, ramp, table
from generators.parameters import STANDARD, stacked
from generators.schedules import TABLE, Schedule
from natgym.spaces import ACTION_BOUND, SOFTPLUS, ActionMap


class Space(Protocol):
    """Where an optimizer searches."""

    @property
    def start(self) -> np.ndarray:
        """The vector (d,) it begins with."""
        ...

    def schedule(self, vector: np.ndarray) -> Schedule:
        """Return the schedule that a vector (d,) means."""
        ...


class Parameters:
    """AutoNAT's coordinates: the values of each of its parameters in the steps that it decides something in.

    Further registered parameters are neutral. The start is AutoNAT's: m = cos(pi (k + 1) / 2T),
    tau_2 = 1 - k / T, tau_1 = 1, w = (k + 1) / T.

    Attributes:
        step, rate, low, high: (d,) AutoNAT's finite-difference steps, learning rates and bounds.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.lengths = [TABLE[name].decides(steps) for name in STANDARD]
        self.step = self._each(0.01, 0.1, 0.1, 0.1)
        self.rate = self._each(1e-3, 0.1, 0.1, 0.1)
        self.low = self._each(0.0, 1e-4, 1e-4, 1e-4)
        self.high = self._each(0.99, math.inf, math.inf, math.inf)

    @property
    def start(self) -> np.ndarray:
        k, T = np.arange(self.steps), self.steps
        columns = np.cos(np.pi / 2 * (k + 1) / T), 1 - k / T, np.ones(T), (k + 1) / T
        return np.concatenate([values[:n] for values, n in zip(columns, self.lengths, strict=True)])

    def schedule(self, vector: np.ndarray) -> Schedule:
        parts = np.split(vector, np.cumsum(self.lengths)[:-1])
        columns = {}
        for name, values in zip(STANDARD, parts, strict=True):
            values = np.clip(values, 0, TABLE[name].high) if TABLE[name].high < math.inf else values
            columns[name] = torch.from_numpy(np.pad(values, (0, self.steps - len(values))))
        return Schedule(stacked(columns))

    def _each(self, *values: float) -> np.ndarray:
        return np.repeat(values, self.lengths)


class Around:
    """All parameters in the units of the default action map around a schedule, which is 0.

    What the last step ignores is not among them: 4T - 2 numbers of the four.
    """

    def __init__(self, base: Schedule) -> None:
        self.action_map = ActionMap.preset("default", base)
        ends = np.array([parameter.decides(base.steps) for parameter in TABLE.values()])
        self.free_TK = np.arange(base.steps)[:, None] < ends

    @property
    def start(self) -> np.ndarray:
        return np.zeros(int(self.free_TK.sum()))

    def schedule(self, vector: np.ndarray) -> Schedule:
        actions_TK = np.zeros(self.free_TK.shape)
        actions_TK[self.free_TK] = np.clip(vector, -ACTION_BOUND, ACTION_BOUND)
        return Schedule(self.action_map.episode(torch.from_numpy(actions_TK)))


class Family:
    """Few numbers for any T, in units of similar weight; 0 is the reference schedule, or close to it.

    In order: re-mask temperature c (1 - r), c = e^z; sampling temperature e^(z / 4); guidance
    w (s - h) / (1 - h) from the share h of the steps on, w = softplus(z + softplus^-1(1)), h = z / 4 clipped
    to [0, 0.9]; then the mask ratio's one or two: cos(pi r^p / 2) with p = e^(z / 2), or
    1 - F(r) of Beta(1.77 e^(z / 2), e^(z' / 2)), which is close to a cosine at 0.
    """

    def __init__(self, steps: int, ratio: Ratio = "power-cosine") -> None:
        self.steps, self.ratio = steps, ratio

    @property
    def start(self) -> np.ndarray:
        return np.zeros(5 if self.ratio == "power-cosine" else 6)

    def schedule(self, vector: np.ndarray) -> Schedule:
        z = np.clip(vector, -ACTION_BOUND, ACTION_BOUND)
        scale = SOFTPLUS.forward(torch.tensor(z[2]) + SOFTPLUS.inverse(torch.ones((), dtype=torch.float64)))
        begin = float(np.clip(z[3] / 4, 0, 0.9))

        def ratio(r_T: Tensor) -> Tensor:
            if self.ratio == "power-cosine":
                return cosine(r_T ** math.exp(z[4] / 2))
            return beta_cdf(r_T, a=1.77 * math.exp(z[4] / 2), b=math.exp(z[5] / 2))

        def guidance(s_T: Tensor) -> Tensor:
            return scale * ((risen(s_T) - begin) / (1 - begin)).clamp_min(0)

        remask, sampling = (math.exp(z[0]), 0.0), (math.exp(z[1] / 4),) * 2
        return Schedule(table(self.steps, ratio, remask=remask, sampling=sampling, guidance=guidance))


class Scales:
    """Three factors of the reference schedule: re-mask temperature, sampling temperature, guidance.

    Of a single step the last one is the guidance itself.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    @property
    def start(self) -> np.ndarray:
        return np.ones(3)

    def schedule(self, vector: np.ndarray) -> Schedule:
        remask, sampling, guidance = vector.tolist()
        return Schedule(
            table(
                self.steps,
                remask=(remask, 0.0),
                sampling=(sampling, sampling),
                guidance=lambda s_T: ramp(risen(s_T), w=guidance),
            )
        )


def risen(s_T: Tensor) -> Tensor:
    """Return how far guidance has risen at each share of the steps.

    It begins at nothing, and a single step would never have any, though there it costs no pass.
    """
    return torch.ones_like(s_T) if len(s_T) == 1 else s_T
