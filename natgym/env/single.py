"""The decoding of one image as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from natgym.env.infos import Info
from natgym.env.vector import METADATA, DecodeVectorEnv
from natgym.observations import Observation


class DecodeEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Draw one image: `DecodeVectorEnv` with one row, numpy arrays and no autoreset; see there for the
    spaces.

    ## Version History
    * v1, v0: as there.
    """

    metadata = METADATA

    def __init__(self, *, render_mode: str | None = None, **arguments: Any) -> None:
        if foreign := {"num_envs", "autoreset"} & set(arguments):
            raise ValueError(f"{sorted(foreign)} are arguments of make_vec: this environment draws one image")
        self.rows = DecodeVectorEnv(1, autoreset=False, render_mode=render_mode, **arguments)
        self.render_mode, self.steps = render_mode, self.rows.steps
        self.observation_space = self.rows.single_observation_space
        self.action_space = self.rows.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], Info]:
        super().reset(seed=seed)
        if seed is None and self.rows.first_seeds_B is None:
            seed = int(self.np_random.integers(2**62))
        observation, info = self.rows.reset(seed=seed, options=options)
        return _first(observation), info

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, Info]:
        observation, rewards, terminated, truncated, info = self.rows.step(np.asarray(action)[None])
        first = {
            key: values[0].tolist() if values.ndim == 1 else values[0]
            for key, values in info.items()
            if not key.startswith("_")
        }
        return _first(observation), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), first

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        pictures = self.rows.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        self.rows.close()


def _first(observation: Observation) -> dict[str, np.ndarray]:
    return {key: values[0].cpu().numpy() for key, values in observation.items()}
