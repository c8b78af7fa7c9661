"""What adaptivity.py does: controls of trained policies, the table, the figures."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from _cli import PLACES, open_run
from _progress import progress
from _trials import train_trials
from tqdm import tqdm

from agents.adanat.beside import scorer_beside, search_beside
from agents.adanat.config import STEP_ONLY
from agents.adanat.sweeps import Trial
from agents.adanat.trainings import Training, finished_trainings
from agents.autonat.class_table import ClassTable
from agents.autonat.config import SearchConfig
from agents.autonat.scorer import ScheduleScorer
from agents.autonat.search import explore
from agents.studies.adaptivity import Shuffled, can_shuffle, mean_schedule
from generators.checkpoints import from_pretrained
from generators.noise import derive_seed
from generators.schedules import as_schedule
from natgym.evaluation.evaluator import Evaluator
from natgym.evaluation.report import write_report
from natgym.evaluation.statistics import Difference, means_by_run, paired_difference
from natgym.evaluation.tables import format_table, table_row
from natgym.figures.comparisons import differences_figure
from natgym.figures.explorations import Play, write_for_report
from natgym.figures.policies import adaptivity, by_class_figure, parameters_figure
from natgym.names.spaces import REVEAL, TOKENS
from natgym.policies import FixedPolicy
from natgym.rollouts import BATCH, Policy
from natgym.runs import Run, write_config
from natgym.settings import setting
from natgym.task import Task

if TYPE_CHECKING:
    from adaptivity import Args

START = "start"
EQUAL = "static, equal images"
TABLE = "class-table"
SHUFFLED = "shuffled-table"
MEAN = "mean schedule"
ACROSS = "shuffled"
WITHIN = "shuffled in class"
POLICY = "policy"
WITHIN_CLASS = {WITHIN: True, ACROSS: False}
ROWS = (START, EQUAL, TABLE, SHUFFLED, STEP_ONLY, MEAN, ACROSS, WITHIN, POLICY)


class Loaded(NamedTuple):
    """What a study needs.

    Attributes:
        trained: the trainings.
        scorer: of schedules, by what the trainings were measured by.
        evaluator: of the table.
        table: a schedule per class, if one was given.
        shuffled: the rows of shuffled policies in whose batches no image is alone.
    """

    trained: list[Training]
    scorer: ScheduleScorer
    evaluator: Evaluator
    table: ClassTable | None
    shuffled: list[str]


def load(args: Args) -> Loaded:
    """Return what the study needs; ValueError for what would fail later."""
    torch.set_num_threads(1)  # sums in one order; the CPUs are used by drawing batches side by side
    if not args.runs:
        raise ValueError("no run is given; name run folders of adanat_ppo.py")
    found = [one for run in args.runs for one in finished_trainings(Path(run))]
    first = found[0].config
    for name in ("task", "generator", "steps", "rules", "device", "precision", "price", "objective"):
        values = dict.fromkeys(setting(one.config, name) for one in found)
        if len(values) > 1:
            raise ValueError(f"the trainings differ in {name} ({', '.join(map(str, values))}); give others")
    if any(one.config.env.actions in (REVEAL, TOKENS) for one in found):
        raise ValueError("a training's policy chooses tokens, which none of its controls does; give others")
    scorer = scorer_beside(first, threads=args.threads)
    table = load_table(args, scorer.task, first.env.steps)
    for one in found if args.equal else ():
        next(explore(args.optimizer, scorer.suited(equal_search(args, one)), first.env.steps, 0))
    evaluator = scorer.evaluator(args.images, args.evaluation_seeds)
    drawn = evaluator.conditions(args.evaluation_seeds[0])
    shuffled = [name for name, within in WITHIN_CLASS.items() if can_shuffle(drawn, within)]
    return Loaded(found, scorer, evaluator, table, shuffled)


def equal_search(args: Args, one: Training) -> SearchConfig:
    """Return the search of as many images as a policy has cost."""
    return dataclasses.replace(args.search, budget=one.spent)


def load_table(args: Args, task: Task, steps: int) -> ClassTable | None:
    """Return the class table that is asked for; ValueError if it is of other classes or steps."""
    if args.table is None:
        return None
    table = ClassTable.load(args.table)
    classes = 0 if task.has("encoder") else len(task.generator.conditions())  # texts are none
    if len(table.assignment) != classes:
        raise ValueError(
            f"table {args.table} is of {len(table.assignment)} classes, {task} has {classes}; give its own"
        )
    if table.steps != steps:
        raise ValueError(f"table {args.table} has {table.steps} steps, the trainings {steps}; give theirs")
    return table


class Controls(NamedTuple):
    """Policies beside each other: one for each training, or one that several share.

    Attributes:
        policies: by row of the table.
        spent: images that went into finding each; None where that is not known.
        frames: what the trained policies do, a frame of each.
    """

    policies: dict[str, list[Policy]]
    spent: dict[str, list[int | None]]
    frames: list[pd.DataFrame]

    def add(self, name: str, policy: Any, spent: int | None) -> None:
        """Take a policy into a row."""
        self.policies[name].append(policy)
        self.spent[name].append(spent)


def left_out(shuffled: list[str]) -> list[str]:
    """Return a sentence for each row of shuffled policies that there is not."""
    alone = {WITHIN: "the only one of its class", ACROSS: "alone"}
    missing = [name for name in WITHIN_CLASS if name not in shuffled]
    return [f"{name}: left out; in a batch of at most {BATCH} an image is {alone[name]}." for name in missing]


def dissect(args: Args, loaded: Loaded, bar: tqdm) -> Controls:
    """Take each policy apart: its start, its mean schedule, and itself on the features of others."""
    controls = Controls(defaultdict(list), defaultdict(list), [])
    trained, scorer, _, table, shuffled = loaded
    task, steps = scorer.task, trained[0].config.env.steps
    specs = {one.config.env.schedule for one in trained}
    starts = {spec: FixedPolicy(as_schedule(spec, steps)) for spec in specs}
    shuffled_table = None if table is None else table.shuffled(0)
    for one in trained:
        actor: Any = from_pretrained(one.folder / "policy", one.config.env.device)
        seed = derive_seed(one.config.adanat.seed, "dissect")
        drawn = scorer.draw(actor, task.asked(args.samples), seed)
        controls.frames.append(drawn.frame)
        bar.update(args.samples)
        controls.add(START, starts[one.config.env.schedule], one.searched)
        if table is not None:
            controls.add(TABLE, table, None)  # what it has cost is not known here
            controls.add(SHUFFLED, shuffled_table, None)
        controls.add(MEAN, FixedPolicy(mean_schedule(drawn, steps)), one.spent)
        for name in shuffled:
            controls.add(name, Shuffled(actor, within_class=WITHIN_CLASS[name], seed=seed), one.spent)
        controls.add(POLICY, actor, one.spent)
    return controls


def train_step_only(args: Args, run: Run, trained: list[Training], controls: Controls, bar: tqdm) -> None:
    """Add policies that see the step alone: same start, reward, seed and images; train those that miss."""
    folders: list[Path] = []
    missing: list[Trial] = []
    for index, one in enumerate(trained):
        folder = one.step_only or run.folder.resolve() / STEP_ONLY / f"{index:03d}"
        folders.append(folder)
        if one.step_only is None:
            folder.mkdir(parents=True, exist_ok=True)
            missing.append((one.config.but(one.config.settings_of(STEP_ONLY)), folder))
            write_config(folder / "config.json", missing[-1][0])
    if missing:
        labels = [f"{STEP_ONLY} {at + 1}/{len(missing)}" for at in range(len(missing))]
        train_trials(missing, labels, args, bar, folder=run.folder)
    for one, folder in zip(trained, folders, strict=True):
        controls.add(STEP_ONLY, from_pretrained(folder / "policy", one.config.env.device), one.spent)


def search_equal(
    args: Args, run: Run, trained: list[Training], scorer: ScheduleScorer, controls: Controls, bar: tqdm
) -> None:
    """Add schedules, each searched with as many images as a policy has cost."""
    (run.folder / "searches").mkdir(exist_ok=True)
    for index, one in enumerate(trained):
        bar.set_description(f"static search {index + 1}/{len(trained)}")
        config = equal_search(args, one)
        seed = derive_seed(one.config.adanat.seed, "equal")
        log = run.folder / f"searches/{index:03d}.csv"
        search = search_beside(one.config, scorer, args.optimizer, config, log, seed=seed)
        bar.update(search.spent)
        winner = search.run(scorer, lambda evaluation, measured: bar.update(evaluation.images))
        bar.update(one.spent - search.spent)
        controls.add(EQUAL, FixedPolicy(winner), search.spent)


def judge(
    controls: Controls, evaluator: Evaluator, bar: tqdm
) -> tuple[list[dict[str, Any]], list[Difference]]:
    """Evaluate all on the report split; return the rows, and the policy's differences from the others."""
    bar.set_postfix()
    by_run, rows = {}, []
    for name in [name for name in ROWS if name in controls.policies]:
        bar.set_description(f"evaluating {name}")
        policies = controls.policies[name]
        scores: dict[Policy, pd.DataFrame] = {}  # what several trainings share is drawn once
        for policy in dict.fromkeys(policies):
            scores[policy] = evaluator(policy, bar.update)
        by_run[name] = means_by_run([scores[policy] for policy in policies])
        spent = [images for images in controls.spent[name] if images is not None]
        mean_spent = round(sum(spent) / len(spent)) if spent else None
        rows.append(table_row(name, policies[0], evaluator, by_run[name], mean_spent))
    others = [name for name in by_run if name != POLICY]
    differences = [
        paired_difference(by_run[POLICY], by_run[name], metric, policy=POLICY, minus=name, over="trainings")
        for metric in ("distance", "accuracy", "recall")
        if metric in by_run[POLICY]  # images without classes have no accuracy
        for name in others
    ]
    return rows, differences


