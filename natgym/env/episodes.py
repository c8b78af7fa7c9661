"""Episodes as data: what was decided and drawn in every step of many images, in files, and played again.

A row per image and step:

| column | |
|---|---|
| episode, step | numbers from 0 |
| seed | of the image's noise |
| condition, kind | text or name of the class; its group |
| mask_ratio, ... | the decoding parameters that were played |
| action_mask_ratio, ... | what the policy decided, an action of the environment; NaN where it decides none |
| log_prob | of the action, under the Gaussian that it was drawn from; NaN where the mean was played |
| tokens | after the step, the mask id where none is revealed |
| token_log_probs | of the tokens drawn in the step, guided and un-tempered |
| chosen | tokens that the step was to reveal, where the policy and no rule chose them |
| nfe | passes so far |
| reward | of the image, in its last step; 0 before |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from generators.checkpoints import weights_hash
from generators.conditions import Condition
from generators.files import reading, replacing
from generators.noise import HashNoise
from generators.rules import DecodeRules
from generators.schedules import PARAMETERS, DecodeParams
from generators.tokenizers import decode_all
from natgym.env.exploring import Explored
from natgym.observations import Observation
from natgym.policies import ACTIONS, Decision, Policy, rules_of
from natgym.rewards.checks import as_rewards
from natgym.rewards.contract import Reward, needs_batch
from natgym.rollouts import BATCH, play
from natgym.task import Task

SUFFIX = ".parquet"


@dataclass(frozen=True, eq=False)
class Episodes:
    """Episodes and what they are of.

    Attributes:
        frame: a row per image and step, image by image; the columns are listed above.
        facts: task, generator (a hash of its weights), steps, rules, tokens (L), mask_id and what else was
            said of them; JSON values.
    """

    frame: pd.DataFrame
    facts: dict[str, Any]

    @property
    def steps(self) -> int:
        """T."""
        return int(self.facts["steps"])

    def __len__(self) -> int:
        return len(self.frame) // self.steps

    def stacked(self, column: str) -> np.ndarray:
        """Return a column as an array (N, T), or (N, T, L) of tokens."""
        values = np.stack(self.frame[column].to_numpy())  # type: ignore[call-overload]
        return values.reshape(len(self), self.steps, *values.shape[1:])

    def save(self, path: Path | str) -> None:
        """Write one parquet file; ValueError if there is one."""
        path = Path(path)
        if path.exists() or path.suffix != SUFFIX:
            raise ValueError(f"{path} exists or does not end in {SUFFIX}; choose another name")
        frame = self.frame.copy(deep=False)
        frame.attrs = {"natgym": self.facts}
        with replacing(path) as temporary:
            frame.to_parquet(temporary, engine="pyarrow", index=False)

    @classmethod
    def load(cls, path: Path | str) -> Episodes:
        """Read what `save` wrote; ValueError that names the file if it is something else."""
        with reading(path, "episodes that natgym wrote"):
            frame = pd.read_parquet(path, engine="pyarrow")
            facts = frame.attrs.pop("natgym")
            episodes = cls(frame, facts)
            _check(episodes)
        return episodes


def _check(episodes: Episodes) -> None:
    """Raise ValueError unless all columns are there, in whole episodes of the right sizes."""
    frame, T = episodes.frame, episodes.steps
    if missing := {"seed", "condition", "tokens", *PARAMETERS} - set(frame):
        raise ValueError(f"no column {sorted(missing)[0]!r}")
    if T < 1 or len(frame) % T or (frame["step"].to_numpy() != np.arange(len(frame)) % T).any():
        raise ValueError(f"its steps are not 0 to {T - 1} of each episode in turn")
    if set(map(len, frame["tokens"])) - {episodes.facts["tokens"]}:
        raise ValueError(f"images have other than {episodes.facts['tokens']} tokens")


def record(
    policy: Policy,
    task: Any,
    condition: Condition | None = None,
    *,
    num_images: int | None = None,
    seed: int,
    rules: str | DecodeRules | None = None,
    reward: Reward | None = None,
    action_std: float = 0.0,
    progress: Callable[[int], object] = lambda images: None,
    facts: Mapping[str, Any] | None = None,
) -> Episodes:
    """Play episodes as `natgym.rollout` does, image i with row seed `seed` + i, and keep them as data.

    Args:
        task: a `Task`, or what `Task.load` takes.
        condition: what to draw; by default `num_images`, the task's in turn.
        rules: of a policy that has none of its own.
        reward: of the finished images, in batches of 250, or of all at once if it compares images.
        action_std: around the actions that a learned policy decides; 0 plays these.
        progress: called with the images of each finished batch.
        facts: more to be said of the episodes, JSON values.

    Raises:
        ValueError: the task gives tokens, which have no names, there is nothing to draw, or both a condition
            and a number are given.
    """
    task = Task.load(task)
    if task.given:
        raise ValueError(f"{task} gives tokens, which no column says; record episodes of {task.name}")
    if condition is not None and num_images is not None:
        raise ValueError(f"num_images {num_images} and a condition of {len(condition)} rows; give either")
    if condition is None:
        condition = task.asked(num_images or 0)
    if not len(condition):
        raise ValueError(f"num_images {num_images}: give at least 1, or a condition")
    found = rules_of(policy, None if rules is None else DecodeRules.of(rules, task.generator.grid))
    together, apart = (reward, None) if needs_batch(reward) else (None, reward)
    noise, parts = HashNoise.from_seed(seed, len(condition), condition.device), []
    for first in range(0, len(condition), BATCH):
        rows = slice(first, first + BATCH)
        part = _batch(policy, task, condition[rows], noise[rows], found, apart, action_std)
        parts.append(part.assign(episode=part["episode"] + first))
        progress(len(condition[rows]))
    frame = pd.concat(parts, ignore_index=True)
    if together is not None:
        ends = frame.index[policy.steps - 1 :: policy.steps]
        frame.loc[ends, "reward"] = _judged(together, task, frame.loc[ends, "tokens"].to_list(), condition)
    generator: Any = task.generator
    told = {
        "task": task.name or "-",
        "generator": weights_hash(generator),
        "steps": policy.steps,
        "rules": found.text,
        "tokens": generator.num_tokens,
        "mask_id": generator.mask_id,
        "action_std": action_std,
    }
    return Episodes(frame, told | dict(facts or {}))


def _batch(
    policy: Any,
    task: Task,
    condition: Condition,
    noise: HashNoise,
    rules: DecodeRules,
    reward: Reward | None,
    action_std: float,
) -> pd.DataFrame:
    """Return the frame of a batch."""
    seeds_B = noise.row_seeds_B.tolist()
    playing = Explored(policy, action_std, tuple(seeds_B)) if action_std else policy
    steps, B = [], len(condition)
    for move in play(playing, task.generator, condition, noise, rules=rules):
        params, action_BK, _, _, chosen_BL, log_prob_B = move.decision
        assert move.after.log_probs_BL is not None
        nothing, table_BK = np.full(B, np.nan), torch.stack([*params], -1).double().cpu().numpy()
        actions = [nothing] * len(ACTIONS) if action_BK is None else action_BK.cpu().numpy().T
        steps.append(
            {
                "episode": np.arange(B),
                "step": np.full(B, move.before.step),
                "seed": np.array(seeds_B),
                "condition": np.array(condition.names, dtype=object),
                "kind": np.array(condition.groups, dtype=object),
                **dict(zip(PARAMETERS, table_BK.T, strict=True)),
                **dict(zip(ACTIONS, actions, strict=True)),
                "log_prob": nothing if log_prob_B is None else log_prob_B.cpu().numpy(),
                "tokens": _rows(move.after.ids_BL),
                "token_log_probs": _rows(move.after.log_probs_BL),
                "chosen": [None] * B if chosen_BL is None else _rows(chosen_BL),
                "nfe": move.after.nfe_B.numpy(),
                "reward": np.zeros(B),
            }
        )
    if reward is not None:
        steps[-1]["reward"] = _judged(reward, task, steps[-1]["tokens"], condition)
    frame = pd.concat([pd.DataFrame(step) for step in steps])
    return frame.sort_values(["episode", "step"], kind="stable", ignore_index=True)


def _judged(reward: Reward, task: Task, tokens: list[np.ndarray], condition: Condition) -> np.ndarray:
    """Return what a reward says of the images of some tokens."""
    ids_BL = torch.from_numpy(np.stack(tokens)).to(condition.device)
    return as_rewards(reward(decode_all(task.tokenizer, ids_BL, condition.device), condition), len(tokens))


def _rows(values_BL: Tensor) -> list[np.ndarray]:
    return list(values_BL.cpu().numpy())


@dataclass(frozen=True, eq=False)
class Replayed:
    """Play what episodes say was played, row by row.

    Attributes:
        params_TBK: decoding parameters.
        chosen_TBL: the tokens that steps reveal; None where a rule chose them.
        rules: that they were played by.
    """

    params_TBK: Tensor
    chosen_TBL: Tensor | None
    rules: DecodeRules

    @property
    def steps(self) -> int:
        return len(self.params_TBK)

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        return DecodeParams.from_table(self.params_TBK[step])

    def decide(self, observation: Observation, step: int) -> Decision:
        """Return the parameters, and the tokens if there are any."""
        chosen_BL = (
            None if self.chosen_TBL is None else self.chosen_TBL[step].to(observation["masked"].device)
        )
        return Decision(self(observation, step), chosen_BL=chosen_BL)


def replay(episodes: Episodes, task: Any) -> Tensor:
    """Play recorded parameters on the recorded noise; return the tokens after each step, (N, T, L).

    Raises:
        ValueError: the generator is another one, or other tokens come out, as on another kind of processor.
    """
    task, facts = Task.load(task), episodes.facts
    generator: Any = task.generator
    if (found := weights_hash(generator)) != facts["generator"]:
        raise ValueError(f"the episodes are of generator {facts['generator']}, {task} has {found}")
    rules = DecodeRules.of(facts["rules"], generator.grid)
    first = episodes.frame[:: episodes.steps]
    condition = task.named(first["condition"].tolist()).to(task.device)
    seeds_N = torch.from_numpy(first["seed"].to_numpy().copy()).to(task.device)
    params_NTK = torch.from_numpy(np.stack([episodes.stacked(name) for name in PARAMETERS], axis=-1))
    chosen = episodes.frame["chosen"]
    chosen_NTL = None if chosen.isna().all() else torch.from_numpy(episodes.stacked("chosen"))
    drawn = []
    for start in range(0, len(episodes), BATCH):
        rows = slice(start, start + BATCH)
        chosen_TBL = None if chosen_NTL is None else chosen_NTL[rows].transpose(0, 1)
        policy = Replayed(params_NTK[rows].transpose(0, 1), chosen_TBL, rules)
        moves = play(policy, generator, condition[rows], HashNoise(seeds_N[rows]))
        drawn.append(torch.stack([move.after.ids_BL for move in moves], 1).cpu())
    tokens_NTL = torch.cat(drawn)
    wrong = tokens_NTL.numpy() != episodes.stacked("tokens")
    if wrong.any():
        at = int(wrong.any((1, 2)).argmax())
        raise ValueError(f"episode {at} draws other tokens than it did; rounding differs between processors")
    return tokens_NTL
