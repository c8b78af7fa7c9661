"""Learn a decoding policy with PPO and an adversarial reward, and compare it with the hand-made schedules."""

from __future__ import annotations

import _root  # noqa: F401

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import tyro
from _cli import PLACES, Places, given_flags, main, open_run
from _progress import progress

from agents.adanat.config import SEARCHED, PresetName, TrainingConfig, preset
from agents.autonat.config import OptimizerName, SearchConfig
from natgym.runs import Run, read_metrics, write_config
from natgym.settings import setting

if TYPE_CHECKING:  # torch is imported where it is needed, so that flags and their mistakes are quick
    from agents.adanat.sweeps import Trial
    from agents.autonat.scorer import ScheduleScorer
    from natgym.rollouts import Policy
    from natgym.task import Task

# With co-training: the generators that policies are trained with, all from the same one, and what makes them.
ARMS: dict[str, dict[str, Any]] = {
    "frozen": {"updates": 0},
    "fine-tuned": {"masks": "usual"},
    "co-trained": {"masks": "visited"},
}


@dataclass(frozen=True, kw_only=True)
class Args(Places):
    """Learn a decoding policy with PPO and an adversarial reward (AdaNAT), and compare it with static
    schedules.

    Three stages: a search for the best static schedule, PPO (one Ray Tune job; a sweep with
    --num-samples), and the table on data that neither has seen. With --cotraining.updates three policies
    learn: on the frozen generator, on one that takes as many updates under its usual masks, and on one that
    takes them under the masks that the policy visits; the searched schedule stands beside each.
    """

    preset: PresetName = "small"
    """Hyper-parameters that the other flags change: for the small tasks, AdaNAT's or AdaGen's own."""
    train: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingConfig.of(schedule=SEARCHED)
    )
    """Learning; --schedule static-search starts from the searched schedule, reference from the hand-made."""
    optimizer: OptimizerName = "grid"
    """How the static schedule is searched; see autonat_search.py."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """The static search."""
    images: int = 5000
    """Images per policy and evaluation seed in the table."""
    evaluation_seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the table; the intervals are over them."""
    num_samples: int = 1
    """Trials of a sweep; the best on the select split goes into the table."""
    space: tuple[str, ...] = ()
    """What a sweep samples, e.g. "learning_rate=loguniform(1e-4,1e-2)" "epochs=choice(2,4)"."""
    asha_rung: int | None = None
    """Updates before ASHA stops the worse half of a sweep's trials, by their distance from the select split;
    each next rung is twice as long. By default all trials run to their ends."""

    def __post_init__(self) -> None:
        if min(self.images, self.num_samples, self.threads, len(self.evaluation_seeds)) < 1:
            raise ValueError(
                "images, num-samples, threads and the number of evaluation-seeds must be at least 1"
            )
        if self.asha_rung is not None and (self.local or self.num_samples == 1):
            raise ValueError(
                f"asha-rung {self.asha_rung}: ASHA compares the trials of a Ray Tune sweep; give "
                "--num-samples of at least 2 and no --local, or leave it out"
            )

        if self.train.adanat.cotraining.updates and self.num_samples > 1:
            raise ValueError(
                f"num-samples {self.num_samples}: co-training is compared without a sweep; leave one out"
            )


def defaults(arguments: list[str]) -> Args:
    """Return the settings that follow from --preset alone."""
    name = given_flags(arguments).get("--preset", "small")
    if name == "small" or name not in get_args(PresetName):  # an unknown one is told by the parser
        return Args()
    return Args(preset=cast(PresetName, name), train=preset(cast(PresetName, name)))


def load(args: Args) -> ScheduleScorer:
    """Return what measures schedules; ValueError for what would fail later."""
    import torch

    from agents.adanat.sweeps import check_rung, sample_configs
    from agents.autonat.search import explore
    from generators.schedules import as_schedule

    torch.set_num_threads(1)  # sums in one order; the CPUs are used by drawing batches side by side
    config = args.train
    if config.env.schedule != SEARCHED:
        as_schedule(config.env.schedule, config.env.steps)
    task = config.env.load_task()
    task.images("train")
    next(explore(args.optimizer, args.search, config.env.steps, config.adanat.seed))
    configs = sample_configs(config, args.space, args.num_samples)
    if args.asha_rung is not None:
        check_rung(configs, args.asha_rung)
    return scorer_of(args, task)


def scorer_of(args: Args, task: Task) -> ScheduleScorer:
    """Return what draws and measures with a task's generator."""
    from agents.autonat.scorer import ScheduleScorer

    return ScheduleScorer(task, rules=args.train.env.rules, threads=args.threads)


