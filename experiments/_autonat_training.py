"""What autonat_training.py does: rounds of laws and schedules, and the laws trained anew."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from _cli import open_run
from _progress import progress
from _table import check_table
from torch import nn
from tqdm import tqdm

from agents.autonat.masks import load_law, search_laws
from agents.autonat.scorer import ScheduleScorer
from agents.autonat.search import Search, explore
from generators.checkpoints import save_pretrained
from generators.config import DEFAULT_SIZE, MaskLaw, TrainingConfig, recipe
from generators.data import tokens
from generators.noise import derive_seed, seeded
from generators.recipes import build
from generators.schedules import Schedule, as_schedule
from generators.training import Trainer
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.evaluation.tables import format_table, table_row
from natgym.figures.searches import laws_figure
from natgym.policies import FixedPolicy
from natgym.runs import Run
from natgym.task import Task

if TYPE_CHECKING:
    from autonat_training import Args


PLACES = ("threads", "cpus_per_trial", "address", "output", "resume")  # flags that say where to run


def check(args: Args) -> None:
    """Raise ValueError for what would fail later."""
    as_schedule(args.schedule, args.steps)
    next(explore(args.optimizer, args.search, args.steps, args.seed))
    check_table(Task.load(args.task), args.images, args.evaluation_seeds)
    make_trainer(args, MaskLaw())


def make_trainer(args: Args, law: MaskLaw, seed: int | None = None) -> Trainer:
    """Return an untrained generator of the task's size and what trains it under a law."""
    task = Task.load(args.task)
    ids_NL, condition = tokens(task.data, "train", task.tokenizer, args.cache)
    config: TrainingConfig = dataclasses.replace(
        recipe(task.recipe, "nat"),
        updates=args.updates,
        mask_law=law,
        seed=args.seed if seed is None else seed,
    )
    with seeded(derive_seed(config.seed, "generator")):
        generator = build("nat", task.recipe or DEFAULT_SIZE, task.tokenizer, condition.geometry)
    return Trainer(generator, ids_NL, condition, config)


def scorer_of(task: str, generator: nn.Module) -> ScheduleScorer:
    """Return what measures schedules of a generator."""
    return ScheduleScorer(Task.load(task, generator=generator))


def search_schedule(args: Args, generator: nn.Module, folder: Path, number: int, bar: tqdm) -> Schedule:
    """Search a schedule for a generator; what was measured before is not measured again."""
    scorer = ScheduleScorer(Task.load(args.task, generator=generator), threads=args.threads)
    seed = derive_seed(args.seed, "round", number)
    search = Search(args.optimizer, scorer.suited(args.search), args.steps, seed, folder / "search.csv")
    found = search.run(
        scorer, lambda *done: bar.set_postfix(best=f"{min(search.known.values()).distance:.3f}")
    )
    return dataclasses.replace(found, name=f"round-{number}")


def alternate(args: Args, run: Run) -> tuple[list[dict[str, Any]], MaskLaw, Schedule]:
    """Take the rounds; return a row per law and round, the last round's law and schedule."""
    schedule, rows, law = as_schedule(args.schedule, args.steps), list[dict[str, Any]](), MaskLaw()
    with progress(total=args.rounds * args.laws.laws, unit="law") as bar:
        for number in range(args.rounds):
            folder = run.folder / f"round-{number}"
            folder.mkdir(exist_ok=True)  # trainings of a stopped run go on from their checkpoints
            bar.set_description(f"round {number + 1}: laws")

            def report(index: int, result: dict[str, Any]) -> None:
                bar.set_postfix(law=index, updates=result["updates"], distance=f"{result['distance']:.3f}")

            trained, best = search_laws(
                partial(make_trainer, dataclasses.replace(args, cache=args.cache.resolve())),
                partial(scorer_of, args.task),
                schedule,
                args.laws,
                args.updates,
                derive_seed(args.seed, "laws", number),
                report,
                folder=folder,
                cpus_per_trial=args.cpus_per_trial,
                address=args.address,
            )
            bar.update(args.laws.laws)
            law = trained[best].law
            for index, one in enumerate(trained):
                told = {"round": number, "law": describe(one.law), "best": index == best}
                rows.append(told | {name: getattr(one, name) for name in ("updates", "distance", "error")})
            pd.DataFrame(rows).to_csv(run.folder / "laws.csv", index=False)
            bar.set_description(f"round {number + 1}: schedule")
            schedule = search_schedule(args, load_law(folder, best), folder, number, bar)
            schedule.save(folder / "strategy.json")
    return rows, law, schedule


def compare(args: Args, run: Run, law: MaskLaw, schedule: Schedule) -> None:
    """Train the law found and the two known ones anew, and judge them on the report split."""
    laws = {"cosine": MaskLaw("cosine"), "beta(12, 3)": MaskLaw(), f"found: {describe(law)}": law}
    schedules = {"maskgit": as_schedule("maskgit", args.steps), "found": schedule}
    total = len(laws) * (args.updates + len(schedules) * len(args.evaluation_seeds))
    config = EvaluationConfig(images=args.images, seeds=args.evaluation_seeds)
    rows = []
    with progress(total=total) as bar:
        for name, mask_law in laws.items():
            bar.set_description(name)
            trainer = make_trainer(args, mask_law, seed=derive_seed(args.seed, "anew") % 2**31)
            for _ in trainer:
                bar.update()
            stem = name.partition(":")[0].partition("(")[0]
            save_pretrained(trainer.ema, run.folder / f"generator-{stem}", task=Task.load(args.task).home)
            task = Task.load(args.task, generator=trainer.ema)
            evaluator = Evaluator(task, config, threads=args.threads)
            for played, table in schedules.items():
                policy = FixedPolicy(table)
                scores = evaluator(policy)
                bar.update(len(args.evaluation_seeds))
                rows.append(table_row(f"{name}; {played}", policy, evaluator, scores))
    run.write_results(evaluator.manifest(), rows)
    print(format_table(rows))
    print(evaluator.legend())
    print(
        f"One training of {args.updates} updates each: differences below that of two trainings say nothing."
    )


def describe(law: MaskLaw) -> str:
    """Return a law's name as people write it."""
    return law.name if law.name == "cosine" else f"{law.name}({law.a:.3g}, {law.b:.3g})"


def work(args: Args) -> None:
    torch.set_num_threads(1)  # sums in one order
    args, run, _ = open_run("autonat_training", args, PLACES, check)
    rows, law, schedule = alternate(args, run)
    schedule.save(run.folder / "strategy.json")
    note = (
        f"{args.task}, T = {args.steps}; distance from the select split when a law was stopped, or at its end"
    )
    run.write_figure("laws", laws_figure(pd.DataFrame(rows), note))
    compare(args, run, law, schedule)
    print(f"{run.folder}: config.json, laws.csv, strategy.json, results.json, generator-*/, figures/")
