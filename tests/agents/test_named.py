"""Policies by name, file and folder: what is asked for is what plays, and mistakes are one clear line."""

import copy
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import named
from agents.adanat.actor import Actor, ActorConfig
from agents.adanat.network import PolicyConfig
from agents.named import NAMES, find_all, find_policies, find_policy, load_policy
from generators.checkpoints import PRETRAINED, save_pretrained
from generators.families import columns, parse
from generators.noise import seeded
from generators.reveal import Halton
from generators.rules import DecodeRules
from generators.schedules import FAMILIES, family, reference
from natgym.policies import AdaptivePolicy, FixedPolicy
from natgym.rollouts import balanced, rollout
from natgym.task import Task


@pytest.fixture(scope="module")
def digits() -> Any:
    return Task.load("digits").generator


def found(spec: Any, digits: Any, *steps: int) -> list[tuple[str, Any]]:
    return find_policies(str(spec), steps or (4, 8), digits)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_played_at_each_number_of_steps(name: str, digits: Any) -> None:
    policies = found(name, digits)
    assert [(label, policy.steps) for label, policy in policies] == [(name, 4), (name, 8)]
    for _, policy in policies:
        assert isinstance(policy, FixedPolicy)
        assert torch.equal(policy.schedule.table_T4, family(name, policy.steps).table_T4)


def test_one_step_is_played_once_whatever_is_asked_for(digits: Any) -> None:
    ((label, policy),) = found("one-step", digits)
    assert label == "one-step" and torch.equal(policy.schedule.table_T4, reference(1).table_T4)


def test_settings_reach_schedule_and_rule(digits: Any) -> None:
    ((label, policy),) = found("pow:k=3,rule=halton,w=2", digits, 5)
    assert label == "pow:k=3,rule=halton,w=2"
    assert torch.equal(policy.schedule.table_T4, family("pow:k=3,w=2", 5).table_T4)
    tokens = draw(policy, digits).revealed_at_NL
    assert (tokens == tokens[0]).all(), "one order for all"
    assert not (draw(found("pow:k=3,w=2", digits, 5)[0][1], digits).revealed_at_NL == tokens).all()


def draw(policy: Any, digits: Any, count: int = 40) -> Any:
    condition = balanced(digits.conditions(), count)
    return rollout(policy, digits, Task.load("digits").tokenizer, condition, seed=3)


def test_halton_is_arccos_along_a_fixed_order(digits: Any) -> None:
    ((_, policy),) = found("halton", digits, 4)
    assert torch.equal(policy.schedule.table_T4, family("arccos", 4).table_T4)
    again = found("arccos:rule=halton", digits, 4)[0][1]
    assert torch.equal(draw(policy, digits).tokens_NL, draw(again, digits).tokens_NL)


def test_adaptive_rules_take_the_steps_they_need(digits: Any) -> None:
    ((label, strict),) = found("threshold:theta=0.9", digits)
    ((_, loose),) = found("threshold:theta=0.1", digits)
    ((_, bound),) = found("entropy-bounded:epsilon=6,w=0", digits)
    assert label == "threshold:theta=0.9" and strict.steps == digits.num_tokens
    passes = [draw(policy, digits).nfe_N for policy in (strict, loose, bound)]
    assert passes[0].mean() > passes[1].mean() and len(set(passes[1])) > 1
    frame = draw(bound, digits).frame
    assert (frame["guidance_scale"] == 0).all() and passes[2].max() <= digits.num_tokens
    ((_, capped),) = found("threshold:theta=0.9,steps=3", digits)
    assert capped.steps == 3 and draw(capped, digits).nfe_N.max() <= 5


