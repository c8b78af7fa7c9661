"""Learn a decoding policy with PPO and an adversarial reward, and compare it with what costs as much."""

import _root  # noqa: F401

from dataclasses import dataclass, field
from typing import Annotated, Any, cast, get_args

import tyro
from _cli import Log, Places, given_flags, main, refuse_missing

from agents.adanat.config import ADANAT, KINDS, SEARCHED, TrainingConfig
from agents.adanat.presets import PresetName, followed, preset
from agents.autonat.config import OptimizerName, SearchConfig
from generators.checks import at_least

# With co-training: the generators that policies are trained with, all from the same one, and what makes them.
ARMS: dict[str, dict[str, Any]] = {
    "frozen": {"updates": 0},
    "fine-tuned": {"masks": "usual"},
    "co-trained": {"masks": "visited"},
}


@dataclass(frozen=True, kw_only=True)
class Args(Places):
    """Learn a policy with PPO and an adversarial reward (AdaNAT), and compare it with what costs as much.

    Beside the policy another one learns alike that sees the step alone, which is a schedule: the control of
    what adapting to the image is worth. A static schedule is searched for as many images. All are judged on
    data that none of them has seen. With --num-samples it is a sweep. Under torchrun each process is a rank
    of each training. With --cotraining.updates three
    policies learn: on the frozen generator, on one that takes as many updates under its usual masks, and on
    one that takes them under the masks that the policy visits; the searched schedule stands beside each.
    """

    preset: PresetName = "small"
    """Hyper-parameters that the other flags change: for the small tasks, AdaNAT's or AdaGen's own."""
    train: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)
    """Learning; --schedule static-search starts from the searched schedule, reference from the hand-made."""
    step_only: bool = True
    """Train the policy that sees the step alone, too; co-training is compared without."""
    optimizer: OptimizerName = "cma"
    """How the static schedule is searched; see autonat_search.py."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """The static search."""
    images: int = 5000
    """Images per policy and evaluation seed in the table."""
    evaluation_seeds: tuple[int, ...] = tuple(range(10))
    """Seeds of the table; the intervals are over them."""
    log: tuple[Log, ...] = ()
    """Log the trainings for these, too: their metrics, and samples at measurements."""
    num_samples: int = 1
    """Trials of a sweep; the best on the select split goes into the table."""
    space: tuple[str, ...] = ()
    """What a sweep samples, e.g. "learning_rate=loguniform(1e-4,1e-2)" "epochs=choice(2,4)"."""
    asha_rung: int | None = None
    """Updates before ASHA stops the worse half of a sweep's trials, by their distance from the select split;
    each next rung is twice as long. By default all trials run to their ends."""

    workers: int = 1
    """Processes on Ray that train a policy together, each with its share of the trajectories and, where it is
    asked for, a GPU of its own; trainings then come one after the other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "images", "num_samples", "workers")
        if not self.evaluation_seeds:
            raise ValueError("evaluation-seeds is empty; give at least one")
        if self.workers > 1 and (self.local or self.asha_rung is not None):
            raise ValueError(
                f"workers {self.workers}: they are Ray's, one training at a time; leave out "
                "--local and --asha-rung"
            )
        refuse_missing(self.log)
        self.train.env.rewards.adversarial.refuse_absent()
        if self.asha_rung is not None and (self.local or self.num_samples == 1):
            raise ValueError(
                f"asha-rung {self.asha_rung}: ASHA compares the trials of a Ray Tune sweep; give "
                "--num-samples of at least 2 and no --local, or leave it out"
            )

        if self.train.adanat.cotraining.updates and self.num_samples > 1:
            raise ValueError(
                f"num-samples {self.num_samples}: co-training is compared without a sweep; leave one out"
            )

    @property
    def kinds(self) -> dict[str, dict[str, Any]]:
        """What is trained: names of policies, and the settings in which they differ from the config."""
        if self.train.adanat.cotraining.updates:
            names = {arm: ADANAT if arm == "frozen" else f"{arm} {ADANAT}" for arm in ARMS}
            return {names[arm]: {"cotraining": settings} for arm, settings in ARMS.items()}
        kinds = KINDS if self.step_only else (ADANAT,)
        return {kind: self.train.settings_of(kind) for kind in kinds}

    @property
    def subject(self) -> str:
        """The policy that is compared with all others."""
        return list(self.kinds)[-1]

    @property
    def searched_first(self) -> bool:
        """Whether the policies start from the searched schedule."""
        return self.train.env.schedule == SEARCHED


def defaults(arguments: list[str]) -> Args:
    """Return the settings that follow from --preset, and from others with it."""
    flags = given_flags(arguments)
    name = flags.get("--preset", "small")
    if name not in get_args(PresetName):  # which is told by the parser
        return Args()
    return Args(preset=cast(PresetName, name), train=followed(preset(cast(PresetName, name)), flags))


def work(args: Args) -> None:
    import _adanat_ppo  # torch, only now that the flags are read

    _adanat_ppo.work(args)


if __name__ == "__main__":
    main(Args, work, defaults)
