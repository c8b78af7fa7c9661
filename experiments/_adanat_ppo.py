"""What adanat_ppo.py does: trainings, the search, the table, the figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from _cli import PLACES, open_run
from _progress import progress
from _ranks import begun
from _table import Contestant, check_table, differences, judge, show_differences
from _trials import train_trials
from tqdm import tqdm

from agents.adanat.beside import scorer_beside, search_beside
from agents.adanat.config import ADANAT, SEARCHED, TrainingConfig
from agents.adanat.learned import refuse_unfit
from agents.adanat.plan import refuse_too_large
from agents.adanat.sweeps import check_rung, sample_configs
from agents.adanat.trainings import kept_policy
from agents.autonat.config import SearchConfig
from agents.autonat.scorer import ScheduleScorer
from agents.autonat.search import explore
from agents.distributed.ranks import Ranks
from agents.distributed.workers import process_group, rank, world_size
from agents.named import load_policy, shipped_strategy
from generators.conditions import in_rows
from generators.schedules import as_schedule
from natgym.evaluation.report import write_report
from natgym.evaluation.statistics import paired_difference
from natgym.evaluation.tables import format_table
from natgym.figures.explorations import Play, write_for_report
from natgym.figures.policies import by_class_figure, parameters_figure, samples_figure
from natgym.figures.trainings import learning_figure
from natgym.metrics.pixels import PIXELS
from natgym.policies import FixedPolicy, baselines
from natgym.runs import Run, read_metrics, write_config
from natgym.settings import setting

if TYPE_CHECKING:
    from adanat_ppo import Args

HAND_MADE = ("reference", "maskgit")
Contestants = dict[str, Contestant]


def load(args: Args) -> ScheduleScorer:
    """Return what measures schedules; ValueError for what would fail later."""
    torch.set_num_threads(1)  # sums in one order; the CPUs are used by drawing batches side by side
    config = args.train
    if not args.searched_first:
        as_schedule(config.env.schedule, config.env.steps)
    task = config.env.load_task()
    task.images("train")
    check_table(task, args.images, args.evaluation_seeds)
    ranks = max(args.workers, world_size())
    Ranks(0, ranks).share(config.env.trajectories, config.env.group)
    configs = sample_configs(config, args.space, args.num_samples)
    for one in configs:
        refuse_unfit(one, task)
    refuse_too_large(config, ranks)
    next(explore(args.optimizer, search_config(args), config.env.steps, config.adanat.seed))
    if args.asha_rung is not None:
        if world_size() > 1:
            raise ValueError(f"asha-rung {args.asha_rung}: torchrun's processes train all; leave it out")
        check_rung(configs, args.asha_rung)
    return scorer_beside(config, task, threads=args.threads)


def search_config(args: Args) -> SearchConfig:
    """Return the search, of as many images as the trainings of one policy, unless a budget is given."""
    if args.searched_first:
        return args.search
    configs = sample_configs(args.train, args.space, args.num_samples)
    return args.search.beside(sum(config.total_images for config in configs))


class Trained(NamedTuple):
    """A finished training.

    Attributes:
        kind: of `Args.kinds`.
        label: what it is called on the bar and in the table of trials.
        config, folder: what it was made with, and where it lies.
        metrics: the last line of its log.
    """

    kind: str
    label: str
    config: TrainingConfig
    folder: Path
    metrics: Mapping[str, str]

    @property
    def spent(self) -> int:
        """Images drawn."""
        return int(self.metrics["images_spent"])

    @property
    def stopped(self) -> bool:
        """Whether ASHA stopped it, so that it has no policy."""
        return not (self.folder / "policy").is_dir()

    @property
    def distance(self) -> float:
        """The kept policy's distance from the select split, or the last that was measured."""
        kept = None if self.stopped else kept_policy(self.folder)
        return kept.distance if kept else float(self.metrics["distance"])

    def row(self, sampled: Sequence[str]) -> dict[str, Any]:
        """Return it for the table of trials, with the settings that a sweep sampled."""
        row = {"trial": self.label, "updates": int(self.metrics["update"]), "distance": self.distance}
        return row | {name: setting(self.config, name) for name in sampled}


def search_schedule(args: Args, run: Run, scorer: ScheduleScorer, bar: tqdm) -> Contestant:
    """Search the best static schedule, or go on with the search; its file goes into the run folder."""
    bar.set_description("static search")
    bar.set_postfix()
    config, log = search_config(args), run.folder / "search.csv"
    search = search_beside(args.train, scorer, args.optimizer, config, log)
    bar.update(search.spent)
    winner = search.run(scorer, lambda evaluation, measured: bar.update(evaluation.images))
    bar.update(config.total - search.spent)  # too little for another generation
    schedule = dataclasses.replace(winner, name=SEARCHED)
    schedule.save(run.folder / f"{SEARCHED}.json")
    return Contestant(FixedPolicy(schedule), search.spent, scorer)