def mean_shares(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the shares of each parameter's variance, means over the trainings."""
    shares = [adaptivity(frame).set_index("parameter") for frame in frames]
    return sum(shares[1:], shares[0]) / len(shares)


def illustrate(
    args: Args,
    run: Run,
    scorer: ScheduleScorer,
    controls: Controls,
    differences: list[Difference],
) -> None:
    """Write the figures."""
    count = len(controls.frames)
    note = (
        f"distance of the policy minus that of its control; {count} trainings, report split; "
        "bars: 95 % t-intervals"
    )
    distances = [pair for pair in differences if pair.metric == "distance"]
    run.write_figure("differences", differences_figure(distances, note))
    same = scorer.task.asked(args.samples)
    shown = {name: controls.policies[name][0] for name in (START, STEP_ONLY, POLICY)}
    frames = {name: scorer.draw(policy, same, 1).frame for name, policy in shown.items()}
    note = f"the first training; line: mean; bands: 50 % and 90 % of {args.samples:,} samples"
    run.write_figure("parameters", parameters_figure(frames, note))
    run.write_figure("by-class", by_class_figure(frames[POLICY], "the first training, means by class"))
    # What shuffled ones decide for an image depends on which others are drawn beside it.
    names = [name for name in (POLICY, *ROWS) if name in controls.policies and name not in (WITHIN, ACROSS)]
    plays = {name: Play(controls.policies[name][0], scorer.task, scorer.rules) for name in names}
    write_for_report(run.folder, plays)


def show(differences: list[Difference], shares: pd.DataFrame, count: int) -> None:
    """Print what the policies differ by, and how much they adapt."""
    print(f"\npolicy minus its controls, {count} trainings, 95 % t-intervals of paired differences:")
    table: dict[str, dict[str, str]] = defaultdict(dict)
    for pair in differences:
        table[pair.minus][pair.metric] = str(pair)
    print(pd.DataFrame(table).T.to_string())
    print("\nShares of each parameter's variance between steps, between classes and within class and step;")
    print("spread: standard deviation within a step, in the parameter's unit; means over the trainings")
    print(shares.to_string(float_format="{:.3f}".format))


def total_images(args: Args, loaded: Loaded) -> int:
    """Return how many images the run draws up to its figures."""
    trained = loaded.trained
    starts = {one.config.env.schedule for one in trained}
    own = 3 + len(loaded.shuffled) + args.equal
    rows = own * len(trained) + len(starts) + 2 * (args.table is not None)
    missing = sum(one.config.total_images for one in trained if one.step_only is None)
    searches = sum(one.spent for one in trained) if args.equal else 0
    table = rows * len(args.evaluation_seeds) * args.images
    return missing + searches + table + len(trained) * args.samples


def work(args: Args) -> None:
    args, run, loaded = open_run("adaptivity", args, PLACES, load)
    trained, scorer, evaluator, *_ = loaded
    for sentence in left_out(loaded.shuffled):
        print(sentence)
    with progress(total=total_images(args, loaded), unit="img", unit_scale=True, smoothing=0.05) as bar:
        controls = dissect(args, loaded, bar)
        train_step_only(args, run, trained, controls, bar)
        if args.equal:
            search_equal(args, run, trained, scorer, controls, bar)
        rows, differences = judge(controls, evaluator, bar)
    rows += evaluator.floors(scorer.task.images("train"))
    shares = mean_shares(controls.frames)
    shares.to_csv(run.folder / "shares.csv")
    run.write_results(
        evaluator.manifest(),
        rows,
        differences=[one.row() for one in differences],
        shares=shares.reset_index().to_dict("records"),
    )
    count, env = len(trained), trained[0].config.env
    over = f"Rows but the last: mean and standard deviation over {count} trainings, of means over the seeds."
    legend = [*evaluator.legend().splitlines(), over, *left_out(loaded.shuffled)]
    print(format_table(rows), *legend, sep="\n")
    show(differences, shares, count)
    illustrate(args, run, scorer, controls, differences)
    write_report(run.folder, f"Does the policy adapt? {env.task_name}, T = {env.steps}, {env.reward}", legend)
    print(f"{run.folder}: results.json, shares.csv, step-only/, searches/, figures/, report.html")
