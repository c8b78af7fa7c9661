"""Measure what an episode costs beside the generator's forward passes: one table, each part as a share."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path

from _cli import main

from generators.checks import at_least
from generators.precision import Precision


@dataclass(frozen=True, kw_only=True)
class Args:
    """Time rollouts of PPO's: environment, policy network and buffer around a generator.

    Times are seconds of one CPU core, which other processes don't inflate, or wall-clock on a GPU, which is
    waited for wherever one part ends and another begins; its images/s are of more episodes without this
    waiting. Each generator is measured in a process of its own.
    """

    generators: tuple[str, ...] = ("digits", "mnist", "mnist/enat", "nat-l", "enat-l")
    """Shipped ones, folders of saved ones, or the papers' geometry with random weights: nat-l, enat-l."""
    steps: int = 8
    """Decoding steps T."""
    batch: int | None = None
    """Images at once; by default 64, and 2 of the papers' geometry on a CPU."""
    device: str = "cpu"
    """Where generator and policy live: cpu or cuda."""
    precision: Precision = "float32"
    """Of the generator's weights; tf32 are float32 ones whose matrix products a GPU takes in TF32, as all
    others."""
    compile: bool = False
    """Compile the generator with torch.compile."""
    first_pass: bool = False
    """Keep the all-masked passes between episodes."""
    repeats: int = 7
    """Episodes measured, after one that is not; 3 of the papers' geometry at most."""
    latency: int | None = None
    """Images drawn one at a time by the reference schedule, whose seconds are printed (median, and what 95 %
    take at most), beside images/s of `batch` at once, in place of the parts of an episode."""
    plan: bool = False
    """Measure no time: print what memory a training of `batch` rows would take, by adanat_ppo.py's defaults
    and, of the papers' geometry, their policy network."""
    minibatch: int | None = 512
    """Transitions per gradient step, of the plan; None takes the whole rollout, as the paper does."""
    ratios: bool = False
    """Print two ratios in place of times: our loop against as many passes of the same network as AdaNAT's own
    loop takes, and our pass against a plain U-ViT; on one CPU core, of digits and, unless quick, of NAT-L."""
    quick: bool = False
    """Leave out the papers' geometry and measure 2 episodes."""
    profile: bool = False
    """Also print the functions that take most of what is not the generator's passes."""
    seed: int = 0
    """Of random weights, of the actions and of the first row."""
    json: Path | None = None
    """File to write the numbers to."""

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "repeats", "batch", "latency", "minibatch")
        if not self.generators:
            raise ValueError("generators is empty; give at least one")
        modes = [name for name in ("latency", "plan", "ratios", "profile") if getattr(self, name)]
        if len(modes) > 1:
            raise ValueError(f"{' and '.join(modes)}: each is measured alone; ask for one at a time")
        if self.json is not None and (self.plan or self.ratios):
            raise ValueError(f"json {self.json}: {modes[0]} is printed alone; leave out one of them")


def work(args: Args) -> None:
    if args.json is not None and args.json.exists():
        raise ValueError(f"{args.json} exists and is not overwritten; choose another --json")
    import _benchmark  # torch, only now that the flags are read
    import _latency

    (_benchmark if args.latency is None else _latency).work(args)


if __name__ == "__main__":
    main(Args, work)
