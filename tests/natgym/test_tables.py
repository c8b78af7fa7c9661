"""`natgym.evaluate`: the Evaluator's rows in one call, with metrics of one's own."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import natgym
from generators.images import eight_bits
from generators.noise import derive_seed
from generators.rules import DecodeRules
from generators.schedules import maskgit, reference
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout

BUDGET: dict[str, Any] = {"steps": 2, "images": 40, "seeds": (0, 1)}


class Ink:
    """Brightness of a class's images, and what it was fed."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.features: list[torch.Tensor] = []

    def update(self, images_BCHW: torch.Tensor, condition: Any, features_Bd: torch.Tensor) -> None:
        assert len(images_BCHW) == len(condition) == len(features_Bd)
        zeros = images_BCHW[condition.values == 0]
        self.values += zeros.mean((1, 2, 3)).tolist()

    def compute(self) -> float:
        return sum(self.values) / len(self.values)


def test_the_rows_are_those_of_an_evaluator(tmp_path: Path, digits: Any) -> None:
    maskgit(2).save(tmp_path / "mine.json")
    policies = {"reference": "reference", "file": tmp_path / "mine.json", "live": FixedPolicy(maskgit(2))}
    table = natgym.evaluate(policies, digits, **BUDGET)
    evaluator = Evaluator(digits, EvaluationConfig(images=40, seeds=(0, 1)), rules=DecodeRules())
    rows = {row["policy"]: row for row in table.rows}
    for label, schedule in (("reference", reference(2)), ("file", maskgit(2)), ("live", maskgit(2))):
        scores = evaluator(FixedPolicy(schedule))
        assert rows[label]["distance"] == scores["distance"].mean()
        assert rows[label]["per_seed"]["distance"] == scores["distance"].tolist()
    assert rows["live"]["difference"]["minus"] == "reference" and "difference" not in rows["reference"]
    assert table.protocol == evaluator.manifest() and len(table.frame) == 3
    said = str(table)
    assert "reference" in said and "Against 400 real images" in said and "difference: to reference" in said


def test_a_metric_of_ones_own_is_a_column(digits: Any) -> None:
    """Recomputed from the rollout itself, rounded as it is judged."""
    table = natgym.evaluate({"reference": "reference"}, digits, **BUDGET, metrics={"ink": Ink})
    condition = balanced(digits.generator.conditions(), 40)
    expected = []
    for seed in (0, 1):
        noise = derive_seed("evaluation", "report", seed)
        drawn = rollout(FixedPolicy(reference(2)), digits, condition=condition, seed=noise)
        expected.append(eight_bits(drawn.images[condition.values == 0]).mean().item())
    (row,) = table.rows
    assert row["per_seed"]["ink"] == pytest.approx(expected) and len(set(expected)) == 2
    assert row["ink"] == pytest.approx(sum(expected) / 2)
    header, _, line = str(table).splitlines()[:3]
    assert header.split()[-1] == "ink" and line.split()[-1] == f"{row['ink']:.3f}"


def test_one_seed_has_no_spread_and_says_no_nan(digits: Any) -> None:
    policies = {"reference": "reference", "maskgit": "maskgit"}
    said = str(natgym.evaluate(policies, digits, steps=2, images=40, seeds=(0,)))
    assert "nan" not in said and "±" not in said


def test_what_can_not_be_judged_is_told(digits: Any) -> None:
    class Nothing(Ink):
        def compute(self) -> float:
            return math.nan

    with pytest.raises(ValueError, match="metric 'void' is nan; compute has to return a finite number"):
        natgym.evaluate({"reference": "reference"}, digits, **BUDGET, metrics={"void": Nothing})
    with pytest.raises(ValueError, match="policies have to be {label: policy}, at least one"):
        natgym.evaluate({}, digits)
    with pytest.raises(ValueError, match="policy 'nonsense' is not one of reference"):
        natgym.evaluate({"x": "nonsense"}, digits)
    unplayable: Any = object()  # the second is looked for before the first plays
    with pytest.raises(ValueError, match="policy 'nonsense' is not one of reference"):
        natgym.evaluate({"x": unplayable, "y": "nonsense"}, digits)
    for name in ("distance", "nfe", "policy", "my_std"):
        with pytest.raises(ValueError, match=f"metric '{name}': the name is taken"):
            natgym.evaluate({"x": "reference"}, digits, metrics={name: Ink})
    with pytest.raises(ValueError, match="metric 'ink' is a Ink; give its class"):
        natgym.evaluate({"x": "reference"}, digits, metrics={"ink": Ink()})  # type: ignore[dict-item]
    for changed, said in (
        ({"seeds": ()}, r"seeds \(\): give at least one"),
        ({"seeds": (0, 0)}, r"seeds \(0, 0\): give at least one, and none twice"),
        ({"images": 10}, "images 10: the extractor has 32 features"),
    ):
        with pytest.raises(ValueError, match=said):
            natgym.evaluate({"x": "reference"}, digits, **changed)
    with pytest.raises(ValueError, match="is a folder; load it with agents.load_policy"):
        natgym.evaluate({"x": "."}, digits)
    with pytest.raises(ValueError, match="split '-' stands for statistics from a file"):
        Evaluator(digits, EvaluationConfig(split="-"))


def test_a_rollout_of_a_task_is_that_of_its_networks(digits: Any) -> None:
    policy, pool = FixedPolicy(reference(2)), digits.generator.conditions()
    plain = rollout(policy, digits.generator, digits.tokenizer, balanced(pool, 12), seed=4)
    for task in (digits, "digits"):
        assert torch.equal(rollout(policy, task, num_images=12, seed=4).images, plain.images_NCHW)
    with pytest.raises(ValueError, match="num_images None: give at least 1, or a condition"):
        rollout(policy, digits, seed=0)
    with pytest.raises(ValueError, match="a live generator needs its tokenizer"):
        rollout(policy, digits.generator, num_images=3, seed=0)
