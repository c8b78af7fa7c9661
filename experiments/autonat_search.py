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
from torch import Tensor
from tqdm import tqdm

from agents.autonat.class_table import ClassTable, ClassTableConfig, search_table
from agents.autonat.measure import Evaluation, Measurement, Meter
from agents.autonat.search import OptimizerName, Search, SearchConfig, explore
from agents.distributed.cluster import quiet
from generators.noise import derive_seed
from generators.rules import DecodeRules
from generators.schedules import Schedule, as_schedule
from natgym.evaluation.cost import gflop_per_image
from natgym.evaluation.evaluator import Evaluator
from natgym.evaluation.judge import Judge
from natgym.evaluation.report import write_report
from natgym.evaluation.statistics import means_by_run, paired_difference
from natgym.evaluation.tables import format_table, summarize
from natgym.figures.policies import samples_figure
from natgym.figures.searches import schedules_figure, search_figure
from natgym.policies import FixedPolicy, baselines
from natgym.rollouts import Policy, balanced, rules_of
from natgym.runs import Run
from natgym.task import Task

TABLE, SHUFFLED = "class-table", "shuffled-table"


@dataclass(frozen=True, kw_only=True)
class Args(Places):
    """Search for the best static decoding schedule, and compare it with hand-made ones.

    Each optimiser spends the same number of pictures on the select part. The best schedule found there is
    written as strategy.json, and as strategy.yaml for AutoNAT; with --table.candidates, a schedule is
    searched for every class too. The table is of the report part, which no search has seen.
    """

    task: str = "digits"
    """Task of tokenizer, classifier and real pictures: digits or mnist."""
    generator: str | None = None
    """Folder of a saved generator, or the name of a shipped one such as mnist/enat; by default the task's."""
    steps: int = 4
    """Decoding steps T."""
    optimizer: tuple[OptimizerName, ...] = ("grid", "cma")
    """One or more of: paper (AutoNAT's finite differences), grid (three scales of the reference), random,
    spsa, gradient, coordinate, cma."""
    repeats: int = 1
    """Searches by each optimiser, with the seeds seed, seed + 1, ...; the table gives their mean."""
    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = field(default_factory=SearchConfig)
    """Budget and details of each search."""
    table: ClassTableConfig = field(default_factory=ClassTableConfig)
    """The schedule per class."""
    rules: str = "confidence"
    """Rules of the decoding step: confidence, random, halton, with limits if need be (generators.rules);
    adanat lets a step reveal nothing."""
    images: int = 5000
    """Pictures per row and evaluation seed in the table."""
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


def load(args: Args) -> Meter:
    """Return what measures schedules; ValueError for what would fail later."""
    torch.set_num_threads(1)  # sums in one order; the CPUs are used by drawing batches side by side
    for optimizer in args.optimizer:
        next(explore(optimizer, args.search, args.steps, args.seed))
    task = Task.load(args.task, device=args.device, generator=args.generator)
    return Meter(task, rules=args.rules, threads=args.threads)


class Experiment:
    """Searches, the schedule per class, the table; one progress bar over all, counted in pictures."""

    def __init__(self, args: Args, run: Run, meter: Meter) -> None:
        self.args, self.run, self.meter = args, run, meter
        (run.folder / "searches").mkdir(exist_ok=True)
        self.searches = {
            (optimizer, seed): Search(
                optimizer, args.search, args.steps, seed, self.log_file(optimizer, seed)
            )
            for optimizer in args.optimizer
            for seed in range(args.seed, args.seed + args.repeats)
        }
        self.classes = len(self.meter.generator.conditions())
        self.table_images = args.table.candidates * args.table.images_per_class * self.classes
        policies = 4 + len(self.searches) + (2 if self.table_images else 0)
        total = len(self.searches) * (args.search.budget + args.images) + self.table_images
        total += policies * args.images * len(args.evaluation_seeds)
        self.bar = tqdm(total=total, unit="img", unit_scale=True, dynamic_ncols=True, smoothing=0.05)

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
                search.run(self.meter, partial(report, index))
        else:
            run_on_ray(self.args, searches, report, self.run.folder)
        for search in searches:  # what a search leaves of its budget, too small for another generation
            self.bar.update(self.args.search.budget - search.spent)

    def choose(self) -> None:
        """Keep the winner that is best on one more noise of the select part, common to all searches."""
        self.bar.set_description("choosing")
        seed, looks = derive_seed(self.args.seed, "choice"), {}
        for name, search in self.searches.items():
            assert search.result is not None
            looks[name] = self.meter(Evaluation(0, 0, search.result, self.args.images, seed, True))
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
        file, pool = self.run.folder / "class-table.json", self.meter.generator.conditions()
        self.bar.set_description("class table")
        self.bar.set_postfix()
        seed = derive_seed(self.args.seed, "class-table")
        real = self.meter.task.split(self.args.table.part)
        judge = Judge(self.meter.judge.classifier, real)

        def features(schedule: Schedule, images: int) -> tuple[Tensor, Tensor]:
            condition = balanced(pool, images)
            drawn = self.meter.draw(FixedPolicy(schedule), condition, seed)
            return judge.features(drawn.images_NCHW), torch.arange(images) % len(pool)

        if not file.is_file():
            search_table(
                self.best,
                self.args.table,
                features,
                judge.frechet,
                num_classes=self.classes,
                seed=self.args.seed,
                progress=self.bar.update,
            ).save(file)
        else:
            self.bar.update(self.table_images)
        self.class_table = ClassTable.load(file)

    def judge(self) -> None:
        """Evaluate everything on the report part; print the table and write results.json."""
        args = self.args
        evaluator = self.meter.evaluator(args.images, args.evaluation_seeds)
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
            row = summarize(name, policies[0].steps, scores, spent)
            cost = gflop_per_image(policies[0], self.meter.generator, rules=evaluator.rules)
            rows.append(row | {"rules": rules_of(policies[0], evaluator.rules).text, "gflop": cost})

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
        rows.append(evaluator.floor(self.meter.task.split("train")))
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
        differences = []
        for ours, theirs in pairs:
            mean, half = paired_difference(scores[ours], scores[theirs])
            differences.append({"policy": ours, "minus": theirs, "mean": mean, "half_width": half})
        reference = next(row["distance"] for row in rows if row["policy"] == "reference")
        for row in rows:
            row["to_reference"] = row["distance"] / reference
        self.run.write_results(evaluator.manifest(), rows, differences=differences, strategy=best)
        print(format_table(rows))
        self.legend = evaluator.legend()
        print(self.legend)
        if self.args.repeats > 1:
            print(f"Rows of optimisers: mean and spread over {self.args.repeats} searches.")
        print(f"strategy.json is of {best}, the best of the winners on one noise of the select part.")
        for row in differences:
            print(f"{row['policy']} - {row['minus']}: {row['mean']:+.3f} ± {row['half_width']:.3f}")

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
        pool = self.meter.generator.conditions()
        policies: dict[str, Policy] = {"reference": FixedPolicy(shown["reference"])}
        policies |= {self.chosen[0]: FixedPolicy(self.best)}
        policies |= {TABLE: self.class_table} if self.class_table is not None else {}
        rows = balanced(pool, 10 * len(pool))
        images = {name: self.meter.draw(policy, rows, 0).images_NCHW for name, policy in policies.items()}
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
