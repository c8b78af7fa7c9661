"""What autonat_search.py does: searches, the schedule per class, table and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from _cli import PLACES, open_run
from _progress import progress
from _table import check_table
from torch import Tensor
from tqdm import tqdm

from agents.autonat.class_table import ClassTable, search_table
from agents.autonat.scorer import Evaluation, Measurement, ScheduleScorer
from agents.autonat.search import Search, explore
from agents.distributed.cluster import quiet
from generators.conditions import in_rows
from generators.noise import derive_seed
from generators.schedules import Schedule, as_schedule
from natgym.evaluation.evaluator import Evaluator
from natgym.evaluation.report import write_report
from natgym.evaluation.scorer import Scorer
from natgym.evaluation.statistics import means_by_run, paired_difference
from natgym.evaluation.tables import format_table, table_row
from natgym.figures.explorations import Play, write_for_report
from natgym.figures.policies import samples_figure
from natgym.figures.searches import schedules_figure, search_figure
from natgym.policies import FixedPolicy, baselines
from natgym.rollouts import Policy, balanced
from natgym.runs import Run
from natgym.task import Task

if TYPE_CHECKING:
    from autonat_search import Args

TABLE, SHUFFLED = "class-table", "shuffled-table"


def load(args: Args) -> ScheduleScorer:
    """Return what measures schedules; ValueError for what would fail later."""
    torch.set_num_threads(1)  # sums in one order; the CPUs are used by drawing batches side by side
    for optimizer in args.optimizer:
        next(explore(optimizer, args.search, args.steps, args.seed))
    where: dict[str, Any] = {"device": args.device, "precision": args.precision}
    task = Task.load(args.task, generator=args.generator, **where)
    check_table(task, args.images, args.evaluation_seeds)
    aim: dict[str, Any] = {"objective": args.objective, "price": args.price}
    scorer = ScheduleScorer(task, rules=args.rules, threads=args.threads, **aim)
    images_of_table(args, scorer)
    return scorer


class Found(NamedTuple):
    """What the searches came to.

    Attributes:
        searches: by optimizer and seed, all with a result.
        chosen: the one whose schedule is best.
        best: that schedule.
        classes: a schedule per class around it, if that was searched, too.
    """

    searches: dict[tuple[str, int], Search]
    chosen: tuple[str, int]
    best: Schedule
    classes: ClassTable | None

    def result(self, optimizer: str, seed: int) -> Schedule:
        """Return what a search has found."""
        found = self.searches[optimizer, seed].result
        assert found is not None
        return found


class Judged(NamedTuple):
    """The table: by whom, its rows, and the scores that are set against each other, by policy."""

    evaluator: Evaluator
    rows: list[dict[str, Any]]
    scores: dict[str, pd.DataFrame]


def open_searches(args: Args, run: Run, scorer: ScheduleScorer) -> dict[tuple[str, int], Search]:
    """Return the searches by optimizer and seed, each going on from its log."""
    (run.folder / "searches").mkdir(exist_ok=True)
    config = scorer.suited(args.search)
    return {
        (optimizer, seed): Search(optimizer, config, args.steps, seed, log_file(run, optimizer, seed))
        for optimizer in args.optimizer
        for seed in range(args.seed, args.seed + args.repeats)
    }


def log_file(run: Run, optimizer: str, seed: int) -> Path:
    return run.folder / "searches" / f"{optimizer}-{seed}.csv"


def images_of_table(args: Args, scorer: ScheduleScorer) -> int:
    """Return how many images the search for a schedule per class takes; ValueError if the task has no
    classes to search for."""
    if not args.table.candidates:
        return 0
    if scorer.task.has("encoder"):
        raise ValueError("table.candidates: a schedule per class is for classes; texts have none, give 0")
    if scorer.task.given:
        raise ValueError("table.candidates: a schedule per class is searched for whole images; give 0")
    return args.table.candidates * args.table.images_per_class * len(scorer.task.every)


def total_images(args: Args, scorer: ScheduleScorer) -> int:
    """Return how many images the whole run draws."""
    searches, table = len(args.optimizer) * args.repeats, images_of_table(args, scorer)
    policies = 4 + searches + (2 if table else 0)
    judging = policies * args.images * len(args.evaluation_seeds)
    return searches * (args.search.total + args.images) + table + judging


def search(args: Args, run: Run, scorer: ScheduleScorer, bar: tqdm) -> Found:
    """Search, or go on; return the winners, the best of them, and the schedule per class around it."""
    searches = open_searches(args, run, scorer)
    finish(args, run, scorer, searches, bar)
    chosen = choose(args, scorer, searches, bar)
    found = searches[chosen].result
    assert found is not None
    best = dataclasses.replace(found, name="autonat")
    best.save(run.folder / "strategy.json")
    best.save(run.folder / "strategy.yaml")
    return Found(searches, chosen, best, search_classes(args, run, scorer, best, bar))


def finish(
    args: Args, run: Run, scorer: ScheduleScorer, named: dict[tuple[str, int], Search], bar: tqdm
) -> None:
    """Finish all searches; what an earlier run has measured is not measured again."""
    names, searches = list(named), list(named.values())
    bar.update(sum(search.spent for search in searches))

    def report(index: int, evaluation: Evaluation, measured: Measurement) -> None:
        best = min(searches[index].known.values())
        bar.set_description(f"{names[index][0]}, generation {evaluation.generation}")
        bar.set_postfix(best=f"{best.distance:.3f} ± {best.error:.3f}")
        bar.update(evaluation.images)

    if args.local:
        for index, search in enumerate(searches):
            search.run(scorer, partial(report, index))
    else:
        run_on_ray(args, searches, report, run.folder)
    for search in searches:  # what a search leaves of its budget, too small for another generation
        bar.update(args.search.total - search.spent)


def choose(
    args: Args, scorer: ScheduleScorer, searches: dict[tuple[str, int], Search], bar: tqdm
) -> tuple[str, int]:
    """Return whose winner is best on one more noise of the select split, common to all searches."""
    bar.set_description("choosing")
    seed, looks = derive_seed(args.seed, "choice"), {}
    for name, search in searches.items():
        assert search.result is not None
        looks[name] = scorer(Evaluation(0, 0, search.result, args.images, seed, True))
        bar.update(args.images)
    return min(looks, key=lambda name: looks[name].distance)


def search_classes(
    args: Args, run: Run, scorer: ScheduleScorer, best: Schedule, bar: tqdm
) -> ClassTable | None:
    """Search a schedule for every class around the best static one, or read what was found."""
    if not args.table.candidates:
        return None
    file, pool = run.folder / "class-table.json", scorer.generator.conditions()
    bar.set_description("class table")
    bar.set_postfix()
    seed = derive_seed(args.seed, "class-table")
    real = Scorer(scorer.scorer().classifier, scorer.task.images(args.table.split))

    def features(schedule: Schedule, images: int) -> tuple[Tensor, Tensor]:
        condition = balanced(pool, images)
        drawn = scorer.draw(FixedPolicy(schedule), condition, seed)
        return real.features(drawn.images_NCHW), torch.arange(images) % len(pool)

    if file.is_file():
        bar.update(images_of_table(args, scorer))
    else:
        found = search_table(
            best,
            args.table,
            features,
            real.frechet,
            num_classes=len(pool),
            seed=args.seed,
            progress=bar.update,
        )
        found.save(file)
    return ClassTable.load(file)


def judge(args: Args, scorer: ScheduleScorer, found: Found, bar: tqdm) -> Judged:
    """Evaluate everything on the report split."""
    evaluator = scorer.evaluator(args.images, args.evaluation_seeds)
    bar.set_postfix()
    rows: list[dict[str, Any]] = []
    paired: dict[str, pd.DataFrame] = {}

    def row(name: str, policies: Sequence[Policy], spent: int) -> None:
        bar.set_description(f"evaluating {name}")
        frames = [evaluator(policy, bar.update) for policy in policies]
        scores = frames[0] if len(frames) == 1 else means_by_run(frames, args.seed)
        if args.repeats == 1 or name in (TABLE, SHUFFLED):
            paired[name] = scores
        else:  # over searches, for all of which a hand-made schedule is the same
            paired[name] = means_by_run(frames * (args.repeats // len(frames)), args.seed)
        rows.append(table_row(name, policies[0], evaluator, scores, spent))

    for name, policy in baselines(args.steps).items():
        row(name, [policy], 0)
    for optimizer in args.optimizer:
        own = [name for name in found.searches if name[0] == optimizer]
        policies = [FixedPolicy(found.result(*name)) for name in own]
        row(optimizer, policies, found.searches[own[0]].spent)
    if found.classes is not None:
        spent = found.searches[found.chosen].spent + images_of_table(args, scorer)
        row(TABLE, [found.classes], spent)
        row(SHUFFLED, [found.classes.shuffled(args.seed)], spent)
    rows += evaluator.floors(scorer.task.images("train"))
    reference = next(one["distance"] for one in rows if one["policy"] == "reference")
    return Judged(evaluator, [one | {"to_reference": one["distance"] / reference} for one in rows], paired)


def write(args: Args, run: Run, found: Found, judged: Judged) -> None:
    """Print the table and what may be claimed of it; write results.json."""
    best = found.chosen[0]
    pairs = [(best, "reference"), (best, "maskgit")]
    pairs += [(best, other) for other in args.optimizer if other != best]
    if found.classes is not None:
        pairs += [(TABLE, SHUFFLED)] + [(TABLE, best)] * (args.repeats == 1)
    over = "evaluation seeds" if args.repeats == 1 else "searches"
    differences = [
        paired_difference(judged.scores[ours], judged.scores[theirs], policy=ours, minus=theirs, over=over)
        for ours, theirs in pairs
    ]
    run.write_results(
        judged.evaluator.manifest(),
        judged.rows,
        differences=[one.row() for one in differences],
        strategy=best,
    )
    print(format_table(judged.rows))
    print(judged.evaluator.legend())
    if args.repeats > 1:
        print(f"Rows of optimizers: mean and spread over {args.repeats} searches.")
    print(f"strategy.json is of {best}, the best of the winners on one noise of the select split.")
    for one in differences:
        print(f"{one.policy} - {one.minus}: {one}")


def illustrate(args: Args, run: Run, scorer: ScheduleScorer, found: Found, legend: str) -> None:
    """Write the figures and the report."""
    shown = {name: as_schedule(name, args.steps) for name in ("reference", "maskgit")}
    shown |= {optimizer: found.result(optimizer, args.seed) for optimizer in args.optimizer}
    note = f"{args.task}, T = {args.steps}, seed {args.seed}; guidance is l_c + w (l_c - l_u)"
    run.write_figure("schedules", schedules_figure(shown, note))
    logs = {str(name): pd.read_csv(log_file(run, name, args.seed)) for name in args.optimizer}
    note = (
        f"{args.task}, T = {args.steps}, seed {args.seed}; dots: evaluations, line: median of a generation, "
        "diamond: the winner of the second look, on fresh noise, and its standard error"
    )
    run.write_figure("search", search_figure(logs, note, scorer.objective.words))
    policies: dict[str, Policy] = {"reference": FixedPolicy(shown["reference"])}
    policies |= {found.chosen[0]: FixedPolicy(found.best)}
    policies |= {} if found.classes is None else {TABLE: found.classes}
    pool = scorer.task.examples(10)
    rows = in_rows(pool, args.images)
    images = {name: scorer.draw(policy, rows, 0).images_NCHW for name, policy in policies.items()}
    note = f"{args.task}, T = {args.steps}; same noise and classes in each panel, unselected"
    run.write_figure("samples", samples_figure(images, pool.names, note))
    best = found.chosen[0]  # stands first, and in the place of other searches by the same optimizer
    every = (
        {best: policies[best]} | {name: FixedPolicy(schedule) for name, schedule in shown.items()} | policies
    )
    plays = {name: Play(policy, scorer.task, scorer.rules) for name, policy in every.items()}
    write_for_report(run.folder, plays)
    write_report(run.folder, f"AutoNAT on {args.task}, T = {args.steps}", legend.splitlines())
    print(f"{run.folder}: config.json, searches/, strategy.json, results.json, figures/, report.html")


def run_on_ray(
    args: Args, searches: list[Search], report: Callable[[int, Evaluation, Measurement], None], folder: Path
) -> None:
    """Finish the searches as Ray Tune jobs."""
    quiet()  # before Ray is imported
    from agents.autonat.tune_search import run_searches

    names = ("task", "generator", "steps", "device", "precision", "rules", "objective", "price")
    fixed = {name: getattr(args, name) for name in names}
    run_searches(
        searches,
        fixed,
        report,
        folder=folder,
        cpus_per_trial=args.cpus_per_trial,
        gpus_per_trial=args.gpus_per_trial,
        address=args.address,
    )


def work(args: Args) -> None:
    args, run, scorer = open_run("autonat_search", args, PLACES, load)
    total = total_images(args, scorer)
    with progress(total=total, unit="img", unit_scale=True, smoothing=0.05) as bar:
        found = search(args, run, scorer, bar)
        judged = judge(args, scorer, found, bar)
    write(args, run, found, judged)
    illustrate(args, run, scorer, found, judged.evaluator.legend())
