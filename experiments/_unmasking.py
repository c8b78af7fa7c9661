"""What unmasking.py does: many rules on the select split, their front and the policies on report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from _oracle import Oracle
from _progress import progress

from agents.named import PRICE, find_policies, labelled_policy
from generators.config import SplitName
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.evaluation.front import beyond, hull
from natgym.evaluation.report import write_report
from natgym.evaluation.statistics import Difference, means_by_run, paired_difference
from natgym.evaluation.tables import FULL_COLUMNS, format_table, table_row
from natgym.figures.comparisons import front_figure
from natgym.figures.explorations import Play, write_for_report
from natgym.metrics.named import NAMED
from natgym.policies import FixedPolicy
from natgym.rollouts import Policy
from natgym.runs import Run
from natgym.task import Task

if TYPE_CHECKING:
    from unmasking import Args

SCHEDULES = ("linear", "linear:rule=margin", "linear:rule=entropy", "linear:rule=random", "maskgit")
# How many uncertain tokens beside the sure ones, whether the most uncertain, how much noise: 9 is any.
EXTRAS = ((1, 0, 0), (1, 1, 0), (2, 0, 0), (2, 1, 0), (1, 1, 0.25), (1, 1, 9), (2, 1, 9))
FRONT = "front of rules"
Frames = dict[str, pd.DataFrame]


def rules_of(args: Args, generator: Any) -> Iterator[tuple[str, Policy]]:
    """Yield all rules with their labels."""
    specs = [
        *SCHEDULES,
        *(f"threshold:theta={theta}" for theta in args.theta),
        *(f"entropy-bounded:epsilon={epsilon}" for epsilon in args.epsilon),
        *(
            f"sure:theta={theta},extra={extra},most={most}" + (f",noise={noise}" if noise else "")
            for theta in args.theta
            for extra, most, noise in EXTRAS
        ),
    ]
    # Without noise on their scores: it is for variety, and what is drawn here shall be right.
    guided = [f",guidance=constant,w={scale:g}" for scale in args.guidance] or [""]
    cooled = [
        f"{spec}{',' if ':' in spec else ':'}sampling={temperature:g},remask=0{guidance}"
        for spec in specs
        for temperature in args.sampling
        for guidance in guided
    ]
    for spec in (*cooled, *args.rules):
        for label, policy in find_policies(spec, args.steps, generator):
            fixed = isinstance(policy, FixedPolicy)
            yield f"{label}, T = {policy.steps}" if fixed else label, policy


def learned(args: Args, generator: Any) -> dict[str, dict[str, Policy]]:
    """Return the policies that are set against the front, by kind and place; those that learned a range of
    prices at each of the prices asked for."""
    kinds: dict[str, dict[str, Policy]] = {}
    for spec in args.policy:
        kind, said, place = spec.partition("=")
        if not said or Path(spec).exists() or "@" in kind:  # a folder's own name may have a =
            kind, place = "", spec
        label, policy = labelled_policy(place, generator)
        played = {"": policy}
        if args.price and isinstance(getattr(policy, "price", None), tuple):
            played = {f"{PRICE}{price:g}": policy.at(price) for price in args.price}  # type: ignore[attr-defined]
        for behind, one in played.items():
            kinds.setdefault((kind or label) + behind, {})[place + behind] = one
    return kinds


def front_of(frames: Mapping[str, pd.DataFrame], metric: str) -> list[str]:
    """Return the labels of the corners of the front, by rising passes."""
    labels = list(frames)
    means = pd.DataFrame([frame[["nfe", metric]].mean() for frame in frames.values()])
    quality = means[metric] if NAMED[metric].better == "higher" else -means[metric]
    return [labels[corner] for corner in hull(means["nfe"], quality)]


def differences(
    kinds: Mapping[str, Sequence[str]], frames: Frames, corners: Sequence[pd.DataFrame], metric: str
) -> list[Difference]:
    """Return what each kind of policy has beyond the front: over the evaluation seeds, and of several
    trainings over these."""
    found = []
    for kind, places in kinds.items():
        each = [beyond(frames[place], corners, metric, policy=kind, minus=FRONT) for place in places]
        if len(each) == 1:
            found += each
            continue
        means = means_by_run([pd.DataFrame({metric: one.each}) for one in each])
        nothing = means.assign(**{metric: 0.0})
        labels = {"policy": kind, "minus": FRONT, "over": "trainings"}
        found.append(paired_difference(means, nothing, metric, **labels))
    return found


def work(args: Args) -> None:
    torch.set_num_threads(1)
    task = Task.load(args.task, device=args.device)
    rules, kinds = dict(rules_of(args, task.generator)), learned(args, task.generator)
    if args.oracle:
        kinds["oracle"] = {"oracle": Oracle.of(task)}
    each = args.choose_images or args.images
    chooser = evaluator(args, task, args.choose, args.seeds[:1], each)
    report = evaluator(args, task, "report", args.seeds, args.images)
    run = Run.create("unmasking", args.output, args)  # too few images have been refused
    every = {place: policy for policies in kinds.values() for place, policy in policies.items()}
    with progress(unit="img", unit_scale=True) as bar:
        bar.total = len(rules) * each
        seen = judged(rules, chooser, args.metric, bar)
        chosen = {label: rules[label] for label in front_of(seen, args.metric)} | every
        bar.total += len(chosen) * args.images * len(args.seeds)
        frames = judged(chosen, report, args.metric, bar)
    rows = [table_row(label, chosen[label], report, frame) for label, frame in frames.items()]
    rows.sort(key=lambda row: row["nfe"])
    judged_rules = {label: frame for label, frame in frames.items() if label in rules}
    front = [frames[label] for label in front_of(judged_rules, args.metric)]
    found = differences({kind: list(places) for kind, places in kinds.items()}, frames, front, args.metric)
    means = [{"policy": label, **frame[["nfe", args.metric]].mean()} for label, frame in seen.items()]
    more = {"differences": [one.row() for one in found], args.choose: means}
    run.write_results(report.manifest(), rows, **more)
    note = (
        f"{task.name}; grey: {len(rules)} rules on the {args.choose} split; line, the front of the best "
        f"there, and marks on report, {args.images:,} images for each of {len(args.seeds)} seeds"
    )
    shown = {kind: [frames[place] for place in places] for kind, places in kinds.items()}
    run.write_figure("front", front_figure(list(seen.values()), front, shown, args.metric, note))
    print(format_table(rows, FULL_COLUMNS), *report.legend().splitlines(), sep="\n")
    for one in found:
        over = f"{one.n} {one.over}"
        print(f"{one.policy} - {one.minus} at as many passes: {one} in {one.metric}, over {over}")
    write_for_report(run.folder, {label: Play(policy, task) for label, policy in chosen.items()})
    write_report(run.folder, f"Unmasking on {task.name}", [*report.legend().splitlines(), note])
    print(f"{run.folder}: config.json, results.json, figures/, report.html")


def evaluator(args: Args, task: Task, split: SplitName, seeds: Sequence[int], images: int) -> Evaluator:
    """Return what judges on a split, by so many images of each seed."""
    config = EvaluationConfig(images=images, seeds=tuple(seeds), split=split)
    return Evaluator(task, config, threads=args.threads)


def judged(policies: Mapping[str, Policy], by: Evaluator, metric: str, bar: Any) -> Frames:
    """Return what an evaluator says of policies; ValueError, after the first, if it is not of a metric."""
    frames = {}
    for label, policy in policies.items():
        bar.set_description(label)
        frames[label] = by(policy, bar.update)
        if metric not in frames[label]:
            raise ValueError(f"metric {metric}: {by.task} has {', '.join(frames[label].columns)}")
    return frames
