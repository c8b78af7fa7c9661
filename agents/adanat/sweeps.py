"""AdaNAT as Ray Tune jobs: one trial by default, a sweep over a search space with more.

A trial is an `AdaNATTrainable` in a folder of its own. What each trial samples is drawn by the driver from
the run's seed and written down before the first starts, so that resuming repeats nothing and unpickles
nothing: a finished trial ends at once, an interrupted one goes on from its checkpoint. ASHA (Li et al. 2020)
may stop trials, by their distance from the select split and never by the reward, which moves with the
discriminator.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.adanat.config import STOPPED, TrainingConfig
from agents.distributed.cluster import quiet
from agents.distributed.jobs import run_trainable
from generators.noise import derive_seed
from natgym.runs import read_metrics
from natgym.settings import setting

Trial = tuple[TrainingConfig, Path]

_LAW = re.compile(r"^(?P<name>[\w.]+)=(?P<law>choice|uniform|loguniform)\((?P<values>[^()]+)\)$")


def sample_configs(base: TrainingConfig, space: Sequence[str], num_samples: int) -> list[TrainingConfig]:
    """Draw the trials' configs.

    Args:
        base: what all share; with one sample and no space it is the only trial, and without a space several
            trials differ in their seed, counted up from its own.
        space: laws such as "learning_rate=loguniform(1e-4,1e-2)", "epochs=choice(2,4,8)",
            "adversarial.channels=choice(8,16)"; any number of the config's numeric settings, `seed` included,
            each by its path or, where these are unique, by its last words.
        num_samples: number of trials.

    Raises:
        ValueError: a law can't be read or names a setting that can't be searched.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples {num_samples}: at least one trial is needed")
    laws: dict[str, tuple[type, Any]] = {}
    for text in space:
        match = _LAW.match(text.replace(" ", ""))
        if match is None:
            raise ValueError(
                f"space {text!r} does not read name=choice(a,b,..), name=uniform(a,b) or name=loguniform(a,b)"
            )
        kind = type(setting(base, match["name"]))
        if kind not in (int, float) or match["name"] in laws:
            raise ValueError(f"space {text!r}: {match['name']!r} is no number, or comes twice")
        laws[match["name"]] = kind, _law(match["law"], match["values"], kind, text)
    configs = []
    for trial in range(num_samples):
        random = np.random.RandomState(derive_seed(base.adanat.seed, "trial", trial) % 2**32)
        drawn = {name: kind(law.sample(random_state=random)) for name, (kind, law) in laws.items()}
        configs.append(base.but(drawn if laws else {"seed": base.adanat.seed + trial}))
    return configs


def check_rung(configs: Sequence[TrainingConfig], rung: int) -> None:
    """Raise ValueError if the distance is not measured at ASHA's rungs, or none comes before the end."""
    for config in (config.adanat for config in configs):
        if not 0 < rung < config.updates or rung % config.evaluate_every:
            raise ValueError(
                f"asha-rung {rung}: it must be a multiple of evaluate-every {config.evaluate_every} below "
                f"updates {config.updates}, so that trials are compared where they are measured"
            )


def run_trials(
    trials: Sequence[Trial],
    report: Callable[[int, dict[str, float]], object],
    *,
    folder: Path,
    rung: int | None = None,
    log: Sequence[str] = (),
    **where: Any,
) -> None:
    """Train AdaNAT with each of several configs; other arguments as for `run_trainable`.

    Args:
        folder: for Ray's own files; all nodes have to see it and the trials' folders.
        rung: updates before ASHA's first comparison, where the worse half stops; each next rung is twice as
            long. None lets all run to their ends. Which ones stop depends on the order of their reports, so
            that with several at once a sweep is not repeatable to the bit; each training is.
        log: of `agents.loggers`, for each trial.
    """

    quiet()
    from ray import tune

    from agents.adanat.trainable import AdaNATTrainable

    trainable = tune.with_parameters(AdaNATTrainable, trainings=list(trials), log=log)
    scheduler = None if rung is None else _asha(trials, rung)
    device = trials[0][0].env.device
    run_trainable(trainable, len(trials), report, folder=folder, scheduler=scheduler, device=device, **where)


def _asha(trials: Sequence[Trial], rung: int) -> Any:
    """Return Tune's ASHA, in whose rungs the trials of a resumed sweep stand where they stood."""
    quiet()
    from ray.tune.schedulers import ASHAScheduler

    class Scheduler(ASHAScheduler):
        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            super().on_trial_add(tune_controller, trial)
            rows = read_metrics(trials[trial.config["trial"]][1] / "metrics.csv")
            told = [{name: float(row[name]) for name in ("update", "distance")} for row in rows]
            decided = [super(Scheduler, self).on_trial_result(tune_controller, trial, row) for row in told]
            self._heed(trial, *decided[-1:])  # a trial that is further had passed the rungs before

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
            return self._heed(trial, super().on_trial_result(tune_controller, trial, result))

        def _heed(self, trial: Any, decision: str = ASHAScheduler.CONTINUE) -> str:
            if decision == ASHAScheduler.STOP:
                (trials[trial.config["trial"]][1] / STOPPED).touch()
            return decision

    # No rung at the end, where a trial would be stopped before it saves its policy.
    last = max(config.adanat.updates for config, _ in trials) - 1
    rungs: dict[str, Any] = dict(grace_period=rung, max_t=last, reduction_factor=2, stop_last_trials=False)
    return Scheduler("update", "distance", "min", **rungs)


def _law(law: str, values: str, kind: type, text: str) -> Any:
    """Return Tune's sampler for one entry of a search space."""
    from ray import tune

    try:
        numbers = [kind(value) for value in values.split(",")]  # int("2.5") is an error, as it should be
        if law == "choice":
            return tune.choice(numbers)
        low, high = numbers
        if kind is int or not 0 < high - low < math.inf or (law == "loguniform" and low <= 0):
            raise ValueError("a range is of real numbers, the lower end first, above 0 if logarithmic")
        return tune.uniform(low, high) if law == "uniform" else tune.loguniform(low, high)
    except ValueError as error:
        raise ValueError(f"space {text!r}: {error}") from None
