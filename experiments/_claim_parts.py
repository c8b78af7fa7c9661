"""Commands that several claims share."""

from __future__ import annotations

from collections.abc import Mapping

from _claim_terms import Command

LOCAL = "--local --threads 1"
HERE_TOO = "--task digits --schedule maskgit --seed {seed} --evaluate-every 10 --evaluation-images 500 "
HERE_TOO += f"--final-images 2000 --images 2000 --evaluation-seeds 0 1 {LOCAL}"
TOY_SEARCH = "--images-per-evaluation 8 --race 2 --finalists 2 --final-images 70 --coarse.remask 2 8 "
TOY_SEARCH += "--coarse.sampling 1 --coarse.guidance 0 --images 70 --evaluation-seeds 0 --budget "
TOY_TRAINING = "--updates 2 --trajectories 32 --minibatch 64 --evaluate-every 1 --evaluation-images 70 "
TOY_TRAINING += "--final-images 70 --search.images-per-evaluation 8 --search.race 2 --search.finalists 2 "
TOY_TRAINING += "--search.final-images 70 --search.coarse.remask 2 8 --search.coarse.sampling 1 "
TOY_TRAINING += "--search.coarse.guidance 0 --search.budget 300 --images 70 --evaluation-seeds 0"
TOY_JUDGED = "--images 70 --seeds 0"


def search(name: str, steps: int, budget: int, each: int, optimizers: str = "cma") -> Command:
    """Return searches on digits, each of `budget` images, `each` an evaluation."""
    line = f"autonat_search.py --task digits --steps {steps} --optimizer {optimizers} --budget {budget} "
    line += f"--images-per-evaluation {each} --seed {{seed}} --images 1000 --evaluation-seeds 0 1 {LOCAL}"
    toy = 8 * (4 * steps - 1) + 2 * 70 + 40  # a generation of finite differences, and the finalists
    return Command(name=name, line=line, toy=TOY_SEARCH + str(toy))


def learned(name: str, flags: str, toy: str = "") -> Command:
    """Return trainings of a policy on digits."""
    return Command(name=name, line=f"adanat_ppo.py {HERE_TOO} {flags}", toy=f"{TOY_TRAINING} {toy}".strip())


def generator(name: str, flags: str) -> Command:
    """Return trainings of a generator of digits, as long as that of the shipped one."""
    line = "train_generator.py --data digits --updates 2000 --evaluate-every 0 --seed {seed}"
    return Command(name=f"train-{name}", line=f"{line} {flags}".strip(), toy="--updates 3")


def drawn(name: str, steps: int, policy: str = "maskgit") -> Command:
    """Return tables of such a generator under a schedule."""
    line = (
        f"evaluate.py --task digits --generators {{runs}}/train-{name}-{{seed}}/generator --policy {policy} "
    )
    line += f"--steps {steps} --images 2000 --seeds 0 1 --threads 1"
    return Command(name=f"{name}-T{steps}", line=line, toy=TOY_JUDGED)


def generators(models: Mapping[str, str], steps: int) -> tuple[Command, ...]:
    """Return trainings of generators, by name with their flags, and the table of each."""
    return tuple(
        command for name, flags in models.items() for command in (generator(name, flags), drawn(name, steps))
    )


SEARCHED = "train and, for finalists, select choose; report judges, 1,000 images for each of 2 seeds"
SPLITS = "train and, for the kept one, select choose; report judges, 2,000 images for each of 2 seeds"
GENERATED = "nothing is chosen; report judges, 2,000 images for each of 2 seeds"
WHOLE = "2,000 updates of 128 images for each generator, the task's recipe; schedule maskgit"
SIX = tuple(range(6))
"""Seeds of a row that three left open."""
