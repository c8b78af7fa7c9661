"""What evaluate.py does: policies side by side on one protocol, or two results compared."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from _cli import open_run
from _progress import progress

from agents.named import describe, find_all, find_policies, own_generator
from generators.conditions import in_rows
from generators.data import SplitName
from generators.files import read_json, reading
from generators.rules import DecodeRules
from natgym.evaluation.comparison import compare, compare_results
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator, refuse_too_few
from natgym.evaluation.report import write_report
from natgym.evaluation.scorer import Scorer
from natgym.evaluation.tables import FULL_COLUMNS, format_table, set_against, table_row
from natgym.figures.comparisons import frontier_figure
from natgym.figures.explorations import Play, write_for_report
from natgym.figures.policies import samples_figure
from natgym.metrics.clip import CLIP, CLIPScore
from natgym.metrics.extractors import load_extractor
from natgym.metrics.reference import Reference
from natgym.rollouts import Policy, rollout
from natgym.runs import Run
from natgym.task import Task

if TYPE_CHECKING:
    from evaluate import Args


# Flags that say where to run, not what.
PLACES = ("threads", "device", "resume")


class Evaluation:
    """Everything that the table is made of, loaded and checked before a folder is made."""

    def __init__(self, args: Args) -> None:
        torch.set_num_threads(1)
        self.args = args
        names = args.generators or (args.task or "digits",)
        networks: dict[str, Any] = {"tokenizer": args.tokenizer, "score_extractor": args.classifier}
        self.task = Task.load(args.task or names[0], device=args.device, **networks)
        self.tasks = {
            name: self.task.like(generator=name) if args.generators else self.task for name in names
        }
        self.classifier: Any = self.task.score_extractor if self.task.has("score_extractor") else None
        self.extractor = self._extractor()
        self.clip: Any = None if args.clip is None else CLIP(args.clip, args.device)
        self.statistics = None if args.reference is None else Reference.load(args.reference, self.extractor)
        self.plays = {name: self._plays(task.generator) for name, task in self.tasks.items()}
        if not args.generators:
            refuse_own_generators(args.policy, self.task)
        if args.precision != "float32":  # policies are found by the weights as they are saved
            self.tasks = {name: task.in_precision(args.precision) for name, task in self.tasks.items()}
        labels = {label for plays in self.plays.values() for label, _ in plays}
        self.against = args.against or next(iter(self.plays.values()))[0][0]
        if self.against not in labels:
            raise ValueError(f"against {self.against!r} is not one of {', '.join(sorted(labels))}")
        real, self.spare = self._real()
        scorer = self._judge(real)
        self.evaluators = {name: self._evaluator(task, scorer) for name, task in self.tasks.items()}

    def _plays(self, generator: Any) -> list[tuple[str, Policy]]:
        find = partial(find_policies, steps=self.args.steps, generator=generator)
        return [(label, policy) for label, _, policy in find_all(self.args.policy, find)]

    def _extractor(self) -> Any:
        """Return the source of features; ValueError if there is none, or too few images for it."""
        args = self.args
        extractor = self.classifier
        if args.extractor != "classifier":
            extractor = load_extractor(args.extractor, args.weights, args.device)
        if extractor is None:
            raise ValueError(
                f"{self.task} has no extractors/score; give --classifier, or --extractor inception"
            )
        refuse_too_few(args.num_images, extractor)
        return extractor

    def _real(self) -> tuple[Any, Any]:
        """Return the reference, and a split of real images whose row is the floor, if there is one."""
        if self.statistics is not None:
            return self.statistics, None
        args = self.args
        other: SplitName = "select" if args.split == "train" else "train"
        return self.task.images(args.split), self.task.images(other)

    def _judge(self, real: Any) -> Scorer:
        """Return the judge of all generators' images."""
        return Scorer(self.classifier, real, extractor=self.extractor, quantise=self.args.quantise)

    def _evaluator(self, task: Task, scorer: Scorer) -> Evaluator:
        """Return what evaluates policies of one generator."""
        args = self.args
        config = EvaluationConfig(
            split="-" if args.reference else args.split,
            images=args.num_images,
            seeds=args.seeds,
            conditions=args.conditions,
            convention=args.protocol,
        )
        more: dict[str, Any] = {}
        if args.clip is not None:
            more = {"metrics": {"clip_score": partial(CLIPScore, self.clip)}}
            more |= {"notes": [f"clip_score: 100 times the cosine in {args.clip}."]}
        return Evaluator(task, config, scorer=scorer, rules=self.rules(task), threads=args.threads, **more)

    def label(self, generator: str, policy: str) -> str:
        return f"{generator} {policy}" if len(self.tasks) > 1 else policy

    def every(self) -> dict[str, Play]:
        """Return all that is played, by a label of its own, and by rising T."""
        plays = {
            f"{self.label(name, label)}, T = {policy.steps}": Play(policy, task, self.rules(task))
            for name, task in self.tasks.items()
            for label, policy in self.plays[name]
        }
        return dict(sorted(plays.items(), key=lambda item: item[1].policy.steps))

    def rules(self, task: Task) -> DecodeRules:
        """Return the rules of policies that have none of their own."""
        return DecodeRules.of(self.args.rules, task.generator.grid)

    def show(self, label: str, policy: Policy, task: Task, run: Run) -> None:
        """Draw rows of the first ten conditions, the same noise for every policy."""
        pool = task.examples(10)
        drawn = rollout(
            policy,
            task.generator,
            task.tokenizer,
            in_rows(pool, self.args.num_images),
            seed=0,
            rules=self.rules(task),
        )
        title = f"{label}, T = {policy.steps}"
        note = f"{self.task.name}; unselected, the same noise for every policy"
        run.write_figure(
            f"samples-{label}-T{policy.steps}",
            samples_figure({title: drawn.images_NCHW.cpu()}, pool.names, note),
        )


