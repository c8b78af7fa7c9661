"""The table that a training ends with: policies, each on its own generator, and one against all others."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tqdm import tqdm

from natgym.evaluation.cost import gflop_per_image
from natgym.evaluation.evaluator import Evaluator
from natgym.evaluation.statistics import paired_difference
from natgym.evaluation.tables import summarize
from natgym.rollouts import Policy, rules_of


def judge(
    policies: Mapping[str, Policy],
    evaluators: Mapping[str, Evaluator],
    spent: Mapping[str, int],
    bar: tqdm,
) -> tuple[list[dict[str, Any]], dict[str, pd.DataFrame]]:
    """Evaluate policies; return their rows and their scores per seed.

    Args:
        evaluators: of each policy's generator, by the policy's name.
        spent: pictures that went into finding each policy.
    """
    rows, scores = [], {}
    for name, policy in policies.items():
        bar.set_description(f"evaluating {name}")
        evaluator = evaluators[name]
        scores[name] = evaluator(policy, bar.update)
        cost = gflop_per_image(policy, evaluator.generator, rules=evaluator.rules)
        row = summarize(name, policy.steps, scores[name], spent[name])
        rules = rules_of(policy, evaluator.rules).text
        rows.append(row | {"rules": rules, "gflop": cost, "protocol": evaluator.manifest()})
    return rows, scores


def differences(subject: str, scores: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Return the paired differences of one policy's distance to all others', with 95 % half-widths."""
    found = []
    for name, theirs in scores.items():
        if name != subject:
            mean, half_width = paired_difference(scores[subject], theirs)
            found.append({"policy": subject, "minus": name, "mean": mean, "half_width": half_width})
    return found


def show_differences(found: Sequence[Mapping[str, Any]]) -> None:
    """Print what `differences` found."""
    width = max(len(one["minus"]) for one in found)
    for one in found:
        difference = f"{one['mean']:+.3f} ± {one['half_width']:.3f}"
        print(f"{one['policy']} - {one['minus']:{width}} {difference}")
