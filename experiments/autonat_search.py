"""Search for the best static decoding schedule (AutoNAT), and compare it with the hand-made ones."""

import _root  # noqa: F401

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import tyro
from _cli import PLACES, Places, main, open_run
from _progress import progress
from torch import Tensor

from agents.autonat.class_table import ClassTable, ClassTableConfig, search_table
from agents.autonat.scorer import Evaluation, Measurement, ScheduleScorer
from agents.autonat.search import OptimizerName, Search, SearchConfig, explore
from agents.distributed.cluster import quiet
from generators.noise import derive_seed
from generators.rules import DecodeRules
from generators.schedules import Schedule, as_schedule
from natgym.evaluation.evaluator import Evaluator
from natgym.evaluation.report import write_report
from natgym.evaluation.scorer import Scorer
from natgym.evaluation.statistics import means_by_run, paired_difference
from natgym.evaluation.tables import format_table, table_row
from natgym.figures.policies import samples_figure
from natgym.figures.searches import schedules_figure, search_figure
from natgym.policies import FixedPolicy, baselines
from natgym.rollouts import Policy, balanced
from natgym.runs import Run
from natgym.task import Task

TABLE, SHUFFLED = "class-table", "shuffled-table"


@dataclass(frozen=True, kw_only=True)
class Args(Places):
    """Search for the best static decoding schedule, and compare it with hand-made ones.

    Each optimizer spends the same number of images on the select split. The best schedule found there is
    written as strategy.json, and as strategy.yaml for AutoNAT; with --table.candidates, a schedule is
    searched for every class too. The table is of the report split, which no search has seen.
    """

    task: str = "digits"
    """Task of tokenizer, classifier and real images: digits or mnist."""
    generator: str | None = None
    """Folder of a saved generator, or the name of a shipped one such as mnist/enat; by default the task's."""
    steps: int = 4
    """Decoding steps T."""
    optimizer: tuple[OptimizerName, ...] = ("grid", "cma")
    """One or more of: paper (AutoNAT's finite differences), grid (three scales of the reference), random,
    spsa, gradient, coordinate, cma."""
    repeats: int = 1
    """Searches by each optimizer, with the seeds seed, seed + 1, ...; the table gives their mean."""
    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = field(default_factory=SearchConfig)
    """Budget and details of each search."""
    table: ClassTableConfig = field(default_factory=ClassTableConfig)
    """The schedule per class."""
    rules: str = "confidence"
    """Rules of the decoding step: confidence, random, halton, with limits if need be (generators.rules);
    adanat lets a step reveal nothing."""
    images: int = 5000
    """Images per row and evaluation seed in the table."""
    evaluation_seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the table."""
    seed: int = 0
    """Everything random in the searches follows from it."""
    device: str = "cpu"
    """Where generator and classifier live: cpu or cuda."""

    def __post_init__(self) -> None:
        for name in ("steps", "repeats", "images", "threads", "cpus_per_trial"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: it must be at least 1")
        DecodeRules.of(self.rules, (1, 1))  # says what is wrong with them before anything is loaded
        for name in ("optimizer", "evaluation_seeds"):
            if not (given := getattr(self, name)) or len(set(given)) < len(given):
                raise ValueError(f"{name} {' '.join(map(str, given))}: give at least one, and none twice")


def load(args: Args) -> ScheduleScorer:
    """Return what measures schedules; ValueError for what would fail later."""
    torch.set_num_threads(1)  # sums in one order; the CPUs are used by drawing batches side by side
    for optimizer in args.optimizer:
        next(explore(optimizer, args.search, args.steps, args.seed))
    task = Task.load(args.task, device=args.device, generator=args.generator)
    return ScheduleScorer(task, rules=args.rules, threads=args.threads)


class Experiment:
    """Searches, the schedule per class, the table; one progress bar over all, counted in images."""

    def __init__(self, args: Args, run: Run, scorer: ScheduleScorer) -> None:
        self.args, self.run, self.scorer = args, run, scorer
        (run.folder / "searches").mkdir(exist_ok=True)
        self.searches = {
            (optimizer, seed): Search(
                optimizer, args.search, args.steps, seed, self.log_file(optimizer, seed)
            )
            for optimizer in args.optimizer
            for seed in range(args.seed, args.seed + args.repeats)
        }
        self.classes = len(self.scorer.generator.conditions())
        self.table_images = args.table.candidates * args.table.images_per_class * self.classes
        policies = 4 + len(self.searches) + (2 if self.table_images else 0)
        total = len(self.searches) * (args.search.budget + args.images) + self.table_images
        total += policies * args.images * len(args.evaluation_seeds)
        self.bar = progress(total=total, unit="img", unit_scale=True, smoothing=0.05)

    def log_file(self, optimizer: str, seed: int) -> Path:
        return self.run.folder / "searches" / f"{optimizer}-{seed}.csv"

    def search(self) -> None:
        """Finish all searches; what an earlier run has measured is not measured again."""
        names, searches = list(self.searches), list(self.searches.values())
        self.bar.update(sum(search.spent for search in searches))

        def report(index: int, evaluation: Evaluation, measured: Measurement) -> None:
            best = min(searches[index].known.values())
            self.bar.set_description(f"{names[index][0]}, generation {evaluation.generation}")
            self.bar.set_postfix(best=f"{best.distance:.3f} ± {best.error:.3f}")
            self.bar.update(evaluation.images)

        if self.args.local:
            for index, search in enumerate(searches):
                search.run(self.scorer, partial(report, index))
        else:
            run_on_ray(self.args, searches, report, self.run.folder)
        for search in searches:  # what a search leaves of its budget, too small for another generation
            self.bar.update(self.args.search.budget - search.spent)

    def choose(self) -> None:
        """Keep the winner that is best on one more noise of the select split, common to all searches."""
        self.bar.set_description("choosing")
        seed, looks = derive_seed(self.args.seed, "choice"), {}
        for name, search in self.searches.items():
            assert search.result is not None
            looks[name] = self.scorer(Evaluation(0, 0, search.result, self.args.images, seed, True))
            self.bar.update(self.args.images)
        self.chosen = min(looks, key=lambda name: looks[name].distance)
        found = self.searches[self.chosen].result
        assert found is not None
        self.best = dataclasses.replace(found, name="autonat")
        self.best.save(self.run.folder / "strategy.json")
        self.best.save(self.run.folder / "strategy.yaml")

    def search_classes(self) -> None:
        """Search a schedule for every class around the best static one, or read what was found."""
        self.class_table: ClassTable | None = None
        if not self.args.table.candidates:
            return
        file, pool = self.run.folder / "class-table.json", self.scorer.generator.conditions()
        self.bar.set_description("class table")
        self.bar.set_postfix()
        seed = derive_seed(self.args.seed, "class-table")
        real = self.scorer.task.split(self.args.table.split)
        scorer = Scorer(self.scorer.scorer.classifier, real)

        def features(schedule: Schedule, images: int) -> tuple[Tensor, Tensor]:
            condition = balanced(pool, images)
            drawn = self.scorer.draw(FixedPolicy(schedule), condition, seed)
            return scorer.features(drawn.images_NCHW), torch.arange(images) % len(pool)

        if not file.is_file():
            search_table(
                self.best,
                self.args.table,
                features,
                scorer.frechet,
                num_classes=self.classes,
                seed=self.args.seed,
                progress=self.bar.update,
            ).save(file)
        else:
            self.bar.update(self.table_images)
        self.class_table = ClassTable.load(file)

    def judge(self) -> None:
        """Evaluate everything on the report split; print the table and write results.json."""
        args = self.args
        evaluator = self.scorer.evaluator(args.images, args.evaluation_seeds)
        self.bar.set_postfix()
        rows, paired = [], {}

        def judge(name: str, policies: list[Policy], spent: int) -> None:
            self.bar.set_description(f"evaluating {name}")
            frames = [evaluator(policy, self.bar.update) for policy in policies]
            scores = frames[0] if len(frames) == 1 else means_by_run(frames, args.seed)
            if args.repeats == 1 or name in (TABLE, SHUFFLED):
                paired[name] = scores
            else:  # over searches, for all of which a hand-made schedule is the same
                paired[name] = means_by_run(frames * (args.repeats // len(frames)), args.seed)
            rows.append(table_row(name, policies[0], evaluator, scores, spent))

        for name, policy in baselines(args.steps).items():
            judge(name, [policy], 0)
        for optimizer in args.optimizer:
            found = [search for name, search in self.searches.items() if name[0] == optimizer]
            policies: list[Policy] = [FixedPolicy(search.result) for search in found if search.result]
            judge(optimizer, policies, found[0].spent)
        if self.class_table is not None:
            spent = self.searches[self.chosen].spent + self.table_images
            judge(TABLE, [self.class_table], spent)
            judge(SHUFFLED, [self.class_table.shuffled(args.seed)], spent)
        self.bar.close()
        rows.append(evaluator.floor(self.scorer.task.split("train")))
        self.write(evaluator, rows, paired)

    def write(
        self, evaluator: Evaluator, rows: list[dict[str, Any]], scores: dict[str, pd.DataFrame]
    ) -> None:
        """Print the table and what may be claimed of it; write results.json."""
        best: str = self.chosen[0]
        pairs = [(best, "reference"), (best, "maskgit")]
        pairs += [(best, other) for other in self.args.optimizer if other != best]
        if self.class_table is not None:
            pairs += [(TABLE, SHUFFLED)] + [(TABLE, best)] * (self.args.repeats == 1)
        over = "evaluation seeds" if self.args.repeats == 1 else "searches"
        differences = [
            paired_difference(scores[ours], scores[theirs], policy=ours, minus=theirs, over=over)
            for ours, theirs in pairs
        ]
        reference = next(row["distance"] for row in rows if row["policy"] == "reference")
        for row in rows:
            row["to_reference"] = row["distance"] / reference
        self.run.write_results(
            evaluator.manifest(), rows, differences=[one.row() for one in differences], strategy=best
        )
        print(format_table(rows))
        self.legend = evaluator.legend()
        print(self.legend)
        if self.args.repeats > 1:
            print(f"Rows of optimizers: mean and spread over {self.args.repeats} searches.")
        print(f"strategy.json is of {best}, the best of the winners on one noise of the select split.")
        for one in differences:
            print(f"{one.policy} - {one.minus}: {one}")

    def illustrate(self) -> None:
        """Write the figures."""
        args, first = self.args, self.args.seed
        found = {optimizer: self.searches[optimizer, first].result for optimizer in args.optimizer}
        shown = {name: as_schedule(name, args.steps) for name in ("reference", "maskgit")}
        shown |= {name: schedule for name, schedule in found.items() if schedule is not None}
        note = f"{args.task}, T = {args.steps}, seed {first}; guidance is l_c + w (l_c - l_u)"
        self.run.write_figure("schedules", schedules_figure(shown, note))
        logs = {str(name): pd.read_csv(self.log_file(name, first)) for name in args.optimizer}
        note = (
            f"{args.task}, T = {args.steps}, seed {first}; dots: evaluations, line: median of a generation, "
            "diamond: the winner of the second look, on fresh noise, and its standard error"
        )
        self.run.write_figure("search", search_figure(logs, note))
        pool = self.scorer.generator.conditions()
        policies: dict[str, Policy] = {"reference": FixedPolicy(shown["reference"])}
        policies |= {self.chosen[0]: FixedPolicy(self.best)}
        policies |= {TABLE: self.class_table} if self.class_table is not None else {}
        rows = balanced(pool, 10 * len(pool))
        images = {name: self.scorer.draw(policy, rows, 0).images_NCHW for name, policy in policies.items()}
        note = f"{args.task}, T = {args.steps}; same noise and classes in each panel, unselected"
        self.run.write_figure("samples", samples_figure(images, pool.names, note))
        write_report(self.run.folder, f"AutoNAT on {args.task}, T = {args.steps}", self.legend.splitlines())
        print(
            f"{self.run.folder}: config.json, searches/, strategy.json, results.json, figures/, report.html"
        )


def run_on_ray(
    args: Args, searches: list[Search], report: Callable[[int, Evaluation, Measurement], None], folder: Path
) -> None:
    """Finish the searches as Ray Tune jobs."""
    quiet()  # before Ray is imported
    from agents.autonat.tune_search import run_searches

    fixed = {name: getattr(args, name) for name in ("task", "generator", "steps", "device", "rules")}
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
    experiment = Experiment(*open_run("autonat_search", args, PLACES, load))
    experiment.search()
    experiment.choose()
    experiment.search_classes()
    experiment.judge()
    experiment.illustrate()


if __name__ == "__main__":
    main(Args, work)
