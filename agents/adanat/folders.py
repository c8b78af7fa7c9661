"""A training's folder: what is trained in it, its logs and its checkpoint.

Nothing there is ever overwritten by another training. Of several ranks all read and rank 0 alone writes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from agents.adanat.config import AdaNATConfig
from agents.adanat.trainings import read_training
from agents.distributed.ranks import Ranks
from agents.distributed.workers import agree
from generators.checkpoints import load_state, save_state, weights_hash, write_atomic
from generators.checks import taken
from generators.files import read_json, reading
from generators.rules import DecodeRules
from natgym.env.vector import DecodeVectorEnv
from natgym.rewards.sums import parts_of
from natgym.runs import MetricsLog, read_config

TRAINING = "training.json"  # config.json is a script's
WRITTEN = ("metrics.csv", "checkpoint.pt", "policy", "last")


class TrainingFolder:
    """Logs and checkpoint of one training.

    Attributes:
        writes: whether this rank does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.writes = folder, folder / "checkpoint.pt", Ranks.here().rank == 0

    def restore(self, trainer: Any, device: torch.device, updates: int) -> None:
        """Give a trainer of so many updates the state after the last that was saved, if there is one;
        ValueError if it is of something else, or another for another rank."""
        done = 0
        if self.path.is_file():
            state = load_state(self.path, device)
            with reading(self.path):
                done = taken(state.get("done"), updates)
                trainer.load_state_dict(state)
        agree("the update to go on from", done)

    def open_logs(self, done: int) -> None:
        """Keep of the logs what belongs to the first `done` updates."""
        if not self.writes:
            return
        self.metrics = MetricsLog(self.folder / "metrics.csv", "update", done + 1, whole=True)
        self.alarms = MetricsLog(self.folder / "alarms.csv", "update", done + 1)

    def write(self, metrics: Mapping[str, float], alarms: Mapping[Any, str], state: dict[str, Any]) -> None:
        """Write what an update has led to, the checkpoint last."""
        if not self.writes:
            return
        for name, said in alarms.items():
            self.alarms.append({"update": int(metrics["update"]), "alarm": name, "said": said})
        self.metrics.append(metrics)
        save_state(self.path, state)


def claim(folder: Path, told: dict[str, Any]) -> TrainingFolder:
    """Take a new folder for a training, or the one in which it was begun.

    Args:
        told: of `manifest`.

    Raises:
        ValueError: another training was begun there.
    """
    path = folder / TRAINING
    if Ranks.here().rank:  # the first looks, and no rank gets far without it
        return TrainingFolder(folder)
    if path.is_file():
        with reading(path):
            before = read_json(path)
            before["adanat"] = dataclasses.asdict(read_config(path, AdaNATConfig, "adanat"))
        _refuse_differences(folder, before, told)
        return TrainingFolder(folder)
    _refuse_foreign(folder, told)
    return take(folder, told)


def take(folder: Path, told: dict[str, Any]) -> TrainingFolder:
    """Let a folder be that of a training, whatever it was before."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / TRAINING, json.dumps(told, indent=2) + "\n")
    return TrainingFolder(folder)


def _refuse_foreign(folder: Path, told: dict[str, Any]) -> None:
    """Raise ValueError if a folder holds something else than a training of before there was training.json."""
    if not any((folder / name).exists() for name in WRITTEN):
        return
    try:
        former = read_training(folder)
    except (ValueError, OSError):
        raise ValueError(f"{folder} holds the run of something else; give another folder") from None
    env = former.env
    theirs = {
        "adanat": dataclasses.asdict(former.adanat),
        "env": {
            name: getattr(env, name)
            for name in ("steps", "trajectories", "smoothing", "observation", "reward")
        },
    }
    ours = {"adanat": told["adanat"], "env": {name: told["env"][name] for name in theirs["env"]}}
    _refuse_differences(folder, theirs, ours)


def manifest(env: DecodeVectorEnv, config: AdaNATConfig, policy: Any = None) -> dict[str, Any]:
    """Return what a training depends on, as JSON values: two with the same one are the same.

    Raises:
        ValueError: rules or action map can't be written down, and so neither could the policy.
    """
    action_map, observer = env.action_map, env.observer
    _refuse_unsaveable(env.rules, env.generator.grid)
    extractor = vars(env.task).get("reward_extractor")  # if one was looked through
    told = {
        "task": env.task.name,
        "generator": weights_hash(env.generator),  # type: ignore[arg-type]
        "tokenizer": weights_hash(env.tokenizer),  # type: ignore[arg-type]
        "trajectories": env.num_envs,
        "steps": env.steps,
        "schedule": action_map.schedule.table_T4.tolist(),
        "actions": action_map.name,
        "own_map": action_map.settings(),
        "parameters": list(action_map.parameters),
        "smoothing": action_map.smoothing,
        "observation": observer.kind,
        "dtype": observer.dtype,
        "group": env.group,
        "coupled": env.coupled,
        "rules": env.rules.text,
        **({"price": env.price} if env.price else {}),  # trainings of before had none
        "conditions": "random" if env.random_conditions else env.pool.fingerprint,
        "reward": env.reward_name,
        "reward_options": env.reward_options,
        "reward_configs": [_config(part) for part in parts_of(env.reward)],
        "reward_extractor": None if extractor is None else weights_hash(extractor),
    }
    return {"env": told, "adanat": dataclasses.asdict(config), "policy": policy_name(policy)}


def _config(reward: Any) -> dict[str, Any] | None:
    found = getattr(reward, "config", None)
    return dataclasses.asdict(found) if dataclasses.is_dataclass(found) else None  # type: ignore[arg-type]


def _refuse_unsaveable(rules: DecodeRules, grid: tuple[int, int]) -> None:
    try:
        again = DecodeRules.of(rules.text, grid)
    except ValueError:
        again = None
    if again != rules:
        raise ValueError(
            f"rules {rules.text!r} have no name, and a policy keeps its rules by name; register the "
            "reveal rule with generators.reveal.register"
        )


def policy_name(policy: Any) -> str | None:
    """Return the name of a policy's class, module included; None for AdaNAT's own."""
    if policy is None:
        return None
    found = policy if isinstance(policy, type) else type(policy)
    return f"{found.__module__}:{found.__qualname__}"


def _refuse_differences(folder: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise ValueError at the first value that differs, once both are what JSON makes of them."""
    for name, before, now in _differences(*(json.loads(json.dumps(one)) for one in (theirs, ours))):
        raise ValueError(
            f"{folder} holds a training with {name} {before}, this one has {now}; give another folder"
        )


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], above: str = "") -> Any:
    """Yield (name, theirs, ours) of all values that differ."""
    for name in dict.fromkeys((*theirs, *ours)):
        pair = theirs.get(name, "not said"), ours.get(name, "not said")
        if all(isinstance(value, dict) for value in pair):
            yield from _differences(*pair, above=f"{above}{name}.")  # type: ignore[arg-type]
        elif pair[0] != pair[1]:
            yield f"{above}{name}", *pair
