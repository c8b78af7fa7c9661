"""Judge any number of policies side by side: one table, one protocol, one command."""

import _root  # noqa: F401

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from _cli import main, open_run
from _progress import progress

from agents.named import describe, find_all, find_policies
from generators.data import SplitName
from generators.rules import DecodeRules
from natgym.evaluation.comparison import compare_results
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator, refuse_too_few
from natgym.evaluation.protocol import CONVENTIONS, ConditionLaw
from natgym.evaluation.report import write_report
from natgym.evaluation.scorer import Scorer
from natgym.evaluation.tables import FULL_COLUMNS, format_table, set_against, table_row
from natgym.figures.comparisons import frontier_figure
from natgym.figures.policies import samples_figure
from natgym.metrics.extractors import load_extractor
from natgym.metrics.reference import Reference
from natgym.rollouts import Policy, balanced, rollout
from natgym.runs import Run
from natgym.task import Task


@dataclass(frozen=True, kw_only=True)
class Args:
    """Evaluate policies, all on the same conditions, noise and real images; or compare two results.

    A policy is a name (reference, maskgit, random-order, one-step, cosine, linear, square, root, pow, arccos,
    exp, log, sigmoid, beta-cdf, halton, threshold, entropy-bounded, autonat), perhaps with settings such as
    beta-cdf:a=2,b=3,guidance=interval,w=2 or threshold:theta=.7; a schedule or strategy file; or a run folder
    of AdaNAT or AutoNAT. Guidance is l_c + w (l_c - l_u): w = 0 is none. The rows are sorted by NFE.
    """

    task: str | None = None
    """Task of tokenizer, classifier and real images: digits, mnist, cifar10 or an image folder; by default
    the first generator's."""
    policy: tuple[str, ...] = ("reference", "maskgit", "random-order")
    """Policies."""
    steps: tuple[int, ...] = (4, 8)
    """Decoding steps T; a file or a run folder stands for its own number only."""
    against: str | None = None
    """Policy that all others are set against, by paired differences; by default the first."""
    generators: tuple[str, ...] = ()
    """Shipped generators ("digits", "mnist/enat") or folders of saved ones; by default the task's."""
    tokenizer: str | None = None
    """Shipped task or folder of a saved tokenizer, by default the task's."""
    classifier: str | None = None
    """Shipped task or folder of a saved classifier, by default the task's, if there is one."""
    extractor: str = "classifier"
    """Features: classifier, inception, dinov2 (or dinov2-small, dinov2-large)."""
    weights: Path | None = None
    """Local weights file of inception or dinov2."""
    reference: Path | None = None
    """Statistics of real images (.npz with mu and sigma) in place of the task's split."""
    protocol: Literal["natgym", "imagenet256-adm"] = "natgym"
    """A published convention, which fixes images, extractor and kind of reference."""
    conditions: ConditionLaw = "balanced"
    """Every condition in turn, or random ones."""
    split: SplitName = "report"
    """Real images to compare with."""
    images: int | None = None
    """Images generated per evaluation seed, by default 5,000 or the convention's."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Evaluation seeds; the intervals are over them."""
    rules: str = "confidence"
    """Rules of policies that have none of their own: confidence, random, halton, with limits if need be
    (generators.rules); adanat lets a step reveal nothing."""
    quantise: bool = True
    """Judge images rounded to 8 bits."""
    threads: int = 2
    """Batches drawn at once."""
    device: str = "cpu"
    """Where to draw and judge."""
    compare: tuple[Path, ...] = ()
    """Two results.json or run folders: say where their protocols differ, or rank their rows."""
    output: Path | None = None
    """Run folder, by default runs/evaluate-<time>."""
    resume: Path | None = None
    """Run folder to go on with, whose finished rows are kept; its own settings are used."""

    def __post_init__(self) -> None:
        for name in ("policy", "steps", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one")
        for name, least in {"images": 1, "threads": 1}.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name} {value}: it must be at least {least}")
        if bad := [steps for steps in self.steps if steps < 1]:
            raise ValueError(f"steps {bad[0]}: decoding takes at least one step")
        DecodeRules.of(self.rules, (1, 1))  # says what is wrong with them before anything is loaded
        if self.compare and len(self.compare) != 2:
            raise ValueError(f"compare takes two results, not {len(self.compare)}")
        if self.protocol in CONVENTIONS:
            self._check_convention()

    def _check_convention(self) -> None:
        convention = CONVENTIONS[self.protocol]
        if self.extractor != convention.extractor or self.weights is None or self.reference is None:
            needs = f"--extractor {convention.extractor}, {convention.needs}"
            raise ValueError(f"protocol {self.protocol} needs {needs}")
        if self.images not in (None, convention.images) or not self.quantise:
            raise ValueError(
                f"protocol {self.protocol} is of {convention.images:,} images of 8 bits; leave --images and "
                "--quantise as they are, or the protocol"
            )

    @property
    def num_images(self) -> int:
        """Images generated per evaluation seed."""
        default = CONVENTIONS[self.protocol].images if self.protocol in CONVENTIONS else 5000
        return default if self.images is None else self.images


# Flags that say where to run, not what.
PLACES = ("threads", "device", "resume")


