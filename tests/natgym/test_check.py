"""The checkers pass what natgym ships, and each names what is wrong with a broken one."""

import copy
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import natgym
from agents.adanat.actor import Actor, ActorConfig
from agents.adanat.network import PolicyConfig
from agents.named import NAMES, find_policies
from generators.conditions import Labels
from generators.data import load_split
from generators.noise import seeded
from generators.schedules import DecodeParams, reference
from natgym._former import MODULES, load_companion
from natgym._former import NAMES as RENAMED
from natgym.evaluation.scorer import Scorer
from natgym.policies import FixedPolicy
from natgym.rewards import NAMED, AdversarialConfig, AdversarialReward, make_reward
from natgym.task import Task

ROOT = Path(__file__).resolve().parents[2]
TWENTY = Labels(torch.arange(20) % 10, 10)


@pytest.mark.parametrize("name", ["digits/nat", "mnist/nat", "mnist/enat"])
def test_shipped_generators_pass(name: str) -> None:
    natgym.check_generator(Task.load(name).generator)


@pytest.mark.parametrize(
    "name",
    [*sorted({*NAMED} - {"caption", "valid", "held", "http"}), {"classifier": 1.0, "influence": 0.5}],
    ids=str,
)
def test_named_rewards_and_a_sum_pass(name: Any) -> None:
    images = load_split("digits", "select").images_NCHW[:20]
    natgym.check_reward(make_reward(name, "digits"), (1, 8, 8), TWENTY, images)


@pytest.mark.parametrize("name", ["valid", "held"])
def test_rewards_of_puzzles_pass(name: str) -> None:
    task = Task.load("sudoku-4")
    images = task.images("select")[torch.arange(20)]
    natgym.check_reward(make_reward(name, task), (1, 32, 32), task.begun("select")[:20], images)


def test_a_reward_that_learns_passes_and_is_put_back() -> None:
    reward = AdversarialReward((1, 8, 8), 10, AdversarialConfig(channels=4))
    before = copy.deepcopy(reward.state_dict()["discriminator"])
    natgym.check_reward(reward, (1, 8, 8), TWENTY)
    after = reward.state_dict()["discriminator"]
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "autonat"])
def test_named_policies_pass(name: str, digits: Any) -> None:
    for _, policy in find_policies(name, [2], digits.generator):
        natgym.check_policy(policy, digits.generator)


def test_a_learned_policy_passes(digits: Any) -> None:
    widths = vars(PolicyConfig(width=8, channels=4, hidden=(8, 8), frequencies=8))
    config = ActorConfig(
        policy=widths,
        grid=(4, 4),
        features_width=64,
        steps=3,
        actions="default",
        schedule_name="x",
        smoothing=0.5,
    )
    with seeded(0):
        actor = Actor(config).eval()
        nn.init.normal_(actor.head.weight, std=0.1)
    actor.schedule.copy_(reference(3).table_T4)
    natgym.check_policy(actor, digits.generator)


class Broken(nn.Module):
    """The digits generator with one change to what it predicts or says."""

    def __init__(self, inner: Any, change: Any, **attributes: Any) -> None:
        super().__init__()
        self.inner, self.change = inner, change
        for name in ("codebook_size", "mask_id", "num_tokens", "grid", "width"):
            setattr(self, name, attributes.get(name, getattr(inner, name)))

    def forward(self, ids_BL: Tensor, condition: Any, cache: Any = None) -> Any:
        return self.change(self.inner(ids_BL, condition, cache), ids_BL)

    def conditions(self) -> Any:
        return self.inner.conditions()


def keep(prediction: Any, ids_BL: Tensor) -> Any:
    return prediction


def leak(prediction: Any, ids_BL: Tensor) -> Any:
    return prediction._replace(logits_BLV=prediction.logits_BLV + prediction.logits_BLV.mean(0) / 100)


def noisy(prediction: Any, ids_BL: Tensor) -> Any:
    return prediction._replace(logits_BLV=prediction.logits_BLV + torch.rand(()))


def mask_column(prediction: Any, ids_BL: Tensor) -> Any:
    return prediction._replace(logits_BLV=nn.functional.pad(prediction.logits_BLV, (0, 1)))


def infinite(prediction: Any, ids_BL: Tensor) -> Any:
    return prediction._replace(features_BLD=prediction.features_BLD / 0)


def overwrite(prediction: Any, ids_BL: Tensor) -> Any:
    ids_BL.fill_(0)
    return prediction


@pytest.mark.parametrize(
    ("change", "attributes", "words"),
    [
        (leak, {}, "logits of row 0 depend on other rows"),
        (noisy, {}, "two calls differ; put it into eval mode"),
        (mask_column, {}, r"logits_BLV has shape \(6, 16, 129\), not \(6, 16, 128\)"),
        (infinite, {}, "features_BLD is not finite"),
        (overwrite, {}, "tokens handed in were changed"),
        (keep, {"mask_id": 0}, "mask_id has to be codebook_size"),
        (keep, {"grid": (4, 5)}, "grid .4, 5. has to have num_tokens tokens"),
        (keep, {"width": "64"}, "width has to be an int"),
    ],
)
def test_a_broken_generator_hears_what_is_wrong(
    change: Any, attributes: dict[str, Any], words: str, digits: Any
) -> None:
    natgym.check_generator(Broken(digits.generator, keep))
    with pytest.raises(ValueError, match=words):
        natgym.check_generator(Broken(digits.generator, change, **attributes))


