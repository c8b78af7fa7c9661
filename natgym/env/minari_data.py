"""Episodes as a data set of Minari and back (extra "minari"), the Farama Foundation's format of offline data.

An observation is the tokens (L,), the mask id where none is revealed, and the step; an action is the decoding
parameters that were played, so that every policy has some. What else there is of a step is in infos. Data
sets lie where Minari keeps them, in $MINARI_DATASETS_PATH; nothing is sent anywhere.
"""

from __future__ import annotations

import json
import re
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from gymnasium import spaces

from generators.schedules import PARAMETERS
from natgym.env.episodes import Episodes
from natgym.policies import ACTIONS

PLAIN = ("log_prob", "nfe", *ACTIONS)  # numbers of a step, in infos


def library() -> ModuleType:
    """Return Minari; ValueError if it is not installed."""
    try:
        import minari
    except ImportError:
        raise ValueError("Minari is not installed: pip install 'natgym[minari]'") from None
    return minari


def refuse_name(name: str) -> None:
    """Raise ValueError if there can be no new data set of a name: it has no version or is taken."""
    if not re.fullmatch(r"([\w-]+/)*[\w-]+-v\d+", name):
        raise ValueError(f"Minari data set {name!r}: give a name with a version, as natgym/digits-v0")
    if name in library().list_local_datasets():
        raise ValueError(f"Minari has a data set {name!r}, which is not overwritten; choose another version")


def to_minari(episodes: Episodes, name: str) -> Any:
    """Return a new Minari data set of episodes.

    Args:
        name: of the data set, as "natgym/digits-v0".

    Raises:
        ValueError: Minari is missing; the name has no version or is taken; or a policy chose tokens, which no
            action says.
    """
    minari = library()
    refuse_name(name)
    from minari.data_collector import EpisodeBuffer

    if episodes.frame["chosen"].notna().any():
        raise ValueError("these episodes' policy chose tokens, which no action here says; keep parquet")
    T, L, mask_id = episodes.steps, int(episodes.facts["tokens"]), int(episodes.facts["mask_id"])
    tokens_NTL, reward_NT = episodes.stacked("tokens"), episodes.stacked("reward")
    log_probs_NTL = episodes.stacked("token_log_probs")
    params_NTK = np.stack([episodes.stacked(key) for key in PARAMETERS], -1)
    plain_NTP = np.stack([episodes.stacked(key) for key in PLAIN], -1).astype(np.float64)
    first = episodes.frame[::T]
    buffers = []
    for row, (seed, condition) in enumerate(zip(first["seed"], first["condition"], strict=True)):
        begun = np.full((1, L), mask_id, tokens_NTL.dtype)
        buffers.append(
            EpisodeBuffer(
                id=row,
                seed=int(seed),
                options={"condition": [condition]},
                observations={"tokens": np.concatenate([begun, tokens_NTL[row]]), "step": np.arange(T + 1)},
                actions=params_NTK[row],
                rewards=list(reward_NT[row]),
                terminations=list(np.arange(T) == T - 1),
                truncations=[False] * T,
                # Minari has an info of the reset, too.
                infos={"token_log_probs": _begun(log_probs_NTL[row]), "numbers": _begun(plain_NTP[row])},
            )
        )
    tokens = spaces.Box(0, mask_id, (L,), tokens_NTL.dtype.type)
    step = spaces.Box(0, T, (), np.int64)
    facts = episodes.facts | {"numbers": PLAIN, "kinds": first["kind"].tolist()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an author's address, and of no environment by name
        return minari.create_dataset_from_buffers(
            name,
            buffer=buffers,
            observation_space=spaces.Dict({"tokens": tokens, "step": step}),
            action_space=spaces.Box(0, np.inf, (len(PARAMETERS),), np.float64),
            algorithm_name=str(facts.get("policy", "-")),
            description=json.dumps({"natgym": facts}),
            data_format="arrow",
        )


def _begun(values_TK: np.ndarray) -> np.ndarray:
    """Return values with a first row of NaN, of the reset."""
    return np.concatenate([np.full_like(values_TK[:1], np.nan), values_TK])


def from_minari(dataset: Any) -> Episodes:
    """Return the episodes of a data set that `to_minari` made, or of its name.

    Raises:
        ValueError: Minari is missing, or the data set is another's.
    """
    minari = library()
    if isinstance(dataset, str):
        dataset = minari.load_dataset(dataset)
    try:
        facts = json.loads(dataset.storage.metadata["description"])["natgym"]
        numbers, kinds = facts.pop("numbers"), facts.pop("kinds")
    except (KeyError, TypeError, ValueError):
        raise ValueError("the data set says nothing of natgym's; it is not one that natgym made") from None
    frames = []
    told = dataset.storage.get_episode_metadata(range(dataset.total_episodes))
    for row, (episode, metadata) in enumerate(zip(dataset.iterate_episodes(), told, strict=True)):
        T = len(episode.rewards)
        columns: dict[str, Any] = {
            "episode": row,
            "step": np.arange(T),
            "seed": metadata["seed"],
            "condition": metadata["options"]["condition"][0],
            "kind": kinds[row],
            **dict(zip(PARAMETERS, np.asarray(episode.actions).T, strict=True)),
            **dict(zip(numbers, np.asarray(episode.infos["numbers"])[1:].T, strict=True)),
            "tokens": list(np.asarray(episode.observations["tokens"])[1:]),
            "token_log_probs": list(np.asarray(episode.infos["token_log_probs"])[1:]),
            "chosen": None,
            "reward": np.asarray(episode.rewards),
        }
        frames.append(pd.DataFrame(columns))
    return Episodes(pd.concat(frames, ignore_index=True), facts)
