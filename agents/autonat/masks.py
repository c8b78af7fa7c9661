"""AutoNAT's training strategy (arXiv 2406.05478, section 3): search for how tokens are masked in training.

Laws of the mask ratio are compared by short trainings of a small generator, as Ray Tune jobs under ASHA (Li
et al. 2020): the worse half stops at each rung. They are ranked by distance under one schedule, since losses
under different laws are not comparable. In turn the schedule is searched again for the best generator.

Which trials ASHA stops depends on which report first, so a sweep on several cores is not repeatable to the
bit; each training is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from agents.autonat.config import LawSearchConfig
from agents.autonat.scorer import Evaluation, Measurement, ScheduleScorer
from agents.distributed.cluster import quiet
from agents.distributed.jobs import run_jobs
from generators.checkpoints import from_pretrained, restore, save_pretrained, save_state
from generators.masking import MaskLaw
from generators.noise import derive_seed
from generators.schedules import Schedule
from generators.training import Trainer

MakeTrainer = Callable[[MaskLaw], Trainer]
Report = Callable[[int, dict[str, Any]], object]


class Trained(NamedTuple):
    """What a law came to: how long it was trained, and its generator's distance from the select split."""

    law: MaskLaw
    updates: int
    distance: float
    error: float


def sample_laws(count: int, seed: int) -> list[MaskLaw]:
    """Draw laws: cosine and Beta(12, 3), then Betas and truncated Gaussians in turn."""
    laws = [MaskLaw("cosine"), MaskLaw("beta", 12.0, 3.0)]
    rng = np.random.default_rng(derive_seed(seed, "laws"))
    while len(laws) < count:
        if len(laws) % 2:
            laws.append(MaskLaw("gaussian", rng.uniform(0.3, 0.95), rng.uniform(0.1, 0.5)))
        else:
            laws.append(MaskLaw("beta", *np.exp(rng.uniform(np.log([0.8, 0.5]), np.log([16, 8]))).tolist()))
    return laws[:count]


def train_law(
    trainer: Trainer,
    scorer: ScheduleScorer,
    schedule: Schedule,
    config: LawSearchConfig,
    seed: int,
    folder: Path,
) -> Iterator[tuple[int, Measurement]]:
    """Yield (updates, measurement) at each rung, going on from the folder's checkpoint if there is one.

    The averaged generator of the last rung is in folder/generator.
    """
    evaluation = Evaluation(0, 0, schedule, config.images, derive_seed(seed, "law"), True)
    if (checkpoint := folder / "checkpoint.pt").is_file():
        restore(trainer, checkpoint)
        yield trainer.done, scorer(evaluation)
    for _ in trainer:
        if trainer.done % config.rung == 0 or trainer.done == trainer.config.updates:
            save_pretrained(trainer.ema, folder / "generator", law=vars(trainer.config.mask_law))
            save_state(checkpoint, trainer.state_dict())
            yield trainer.done, scorer(evaluation)


def search_laws(
    make_trainer: MakeTrainer,
    make_meter: Callable[[nn.Module], ScheduleScorer],
    schedule: Schedule,
    config: LawSearchConfig,
    updates: int,
    seed: int,
    report: Report,
    *,
    folder: Path,
    **where: Any,
) -> tuple[list[Trained], int]:
    """Train laws under ASHA and measure them under one schedule.

    Args:
        make_trainer, make_meter: called in each trial's own process, with the law and its generator.
        updates: of a training that is never stopped.
        report: called in the driver with the law's index after each measurement.
        folder: gets a folder for each law, and Ray's own files; all nodes have to see it.
        where: `cpus_per_trial`, `gpus_per_trial` and `address` of `agents.distributed.jobs.run_trainable`.

    Returns:
        All laws, and the index of the best of those trained to the end.

    Raises:
        RuntimeError: a trial failed.
    """
    quiet()
    from ray.tune.schedulers import ASHAScheduler

    laws = sample_laws(config.laws, seed)
    folders = [folder.resolve() / f"law-{index:02d}" for index in range(len(laws))]

    def work(index: int, tell: Callable[[dict[str, Any]], object]) -> None:
        folders[index].mkdir(parents=True, exist_ok=True)
        trainer = make_trainer(laws[index])
        rungs = train_law(trainer, make_meter(trainer.ema), schedule, config, seed, folders[index])
        for done, measured in rungs:
            tell({"updates": done, **measured._asdict()})

    asha = ASHAScheduler(
        "updates", "distance", "min", max_t=updates, grace_period=config.rung, reduction_factor=2
    )
    last = run_jobs(work, len(laws), report, folder=folder, scheduler=asha, **where)
    trained = [
        Trained(law, told["updates"], told["distance"], told["error"])
        for law, told in zip(laws, last, strict=True)
    ]
    longest = max(one.updates for one in trained)
    to_the_end = [index for index, one in enumerate(trained) if one.updates == longest]
    return trained, min(to_the_end, key=lambda index: trained[index].distance)


def load_law(folder: Path, index: int) -> Any:
    """Return the generator that a law came to."""
    return from_pretrained(folder / f"law-{index:02d}" / "generator")