class Evaluation:
    """Everything that the table is made of, loaded and checked before a folder is made."""

    def __init__(self, args: Args) -> None:
        torch.set_num_threads(1)
        self.args = args
        names = args.generators or (args.task or "digits",)
        networks = {"tokenizer": args.tokenizer, "score_extractor": args.classifier}
        self.task = Task.load(args.task or names[0], device=args.device, **networks)
        self.tasks = {
            name: self.task.like(generator=name) if args.generators else self.task for name in names
        }
        self.classifier: Any = self.task.score_extractor if self.task.has("score_extractor") else None
        self.extractor = self._extractor()
        self.statistics = None if args.reference is None else Reference.load(args.reference, self.extractor)
        self.plays = {name: self._plays(task.generator) for name, task in self.tasks.items()}
        labels = {label for plays in self.plays.values() for label, _ in plays}
        self.against = args.against or next(iter(self.plays.values()))[0][0]
        if self.against not in labels:
            raise ValueError(f"against {self.against!r} is not one of {', '.join(sorted(labels))}")

    def _plays(self, generator: Any) -> list[tuple[str, Policy]]:
        find = partial(find_policies, steps=self.args.steps, generator=generator)
        return [(label, policy) for label, _, policy in find_all(self.args.policy, find)]

    def _extractor(self) -> Any:
        """Return the source of features; ValueError if there is none, or too few images for it."""
        args, found = self.args, self.classifier
        if args.extractor != "classifier":
            found = load_extractor(args.extractor, args.weights, args.device)
        if found is None:
            raise ValueError(
                f"{self.task} has no extractors/score; give --classifier, or --extractor inception"
            )
        refuse_too_few(args.num_images, found)
        return found

    def real(self) -> tuple[Any, Any]:
        """Return the reference, and a split of real images whose row is the floor, if there is one."""
        if self.statistics is not None:
            return self.statistics, None
        args = self.args
        other: SplitName = "select" if args.split == "train" else "train"
        return self.task.split(args.split), self.task.split(other)

    def judge(self, real: Any) -> Scorer:
        """Return the judge of all generators' images."""
        return Scorer(self.classifier, real, extractor=self.extractor, quantise=self.args.quantise)

    def evaluator(self, task: Task, scorer: Scorer) -> Evaluator:
        """Return what evaluates policies of one generator."""
        args = self.args
        config = EvaluationConfig(
            split="-" if args.reference else args.split,
            images=args.num_images,
            seeds=args.seeds,
            conditions=args.conditions,
            convention=args.protocol,
        )
        rules = DecodeRules.of(args.rules, task.generator.grid)
        return Evaluator(task, config, scorer=scorer, rules=rules, threads=args.threads)

    def label(self, generator: str, policy: str) -> str:
        return f"{generator} {policy}" if len(self.tasks) > 1 else policy

    def show(self, label: str, policy: Policy, task: Task, run: Run) -> None:
        """Draw ten rows of the first ten conditions, the same noise for every policy."""
        pool = task.generator.conditions()[:10]
        drawn = rollout(
            policy,
            task.generator,
            task.tokenizer,
            balanced(pool, 10 * len(pool)),
            seed=0,
            rules=DecodeRules.of(self.args.rules, task.generator.grid),
        )
        title = f"{label}, T = {policy.steps}"
        note = f"{self.task.name}; unselected, the same noise for every policy"
        run.write_figure(
            f"samples-{label}-T{policy.steps}",
            samples_figure({title: drawn.images_NCHW.cpu()}, pool.names, note),
        )


def judged(
    label: str, policy: Policy, evaluator: Evaluator, progress: Callable[[int], object]
) -> dict[str, Any]:
    """Return a policy's row, with its cost, its protocol and what it takes to play it again."""
    row = table_row(label, policy, evaluator, evaluator(policy, progress))
    return row | {"sampler": describe(policy)}


def finished(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the rows that a stopped evaluation left, by policy and number of steps."""
    if not (folder / "results.json").is_file():
        return {}
    rows = json.loads((folder / "results.json").read_text())["rows"]
    return {(row["policy"], row["steps"]): row for row in rows if "steps" in row}


def evaluate(args: Args) -> None:
    """Draw and judge; print the table and write the run folder."""
    args, run, evaluation = open_run("evaluate", args, PLACES, Evaluation)
    known = finished(run.folder)
    real, spare = evaluation.real()
    scorer = evaluation.judge(real)
    rows: list[dict[str, Any]] = []
    count = sum(map(len, evaluation.plays.values()))
    each = len(args.seeds) * args.num_images
    with progress(total=count * each, unit="img", unit_scale=True) as bar:
        for name, task in evaluation.tasks.items():
            evaluator, found = evaluation.evaluator(task, scorer), []
            for policy_name, policy in evaluation.plays[name]:
                place = label, _ = evaluation.label(name, policy_name), policy.steps
                bar.set_description(f"{label}, T = {policy.steps}")
                if place in known:
                    bar.update(each)
                else:
                    known[place] = judged(label, policy, evaluator, bar.update)
                    run.write_results(evaluator.manifest(), list(known.values()))  # what a killed run leaves
                    evaluation.show(label, policy, task, run)
                found.append(known[place])
            rows += set_against(found, evaluation.label(name, evaluation.against))
    bars = f"{evaluation.task.name}; bars: 95 % t-intervals over {len(args.seeds)} evaluation seeds"
    run.write_figure("frontier", frontier_figure(rows, bars))
    if spare is not None:
        rows.append(evaluator.floor(spare))
    run.write_results(evaluator.manifest(), rows)
    note = f"difference: to {evaluation.against} at the same T, paired over the seeds, with 95 % t-interval"
    print(f"{format_table(rows, FULL_COLUMNS)}\n{evaluator.legend()}\n{note}")
    write_report(run.folder, f"Policies on {evaluation.task.name}", [*evaluator.legend().splitlines(), note])
    print(f"{run.folder}: config.json, results.json, figures/, report.html")


def work(args: Args) -> None:
    if args.compare:
        found, said = compare_results(*args.compare)
        print(said)
        sys.exit(1 if found.forbidding else 0)
    evaluate(args)


if __name__ == "__main__":
    main(Args, work)
