"""Policies on the same noise, token by token: the content of the panel that `natgym.pages` lets one look at.

A token that is revealed stays, so that a finished image and the step that revealed each token are all the
images that were on the way there; of one that rules mask again, only its last reveal is shown.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image
from torch import Tensor

from generators.conditions import Condition, balanced
from generators.noise import HashNoise
from generators.puzzles.glyphs import Glyphs
from generators.rules import DecodeRules
from generators.schedules import CONVENTION, PARAMETERS, TABLE
from generators.tokenizers import decode_all
from natgym.env.rendering import HIDDEN, to_uint8
from natgym.figures.policies import deciding
from natgym.figures.style import COLOR_MAP
from natgym.metrics.extractors import extract
from natgym.metrics.puzzles import PuzzleReader
from natgym.pages.page import write_exploration
from natgym.rewards.checks import as_rewards
from natgym.rewards.contract import Reward
from natgym.rollouts import BATCH, Policy, Rollout, Step, play
from natgym.task import Task

IN_REPORTS = 16  # images, of small ones
_MOST_IN_REPORTS = 8_000_000  # bytes of all images before they are packed; of large ones there are fewer
_SHADES = 32
Progress = Callable[[int], object]


class Play(NamedTuple):
    """What is played: a policy on a task's generator, by its own rules, else by these, else by AutoNAT's."""

    policy: Policy
    task: Task
    rules: DecodeRules | None = None


class Watched(NamedTuple):
    """What a policy drew; and of each token the log-probability at which it was revealed, (N, L), in nats of
    the guided, un-tempered distribution; NaN of those that were given."""

    drawn: Rollout
    log_probs_NL: Tensor


def examples(task: Task, images: int) -> Condition:
    """Return so many conditions: the first classes in turn; texts or begun images of the select split."""
    return balanced(task.examples(images), images)


def watch(one: Play, condition: Condition, seed: int, progress: Progress = lambda images: None) -> Watched:
    """Draw one image per condition; row i has row seed `seed` + i, as of `natgym.rollouts.rollout`."""
    noise = HashNoise.from_seed(seed, len(condition), condition.device)
    parts = []
    for first in range(0, len(condition), BATCH):
        rows = slice(first, first + BATCH)
        parts.append(_watched(one, condition[rows], noise[rows], first))
        progress(len(parts[-1].log_probs_NL))
    drawn = Rollout.cat([part.drawn for part in parts], condition)
    return Watched(drawn, torch.cat([part.log_probs_NL for part in parts]))


def _watched(one: Play, condition: Condition, noise: HashNoise, first: int) -> Watched:
    generator, mask_id = one.task.generator, one.task.generator.mask_id
    shape = len(condition), generator.num_tokens
    revealed_at_BL = torch.full(shape, -1, dtype=torch.int16, device=condition.device)
    log_probs_BL = torch.full(shape, torch.nan, device=condition.device)
    steps = []
    for before, decision, after in play(one.policy, generator, condition, noise, rules=one.rules):
        assert after.log_probs_BL is not None
        new_BL = (before.ids_BL == mask_id) & (after.ids_BL != mask_id)
        revealed_at_BL.masked_fill_(new_BL, before.step)
        log_probs_BL = torch.where(new_BL, after.log_probs_BL, log_probs_BL)
        counts = before.masked_B, after.masked_B, after.nfe_B
        steps.append(Step(first, before.step, decision, *counts, {}, None))
        if not after.masked_B.any():
            break
    images = decode_all(one.task.tokenizer, after.ids_BL, condition.device)
    nfe_B = after.nfe_B.numpy()
    drawn = Rollout(images, after.ids_BL, nfe_B, condition, revealed_at_BL, None, steps)
    return Watched(drawn, log_probs_BL)


def explore(
    plays: Mapping[str, Play],
    images: int,
    title: str,
    *,
    ask: Callable[[Task, int], Condition] = examples,
    seed: int = 0,
    rewards: Mapping[str, Reward] | None = None,
    most: float = math.inf,
    progress: Progress = lambda images: None,
) -> dict[str, Any]:
    """Return the content of the panel, ready for JSON: all policies on the same conditions and noise.

    Args:
        plays: by label.
        images: drawn with each policy.
        title: what is shown, in a few words.
        ask: what to draw of a task, so many images; by default `examples`.
        seed: of the noise; row i has row seed `seed` + i.
        rewards: judges of each image, by name, beside the task's own judge.
        most: bytes of all policies together.
        progress: called with the number of images of each finished batch.

    Raises:
        ValueError: there would be more bytes.
    """
    # Of the shortest numbers, before any is drawn.
    sizes = [6 * one.task.generator.num_tokens * images for one in plays.values()]
    _refuse_large(sum(sizes), len(plays), images, most)
    policies: list[dict[str, Any]] = []
    decided: list[np.ndarray] = []
    for label, one in plays.items():
        condition = ask(one.task, images)
        watched = watch(one, condition, seed, progress)
        decided.append(_decided(watched.drawn.frame, images))
        policies.append(_told(label, one, watched, rewards or {}) | {"parameters": _short(decided[-1], 4)})
        sizes[len(policies) - 1] = len(json.dumps(policies[-1]))
        _refuse_large(sum(sizes), len(plays), images, most)
    names = {name: None for policy in policies for name in policy["scores"]}
    shades = np.linspace(0, 1, _SHADES)
    pairs = combinations(range(len(policies)), 2)
    return {
        "title": title,
        "note": f"{images:,} images; image i is drawn from the same noise, of row seed "
        f"{seed} + i, and the same condition under every policy. Guidance: {CONVENTION}.",
        "seed": seed,
        "names": condition.names,
        "kinds": condition.groups,
        "parameters": [TABLE[name].title.partition(" (")[0] for name in PARAMETERS],
        "scores": list(names),
        "policies": policies,
        "apart": [
            {"pair": pair, "values": _short(_apart(*(decided[policy] for policy in pair)), 4)}
            for pair in pairs
            if decided[pair[0]].shape == decided[pair[1]].shape
        ],
        "shades": [to_hex(color) for color in colormaps[COLOR_MAP](shades)],
        "hidden": to_hex(HIDDEN),
    }


def write_for_report(folder: Path, plays: Mapping[str, Play]) -> None:
    """Write a few images of each policy into a run folder, for its report."""
    channels, height, width = next(iter(plays.values())).task.tokenizer.image_shape
    images = _MOST_IN_REPORTS // (len(plays) * channels * height * width)
    write_exploration(folder, explore(plays, max(2, min(IN_REPORTS, images)), folder.name))


def _told(label: str, one: Play, watched: Watched, rewards: Mapping[str, Reward]) -> dict[str, Any]:
    """Return what the panel knows of one policy; N rows of L tokens or T steps."""
    drawn, log_probs_NL = watched
    frame = drawn.frame
    steps = int(frame["step"].max()) + 1
    columns = math.ceil(math.sqrt(len(log_probs_NL)))
    reader = one.task.score_extractor if one.task.has("score_extractor") else None
    boxes = getattr(reader.puzzle, "box", None) if isinstance(reader, PuzzleReader) else None
    passes_NT = _table(frame, "nfe", len(log_probs_NL), steps)
    return {
        "label": label,
        "steps": steps,
        "grid": one.task.generator.grid,
        "size": drawn.images_NCHW.shape[2:],
        "columns": columns,
        "images": _packed(drawn.images_NCHW, columns),
        "symbols": one.task.tokenizer.config.symbols if isinstance(one.task.tokenizer, Glyphs) else "",
        "boxes": boxes,
        "tokens": drawn.tokens_NL.tolist(),
        "revealed_at": drawn.revealed_at_NL.tolist(),
        "confidence": _short(log_probs_NL.exp().cpu().numpy(), 3),
        "passes": passes_NT.ffill(axis=1).astype(int).to_numpy().tolist(),
        "scores": {name: _short(values_N, 4) for name, values_N in _scores(one.task, drawn, rewards)},
    }


def _table(frame: pd.DataFrame, column: str, images: int, steps: int) -> pd.DataFrame:
    """Return a column as a row for each image; NaN at steps of which the frame says nothing."""
    table = frame.pivot(index="sample", columns="step", values=column)
    return table.reindex(index=range(images), columns=range(steps))


def _decided(frame: pd.DataFrame, images: int) -> np.ndarray:
    """Return the K parameters of each image and step, (K, N, T); NaN where they decide nothing."""
    steps = int(frame["step"].max()) + 1
    return np.stack([_table(deciding(frame, name), name, images, steps) for name in PARAMETERS])


def _apart(ours_KNT: np.ndarray, theirs_KNT: np.ndarray) -> np.ndarray:
    """Return how far the decisions of two policies are apart, (N,): `films.disagreement`, summed over the
    parameters, of all pairs of a table in no time."""
    apart_KNT = np.abs(ours_KNT - theirs_KNT)
    known_KNT = np.isfinite(apart_KNT)
    mean_KN = np.where(known_KNT, apart_KNT, 0).sum(2) / known_KNT.sum(2).clip(1)
    both_KM = np.concatenate([ours_KNT, theirs_KNT], axis=1).reshape(len(ours_KNT), -1)
    known = [values_M[np.isfinite(values_M)] for values_M in both_KM]
    scale_K = np.array([values.std() if len(values) else 0 for values in known])
    moves_K = scale_K > 1e-12
    return (mean_KN[moves_K] / scale_K[moves_K, None]).sum(0)


def _scores(task: Task, drawn: Rollout, rewards: Mapping[str, Reward]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what is known of each image by itself: what the task's judge says of it, and the rewards."""
    images_NCHW, condition = drawn.images_NCHW, drawn.condition
    for name, reward in rewards.items():
        yield name, as_rewards(reward(images_NCHW, condition), len(images_NCHW))
    if not task.has("score_extractor"):
        return
    extractor: Any = task.score_extractor
    logits_NK = extract(extractor, images_NCHW)[1]
    if logits_NK is None:
        return
    if hasattr(extractor, "read"):
        told = [
            extractor.read([name], row_1K)
            for name, row_1K in zip(condition.names, logits_NK.split(1), strict=True)
        ]
        for name in extractor.tells:
            yield name, np.array([one.get(name, math.nan) for one in told])
        return
    asked_NK = condition.vectors
    if asked_NK.shape == logits_NK.shape and logits_NK.shape[1] > 1:
        asked_N1 = asked_NK.argmax(1, keepdim=True).to(logits_NK.device)
        chance_N = logits_NK.softmax(1).gather(1, asked_N1)[:, 0]
        yield "class probability", chance_N.cpu().double().numpy()


def _packed(images_NCHW: Tensor, columns: int) -> str:
    """Return all images in one PNG, row by row, as a URI that holds its data."""
    pictures_NHWC = to_uint8(images_NCHW)
    missing = -len(pictures_NHWC) % columns
    filled = np.pad(pictures_NHWC, ((0, missing), (0, 0), (0, 0), (0, 0)))
    N, H, W, C = filled.shape
    whole = filled.reshape(-1, columns, H, W, C).transpose(0, 2, 1, 3, 4).reshape(-1, columns * W, C)
    data = io.BytesIO()
    Image.fromarray(whole[..., 0] if C == 1 else whole).save(data, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def _short(values: Any, digits: int) -> Any:
    """Return numbers, rounded to some digits; None for those that are not finite."""
    array = np.asarray(values, dtype=float)
    if array.ndim > 1:
        return [_short(row, digits) for row in array]
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in array]


def _refuse_large(size: int, policies: int, images: int, most: float) -> None:
    """Raise ValueError if policies of such a size, all together, take more bytes than there may be."""
    if size > most:
        raise ValueError(
            f"{images:,} images under {policies} policies take at least {size / 1e6:,.1f} MB, more "
            f"than {most / 1e6:g}; draw fewer images, or allow more megabytes"
        )
