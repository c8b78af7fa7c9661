"""The table that a training ends with: policies, each on its own generator, and one against all others."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from tqdm import tqdm

from agents.autonat.scorer import ScheduleScorer
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator, refuse_too_few
from natgym.evaluation.statistics import Difference, paired_difference
from natgym.evaluation.tables import table_row
from natgym.rollouts import Policy
from natgym.task import Task


class Contestant(NamedTuple):
    """A row of the table.

    Attributes:
        policy: what is judged.
        spent: images that went into finding it; None where that is not known.
        scorer: of the generator that it plays.
    """

    policy: Policy
    spent: int | None
    scorer: ScheduleScorer


def check_table(task: Task, images: int, seeds: Sequence[int]) -> None:
    """Raise ValueError for what the table of a task would refuse at the end of a run: too few images, no
    seeds or one of them twice."""
    EvaluationConfig(images=images, seeds=tuple(seeds))
    refuse_too_few(images, task.score_extractor)


def judge(
    contestants: Mapping[str, Contestant], evaluators: Mapping[ScheduleScorer, Evaluator], bar: tqdm
) -> tuple[list[dict[str, Any]], dict[str, pd.DataFrame]]:
    """Evaluate policies, each on its generator; return their rows and their scores per seed.

    Args:
        evaluators: by what has the generator.
    """
    rows, scores = [], {}
    for name, (policy, spent, scorer) in contestants.items():
        bar.set_description(f"evaluating {name}")
        evaluator = evaluators[scorer]
        scores[name] = evaluator(policy, bar.update)
        rows.append(table_row(name, policy, evaluator, scores[name], spent))
    return rows, scores


def differences(subject: str, scores: Mapping[str, pd.DataFrame]) -> list[Difference]:
    """Return the paired differences of one policy's distance to all others'."""
    others = [name for name in scores if name != subject]
    return [paired_difference(scores[subject], scores[name], policy=subject, minus=name) for name in others]


def show_differences(pairs: Sequence[Difference]) -> None:
    """Print paired differences, and of which the interval leaves the sign open."""
    width = max(len(one.minus) for one in pairs)
    for one in pairs:
        metric = "" if one.metric == "distance" else f"  ({one.metric})"
        print(f"{one.policy} - {one.minus:{width}}  {one}{metric}{'' if one.shown else '  not shown'}")