class Learning:
    """A reward with an `update` of its own choice."""

    def __init__(self, metrics: Any, forgets: bool = False) -> None:
        self.metrics, self.forgets, self.level = metrics, forgets, 0.0

    def __call__(self, images: Tensor, condition: Any) -> Tensor:
        return images.mean((1, 2, 3)) - self.level

    def update(self, *_: Any) -> Any:
        self.level += 1
        return self.metrics

    def state_dict(self) -> dict[str, Any]:
        return {"level": 0.0 if self.forgets else self.level}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.level = state["level"]


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (lambda images, condition: images.mean(), r"shape \(\); return one finite number per image"),
        (lambda images, condition: images.mean((1, 2, 3)) - images.mean(), "row 0 depends on other rows"),
        (lambda images, condition: images.mul_(0).sum((1, 2, 3)), "images handed in were changed"),
        (lambda images, condition: images.sum((1, 2, 3)) * torch.nan, "reward of row 0 is nan"),
        (Learning(None), "update returned None; return a dict of finite numbers"),
        (Learning({"loss": 1.0}, forgets=True), "load_state_dict of its own state_dict changes the rewards"),
    ],
)
def test_a_broken_reward_hears_what_is_wrong(reward: Any, words: str) -> None:
    natgym.check_reward(Learning({"loss": 1.0}), (1, 8, 8), TWENTY)
    with pytest.raises(ValueError, match=words):
        natgym.check_reward(reward, (1, 8, 8), TWENTY)


class Deciding:
    """A policy of one change to the reference schedule."""

    def __init__(self, change: Any, steps: Any = 3) -> None:
        self.change, self.steps = change, steps

    def __call__(self, observation: Any, step: int) -> DecodeParams:
        return self.change(reference(3).params(step, len(observation["step"])), observation)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Deciding(lambda params, seen: params, steps=0), "steps is 0; it has to be an int of at least 1"),
        (Deciding(lambda params, seen: DecodeParams(*(2 * p for p in params))), "mask_ratio"),
        (Deciding(lambda params, seen: params._replace(mask_ratio=params[0][:1])), "decisions have shapes"),
        (Deciding(lambda params, seen: DecodeParams(*(p[:1] for p in params))), "can't be played, each has"),
        (
            Deciding(lambda params, seen: params._replace(guidance_scale=torch.rand(len(params[0])))),
            "two runs on the same noise differ",
        ),
        (
            Deciding(lambda params, seen: params._replace(guidance_scale=params[3] + len(params[0]))),
            "decided for row 0 depends on other rows",
        ),
    ],
)
def test_a_broken_policy_hears_what_is_wrong(policy: Any, words: str, digits: Any) -> None:
    natgym.check_policy(Deciding(lambda params, seen: params), digits.generator)
    with pytest.raises(ValueError, match=words):
        natgym.check_policy(policy, digits.generator)


def test_every_public_name_is_there_and_loaded_when_asked_for() -> None:
    code = """
import sys, natgym, agents
heavy = {"torch", "ray", "stable_baselines3", "matplotlib", "pandas", "scipy", "torchvision"}
assert not heavy & set(sys.modules), f"import natgym, agents loads {heavy & set(sys.modules)}"
import natgym.env, natgym.evaluation, natgym.rewards, natgym.runs, natgym.names.tasks
import agents.adanat.config, agents.autonat.config
assert not heavy & set(sys.modules), f"configs load {heavy & set(sys.modules)}"
for package in (natgym, natgym.env, natgym.evaluation, natgym.rewards, agents, agents.adanat):
    for name in package.__all__:
        assert getattr(package, name) is not None, name
    assert set(package.__all__) - {"__version__"} <= set(dir(package))
try:
    natgym.rollouts_of_mine
except AttributeError as error:
    assert "module 'natgym' has no attribute 'rollouts_of_mine'" in str(error)
else:
    raise AssertionError("a name of nobody's")
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_before_is_found_and_warns(module: str) -> None:
    home = importlib.import_module(MODULES[module][0])
    public = {
        name: value for name, value in vars(home).items() if not name.startswith("_") and callable(value)
    }
    name, value = next((name, value) for name, value in public.items() if name not in RENAMED)
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is now {home.__name__}.{name}"):
        assert getattr(importlib.import_module(module), name) is value
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'nobody'"):
        _ = importlib.import_module(module).nobody


def test_names_of_before_are_found_and_warn() -> None:
    from generators import data

    with pytest.warns(DeprecationWarning, match="natgym.judge.Judge is now natgym.evaluation.scorer.Scorer"):
        from natgym.judge import Judge
    assert Judge is Scorer
    with pytest.warns(DeprecationWarning, match="data.load_part is now generators.data.load_split"):
        assert data.load_part is data.load_split
    with pytest.warns(DeprecationWarning, match="load_generator is now Task.load"):
        generator, name = natgym.load_generator("digits")
    assert name == "digits" and generator.codebook_size == 128
    with pytest.raises(AttributeError, match="module 'generators.data' has no attribute 'load_nothing'"):
        _ = data.load_nothing


def test_policies_for_texts_are_checked_on_some() -> None:
    task = Task.load("shapes")
    texts = task.named(["a red disc", "a blue square"])
    natgym.check_policy(FixedPolicy(reference(2)), task.generator, texts)
    neighborly = Deciding(lambda params, seen: params._replace(guidance_scale=params[3] + len(params[0])))
    with pytest.raises(ValueError, match="decided for row 0 depends on other rows"):
        natgym.check_policy(neighborly, task.generator, texts)


def test_who_asks_for_a_classifier_is_told_what_there_is() -> None:
    with pytest.warns(DeprecationWarning, match="load_companion is now Task.load.name..score_extractor"):
        assert load_companion(None, "classifier", "digits").num_features == 32
