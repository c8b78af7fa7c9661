"""Which samples carry a label of which old category: by a seed, or by the labels that the data have.

The protocol of generalized category discovery (Vaze et al. 2022): a share of the categories is old, a share
of their samples is labelled; all others, of old and of new categories, are to be assigned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generators.noise import derive_seed
from natgym.discovery.pairs import Pairs, examples


@dataclass(frozen=True, eq=False)
class Split:
    """N samples, some of them labelled.

    Attributes:
        old: the categories (indices into the pairs' class names) that labels are of; O of them.
        targets_N: index into `old` of a labelled sample, -1 of an unlabelled one.
        judged_N: unlabelled samples whose category is known to the judge.
        of_old_N: whether a sample's category is an old one.
    """

    old: tuple[int, ...]
    targets_N: np.ndarray
    judged_N: np.ndarray
    of_old_N: np.ndarray


def split_pairs(
    pairs: Pairs,
    *,
    known: float = 0.5,
    known_names: tuple[str, ...] = (),
    labelled: float = 0.5,
    seed: int = 0,
) -> Split:
    """Choose old categories and labelled samples; or take both from the data where labels are missing.

    Args:
        known: share of the categories that is old; at least one is and one is not.
        known_names: the old categories by name, instead of a share.
        labelled: share of the old categories' samples that is labelled, at least one of each.
        seed: of both choices.

    Raises:
        ValueError: a name is no category, or nothing would be left to discover.
    """
    if (pairs.labels_N < 0).any():
        return _by_data(pairs, known_names)
    K = len(pairs.class_names)
    rng = np.random.default_rng(derive_seed(seed, "split"))
    if known_names:
        old = _named(pairs, known_names)
    else:
        number = min(max(int(K * known), 1), K - 1)  # something is old and something is left to discover
        old = np.sort(rng.permutation(K)[:number])
    targets_N = np.full(len(pairs), -1)
    for index, category in enumerate(old):
        members = rng.permutation(np.flatnonzero(pairs.labels_N == category))
        targets_N[members[: max(1, int(len(members) * labelled))]] = index
    return _split(pairs, old, targets_N)


def _named(pairs: Pairs, names: tuple[str, ...]) -> np.ndarray:
    if unknown := [name for name in names if name not in pairs.class_names]:
        raise ValueError(
            f"known_names {examples(unknown)}: the categories are {examples(pairs.class_names, 60)}"
        )
    if len(set(names)) == len(pairs.class_names):
        raise ValueError("known_names holds all categories, which leaves none to discover; drop some")
    return np.array(sorted({pairs.class_names.index(name) for name in names}))


def _by_data(pairs: Pairs, known_names: tuple[str, ...]) -> Split:
    """Every category that occurs is old and every label is used; no category of the others is known."""
    if known_names:
        raise ValueError("known_names with labels missing in the data: there every labelled category is old")
    return _split(pairs, np.arange(len(pairs.class_names)), pairs.labels_N.copy())


def _split(pairs: Pairs, old: np.ndarray, targets_N: np.ndarray) -> Split:
    judged_N = (targets_N < 0) & (pairs.labels_N >= 0)
    return Split(tuple(int(category) for category in old), targets_N, judged_N, np.isin(pairs.labels_N, old))
