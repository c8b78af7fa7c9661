"""Policies by name, by strategy file and by run folder: what a command line may ask to be played."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from agents.adanat.learned import is_own, load_own
from generators import former
from generators.checkpoints import PRETRAINED, from_pretrained, load_tensors, tensors_hash, weights_hash
from generators.contract import Generator
from generators.files import read_json, reading
from generators.hub import download, on_hub
from generators.rules import DecodeRules
from generators.schedules import CONVENTION, PARAMETERS, Schedule
from natgym.names.prices import inside
from natgym.policies import POLICY_NAMES, FixedPolicy, named_policies
from natgym.rollouts import Policy
from natgym.task import Task

NAMES = (*POLICY_NAMES, "autonat", "adanat")


PRICE = "@price="  # behind a policy that learned a range of prices, and before the one that it is told
DRAW = "@draw"  # behind a policy that chooses tokens, to draw them in place of the likeliest


def find_policies(spec: str, steps: Sequence[int], generator: Generator) -> list[tuple[str, Policy]]:
    """Return (label, policy) for each number of steps at which the policy asked for exists.

    Args:
        spec: a name of NAMES, perhaps with settings as in "linear:remask=9,rule=random,w=2" or
            "threshold:theta=.7"; a schedule or strategy file; a run folder of AdaNAT or AutoNAT. Of one that
            learned a range of prices RUN@price=.03 is told that one, RUN a price of its own for each image;
            one that chooses tokens draws them as RUN@draw, by the row seeds, and RUN takes the likeliest.
        steps: numbers of steps asked for. `one-step` and the adaptive rules have their own; a file and a run
            folder stand for their own number only.
        generator: that they will play; its grid sets the order of `halton`, and `autonat` and `adanat` are
            the strategy that was searched and the policy that was learned for it and are shipped.

    Raises:
        ValueError: there is no such policy, or none for these numbers of steps.
    """
    place, said, change = cut(spec)
    if said:
        return [(label + said, change(policy)) for label, policy in find_policies(place, steps, generator)]
    name = spec.partition(":")[0]
    if name == "autonat":
        return [(name, FixedPolicy(shipped_strategy(generator, T))) for T in steps]
    if name == "adanat":
        return [(name, shipped_policy(generator, T)) for T in steps]
    if name in NAMES:
        return named_policies(spec, steps, generator)
    label, policy = labelled_policy(spec, generator)
    if policy.steps not in steps:
        raise ValueError(f"{spec} has {policy.steps} steps, none of --steps; add {policy.steps} to them")
    return [(label, policy)]


def find_policy(spec: str, steps: int | None, generator: Generator) -> Policy:
    """Return the one policy asked for; without `steps`, a file or a run folder's own number, else 8."""
    place = place_of(spec)
    if steps is None and (on_hub(place) or Path(place).exists()):
        return labelled_policy(spec, generator)[1]
    return find_policies(spec, [steps or 8], generator)[0][1]


def find_all(
    specs: Sequence[str], find: Callable[[str], Sequence[tuple[str, Policy]]]
) -> list[tuple[str, str, Policy]]:
    """Return (label, spec, policy) of all that `find` finds of several specs, under labels of their own.

    Specs that would share a label, as run folders of the same name do, are their labels themselves.
    """
    plays = [(spec, *play) for spec in dict.fromkeys(specs) for play in find(spec)]
    owners: dict[str, set[str]] = {}
    for spec, label, _policy in plays:
        owners.setdefault(label, set()).add(spec)
    return [(spec if len(owners[label]) > 1 else label, spec, policy) for spec, label, policy in plays]


def load_policy(
    path: Path | str, task: Any = None, *, policy_class: Any = None, revision: str | None = None
) -> Policy:
    """Return a policy that was saved: learned, searched, or a schedule.

    Args:
        path: run folder of AdaNAT or AutoNAT, folder of a policy, or schedule file; with @price=NUMBER behind
            it, a policy that learned a range of prices is told that one; with @draw behind it, one that
            chooses tokens draws them.
        task: whose generator will play it, a `Task` or what `Task.load` takes; a policy of other features is
            refused then, and learned ones are loaded to its device.
        policy_class: of a policy whose network is one's own.
        revision: of a name of the Hub, user/name; without one it is hf://user/name.

    Of a training's folder it is the policy that measured best, as in its tables and as
    `AdaNATTrainer.policy()` returns it; folder/last is the last one.

    Raises:
        ValueError: there is no policy, or it does not fit.
    """
    generator = None if task is None else Task.load(task).generator
    return labelled_policy(path, generator, policy_class, revision)[1]


def labelled_policy(
    spec: Path | str,
    generator: Generator | None = None,
    policy_class: Any = None,
    revision: str | None = None,
) -> tuple[str, Policy]:
    """Return a saved policy and what to call it; see `load_policy`."""
    place, said, change = cut(spec)
    if said:
        label, policy = labelled_policy(place, generator, policy_class, revision)
        return label + said, change(policy)
    if on_hub(spec, revision):
        came = download(str(spec), revision)
        return came.name, labelled_policy(came.path, generator, policy_class)[1]
    path = Path(spec)
    if path.is_file():
        schedule = Schedule.load(path)
        return schedule.name, FixedPolicy(schedule)
    if (path / "strategy.json").is_file():
        return path.name, FixedPolicy(Schedule.load(path / "strategy.json"), _searched_rules(path, generator))
    for folder in (path / "policy", path):
        if (folder / "model.safetensors").is_file():
            if policy_class is not None and not is_own(folder):
                raise ValueError(f"{folder} holds a policy of natgym's own class; leave out policy_class")
            _warn_of_another(own_generator(path), generator)
            return path.name, _learned(folder, generator, policy_class)
    if str(spec).partition(":")[0] in NAMES:
        raise ValueError(
            f"policy {str(spec)!r} is a name, not something saved; it is played in a number of steps, as by "
            f"agents.named.find_policy({str(spec)!r}, steps, generator)"
        )
    raise ValueError(
        f"policy {str(path)!r} is not a file, no run folder with policy/ or strategy.json, and not one of "
        + ", ".join(NAMES)
    )