def learn(args: Args, run: Run, bar: tqdm) -> list[Trained]:
    """Train all kinds of policies, each in as many trials as asked for, side by side; with torchrun's other
    processes one after the other."""
    with process_group(args.train.env.device):
        return train_all(args, run, bar)


def train_all(args: Args, run: Run, bar: tqdm) -> list[Trained]:
    """Train all kinds of policies."""
    base = args.train
    if args.searched_first:
        base = base.but(schedule=str((run.folder / f"{SEARCHED}.json").resolve()))
    planned = []
    for kind, settings in args.kinds.items():
        configs = sample_configs(base.but(settings), args.space, args.num_samples)
        for trial, config in enumerate(configs):
            folder = (run.folder / trial_folder(args, kind, trial)).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            if folder != run.folder.resolve() and rank() == 0:  # the run's stands already
                write_config(folder / "config.json", config)
            label = kind if len(configs) == 1 else f"{kind} {trial}"
            planned.append((kind, label, config, folder))
    # ASHA compares trials of one kind; without it nothing is compared, and all may run at once.
    batches = [[kind] for kind in args.kinds] if args.asha_rung is not None else [list(args.kinds)]
    last = []
    for batch in batches:
        chosen = [plan for plan in planned if plan[0] in batch]
        last += train_trials(
            [(config, folder) for _, _, config, folder in chosen],
            [label for _, label, _, _ in chosen],
            args,
            bar,
            folder=run.folder / "ray" / batch[-1],
            rung=args.asha_rung,
            workers=args.workers,
            log=args.log,
        )
    return [Trained(*plan, metrics) for plan, metrics in zip(planned, last, strict=True)]


def trial_folder(args: Args, kind: str, trial: int) -> str:
    """Return where a training lies in the run folder: a single one is the run's own."""
    if args.train.adanat.cotraining.updates:
        return "frozen" if kind == ADANAT else kind.removesuffix(f" {ADANAT}")
    if args.num_samples == 1:
        return "." if kind == ADANAT else kind
    return f"{'trials' if kind == ADANAT else kind}/{trial:03d}"


def best_of(trained: Sequence[Trained], kind: str) -> Trained:
    """Return the training of a kind whose policy is nearest to the select split."""
    finished = [one for one in trained if one.kind == kind and not one.stopped]
    return min(finished, key=lambda one: one.distance)


def contest(
    args: Args, scorer: ScheduleScorer, static: Contestant, trained: Sequence[Trained]
) -> Contestants:
    """Return what the table compares: hand-made schedules, the searched one, and the learned policies."""
    steps = args.train.env.steps
    before = static.spent or 0 if args.searched_first else 0
    contestants = {name: Contestant(baselines(steps)[name], 0, scorer) for name in HAND_MADE}
    try:
        longer = FixedPolicy(shipped_strategy(scorer.generator, 2 * steps))
        contestants[f"autonat-T{2 * steps}"] = Contestant(longer, None, scorer)
    except ValueError:  # none was searched for this generator
        pass
    contestants[SEARCHED] = static
    for kind in args.kinds:
        spent = before + sum(one.spent for one in trained if one.kind == kind)
        folder, own = best_of(trained, kind).folder, scorer
        if (folder / "generator").is_dir():
            task = scorer.task.like(generator=folder / "generator")
            own = scorer_beside(args.train, task, threads=args.threads)
            contestants[kind.replace(ADANAT, SEARCHED)] = static._replace(scorer=own)
        contestants[kind] = Contestant(load_policy(folder, own.task), spent, own)
    return contestants


def compare(
    args: Args, run: Run, contestants: Contestants, trained: Sequence[Trained], bar: tqdm
) -> list[str]:
    """Evaluate all on the report split, print the table and write results.json; return what it says."""
    scorers = dict.fromkeys(one.scorer for one in contestants.values())
    evaluators = {scorer: scorer.evaluator(args.images, args.evaluation_seeds) for scorer in scorers}
    bar.set_postfix()
    rows, scores = judge(contestants, evaluators, bar)
    bar.close()
    scorer = contestants[SEARCHED].scorer
    rows += evaluators[scorer].floors(scorer.task.images("train"))
    paired = differences(args.subject, scores)
    pair = {"policy": args.subject, "minus": SEARCHED}
    paired += [
        paired_difference(scores[args.subject], scores[SEARCHED], metric, **pair)
        for metric in ("valid", "caption", "accuracy", "recall", PIXELS)
        if metric in scores[args.subject]  # images without classes have no accuracy
    ]
    sampled = [law.split("=")[0].strip() for law in args.space]
    trials = [one.row(sampled) for one in trained]
    run.write_results(
        evaluators[scorer].manifest(), rows, differences=[one.row() for one in paired], trials=trials
    )
    notes = [*evaluators[scorer].legend().splitlines(), *training_notes(args, trained)]
    print(format_table(rows), *notes, sep="\n")
    show_differences(paired)
    if args.num_samples > 1:
        print("Trials, by their distance from the select split:")
        print(pd.DataFrame(trials).sort_values("distance").to_string(index=False))
    return notes


