"""Policies by name, by strategy file and by run folder: what a command line may ask to be played."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from agents import policy as _  # noqa: F401  (the Actor registers itself)
from generators import former
from generators.checkpoints import PRETRAINED, from_pretrained, tensors_hash, weights_hash
from generators.contract import Generator
from generators.families import arguments, numbers, split
from generators.reveal import REVEAL
from generators.rules import DecodeRules, reveal_rule, reveal_settings
from generators.schedules import CONVENTION, FAMILIES, PARAMETERS, Schedule, of_curves
from natgym.policies import AdaptivePolicy, FixedPolicy
from natgym.rollouts import Policy

# Names beside the families of schedules, and the curve and the rule they stand for.
TOKEN_RULES = {
    "halton": ("arccos", "halton"),
    "threshold": ("cosine", "threshold"),
    "entropy-bounded": ("cosine", "entropy-bound"),
}
ADAPTIVE = ("threshold", "entropy-bound")
NAMES = (*FAMILIES, "one-step", *TOKEN_RULES, "autonat")


def find_policies(spec: str, steps: Sequence[int], generator: Generator) -> list[tuple[str, Policy]]:
    """Return (label, policy) for each number of steps at which the policy asked for exists.

    Args:
        spec: a name of NAMES, perhaps with settings as in "linear:remask=9,rule=random,w=2" or
            "threshold:theta=.7"; a schedule or strategy file; a run folder of AdaNAT or AutoNAT.
        steps: numbers of steps asked for. `one-step` and the adaptive rules have their own; a file and a run
            folder stand for their own number only.
        generator: that they will play; its grid sets the order of `halton`, and `autonat` is the strategy
            that was searched for it and is shipped.

    Raises:
        ValueError: there is no such policy, or none for these numbers of steps.
    """
    name, given = split(spec) if spec.partition(":")[0] in NAMES else (spec, {})
    if name == "autonat":
        return [(name, FixedPolicy(shipped_strategy(generator, T))) for T in steps]
    if name in NAMES:
        return _named(spec, name, given, steps, generator)
    label, found = load_policy(Path(spec), generator)
    if found.steps not in steps:
        raise ValueError(f"{spec} has {found.steps} steps, none of --steps; add {found.steps} to them")
    return [(label, found)]


def find_policy(spec: str, steps: int | None, generator: Generator) -> Policy:
    """Return the one policy asked for; without `steps`, a file or a run folder's own number, else 8."""
    if steps is None and Path(spec).exists():
        return load_policy(Path(spec), generator)[1]
    return find_policies(spec, [steps or 8], generator)[0][1]


def find_all(
    specs: Sequence[str], find: Callable[[str], Sequence[tuple[str, Policy]]]
) -> list[tuple[str, str, Policy]]:
    """Return (label, spec, policy) of all that `find` finds of several specs, under labels of their own.

    Specs that would share a label, as run folders of the same name do, are their labels themselves.
    """
    found = [(spec, *play) for spec in dict.fromkeys(specs) for play in find(spec)]
    owners: dict[str, set[str]] = {}
    for spec, label, _policy in found:
        owners.setdefault(label, set()).add(spec)
    return [(spec if len(owners[label]) > 1 else label, spec, policy) for spec, label, policy in found]


def load_policy(path: Path, generator: Generator) -> tuple[str, Policy]:
    """Return (label, policy) of a schedule file or a run folder; ValueError if it is neither."""
    if path.is_file():
        schedule = Schedule.load(path)
        return schedule.name, FixedPolicy(schedule)
    if (path / "strategy.json").is_file():
        return path.name, FixedPolicy(Schedule.load(path / "strategy.json"), _searched_rules(path, generator))
    for folder in (path / "policy", path):
        if (folder / "model.safetensors").is_file():
            return path.name, _actor(folder, generator)
    raise ValueError(
        f"policy {str(path)!r} is not a file, no run folder with policy/ or strategy.json, and not one of "
        + ", ".join(NAMES)
    )


def describe(policy: Any) -> dict[str, Any]:
    """Return what a number needs to be made again: a schedule's table, or the hash of learned weights."""
    told: dict[str, Any] = {"guidance": CONVENTION}
    if isinstance(policy, FixedPolicy):
        return told | {"parameters": PARAMETERS, "table": policy.schedule.table_T4.tolist()}
    return told | ({"weights": weights_hash(policy)} if isinstance(policy, nn.Module) else {})


def shipped_strategy(generator: Any, steps: int) -> Schedule:
    """Return the strategy shipped beside the weights that a generator has; ValueError if there is none."""
    own, shipped = weights_hash(generator), dict[int, Path]()
    for path in PRETRAINED.glob("*/*/autonat-T*.json"):
        if tensors_hash(load_file(path.with_name("model.safetensors"))) == own:
            shipped[int(path.stem.partition("-T")[2])] = path
    if steps not in shipped:
        raise ValueError(
            f"no strategy of {steps} steps is shipped for this {type(generator).__name__} (shipped: "
            f"{', '.join(map(str, sorted(shipped))) or 'none'}); search one with "
            "experiments/autonat_search.py and give its run folder"
        )
    return Schedule.load(shipped[steps])


def _named(
    spec: str, name: str, given: dict[str, str], steps: Sequence[int], generator: Generator
) -> list[tuple[str, Policy]]:
    curve, usual = TOKEN_RULES.get(name, ("cosine" if name == "one-step" else name, "confidence"))
    chosen = given.get("rule", usual)
    if chosen not in REVEAL:
        raise ValueError(f"rule {chosen!r} in {spec!r} is not one of {', '.join(REVEAL)}")
    own, adaptive = reveal_settings(chosen), chosen in ADAPTIVE
    keys = ("rule", *own, *["steps"] * adaptive)
    left = {key: text for key, text in given.items() if key not in keys}
    curves = arguments(curve, left, spec, also=keys)
    rules = None if chosen == "confidence" else _rules(chosen, numbers(given, own, spec), generator, spec)
    if adaptive:
        most = numbers(given, ["steps"], spec).get("steps", generator.num_tokens)
        if most < 1:
            raise ValueError(f"steps {most:g} in {spec!r}: at least one is needed")
        assert rules is not None
        return [(spec, AdaptivePolicy(rules, curves, int(most)))]
    played = [1] if name == "one-step" else steps
    return [(spec, FixedPolicy(of_curves(curves, T, spec), rules)) for T in played]


def _searched_rules(run: Path, generator: Generator) -> DecodeRules | None:
    """Return the rules under which a strategy was searched; None if its folder does not say."""
    if not (run / "config.json").is_file():
        return None
    settings = former.settings(json.loads((run / "config.json").read_text()), ["rules"])
    return DecodeRules.of(settings["rules"], generator.grid) if "rules" in settings else None


def _rules(name: str, settings: dict[str, float], generator: Generator, spec: str) -> DecodeRules:
    try:
        return DecodeRules(reveal_rule(name, settings, generator.grid))
    except ValueError as error:
        raise ValueError(f"policy {spec!r}: {error}") from None


def _actor(folder: Path, generator: Generator) -> Policy:
    device = next(generator.parameters()).device
    actor: Any = from_pretrained(folder, device)
    grid = tuple(actor.config.pooled_from or actor.config.grid)
    ours, theirs = (tuple(generator.grid), generator.width), (grid, actor.config.features_width)
    if ours != theirs:
        raise ValueError(f"{folder} reads features {theirs}; the generator's grid and width are {ours}")
    return actor