def test_an_adaptive_policy_follows_the_share_revealed() -> None:
    curves = parse("linear:sampling=2~1,guidance=constant,w=3")
    policy = AdaptivePolicy(lambda *_: None, curves, 9)  # type: ignore[arg-type, return-value]
    masked = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 1]], dtype=torch.uint8)
    table = policy({"masked": masked}, 0).table
    share = torch.tensor([0.0, 0.5, 0.75], dtype=torch.float64)
    expected = columns(share.clamp_min(1e-3), share, **curves)
    assert torch.equal(table[:, 1:], expected[:, 1:]) and (table[:, 0] == 0).all()
    assert table[:, 2].tolist() == pytest.approx([1.999, 1.5, 1.25]) and (table[:, 3] == 3).all()


def test_files_stand_for_their_own_steps(tmp_path: Path, digits: Any) -> None:
    reference(5, remask=3, name="mine").save(tmp_path / "a.json")
    reference(5, remask=3, name="mine").save(tmp_path / "b.yaml")
    assert [(label, policy.steps) for label, policy in found(tmp_path / "a.json", digits, 4, 5)] == [
        ("mine", 5)
    ]
    assert found(tmp_path / "b.yaml", digits, 5)[0][0] == "b"
    with pytest.raises(ValueError, match="has 5 steps, none of --steps; add 5"):
        found(tmp_path / "a.json", digits, 4)


def actor(folder: Path, width: int) -> Actor:
    config = ActorConfig(
        policy=vars(PolicyConfig(width=8, channels=4, hidden=(8, 8), frequencies=8)),
        grid=(4, 4),
        features_width=width,
        steps=3,
        actions="default",
        schedule_name="reference",
        rules="halton,min_reveal=0",
    )
    with seeded(0):
        made = Actor(config).eval().requires_grad_(False)
    made.schedule.copy_(reference(3).table_T4)
    save_pretrained(made, folder, task="digits")
    return made


def test_run_folders_of_both_methods(tmp_path: Path, digits: Any) -> None:
    made = actor(tmp_path / "learned" / "policy", digits.width)
    expected = draw(made, digits).tokens_NL
    for folder in ("learned", "learned/policy"):
        ((label, policy),) = found(tmp_path / folder, digits, 3)
        assert label == Path(folder).name and torch.equal(draw(policy, digits).tokens_NL, expected)
        assert policy.rules == DecodeRules(Halton(digits.grid), min_reveal=0)
    (tmp_path / "searched").mkdir()
    reference(3, guidance=2).save(tmp_path / "searched" / "strategy.json")
    ((label, policy),) = found(tmp_path / "searched", digits, 3)
    assert label == "searched" and torch.equal(policy.schedule.table_T4, reference(3, guidance=2).table_T4)
    assert policy.rules is None, "a schedule follows the rules of the table"
    said = {"rules": "halton"}, {"min_reveal": 0}
    meant = DecodeRules(Halton((4, 4))), DecodeRules(min_reveal=0)
    for settings, rules in zip(said, meant, strict=True):
        (tmp_path / "searched" / "config.json").write_text(json.dumps(settings))
        assert found(tmp_path / "searched", digits, 3)[0][1].rules == rules, (
            "those that it was searched under"
        )
    actor(tmp_path / "wide", digits.width + 1)
    with pytest.raises(ValueError, match="wide reads features .* the generator's grid and width are"):
        found(tmp_path / "wide", digits, 3)


