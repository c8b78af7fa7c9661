"""The decoding of a batch of images as a Gymnasium environment, `natgym/Decode-v1`.

The physics are `generators.decoding`; this file adds conditions, seeds, actions, rewards and spaces, and
knows no agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from generators.conditions import Condition
from generators.contract import Generator
from generators.decoding import DecodeState
from generators.first_pass import FirstPass
from generators.noise import CoupledNoise, HashNoise, next_episode
from generators.parts import Parts
from generators.rules import DecodeRules
from generators.schedules import PARAMETERS, Schedule
from generators.tokenizers import Tokenizer, decode_all, refuse_other_codes
from natgym.env import arguments
from natgym.env.infos import Info, check_options, masked, own, with_final
from natgym.env.isolation import playing, unaffected
from natgym.env.prices import Prices
from natgym.env.rendering import reveal
from natgym.names.prices import Price
from natgym.observations import FeatureType, Kind, Observation, Observer
from natgym.rewards.checks import as_rewards
from natgym.rewards.named import RewardSpec, make_reward
from natgym.spaces import Actions, Map, batched, batched_actions
from natgym.task import Task

METADATA = {"render_modes": [*arguments.RENDER_MODES], "render_fps": 4}


class DecodeVectorEnv(gymnasium.vector.VectorEnv[Observation, Any, np.ndarray]):
    """Draw `num_envs` images in `steps` parallel-decoding steps; the action decides how.

    ## Description
    A masked-token generator draws an image as a grid of L tokens. At each step it draws all masked tokens
    anew and masks the least confident of them again, until the last step reveals everything. The agent sets,
    for each image and step, how many are masked again, at which two temperatures, and with how much
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

    The paper's presets take +-10 for each. The mask ratio of the last step has no effect. With `parameters=`,
    only those are set, in this order, and the others follow the schedule. With `smoothing=s`, what is played
    is s * (what was played before) + (1 - s) * a, from the second step on (AdaGen).

    ## Observation Space
    A dict of torch tensors on the generator's device.

    | key | shape | meaning |
    |---|---|---|
    | features | (L, D) | the generator's final features of every token, conditional pass |
    | masked | (L,) uint8 | 1 where the token is not revealed yet |
    | step | (1,) float32 | steps taken, 0..T-1 |
    | price | (1,) float32 | with a range of prices: what a pass of this image costs |
    | tokens | (L,) int32 | with observation="tokens": ids, the mask's being the codebook's size |
    | previous_action | (4,) float32 | with smoothing: what was played before, zero at the start |

    With observation="pooled", the features are means over 2 x 2 tokens, (L / 4, D); the memory that each kind
    takes stands in `natgym.observations`. Not observed: the noise, the logits, the unconditional pass and the
    reward's state; nor, unless asked for, the tokens themselves. The condition is seen through the features.

    ## Rewards
    0 before the last step, then `reward(images, condition)`, less `price` for each forward pass, that of the
    row where it is a range; by default the log-probability of the condition under the task's classifier.
    Several are summed with weights. A row with nothing left to draw takes no passes, and what is decided for
    it has no effect.

    ## Starting State
    All tokens masked but those that the condition gives (`generators.given`). Row i of `reset(seed=s)` has
    row seed s + i and, with "balanced", condition (s + i) modulo their number; its image is a function of row
    seed, condition and actions alone (its reward too, unless the reward compares neighbors). With `group=G`
    it is s + i // G, so that G rows in a row share
    noise and condition and differ by their actions alone. Later episodes, of a reset without a seed or an
    autoreset, derive their row seeds from the first and go on through the conditions.
    `reset(options={"condition": ..., "price": ...})` says what to draw in one episode, and at which prices.

    ## Episode End
    `terminated` after T steps, always; never truncated.

    ## Arguments
    | argument | default | meaning |
    |---|---|---|
    | num_envs | 1 | rows |
    | task | None | `Task`, shipped task ("digits", "mnist/enat") or its folder; by default digits |
    | generator | None | live, or folder, in place of the task's; alone it stands for its own task |
    | steps | 8 | T |
    | reward | "classifier" | name or sum ("adversarial=1,influence=.5"), live reward, or pairs with weights |
    | rewards | None | options of named rewards: {"adversarial": {"channels": 16}} |
    | price | 0.0 | off the reward for each pass of the image; (lowest, highest): each row draws its own |
    | tokenizer | None | live, or folder, in place of the task's |
    | schedule | None | what zero action plays: family name, file or `Schedule`; by default reference |
    | actions | "default" | preset or live `ActionMap`; for each token "reveal": a bit, "tokens": a score |
    | parameters | all four | names of those that an action sets |
    | smoothing | 0.0 | share of the action played before, in [0, 1) |
    | observation | "features" | "features", "pooled", "tokens", or "statistics": also how sure it is |
    | dtype | "float32" | of the features: "float32" or "float16" |
    | conditions | the task's | "balanced", "random", or a `Condition` whose rows are taken in turn |
    | group | 1 | rows in a row that share noise and condition; it divides num_envs |
    | coupled | False | draw codes by `CoupledNoise`: a small change of action moves few tokens |
    | rules | "confidence" | `DecodeRules`, or their text: "halton", "adanat" (a step may reveal nothing) |
    | first_pass_bytes | 0 | memory for all-masked passes kept between episodes; 0 keeps none |
    | micro_batch | None | rows that a network meets at once; by default as many as 4 GiB hold, 256 on a CPU |
    | device | None | where networks are loaded to, by default the CPU; live ones stay where they are |
    | autoreset | True | False: the caller resets, and no pass is spent on an episode nobody wants |
    | render_mode | None | "rgb_array": the images being revealed |

    ## Vectorized environment
    This is the native vector form, `gymnasium.make_vec("natgym/Decode-v1", num_envs=64)`. `info` holds numpy
    arrays: the decoding parameters and `clipped` (num_envs,) at each step, and `tokens` (num_envs, L),
    `images` (num_envs, C, H, W) and `nfe` (num_envs,) at the last; beside each key, `_key` is True for every
    row. All rows finish together. Autoreset is SAME_STEP, and the last step's info then also is `final_info`,
    the last observation of row i `final_obs[i]`; or DISABLED, and `reset(options={"reset_mask": ...})` takes
    a mask that is all True. `images` and `finished` of the environment are the last images and their state on
    its device.

    ## Version History
    * v1: each parameter of the default map has bounds of its own, and what lies outside is clipped; a reset
      without a seed goes on with the next episode; info is numpy, with masks, `final_info` and
      `final_obs`; rewards are checked.
    * v0: first version.
    """

    metadata = {**METADATA, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        *,
        task: str | Path | Task | None = None,
        generator: str | Path | Generator | None = None,
        steps: int = 8,
        reward: RewardSpec = "classifier",
        rewards: Mapping[str, Mapping[str, Any]] | None = None,
        price: Price = 0.0,
        tokenizer: str | Path | Tokenizer | None = None,
        schedule: str | Path | Schedule | None = None,
        actions: Actions | Map = "default",
        parameters: Sequence[str] = PARAMETERS,
        smoothing: float = 0.0,
        observation: Kind = "features",
        dtype: FeatureType = "float32",
        conditions: Literal["balanced", "random"] | Condition | None = None,
        group: int = 1,
        coupled: bool = False,
        rules: str | DecodeRules = "confidence",
        first_pass_bytes: int = 0,
        micro_batch: int | None = None,
        device: str | None = None,
        autoreset: bool = True,
        render_mode: str | None = None,
    ) -> None:
        arguments.check_types(locals())
        arguments.check(num_envs, group, micro_batch, render_mode)
        self.num_envs, self.steps, self.micro_batch = num_envs, steps, micro_batch
        self.group, self.coupled, self.prices = group, coupled, Prices(price)
        self.price = self.prices.price
        self.autoreset_mode = AutoresetMode.SAME_STEP if autoreset else AutoresetMode.DISABLED
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        with unaffected():
            self.task = arguments.build_task(task, generator, tokenizer, device)
            self._load(reward, rewards)
        self.rules = DecodeRules.of(rules, self.generator.grid)
        self.random_conditions = conditions == "random"
        self.pool = arguments.build_pool(conditions, self.task).to(self.device)
        self.action_map = arguments.build_action_map(
            actions, schedule, steps, parameters, smoothing, self.generator.num_tokens, self.pool.guides
        )
        seen = {"kind": observation, "dtype": dtype, "num_smoothed": self.action_map.num_smoothed}
        prices = self.price if isinstance(self.price, tuple) else None
        self.observer = Observer.of(self.generator, **seen, prices=prices)
        self.first_pass = FirstPass(self.generator, first_pass_bytes) if first_pass_bytes else None
        shown = self.observer, self.action_map, self.rules, steps
        self.single_observation_space = arguments.shown_space(*shown)
        self.single_action_space = self.action_map.action_space
        self.observation_space = batched(self.single_observation_space, num_envs)
        self.action_space = batched_actions(self.single_action_space, num_envs)
        self.parts: Parts | None = None
        self.finished: DecodeState | None = None
        self.images: Tensor | None = None  # of that
        self.first_seeds_B: Tensor | None = None
        self.episode = 0  # since the last seed
        self.played_Bk = torch.zeros(num_envs, len(self.action_map.parameters), dtype=torch.float32)

    def like(self, **changed: Any) -> DecodeVectorEnv:
        """Return a sibling on the same live objects: task, generator, reward, action map and rules.

        Args:
            changed: arguments that differ, such as `num_envs` or `autoreset`.

        Raises:
            ValueError: an argument is decided by one of the live objects already.
        """
        same: dict[str, Any] = {
            "num_envs": self.num_envs,
            "task": self.task,
            "steps": self.steps,
            "reward": self.reward,
            "price": self.price,
            "actions": self.action_map,
            "observation": self.observer.kind,
            "dtype": self.observer.dtype,
            "conditions": "random" if self.random_conditions else self.pool,
            "group": self.group,
            "coupled": self.coupled,
            "rules": self.rules,
            "first_pass_bytes": 0 if self.first_pass is None else self.first_pass.max_bytes,
            "micro_batch": self.micro_batch,
            "autoreset": self.autoreset_mode == AutoresetMode.SAME_STEP,
            "render_mode": self.render_mode,
        }
        sibling = type(self)(**{**same, **changed})
        if "reward" not in changed:
            sibling.reward_name, sibling.reward_options = self.reward_name, self.reward_options
        return sibling

    @property
    def state(self) -> DecodeState | None:
        """Where all rows stand; None before the first reset."""
        return None if self.parts is None else self.parts.state

    @playing
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start a batch of images.

        Args:
            seed: row i gets row seed `seed` + i // group. None goes on with the next episode; the first time
                it draws a seed from the env's own generator.
            options: {"condition": Condition of num_envs rows, or names of classes} or {"prompt": texts}
                fixes what is drawn in this episode; {"price": number, or one for each row} its prices, where
                they are a range; {"reset_mask": bool (num_envs,)}, all True, changes nothing.

        Raises:
            ValueError: an option is not known, or not for all rows.
        """
        check_options(options, self.num_envs)
        super().reset(seed=seed)
        if seed is None and self.first_seeds_B is not None:
            self.episode += 1
        else:
            base = seed if seed is not None else int(self.np_random.integers(2**62))
            self.first_seeds_B = HashNoise.from_seed(base, self.num_envs, group=self.group).row_seeds_B
            self.episode = 0
        self.finished = self.images = None
        asked = options or {}
        self._begin(asked.get("condition", asked.get("prompt")), asked.get("price"))
        return self._observe(), {}

    @playing
    def step(self, actions: Any) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Take one decoding step in every row; actions (num_envs, k), numpy or torch.

        Raises:
            ResetNeeded: the episode has not begun or is over.
            ValueError: the actions have another shape or are not finite, or the reward is not one finite
                number per image.
        """
        if self.parts is None or self.parts.done:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        actions_Bk = arguments.as_actions(actions)
        if actions_Bk.shape != self.action_space.shape:
            raise ValueError(
                f"actions have shape {tuple(actions_Bk.shape)}; expected {self.action_space.shape}"
            )
        played_Bk = self.action_map.smooth(actions_Bk, self.played_Bk.to(actions_Bk.device), self.parts.step)
        params = self.action_map(played_Bk, self.parts.step)
        self.played_Bk = played_Bk.to(torch.float32, copy=True)  # the caller may use its array again
        self.finished = self.images = None
        self.parts.advance(params, self.action_map.chosen(played_Bk))
        info: Info = {name: own(values) for name, values in zip(PARAMETERS, params, strict=True)}
        info["clipped"] = own(self.action_map.outside(actions_Bk))
        rewards, truncated = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=bool)
        ended = np.full(self.num_envs, self.parts.done)
        if self.parts.done:
            self.finished = state = self.parts.state
            self.images = images = decode_all(self.tokenizer, state.ids_BL, self.device)
            judged = as_rewards(self.judge(images, state.condition), self.num_envs)
            rewards = judged - self.prices.cost(state.nfe_B)
            info |= {"tokens": own(state.ids_BL), "images": own(images), "nfe": own(state.nfe_B)}
        info = masked(info, self.num_envs)
        if self.parts.done and self.autoreset_mode == AutoresetMode.SAME_STEP:
            info = with_final(info, self._observe(), self.num_envs)
            self.episode += 1
            self._begin()
        return self._observe(), rewards, ended, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return the images so far, (H, W, 3) uint8 per row; finished ones stay until the next step."""
        state = self.finished or self.state
        if self.render_mode is None or state is None:
            return None
        return tuple(reveal(self.tokenizer, state, self.generator.mask_id))

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the images in progress and of the networks, and with them of the device's memory."""
        self.parts = self.finished = self.images = self.first_pass = None
        for name in ("task", "generator", "tokenizer", "reward", "judge", "pool"):
            vars(self).pop(name, None)  # a constructor that failed has not all of them
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _load(self, reward: RewardSpec, options: Mapping[str, Mapping[str, Any]] | None) -> None:
        self.generator, self.tokenizer = self.task.generator, self.task.tokenizer
        self.device = next(self.generator.parameters()).device
        refuse_other_codes(self.generator, self.tokenizer)
        self.reward_options = arguments.used_options(reward, options)
        self.judge = self.reward = make_reward(reward, self.task, options=options)
        self.reward_name = reward if isinstance(reward, str) else type(self.reward).__name__
        arguments.check_batch(self.reward, self.reward_name, self.num_envs)

    def _begin(self, condition: Any = None, price: Any = None) -> None:
        assert self.first_seeds_B is not None
        seeds_B = next_episode(self.first_seeds_B, self.episode).to(self.device)
        self.prices.draw(seeds_B, price)
        if condition is None:
            places_B = self.first_seeds_B + self.episode * (self.num_envs // self.group)
            condition = arguments.in_turn(self.pool, self.random_conditions, seeds_B, places_B)
        noise = CoupledNoise(seeds_B) if self.coupled else HashNoise(seeds_B)
        self.played_Bk = torch.zeros_like(self.played_Bk)
        condition = arguments.asked_condition(condition, self.task, self.num_envs).to(self.device)
        decided = self.rules, self.steps, self.first_pass, self.micro_batch
        self.parts = Parts(self.generator, condition, noise, *decided)

    def _observe(self) -> Observation:
        return arguments.shown(self.parts, self.observer, self.action_map, self.played_Bk, self.prices)