def refuse_own_generators(policies: Sequence[str], task: Task) -> None:
    """Raise ValueError if a policy learned beside a generator that learned too, and a task has another."""
    for spec in policies:
        own = own_generator(spec)
        if own is not None and str(own.resolve()) != task.spec:
            raise ValueError(
                f"policy {spec} has a generator of its own, which learned with it; play it there, "
                f"--generators {own}, or name another one"
            )


def judged(
    label: str, policy: Policy, evaluator: Evaluator, progress: Callable[[int], object]
) -> dict[str, Any]:
    """Return a policy's row, with its cost, its protocol and what it takes to play it again."""
    row = table_row(label, policy, evaluator, evaluator(policy, progress))
    return row | {"sampler": describe(policy)}


def finished(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the rows that a stopped evaluation left, by policy and number of steps."""
    path = folder / "results.json"
    if not path.is_file():
        return {}
    with reading(path):
        rows: list[dict[str, Any]] = [  # null is the spread of one seed
            {name: math.nan if value is None else value for name, value in row.items()}
            for row in read_json(path)["rows"]
        ]
        return {(row["policy"], row["steps"]): row for row in rows if "steps" in row}


def refuse_another(row: dict[str, Any], protocol: dict[str, Any], folder: Path) -> None:
    """Raise ValueError if a row that a stopped evaluation left is of another protocol than this one's."""
    found = compare(row.get("protocol", {}), protocol)
    for line in (*found.forbidding, *found.notes):
        raise ValueError(f"{folder} holds rows of another protocol, {line}; begin anew in another folder")


def evaluate(args: Args) -> None:
    """Draw and judge; print the table and write the run folder."""
    args, run, evaluation = open_run("evaluate", args, PLACES, Evaluation)
    known = finished(run.folder)
    rows: list[dict[str, Any]] = []
    count = sum(map(len, evaluation.plays.values()))
    each = len(args.seeds) * args.num_images
    with progress(total=count * each, unit="img", unit_scale=True) as bar:
        for name, task in evaluation.tasks.items():
            evaluator = evaluation.evaluators[name]
            of_generator = []
            for policy_name, policy in evaluation.plays[name]:
                place = label, _ = evaluation.label(name, policy_name), policy.steps
                bar.set_description(f"{label}, T = {policy.steps}")
                if place in known:
                    refuse_another(known[place], evaluator.manifest(), run.folder)
                    bar.update(each)
                else:
                    known[place] = judged(label, policy, evaluator, bar.update)
                    evaluation.show(label, policy, task, run)  # before the row, which a resume takes as done
                    run.write_results(evaluator.manifest(), list(known.values()))  # what a killed run leaves
                of_generator.append(known[place])
            rows += set_against(of_generator, evaluation.label(name, evaluation.against))
    bars = f"{evaluation.task.name}; bars: 95 % t-intervals over {len(args.seeds)} evaluation seeds"
    run.write_figure("frontier", frontier_figure(rows, bars))
    if evaluation.spare is not None:
        rows += evaluator.floors(evaluation.spare)
    run.write_results(evaluator.manifest(), rows)
    note = f"difference: to {evaluation.against} at the same T, paired over the seeds, with 95 % t-interval"
    print(f"{format_table(rows, FULL_COLUMNS)}\n{evaluator.legend()}\n{note}")
    write_for_report(run.folder, evaluation.every())
    write_report(run.folder, f"Policies on {evaluation.task.name}", [*evaluator.legend().splitlines(), note])
    print(f"{run.folder}: config.json, results.json, figures/, report.html")


def work(args: Args) -> None:
    if args.compare:
        comparison, text = compare_results(*args.compare)
        print(text)
        sys.exit(1 if comparison.forbidding else 0)
    evaluate(args)