def resolve(args: Args) -> tuple[Args, Run, ScheduleScorer]:
    """Open the run folder and load what measures schedules."""
    return open_run("adanat_ppo", args, PLACES, load)


class Experiment:
    """The three stages, one progress bar over all of them, counted in images."""

    def __init__(self, args: Args, run: Run, scorer: ScheduleScorer) -> None:
        from natgym.policies import baselines

        self.args, self.run, self.config, self.scorer = args, run, args.train, scorer
        self.env = self.config.env
        self.policies: dict[str, Policy] = dict(baselines(self.env.steps))
        self.spent = dict.fromkeys(self.policies, 0)
        self.scorers: dict[str, ScheduleScorer] = {}  # of policies on another generator than the frozen one
        arms = len(ARMS) if args.train.adanat.cotraining.updates else 1
        training = args.num_samples * arms * self.config.total_images
        table = (len(self.policies) + 2 * arms) * len(args.evaluation_seeds) * args.images
        total = args.search.budget + training + table
        self.bar = progress(total=total, unit="img", unit_scale=True, smoothing=0.05)

    def search(self) -> None:
        """Find the best static schedule on the select split."""
        from agents.autonat.search import Search
        from natgym.policies import FixedPolicy

        self.bar.set_description("static search")
        log, seed = self.run.folder / "search.csv", self.config.adanat.seed
        search = Search(self.args.optimizer, self.args.search, self.env.steps, seed, log)
        self.bar.update(search.spent)
        found = search.run(self.scorer, lambda evaluation, measured: self.bar.update(evaluation.images))
        self.bar.update(self.args.search.budget - search.spent)
        best = dataclasses.replace(found, name=SEARCHED)
        best.save(self.schedule_file)
        self.policies[SEARCHED], self.spent[SEARCHED] = FixedPolicy(best), search.spent

    @property
    def schedule_file(self) -> Path:
        return self.run.folder / f"{SEARCHED}.json"

    def learn(self) -> None:
        """Train the trials of a sweep, of which the best is kept, or the arms of a co-training."""
        base = self.config
        if self.env.schedule == SEARCHED:
            base = base.but(schedule=str(self.schedule_file.resolve()))
        before = self.spent[SEARCHED] if self.env.schedule == SEARCHED else 0
        if base.adanat.cotraining.updates:
            self._cotrain(base, before)
        else:
            self._sweep(base, before)

    def _sweep(self, base: TrainingConfig, before: int) -> None:
        """Train all trials; of those that ASHA did not stop keep the one whose last distance is smallest."""
        from _trials import train_trials

        from agents.adanat.sweeps import sample_configs

        configs = sample_configs(base, self.args.space, self.args.num_samples)
        names = [f"trials/{trial:03d}" for trial in range(len(configs))] if len(configs) > 1 else ["."]
        trials = self._trials(dict(zip(names, configs, strict=True)))
        last = train_trials(
            trials, self.args, self.bar, "adanat", folder=self.run.folder, rung=self.args.asha_rung
        )
        updates = [int(row["update"]) for row in last]
        ended = [trial for trial, (_, own) in enumerate(trials) if (own / "policy").is_dir()]
        best = min(ended, key=lambda trial: float(last[trial]["distance"]))
        self.subject, self.folder = "adanat", trials[best][1]
        self._keep("", self.folder, before + sum(int(row["images_spent"]) for row in last))
        sampled = [law.split("=")[0].strip() for law in self.args.space]
        self.trials = [
            {"trial": trial, "updates": updates[trial], "distance": float(row["distance"])}
            | {name: setting(config, name) for name in sampled}
            for trial, (row, (config, _)) in enumerate(zip(last, trials, strict=True))
        ]

    def _cotrain(self, base: TrainingConfig, before: int) -> None:
        """Train a policy on each of ARMS; keep all, and the searched schedule on each generator."""
        from _trials import train_trials

        configs = {name: base.but(cotraining=changed) for name, changed in ARMS.items()}
        trials = self._trials(configs)
        last = train_trials(trials, self.args, self.bar, "adanat", folder=self.run.folder)
        for name, row, (_, folder) in zip(configs, last, trials, strict=True):
            self._keep("" if name == "frozen" else f"{name} ", folder, before + int(row["images_spent"]))
        self.subject, self.folder = f"{name} adanat", folder
        self.trials = [
            {"trial": name, "updates": int(row["update"]), "distance": float(row["distance"])}
            for name, row in zip(configs, last, strict=True)
        ]

    def _trials(self, configs: dict[str, TrainingConfig]) -> list[Trial]:
        """Return the trainings and their folders, made and with their configs, by names in the run's."""
        trials = [(config, (self.run.folder / name).resolve()) for name, config in configs.items()]
        for config, folder in trials:
            folder.mkdir(parents=True, exist_ok=True)
            if len(trials) > 1:  # a single trial is the run itself, whose config stands already
                write_config(folder / "config.json", config)
        return trials

    def _keep(self, arm: str, folder: Path, spent: int) -> None:
        """Take a trained policy into the table; with its generator, if that learned, and a schedule's row."""
        from generators.checkpoints import from_pretrained

        name, static = f"{arm}adanat", f"{arm}{SEARCHED}"
        if (folder / "generator").is_dir():
            task = self.scorer.task.like(generator=folder / "generator")
            self.scorers[name] = self.scorers[static] = scorer_of(self.args, task)
            self.policies[static], self.spent[static] = self.policies[SEARCHED], self.spent[SEARCHED]
        self.policies[name] = from_pretrained(folder / "policy", self.env.device)  # type: ignore[assignment]
        self.spent[name] = spent

    def judge(self) -> None:
        """Evaluate all policies on the report split; print the table and write results.json."""
        import pandas as pd
        from _table import differences, judge, show_differences

        from natgym.evaluation.tables import format_table

        shape = self.args.images, self.args.evaluation_seeds
        scorers = {name: self.scorers.get(name, self.scorer) for name in self.policies}
        of_meters = {scorer: scorer.evaluator(*shape) for scorer in set(scorers.values())}
        evaluators = {name: of_meters[scorer] for name, scorer in scorers.items()}
        self.bar.set_postfix()
        rows, scores = judge(self.policies, evaluators, self.spent, self.bar)
        self.bar.close()
        evaluator = of_meters[self.scorer]
        rows.append(evaluator.floor(self.scorer.task.split("train")))
        found = differences(self.subject, scores)
        self.run.write_results(
            evaluator.manifest(), rows, differences=[one.row() for one in found], trials=self.trials
        )
        print(format_table(rows))
        self.legend, adanat = evaluator.legend(), self.config.adanat
        if self.scorers:
            self.legend += (
                f"\nFine-tuned and co-trained: on the generator after {adanat.cotraining.updates} updates "
                f"for each of the policy's {adanat.updates}; other rows: on the frozen one."
            )
        for row in read_metrics(self.folder / "alarms.csv"):
            self.legend += f"\nAlarm at update {row['update']}: {row['said']}."
        print(self.legend)
        show_differences(found)
        if len(self.trials) > 1:
            print("Trials, by their last distance from the select split:")
            print(pd.DataFrame(self.trials).sort_values("distance").to_string(index=False))

    def illustrate(self) -> None:
        """Write the three figures."""
        import pandas as pd

        from natgym.evaluation.report import write_report
        from natgym.figures.policies import parameters_figure, samples_figure
        from natgym.figures.trainings import learning_figure
        from natgym.rollouts import balanced

        pool, shown = self.scorer.generator.conditions(), ("reference", SEARCHED, self.subject)
        plays = {
            name: partial(self.scorers.get(name, self.scorer).draw, self.policies[name]) for name in shown
        }
        first = balanced(pool, 10 * len(pool))
        images = {name: draw(first, 0).images_NCHW for name, draw in plays.items()}
        note = f"{self.env.task}, T = {self.env.steps}; same noise and classes in each panel, unselected"
        self.run.write_figure("samples", samples_figure(images, pool.names, note))
        many = balanced(pool, 1000)
        frames = {name: draw(many, 1).frame for name, draw in plays.items()}
        note = "line: mean; bands: 50 % and 90 % of 1,000 samples"
        self.run.write_figure("parameters", parameters_figure(frames, note))
        metrics = pd.read_csv(self.folder / "metrics.csv")
        drawn = self.config.adanat.evaluation_images
        note = f"distance: mean action, {drawn} images on the same noise at each point"
        self.run.write_figure("learning", learning_figure(metrics, note))
        title = f"AdaNAT on {self.env.task}, T = {self.env.steps}"
        write_report(self.run.folder, title, self.legend.splitlines())
        print(f"{self.run.folder}: config.json, results.json, figures/, report.html")
        print(f"{self.folder}: metrics.csv, policy/")


def work(args: Args) -> None:
    experiment = Experiment(*resolve(args))
    experiment.search()
    experiment.learn()
    experiment.judge()
    experiment.illustrate()


if __name__ == "__main__":
    main(Args, work, defaults)
