"""What learning_curves.py does: jobs, their points, the figure."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from _cli import PLACES, open_run
from _progress import progress

from agents.adanat.config import KINDS, TrainingConfig
from agents.adanat.learned import refuse_unfit
from agents.distributed.jobs import run_jobs
from agents.studies.curves import Method, points
from generators.checkpoints import write_atomic
from generators.noise import derive_seed
from generators.schedules import as_schedule
from natgym.evaluation.objective import Objective
from natgym.evaluation.scorer import Scorer
from natgym.figures.trainings import curves_figure
from natgym.rollouts import rollout
from natgym.runs import Run

if TYPE_CHECKING:
    from learning_curves import Args


def load(args: Args) -> list[tuple[Method, TrainingConfig]]:
    """Return all jobs, those of a method in a row; ValueError for what would fail later."""
    env = args.train.env
    as_schedule(env.schedule, env.steps)
    task = env.load_task()
    refuse_unfit(args.train, task)
    task.images("train")
    seeds = range(args.train.adanat.seed, args.train.adanat.seed + args.repeats)
    return [(method, args.train.but(seed=seed)) for method in args.methods for seed in seeds]


def follow(args: Args, folder: Path, method: Method, config: TrainingConfig, tell: Any) -> None:
    """Write the curve of one training or search, unless it stands already; tell its images as they come."""
    path = folder / f"{method.replace(' ', '-')}-{config.adanat.seed}.csv"
    if path.is_file():
        tell({"images": config.total_images})
        return
    torch.set_num_threads(1)
    task = config.env.load_task()
    scorer = Scorer(task.score_extractor, task.images("select"))  # type: ignore[arg-type]
    objective = Objective(config.adanat.objective, config.env.price)
    condition, seed = task.asked(args.images, "select"), derive_seed("curves")
    search = args.search.beside(config.total_images)
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)  # of a search that was interrupted, whose seconds are not known
    rows = []
    for point in points(method, config, search, log=log, every=args.every):
        drawn = rollout(point.policy, task, condition=condition, seed=seed, rules=config.env.rules)
        looked = scorer.look([(drawn.images_NCHW, condition)])
        distance, error = objective(scorer, looked, drawn.nfe_N, seed)
        rows.append(
            {
                "method": method,
                "seed": config.adanat.seed,
                "images": point.images,
                "seconds": round(point.seconds, 2),
                "distance": distance,
                "error": error,
            }
        )
        tell({"images": point.images, "distance": distance})
    write_atomic(path, pd.DataFrame(rows).to_csv(index=False))


def reached(curves: pd.DataFrame, level: float) -> pd.DataFrame:
    """Return the images and seconds after which each method stays below a distance, means over its runs.

    A run that never does counts as infinite.
    """
    rows = []
    for method, runs in curves.groupby("method", sort=False):
        costs = []
        for _, run in runs.groupby("seed"):
            above = run["distance"].gt(level).to_numpy().nonzero()[0]
            first = above[-1] + 1 if len(above) else 0
            cost = run.iloc[first] if first < len(run) else None
            costs.append([float("inf")] * 2 if cost is None else [cost["images"], cost["seconds"]])
        images, seconds = pd.DataFrame(costs).mean()
        last = runs.groupby("seed")["distance"].last()
        rows.append(
            {
                "method": method,
                "images": images,
                "seconds": seconds,
                "distance at the end": last.mean(),
                "std": last.std(ddof=1),
                "seconds at the end": runs.groupby("seed")["seconds"].last().mean(),
            }
        )
    return pd.DataFrame(rows)


def work(args: Args) -> None:
    args, run, jobs = open_run("learning_curves", args, PLACES, load)
    folder = (run.folder / "curves").resolve()
    folder.mkdir(exist_ok=True)
    counted = [0] * len(jobs)
    total = sum(config.total_images for _, config in jobs)
    with progress(total=total, unit="img", unit_scale=True, smoothing=0.05) as bar:

        def report(job: int, told: dict[str, Any]) -> None:
            bar.update(told["images"] - counted[job])
            counted[job] = told["images"]
            bar.set_description(f"{jobs[job][0]} {jobs[job][1].adanat.seed}")

        def job(number: int, tell: Any) -> None:
            follow(args, folder, *jobs[number], tell)

        if args.local:
            for number in range(len(jobs)):
                job(number, partial(report, number))
        else:
            where = {name: getattr(args, name) for name in ("cpus_per_trial", "gpus_per_trial", "address")}
            run_jobs(job, len(jobs), report, folder=run.folder, **where)
        bar.update(total - sum(counted))
    write(args, run, folder)


def write(args: Args, run: Run, folder: Path) -> None:
    """Join the curves, draw them, and say where they cross."""
    curves = pd.concat([pd.read_csv(path) for path in sorted(folder.glob("*.csv"))], ignore_index=True)
    order = {method: at for at, method in enumerate(args.methods)}
    curves = curves.sort_values(["method", "seed", "images"], key=lambda column: column.replace(order))
    write_atomic(run.folder / "curves.csv", curves.to_csv(index=False))
    env = args.train.env
    note = (
        f"{env.task_name}, T = {env.steps}; line: mean of {args.repeats} runs, band: their range; "
        f"each point: {args.images:,} images on fresh noise, select split"
    )
    title = Objective(args.train.adanat.objective, env.price).title
    run.write_figure("curves", curves_figure(curves, note, title))
    ends = curves.groupby(["method", "seed"])["distance"].last().groupby("method").mean()
    searches = [method for method in args.methods if method not in KINDS]
    level = float(ends[searches or list(args.methods)].min())
    table = reached(curves, level)
    print(table.to_string(index=False, float_format="{:,.3f}".format))
    print(f"images, seconds: after which a method stays at or below {level:.3f}, where the best search ends.")
    print(f"{run.folder}: curves.csv, curves/, figures/")
