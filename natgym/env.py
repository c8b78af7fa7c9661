"""The decoding of a batch of pictures as a Gymnasium environment, `natgym/Decode-v0`.

The physics are `generators.decoding`; this file adds conditions, seeds, actions, rewards and spaces, and
knows no agent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from generators.conditions import Condition
from generators.contract import Generator
from generators.decoding import DecodeState, advance, start
from generators.noise import HashNoise, Purpose, hash_uniform, next_episode
from generators.schedules import PARAMETERS, Schedule, as_schedule
from generators.tokenizers import Tokenizer
from natgym.loading import load_companion, load_generator
from natgym.pictures import reveal
from natgym.rewards import Reward, make_reward
from natgym.spaces import ActionMap, BatchedBox, Preset, action_space, batched, observation_space

Observation = dict[str, Tensor]
Info = dict[str, Any]


def observe(state: DecodeState, mask_id: int, dtype: torch.dtype = torch.float32) -> Observation:
    """Return what an agent sees of a state; after the last step no features exist, and they are zeros."""
    B, L = state.ids_BL.shape
    if state.prediction is not None:
        features_BLD = state.prediction.features_BLD.to(dtype)
    else:
        features_BLD = torch.zeros((), dtype=dtype, device=state.ids_BL.device)
    return {
        "features": features_BLD,
        "masked": (state.ids_BL == mask_id).to(torch.uint8),
        "step": torch.full((B, 1), float(state.step), device=state.ids_BL.device),
    }


METADATA = {"render_modes": ["rgb_array"], "render_fps": 4}


class DecodeVectorEnv(gymnasium.vector.VectorEnv[Observation, Any, np.ndarray]):
    """Draw `num_envs` pictures in `steps` parallel-decoding steps; the action decides how.

    ## Action Space
    `Box(-10, 10, (4,), float32)` per row, in pre-activation units around the schedule: zero plays the
    schedule.

    | index | parameter | default map, a = action |
    |---|---|---|
    | 0 | mask ratio after the step | sigmoid(logit(m) + a / 2) |
    | 1 | re-mask temperature | tau_2 exp(a) |
    | 2 | sampling temperature | tau_1 exp(a / 4) |
    | 3 | guidance scale, l_c + w (l_c - l_u) | softplus(softplus^-1(w) + a) |

    The mask ratio of the last step has no effect: it reveals everything.

    ## Observation Space
    A dict of torch tensors on the generator's device.

    | key | shape | meaning |
    |---|---|---|
    | features | (L, D) | the generator's final features of every token, conditional pass |
    | masked | (L,) uint8 | 1 where the token is not revealed yet |
    | step | (1,) float32 | steps taken, 0..T-1 |

    The tokens themselves, the noise and the reward's state are not observed; the condition is seen through
    the features.

    ## Rewards
    0 before the last step, then `reward(images, condition)`; by default the log-probability of the condition
    under the task's classifier.

    ## Starting State
    All tokens masked. Row i of `reset(seed=s)` has row seed s + i and, with "balanced", condition (s + i)
    modulo their number; its picture is a function of row seed, condition and actions alone. Later episodes
    derive their row seeds from the first and go on through the conditions.

    ## Episode End
    `terminated` after T steps, always; never truncated.

    ## Arguments
    | argument | default | meaning |
    |---|---|---|
    | num_envs | 1 | rows |
    | generator | "digits" | shipped task, folder of a saved generator, or live generator |
    | steps | 8 | T |
    | reward | "classifier" | name or live reward |
    | tokenizer | None | live, folder, or None for the one of the generator's task |
    | schedule | "reference" | what zero action plays: family name, file or `Schedule` |
    | actions | "default" | preset of `ActionMap`, or a live one |
    | conditions | "balanced" | "balanced", "random", or a `Condition` whose rows are taken in turn |
    | min_reveal | 1 | tokens each step reveals at least; 0 is AdaNAT's own rule |
    | dtype | "float32" | of the features: "float32" or "float16" |
    | device | "cpu" | of a generator loaded by name; a live one stays where it is |
    | autoreset | True | False: the caller resets, and no pass is spent on an episode nobody wants |
    | render_mode | None | "rgb_array": the pictures being revealed |

    ## Vectorized environment
    This is the native vector form, `gymnasium.make_vec("natgym/Decode-v0", num_envs=64)`; it resets in the
    same step. `info` holds the four decoding parameters (num_envs,) at each step, and `tokens` (num_envs, L),
    `images` (num_envs, C, H, W) and `nfe` (num_envs,) at the last. All rows finish together; no `final_obs`
    is made, since an episode that terminates is never bootstrapped.

    ## Version History
    * v0: first version.
    """

    metadata = {**METADATA, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        *,
        generator: str | Path | Generator = "digits",
        steps: int = 8,
        reward: str | Reward = "classifier",
        tokenizer: str | Path | Tokenizer | None = None,
        schedule: str | Path | Schedule = "reference",
        actions: Preset | ActionMap = "default",
        conditions: Literal["balanced", "random"] | Condition = "balanced",
        min_reveal: int = 1,
        dtype: Literal["float32", "float16"] = "float32",
        device: str = "cpu",
        autoreset: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs {num_envs}: at least one row is needed")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode {render_mode!r} is not one of None, {', '.join(self.metadata['render_modes'])}"
            )
        if dtype not in ("float32", "float16"):
            raise ValueError(f"dtype {dtype!r} is not one of float32, float16")
        self.generator, task = load_generator(generator, device)
        self.device = next(self.generator.parameters()).device
        self.tokenizer = load_companion(tokenizer, "tokenizer", task, self.device)
        ours, theirs = ((net.codebook_size, tuple(net.grid)) for net in (self.generator, self.tokenizer))
        if ours != theirs:
            raise ValueError(f"codes and grid: the generator has {ours}, the tokenizer {theirs}; use a pair")
        self.reward = make_reward(reward, task, self.device)
        if not isinstance(actions, ActionMap):
            actions = ActionMap.preset(actions, as_schedule(schedule, steps))
        as_schedule(actions.schedule, steps)  # a live map of another length fails here, not at a later step
        self.action_map = actions
        if isinstance(conditions, str) and conditions not in ("balanced", "random"):
            raise ValueError(
                f"conditions {conditions!r} is not one of balanced, random; a live Condition may be passed"
            )
        self.random_conditions = conditions == "random"
        pool = self.generator.conditions() if isinstance(conditions, str) else conditions
        self.pool: Condition = pool.to(self.device)
        self.num_envs, self.steps, self.min_reveal = num_envs, steps, min_reveal
        self.dtype, self.autoreset, self.render_mode = getattr(torch, dtype), autoreset, render_mode
        if not autoreset:
            self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = observation_space(
            self.generator.grid, self.generator.width, steps, dtype
        )
        self.single_action_space = action_space()
        self.observation_space = batched(self.single_observation_space, num_envs)
        self.action_space = BatchedBox(self.single_action_space, num_envs)
        self.state: DecodeState | None = None
        self.finished: DecodeState | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start a batch of pictures.

        Args:
            seed: row i gets row seed `seed` + i; None draws one from the env's own generator.
            options: {"condition": Condition of num_envs rows} fixes what is drawn in this episode.
        """
        super().reset(seed=seed)
        base = seed if seed is not None else int(self.np_random.integers(2**62))
        self.first_seeds_B = HashNoise.from_seed(base, self.num_envs).row_seeds_B
        self.episode, self.finished = 0, None
        self._begin((options or {}).get("condition"))
        return self._observe(), {}

    def step(self, actions: Any) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Take one decoding step in every row; actions (num_envs, 4), numpy or torch."""
        if self.state is None or self.state.done:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        actions_B4 = torch.as_tensor(actions).detach()
        if actions_B4.shape != self.action_space.shape:
            raise ValueError(
                f"actions have shape {tuple(actions_B4.shape)}; expected {self.action_space.shape}"
            )
        params = self.action_map(actions_B4, self.state.step)
        self.finished = None
        self.state = advance(self.generator, self.state, params, self.noise, min_reveal=self.min_reveal)
        info: Info = {name: values.numpy() for name, values in zip(PARAMETERS, params, strict=True)}
        rewards = np.zeros(self.num_envs)
        ended = np.full(self.num_envs, self.state.done)
        if self.state.done:
            images = self.tokenizer.decode(self.state.ids_BL)
            rewards = self.reward(images, self.state.condition).double().cpu().numpy()
            info |= {"tokens": self.state.ids_BL, "images": images, "nfe": self.state.nfe_B.numpy()}
            self.finished = self.state
            if self.autoreset:
                self.episode += 1
                self._begin(None)
        return self._observe(), rewards, ended, np.zeros(self.num_envs, dtype=bool), info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return the pictures so far, (H, W, 3) uint8 per row; finished ones stay until the next step."""
        state = self.finished or self.state
        if self.render_mode is None or state is None:
            return None
        return tuple(reveal(self.tokenizer, state, self.generator.mask_id))

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the pictures in progress."""
        self.state = self.finished = None

    def _begin(self, condition: Condition | None) -> None:
        seeds_B = next_episode(self.first_seeds_B, self.episode).to(self.device)
        if condition is None:
            condition = self._next_conditions(seeds_B)
        if not isinstance(condition, Condition):
            raise ValueError(f"condition is a {type(condition).__name__}; give a Condition, such as Labels")
        if len(condition) != self.num_envs:
            raise ValueError(f"{len(condition)} conditions for {self.num_envs} rows; give one per row")
        self.noise = HashNoise(seeds_B)
        self.state = start(self.generator, condition.to(self.device), steps=self.steps)

    def _next_conditions(self, seeds_B: Tensor) -> Condition:
        if self.random_conditions:
            uniform_B = hash_uniform(seeds_B, 0, 1, Purpose.CONDITION)[:, 0]
            return self.pool[(uniform_B * len(self.pool)).long()]
        return self.pool[
            ((self.first_seeds_B + self.episode * self.num_envs) % len(self.pool)).to(self.device)
        ]

    def _observe(self) -> Observation:
        assert self.state is not None
        observation = observe(self.state, self.generator.mask_id, self.dtype)
        shape = (self.num_envs, self.generator.num_tokens, self.generator.width)
        return observation | {"features": observation["features"].expand(shape).clone()}


class DecodeEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Draw one picture: `DecodeVectorEnv` with one row, numpy arrays and no autoreset; see there for the
    spaces.

    ## Version History
    * v0: first version.
    """

    metadata = METADATA

    def __init__(self, *, render_mode: str | None = None, **arguments: Any) -> None:
        self.rows = DecodeVectorEnv(1, autoreset=False, render_mode=render_mode, **arguments)
        self.render_mode = render_mode
        self.observation_space = self.rows.single_observation_space
        self.action_space = self.rows.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], Info]:
        super().reset(seed=seed)
        base = seed if seed is not None else int(self.np_random.integers(2**62))
        observation, info = self.rows.reset(seed=base, options=options)
        return _first(observation), info

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, Info]:
        observation, rewards, terminated, truncated, info = self.rows.step(np.asarray(action)[None])
        first = {
            key: values[0].tolist() if values.ndim == 1 else _numpy(values[0]) for key, values in info.items()
        }
        return _first(observation), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), first

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        pictures = self.rows.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        self.rows.close()


def _numpy(values: Any) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, Tensor) else values


def _first(observation: Observation) -> dict[str, np.ndarray]:
    return {key: _numpy(values[0]) for key, values in observation.items()}