def cut(spec: Path | str) -> tuple[str, str, Callable[[Any], Policy]]:
    """Return the place of a policy without the last of what stands behind it, PLACE@price=NUMBER or
    PLACE@draw, that, and what makes the policy play so; nothing, if nothing stands there. A folder's own
    name may look so."""
    text = str(spec)
    if not Path(spec).exists():
        if text.endswith(DRAW):
            return text.removesuffix(DRAW), DRAW, _drawing
        place, said, number = text.rpartition(PRICE)
        if said:
            try:
                price = float(number)
            except ValueError:
                raise ValueError(f"policy {text!r}: {number!r} is no price; give a number") from None
            return place, f"{PRICE}{price:g}", lambda policy: _at(policy, price)
    return text, "", lambda policy: policy


def place_of(spec: Path | str) -> str:
    """Return the place of a policy without anything that stands behind it; see `cut`."""
    place, said, _ = cut(spec)
    return place_of(place) if said else place


def own_generator(spec: Path | str) -> Path | None:
    """Return the folder of the generator that a policy learned beside, if that learned, too."""
    folder = Path(place_of(spec)) / "generator"
    return folder if folder.is_dir() else None


def _at(policy: Any, price: float) -> Policy:
    """Return a policy that is told a price; ValueError if it sees none."""
    if not hasattr(policy, "at"):
        inside(price, None)
    return policy.at(price)


def _drawing(policy: Any) -> Policy:
    """Return a policy that draws what it does; ValueError if it can't."""
    if not hasattr(policy, "drawing"):
        raise ValueError(f"{DRAW}: only policies that learned to choose tokens are drawn")
    return policy.drawing()


def describe(policy: Any) -> dict[str, Any]:
    """Return what a number needs to be made again: a schedule's table, or the hash of learned weights."""
    description: dict[str, Any] = {"guidance": CONVENTION}
    if (price := getattr(policy, "price", None)) is not None:
        description["price"] = price
    if getattr(policy, "draws", False):
        description["draws"] = True
    if isinstance(policy, FixedPolicy):
        return description | {"parameters": PARAMETERS, "table": policy.schedule.table_T4.tolist()}
    return description | ({"weights": weights_hash(policy)} if isinstance(policy, nn.Module) else {})


def shipped_strategy(generator: Any, steps: int) -> Schedule:
    """Return the strategy shipped beside the weights that a generator has; ValueError if there is none."""
    return Schedule.load(_shipped(generator, steps, "strategies/autonat-T*.json", "autonat-search"))


def shipped_policy(generator: Any, steps: int) -> Policy:
    """Return the learned policy shipped beside a generator's weights; ValueError if there is none."""
    folder = _shipped(generator, steps, "policies/adanat-T*", "adanat-ppo")
    return _learned(folder, generator, None)


def _shipped(generator: Any, steps: int, pattern: str, script: str) -> Path:
    """Return what is shipped for a generator and a number of steps.

    Args:
        pattern: of paths beside the weights, with the steps in the place of *.
        script: that makes another one.
    """
    weights = weights_hash(generator)
    shipped = dict[int, Path]()
    for path in PRETRAINED.glob(f"*/*/{pattern}"):
        if tensors_hash(load_tensors(path.parent.with_name("model.safetensors"))) == weights:
            shipped[int(path.stem.partition("-T")[2])] = path
    if steps not in shipped:
        kind = pattern.partition("-")[0].rpartition("/")[2]
        raise ValueError(
            f"no {kind} of {steps} steps is shipped for this {type(generator).__name__} (shipped: "
            f"{', '.join(map(str, sorted(shipped))) or 'none'}); make one with natgym {script} and give "
            "its run folder"
        )
    return shipped[steps]


def _searched_rules(run: Path, generator: Generator | None) -> DecodeRules | None:
    """Return the rules under which a strategy was searched; None if its folder does not say."""
    if not (run / "config.json").is_file():
        return None
    settings = former.settings(read_json(run / "config.json"), ["rules"])
    if "rules" not in settings:
        return None
    if generator is None:
        raise ValueError(
            f"{run} was searched under rules for a generator; say its task: load_policy(path, task)"
        )
    return DecodeRules.of(settings["rules"], generator.grid)


def _warn_of_another(own: Path | None, generator: Any) -> None:
    """Warn if a policy that learned beside a generator, which learned too, is to play another one."""
    if generator is None or own is None:
        return
    if tensors_hash(load_tensors(own / "model.safetensors")) != weights_hash(generator):
        warnings.warn(f"the policy learned with {own}, and plays another generator", stacklevel=3)


def _learned(folder: Path, generator: Generator | None, policy_class: Any) -> Policy:
    device = "cpu" if generator is None else next(generator.parameters()).device
    policy: Any
    with reading(folder):
        if is_own(folder):
            policy = load_own(folder, policy_class, device)
            grid = policy.observer.grid
            width = policy.observer.width
        else:
            policy = from_pretrained(folder, device)
            policy.action_map()  # its schedule is checked
            grid = policy.config.pooled_from or policy.config.grid
            width = policy.config.features_width
    if generator is not None and (tuple(generator.grid), generator.width) != (tuple(grid), width):
        ours = tuple(generator.grid), generator.width
        raise ValueError(
            f"{folder} reads features {(tuple(grid), width)}; the generator's grid and width are {ours}"
        )
    return policy
