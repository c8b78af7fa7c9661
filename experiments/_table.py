"""The table that a training ends with: policies, each on its own generator, and one against all others."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tqdm import tqdm

from natgym.evaluation.evaluator import Evaluator
from natgym.evaluation.statistics import Difference, paired_difference
from natgym.evaluation.tables import table_row
from natgym.rollouts import Policy


def judge(
    policies: Mapping[str, Policy],
    evaluators: Mapping[str, Evaluator],
    spent: Mapping[str, int],
    bar: tqdm,
) -> tuple[list[dict[str, Any]], dict[str, pd.DataFrame]]:
    """Evaluate policies; return their rows and their scores per seed.

    Args:
        evaluators: of each policy's generator, by the policy's name.
        spent: images that went into finding each policy.
    """
    rows, scores = [], {}
    for name, policy in policies.items():
        bar.set_description(f"evaluating {name}")
        evaluator = evaluators[name]
        scores[name] = evaluator(policy, bar.update)
        rows.append(table_row(name, policy, evaluator, scores[name], spent[name]))
    return rows, scores


def differences(subject: str, scores: Mapping[str, pd.DataFrame]) -> list[Difference]:
    """Return the paired differences of one policy's distance to all others'."""
    others = [name for name in scores if name != subject]
    return [paired_difference(scores[subject], scores[name], policy=subject, minus=name) for name in others]


def show_differences(found: Sequence[Difference]) -> None:
    """Print what `differences` found."""
    width = max(len(one.minus) for one in found)
    for one in found:
        print(f"{one.policy} - {one.minus:{width}} {one}")