def test_autonat_is_what_lies_beside_the_same_weights(
    tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known by the weights, not by name: another generator of the same task and type gets no strategy."""
    monkeypatch.setattr(named, "PRETRAINED", tmp_path)
    with pytest.raises(ValueError, match=r"no autonat of 4 steps .* this NAT \(shipped: none\)"):
        found("autonat", digits, 4)
    other = copy.deepcopy(digits)
    next(other.parameters()).add_(1e-3)
    for name, generator, remask in (("a", other, 3), ("b", digits, 7)):
        save_pretrained(generator, tmp_path / "digits" / name, task="digits")
        (tmp_path / "digits" / name / "strategies").mkdir()
        reference(4, remask=remask).save(tmp_path / "digits" / name / "strategies" / "autonat-T4.json")
        ((label, policy),) = found("autonat", generator, 4)
        assert label == "autonat"
        assert torch.equal(policy.schedule.table_T4, reference(4, remask=remask).table_T4)
    reference(16).save(tmp_path / "digits" / "a" / "strategies" / "autonat-T16.json")
    with pytest.raises(ValueError, match=r"8 steps .* this NAT \(shipped: 4, 16\); make one with"):
        found("autonat", other, 4, 8)
    with pytest.raises(ValueError, match=r"16 steps .*\(shipped: 4\)"):
        found("autonat", digits, 16)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nowhere", "policy 'nowhere' is not a file, .* and not one of reference, maskgit"),
        ("linear:theta=1", "'theta' in 'linear:theta=1' is not one of remask, sampling, guidance, w, rule"),
        ("threshold:theta=2", "policy 'threshold:theta=2': theta 2.0"),
        ("threshold:theta=x", "theta='x' in .* is not a number"),
        ("threshold:steps=0", "steps 0 in 'threshold:steps=0': at least one"),
        ("threshold:steps=2.7", "steps 2.7 in 'threshold:steps=2.7': at least one is needed, and a whole"),
        (
            "linear:rule=luck",
            "rule 'luck' in 'linear:rule=luck' is not one of confidence, margin, entropy, random, halton, "
            "threshold, sure, entropy-bound",
        ),
        ("halton:steps=3", "'steps' in 'halton:steps=3' is not one of"),
    ],
)
def test_mistakes_are_one_line(spec: str, said: str, digits: Any) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        found(spec, digits)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["autonat", "adanat", "maskgit", "linear:remask=9"])
def test_a_name_is_nothing_saved(name: str, digits: Any) -> None:
    """And is played as it says."""
    with pytest.raises(ValueError, match=rf"'{name}' is a name, .*find_policy\('{name}', steps, generator\)"):
        load_policy(name, "digits")
    assert find_policy(name, 2, digits).steps == 2


def test_every_name_is_known(digits: Any) -> None:
    for name in NAMES:
        assert found(name, digits, 2)


def test_adanat_is_the_policy_that_was_learned_for_these_weights(digits: Any) -> None:
    ((label, policy),) = found("adanat", digits, 2)
    assert label == "adanat" and isinstance(policy, Actor) and policy.steps == 2
    with pytest.raises(ValueError, match=r"no adanat of 9 steps .*make one with natgym adanat-ppo"):
        found("adanat", digits, 9)
    other = copy.deepcopy(digits)
    next(other.parameters()).add_(1e-3)
    with pytest.raises(ValueError, match=r"this NAT \(shipped: none\)"):
        found("adanat", other, 2)


def test_folders_of_the_same_name_keep_apart(tmp_path: Path, digits: Any) -> None:
    for run, guidance in (("a", 1), ("b", 2)):
        (tmp_path / run / "000").mkdir(parents=True)
        reference(3, guidance=guidance).save(tmp_path / run / "000" / "strategy.json")
    one, two = str(tmp_path / "a" / "000"), str(tmp_path / "b" / "000")

    def find(spec: str) -> list[tuple[str, Any]]:
        return find_policies(spec, [3, 8], digits)

    plays = find_all(["maskgit", one, two, one], find)
    assert [play[:2] for play in plays] == [("maskgit", "maskgit")] * 2 + [(one, one), (two, two)]
    assert [play[:2] for play in find_all([one], find)] == [("000", one)]
    tables: list[Any] = [policy for label, _, policy in plays if label in (one, two)]
    assert not torch.equal(tables[0].schedule.table_T4, tables[1].schedule.table_T4)


def test_a_policy_that_learned_beside_a_generator_says_that_it_plays_another(
    tmp_path: Path, digits: Any
) -> None:
    shutil.copytree(PRETRAINED / "digits/nat/policies/adanat-T2", tmp_path / "policy")
    save_pretrained(digits, tmp_path / "generator")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_policies(str(tmp_path), [2], digits)
    other = copy.deepcopy(digits)
    other.head.bias[0] += 1
    with pytest.warns(UserWarning, match=r"learned with .*generator, and plays another"):
        find_policies(str(tmp_path), [2], other)