def training_notes(args: Args, trained: Sequence[Trained]) -> list[str]:
    """Say what the policies of the table are, and what their trainings' alarms were."""
    notes = []
    for kind in args.kinds:
        best = best_of(trained, kind)
        if (kept := kept_policy(best.folder)) is not None:
            notes.append(
                f"{kind}: the policy after {kept.update} of {best.config.adanat.updates} updates, the best "
                f"of {kept.finalists} on fresh noise of the select split."
            )
            if kept.update == 0:
                notes.append(f"{kind}: no update was better than the start.")
        notes += [
            f"{kind}: alarm at update {row['update']}: {row['said']}."
            for row in read_metrics(best.folder / "alarms.csv")
        ]
    if updates := args.train.adanat.cotraining.updates:
        notes.append(
            f"Fine-tuned and co-trained: on the generator after {updates} updates for each of the policy's "
            f"{args.train.adanat.updates}; other rows: on the frozen one."
        )
    return notes


def illustrate(
    args: Args, run: Run, contestants: Contestants, trained: Sequence[Trained], notes: Sequence[str]
) -> None:
    """Write the figures and the report."""
    env, task = args.train.env, contestants[SEARCHED].scorer.task
    pool = task.examples(10)
    shown = {name: contestants[name] for name in ("reference", SEARCHED, args.subject)}
    rows = in_rows(pool, args.images)
    images = {name: one.scorer.draw(one.policy, rows, 0).images_NCHW for name, one in shown.items()}
    note = f"{env.task_name}, T = {env.steps}; same noise and classes in each panel, unselected"
    run.write_figure("samples", samples_figure(images, pool.names, note))
    rows = task.asked(min(1000, args.images))
    frames = {name: one.scorer.draw(one.policy, rows, 1).frame for name, one in shown.items()}
    note = f"line: mean; bands: 50 % and 90 % of {len(rows):,} samples"
    run.write_figure("parameters", parameters_figure(frames, note))
    note = f"{args.subject}: means by class of {len(rows):,} samples"
    run.write_figure("by-class", by_class_figure(frames[args.subject], note))
    logs = {kind: pd.read_csv(best_of(trained, kind).folder / "metrics.csv") for kind in args.kinds}
    images_each = args.train.adanat.evaluation_images
    note = f"distance: mean action, {images_each} images on the same noise at each point"
    title = contestants[SEARCHED].scorer.objective.title
    run.write_figure("learning", learning_figure(logs, note, title))
    last_first = reversed(contestants.items())
    plays = {name: Play(one.policy, one.scorer.task, one.scorer.rules) for name, one in last_first}
    write_for_report(run.folder, plays)
    write_report(run.folder, f"AdaNAT on {env.task_name}, T = {env.steps}", notes)
    print(f"{run.folder}: config.json, results.json, figures/, report.html")
    print(f"{best_of(trained, args.subject).folder}: metrics.csv, policy/, last/")


def total_images(args: Args) -> int:
    """Return how many images the run draws up to its table."""
    trainings = args.num_samples * len(args.kinds) * args.train.total_images
    generators = 3 if args.train.adanat.cotraining.updates else 1
    policies = len(HAND_MADE) + 1 + len(args.kinds) + generators
    return search_config(args).total + trainings + policies * len(args.evaluation_seeds) * args.images


def help_out(args: Args) -> None:
    """Be one of torchrun's processes beside the first, which does all but for the trainings alone."""
    folder = args.resume or args.output
    assert folder is not None, "the first process has refused it"
    torch.set_num_threads(1)
    if args.resume is not None:
        args = dataclasses.replace(Run.open(folder).config(type(args)), workers=1)
    learn(args, Run(folder), tqdm(disable=True))


def opened(args: Args) -> tuple[Args, Run, ScheduleScorer]:
    """Open a run, or go on with the one that torchrun began, whose processes it has started anew."""
    if world_size() > 1 and args.output is args.resume is None:
        raise ValueError("torchrun's processes have to find one run; give --output")
    if args.resume is None and (folder := begun(args)) is not None:
        return args, Run.resume(folder), load(args)
    return open_run("adanat_ppo", args, (*PLACES, "workers"), load)


def work(args: Args) -> None:
    if rank():
        help_out(args)
        return
    args, run, scorer = opened(args)
    with progress(total=total_images(args), unit="img", unit_scale=True, smoothing=0.05) as bar:
        if args.searched_first:
            static = search_schedule(args, run, scorer, bar)
            trained = learn(args, run, bar)
        else:
            trained = learn(args, run, bar)
            static = search_schedule(args, run, scorer, bar)
        contestants = contest(args, scorer, static, trained)
        notes = compare(args, run, contestants, trained, bar)
    illustrate(args, run, contestants, trained, notes)
