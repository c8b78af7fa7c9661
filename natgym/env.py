"""The decoding of a batch of pictures as a Gymnasium environment, `natgym/Decode-v0`.

The physics are `generators.decoding`; this file adds conditions, seeds, actions, rewards and spaces, and
knows no agent.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from generators.first_pass import FirstPass
from generators.noise import HashNoise, Purpose, hash_uniform, next_episode
from generators.rules import DecodeRules
from generators.schedules import PARAMETERS, Schedule, as_schedule
from generators.tokenizers import Tokenizer
from natgym.loading import load_companion, load_generator
from natgym.observations import FeatureType, Kind, Observation, Observer
from natgym.pictures import reveal
from natgym.rewards import RewardSpec, make_reward
from natgym.spaces import ActionMap, BatchedBox, Preset, batched

Info = dict[str, Any]
METADATA = {"render_modes": ["rgb_array"], "render_fps": 4}


class DecodeVectorEnv(gymnasium.vector.VectorEnv[Observation, Any, np.ndarray]):
    """Draw `num_envs` pictures in `steps` parallel-decoding steps; the action decides how.

    ## Description
    A masked-token generator draws a picture as a grid of L tokens. At each step it draws all masked tokens
    anew and masks the least confident of them again, until the last step reveals everything. The agent sets,
    for each picture and step, how many are masked again, at which two temperatures, and with how much
    guidance.

    ## Action Space
    A float32 box (4,) per row, in pre-activation units around the schedule: zero plays the schedule. What
    lies outside is clipped, and `info["clipped"]` says so.

    | index | parameter | default map, a = action | a |
    |---|---|---|---|
    | 0 | mask_ratio, after the step | sigmoid(logit(m) + a / 2) | +-3 |
    | 1 | remask_temperature | tau_2 exp(a) | +-5 |
    | 2 | sampling_temperature | tau_1 exp(a / 4) | +-3.5 |
    | 3 | guidance_scale, l_c + w (l_c - l_u) | softplus(softplus^-1(w) + a) | +-3.5 |

    The paper's presets take +-10 for each.

    The mask ratio of the last step has no effect: it reveals everything. With `parameters=`, only those are
    set, in this order, and the others follow the schedule. With `smoothing=s`, what is played is
    s * (what was played before) + (1 - s) * a, from the second step on (AdaGen).

    ## Observation Space
    A dict of torch tensors on the generator's device.

    | key | shape | meaning |
    |---|---|---|
    | features | (L, D) | the generator's final features of every token, conditional pass |
    | masked | (L,) uint8 | 1 where the token is not revealed yet |
    | step | (1,) float32 | steps taken, 0..T-1 |
    | tokens | (L,) int32 | with observation="tokens": ids, the mask's being the codebook's size |
    | previous_action | (4,) float32 | with smoothing: what was played before, zero at the start |

    With observation="pooled", the features are means over 2 x 2 tokens, (L / 4, D); the memory that each kind
    takes stands in `natgym.observations`. Not observed: the noise, the logits, the unconditional pass and the
    reward's state; nor, unless asked for, the tokens themselves. The condition is seen through the features.

    ## Rewards
    0 before the last step, then `reward(images, condition)`; by default the log-probability of the condition
    under the task's classifier. Several are summed with weights.

    ## Starting State
    All tokens masked. Row i of `reset(seed=s)` has row seed s + i and, with "balanced", condition (s + i)
    modulo their number; its picture is a function of row seed, condition and actions alone (its reward too,
    unless the reward compares neighbours). Later episodes derive their row seeds from the first and go on
    through the conditions. `reset(options={"condition": ...})` says what to draw in one episode.

    ## Episode End
    `terminated` after T steps, always; never truncated.

    ## Arguments
    | argument | default | meaning |
    |---|---|---|
    | num_envs | 1 | rows |
    | generator | "digits" | shipped task, folder of a saved generator, or live generator |
    | steps | 8 | T |
    | reward | "classifier" | name, live reward, or a dict or pairs of these with weights |
    | tokenizer | None | live, folder, or None for the one of the generator's task |
    | schedule | "reference" | what zero action plays: family name, file or `Schedule` |
    | actions | "default" | preset of `ActionMap`, or a live one with its own next two |
    | parameters | all four | names of those that an action sets |
    | smoothing | 0.0 | share of the action played before, in [0, 1) |
    | observation | "features" | "features", "pooled" or "tokens" |
    | dtype | "float32" | of the features: "float32" or "float16" |
    | conditions | "balanced" | "balanced", "random", or a `Condition` whose rows are taken in turn |
    | rules | "confidence" | `DecodeRules`, or their text: "halton", "adanat" (a step may reveal nothing) |
    | first_pass_bytes | 0 | memory for all-masked passes kept between episodes; 0 keeps none |
    | device | "cpu" | of a generator loaded by name; a live one stays where it is |
    | autoreset | True | False: the caller resets, and no pass is spent on an episode nobody wants |
    | render_mode | None | "rgb_array": the pictures being revealed |

    ## Vectorized environment
    This is the native vector form, `gymnasium.make_vec("natgym/Decode-v0", num_envs=64)`; it resets in the
    same step. `info` holds the decoding parameters and `clipped` (num_envs,) at each step, and `tokens`
    (num_envs, L), `images` (num_envs, C, H, W) and `nfe` (num_envs,) at the last. All rows finish together;
    no `final_obs` is made, since an episode that terminates is never bootstrapped.

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
        reward: RewardSpec = "classifier",
        tokenizer: str | Path | Tokenizer | None = None,
        schedule: str | Path | Schedule = "reference",
        actions: Preset | ActionMap = "default",
        parameters: Sequence[str] = PARAMETERS,
        smoothing: float = 0.0,
        observation: Kind = "features",
        dtype: FeatureType = "float32",
        conditions: Literal["balanced", "random"] | Condition = "balanced",
        rules: str | DecodeRules = "confidence",
        first_pass_bytes: int = 0,
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
        self.num_envs, self.steps = num_envs, steps
        self.autoreset, self.render_mode = autoreset, render_mode
        self.action_map = _action_map(actions, schedule, steps, parameters, smoothing)
        self._load(generator, tokenizer, reward, device)
        rows, columns = self.generator.grid  # a list, perhaps, as read from JSON
        self.rules = DecodeRules.of(rules, (rows, columns))
        self.random_conditions = conditions == "random"
        self.pool = _pool(conditions, self.generator).to(self.device)
        smoothed = len(self.action_map.parameters) if self.action_map.smoothing else 0
        self.observer = Observer.of(self.generator, kind=observation, dtype=dtype, num_smoothed=smoothed)
        self.first_pass = FirstPass(self.generator, first_pass_bytes) if first_pass_bytes else None
        if not autoreset:
            self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = self.observer.space(steps)
        self.single_action_space = self.action_map.action_space
        self.observation_space = batched(self.single_observation_space, num_envs)
        self.action_space = BatchedBox(self.single_action_space, num_envs)
        self.state: DecodeState | None = None
        self.finished: DecodeState | None = None
        self.played_Bk = torch.zeros(num_envs, len(self.action_map.parameters))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start a batch of pictures.

        Args:
            seed: row i gets row seed `seed` + i; None draws one from the env's own generator.
            options: {"condition": Condition of num_envs rows} fixes what is drawn in this episode.
        """
        if self.closed:
            raise gymnasium.error.ClosedEnvironmentError("this environment is closed; make a new one")
        if strangers := set(options or {}) - {"condition"}:
            raise ValueError(f"options {sorted(strangers)} are not known; there is only 'condition'")
        super().reset(seed=seed)
        base = seed if seed is not None else int(self.np_random.integers(2**62))
        self.first_seeds_B = HashNoise.from_seed(base, self.num_envs).row_seeds_B
        self.episode, self.finished = 0, None
        self._begin((options or {}).get("condition"))
        return self._observe(), {}

    def step(self, actions: Any) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Take one decoding step in every row; actions (num_envs, k), numpy or torch."""
        if self.state is None or self.state.done:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        actions_Bk = torch.as_tensor(actions).detach()
        if actions_Bk.shape != self.action_space.shape:
            raise ValueError(
                f"actions have shape {tuple(actions_Bk.shape)}; expected {self.action_space.shape}"
            )
        played_Bk = self.action_map.smooth(actions_Bk, self.played_Bk.to(actions_Bk.device), self.state.step)
        params = self.action_map(played_Bk, self.state.step)
        self.played_Bk, self.finished = played_Bk.float(), None
        self.state = advance(self.generator, self.state, params, self.noise, self.rules)
        info: Info = {name: values.numpy() for name, values in zip(PARAMETERS, params, strict=True)}
        info["clipped"] = self.action_map.outside(actions_Bk).cpu().numpy()
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
        """Let go of the pictures in progress and of the networks, and with them of the device's memory."""
        self.state = self.finished = self.first_pass = None
        for name in ("generator", "tokenizer", "reward", "pool", "noise"):
            vars(self).pop(name, None)  # a constructor that failed has not all of them
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _load(self, generator: Any, tokenizer: Any, reward: RewardSpec, device: str) -> None:
        self.generator, task = load_generator(generator, device)
        self.device = next(self.generator.parameters()).device
        self.tokenizer = load_companion(tokenizer, "tokenizer", task, self.device)
        ours, theirs = ((net.codebook_size, tuple(net.grid)) for net in (self.generator, self.tokenizer))
        if ours != theirs:
            raise ValueError(f"codes and grid: the generator has {ours}, the tokenizer {theirs}; use a pair")
        self.reward = make_reward(reward, task, self.device)

    def _begin(self, condition: Condition | None) -> None:
        seeds_B = next_episode(self.first_seeds_B, self.episode).to(self.device)
        if condition is None:
            condition = self._next_conditions(seeds_B)
        if not isinstance(condition, Condition):
            raise ValueError(f"condition is a {type(condition).__name__}; give a Condition, such as Labels")
        if len(condition) != self.num_envs:
            raise ValueError(f"{len(condition)} conditions for {self.num_envs} rows; give one per row")
        self.noise = HashNoise(seeds_B)
        self.played_Bk = torch.zeros_like(self.played_Bk)
        condition = condition.to(self.device)
        self.state = start(self.generator, condition, steps=self.steps, first_pass=self.first_pass)

    def _next_conditions(self, seeds_B: Tensor) -> Condition:
        if self.random_conditions:
            uniform_B = hash_uniform(seeds_B, 0, 1, Purpose.CONDITION)[:, 0]
            return self.pool[(uniform_B * len(self.pool)).long()]
        return self.pool[
            ((self.first_seeds_B + self.episode * self.num_envs) % len(self.pool)).to(self.device)
        ]

    def _observe(self) -> Observation:
        assert self.state is not None
        return self.observer(self.state, self.played_Bk)


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


def _action_map(
    actions: Preset | ActionMap,
    schedule: str | Path | Schedule,
    steps: int,
    parameters: Sequence[str],
    smoothing: float,
) -> ActionMap:
    if not isinstance(actions, ActionMap):
        options: dict[str, Any] = {"parameters": tuple(parameters), "smoothing": smoothing}
        return ActionMap.preset(actions, as_schedule(schedule, steps), **options)
    if tuple(parameters) != PARAMETERS or smoothing:
        raise ValueError("a live action map has its own parameters and smoothing; set them there")
    as_schedule(actions.schedule, steps)  # a map of another length fails here, not at a later step
    return actions


def _pool(conditions: str | Condition, generator: Generator) -> Condition:
    if not isinstance(conditions, str):
        return conditions
    if conditions not in ("balanced", "random"):
        raise ValueError(
            f"conditions {conditions!r} is not one of balanced, random; a live Condition may be passed"
        )
    return generator.conditions()


def _numpy(values: Any) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, Tensor) else values


def _first(observation: Observation) -> dict[str, np.ndarray]:
    return {key: _numpy(values[0]) for key, values in observation.items()}
