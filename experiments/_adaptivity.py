"""What adaptivity.py does: controls of trained policies, the table, the figures."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from _cli import PLACES, open_run
from _progress import progress
from _trials import train_trials

from agents.adanat.sweeps import Trial
from agents.adanat.trainings import Training, finished_trainings
from agents.autonat.class_table import ClassTable
from agents.autonat.scorer import ScheduleScorer
from agents.autonat.search import Search
from agents.studies.adaptivity import Shuffled, mean_schedule
from generators.checkpoints import from_pretrained
from generators.noise import derive_seed
from generators.schedules import as_schedule
from natgym.evaluation.report import write_report
from natgym.evaluation.statistics import means_by_run, paired_difference
from natgym.evaluation.tables import format_table, table_row
from natgym.figures.comparisons import differences_figure
from natgym.figures.policies import adaptivity, by_class_figure, parameters_figure
from natgym.policies import FixedPolicy
from natgym.rollouts import Policy, balanced
from natgym.runs import Run, write_config

if TYPE_CHECKING:
    from adaptivity import Args

ROWS = START, EQUAL, TABLE, SHUFFLED, BLIND, MEAN, ACROSS, WITHIN, POLICY = (
    "start",
    "static, equal images",
    "class-table",
    "shuffled-table",
    "step-only",
    "mean schedule",
    "shuffled",
    "shuffled in class",
    "policy",
)


def load(args: Args) -> tuple[list[Training], ScheduleScorer]:
    """Return the trainings and what measures schedules; ValueError for what would fail later."""
    torch.set_num_threads(1)  # sums in one order; the CPUs are used by drawing batches side by side
    if not args.runs:
        raise ValueError("no run is given; name run folders of adanat_ppo.py")
    found = [one for run in args.runs for one in finished_trainings(Path(run))]
    first = found[0].config
    for name in ("task", "generator", "steps", "rules", "device"):
        values = {getattr(one.config.env, name) for one in found}
        if len(values) > 1:
            raise ValueError(f"the trainings differ in {name} ({', '.join(map(str, values))}); give others")
    scorer = ScheduleScorer(first.env.load_task(), rules=first.env.rules, threads=args.threads)
    return found, scorer


class Experiment:
    """Controls, table, figures; one progress bar over all, counted in images."""

    def __init__(self, args: Args, run: Run, loaded: tuple[list[Training], ScheduleScorer]) -> None:
        self.args, self.run, (self.trained, self.scorer) = args, run, loaded
        self.policies: dict[str, list[Policy]] = defaultdict(list)
        self.spent: dict[str, list[int | None]] = defaultdict(list)
        starts = {one.config.env.schedule for one in self.trained}
        rows = (5 + args.equal) * len(self.trained) + len(starts) + 2 * (args.table is not None)
        total = rows * len(args.evaluation_seeds) * args.images + len(self.trained) * args.samples
        total += sum(one.config.total_images + args.equal * one.spent for one in self.trained)
        self.bar = progress(total=total, unit="img", unit_scale=True, smoothing=0.05)

    def train_controls(self) -> None:
        """Train a policy that sees the step alone beside each policy: same start, reward, seed and images."""
        trials: list[Trial] = []
        for index, one in enumerate(self.trained):
            folder = self.run.folder.resolve() / "step-only" / f"{index:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            trials.append((one.config.but({"policy.blind": True}), folder))
            write_config(folder / "config.json", trials[-1][0])
        train_trials(trials, self.args, self.bar, "step-only", folder=self.run.folder)
        for one, (config, folder) in zip(self.trained, trials, strict=True):
            self._add(BLIND, from_pretrained(folder / "policy", config.env.device), one.spent)

    def search_equal(self) -> None:
        """Search a schedule with as many images as each policy has cost."""
        (self.run.folder / "searches").mkdir(exist_ok=True)
        for index, one in enumerate(self.trained):
            self.bar.set_description(f"static search {index + 1}/{len(self.trained)}")
            config = dataclasses.replace(self.args.search, budget=one.spent)
            seed, log = (
                derive_seed(one.config.adanat.seed, "equal"),
                self.run.folder / f"searches/{index:03d}.csv",
            )
            search = Search(self.args.optimizer, config, one.config.env.steps, seed, log)
            self.bar.update(search.spent)
            found = search.run(self.scorer, lambda evaluation, measured: self.bar.update(evaluation.images))
            self.bar.update(one.spent - search.spent)
            self._add(EQUAL, FixedPolicy(found), search.spent)

    def dissect(self) -> None:
        """Take each policy apart: its mean schedule, and itself on the features of others."""
        pool = self.scorer.generator.conditions()
        self.frames: list[pd.DataFrame] = []
        specs = {one.config.env.schedule for one in self.trained}
        starts = {spec: FixedPolicy(as_schedule(spec, self.trained[0].config.env.steps)) for spec in specs}
        if self.args.table is not None:
            table = ClassTable.load(self.args.table)
            shuffled = table.shuffled(0)
        for one in self.trained:
            actor: Any = from_pretrained(one.folder / "policy", one.config.env.device)
            seed = derive_seed(one.config.adanat.seed, "dissect")
            drawn = self.scorer.draw(actor, balanced(pool, self.args.samples), seed)
            self.frames.append(drawn.frame)
            self.bar.update(self.args.samples)
            self._add(START, starts[one.config.env.schedule], one.searched)
            if self.args.table is not None:
                self._add(TABLE, table, None)  # what it has cost is not known here
                self._add(SHUFFLED, shuffled, None)
            self._add(MEAN, FixedPolicy(mean_schedule(drawn)), one.spent)
            self._add(WITHIN, Shuffled(actor, within_class=True, seed=seed), one.spent)
            self._add(ACROSS, Shuffled(actor, within_class=False, seed=seed), one.spent)
            self._add(POLICY, actor, one.spent)

    def judge(self) -> None:
        """Evaluate everything on the report split; print the tables and write results.json."""
        args = self.args
        evaluator = self.scorer.evaluator(args.images, args.evaluation_seeds)
        self.bar.set_postfix()
        by_run, rows = {}, []
        for name in [name for name in ROWS if name in self.policies]:
            self.bar.set_description(f"evaluating {name}")
            scores: dict[Policy, pd.DataFrame] = {}  # what several trainings share is drawn once
            for policy in dict.fromkeys(self.policies[name]):
                scores[policy] = evaluator(policy, self.bar.update)
            by_run[name] = means_by_run([scores[policy] for policy in self.policies[name]])
            spent = [images for images in self.spent[name] if images is not None]
            mean_spent = round(sum(spent) / len(spent)) if spent else None
            rows.append(table_row(name, self.policies[name][0], evaluator, by_run[name], mean_spent))
        self.bar.close()
        rows.append(evaluator.floor(self.scorer.task.split("train")))
        self.differences = [
            paired_difference(
                by_run[POLICY], by_run[name], metric, policy=POLICY, minus=name, over="trainings"
            )
            for metric in ("distance", "accuracy", "recall")
            for name in by_run
            if name != POLICY
        ]
        shares = [adaptivity(frame).set_index("parameter") for frame in self.frames]
        self.shares = sum(shares[1:], shares[0]) / len(shares)
        self.shares.to_csv(self.run.folder / "shares.csv")
        self.run.write_results(
            evaluator.manifest(),
            rows,
            differences=[one.row() for one in self.differences],
            shares=self.shares.reset_index().to_dict("records"),
        )
        self._print(rows, evaluator.legend())

    def illustrate(self) -> None:
        """Write the figures."""
        first, pool = self.trained[0], self.scorer.generator.conditions()
        count = f"{len(self.trained)} trainings"
        note = (
            f"distance of the policy minus that of its control; {count}, report split; bars: 95 % t-intervals"
        )
        distances = [pair for pair in self.differences if pair.metric == "distance"]
        self.run.write_figure("differences", differences_figure(distances, note))
        same = balanced(pool, self.args.samples)
        frames = {
            name: self.scorer.draw(self.policies[name][0], same, 1).frame for name in (START, BLIND, POLICY)
        }
        note = f"the first training; line: mean; bands: 50 % and 90 % of {self.args.samples:,} samples"
        self.run.write_figure("parameters", parameters_figure(frames, note))
        self.run.write_figure(
            "by-class", by_class_figure(frames[POLICY], "the first training, means by class")
        )
        env = first.config.env
        title = f"Does the policy adapt? {env.task}, T = {env.steps}, {env.reward}"
        write_report(self.run.folder, title, self.legend)
        print(f"{self.run.folder}: results.json, shares.csv, step-only/, searches/, figures/, report.html")

    def _add(self, name: str, policy: Any, spent: int | None) -> None:
        self.policies[name].append(policy)
        self.spent[name].append(spent)

    def _print(self, rows: list[dict[str, Any]], legend: str) -> None:
        count = len(self.trained)
        print(format_table(rows))
        over = (
            f"Rows but the last: mean and standard deviation over {count} trainings, of means over the seeds."
        )
        self.legend = [*legend.splitlines(), over]
        print("\n".join(self.legend))
        print(f"\npolicy minus its controls, {count} trainings, 95 % t-intervals of paired differences:")
        table: dict[str, dict[str, str]] = defaultdict(dict)
        for pair in self.differences:
            table[pair.minus][pair.metric] = str(pair)
        print(pd.DataFrame(table).T.to_string())
        print(
            "\nShares of each parameter's variance between steps, between classes and within class and step;"
        )
        print("spread: standard deviation within a step, in the parameter's unit; means over the trainings")
        print(self.shares.to_string(float_format="{:.3f}".format))


def work(args: Args) -> None:
    experiment = Experiment(*open_run("adaptivity", args, PLACES, load))
    experiment.dissect()
    experiment.train_controls()
    if experiment.args.equal:
        experiment.search_equal()
    experiment.judge()
    experiment.illustrate()
