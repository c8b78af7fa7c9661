"""The trainer's doors: environments, policies, rewards, callbacks of one's own; folders that are claimed."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from tiny import TINY
from torch import Tensor

import generators.rules
from agents.adanat.config import AdaNATConfig, TrainingConfig
from agents.adanat.learned import learned_policy
from agents.adanat.network import AdaNATPolicy, PolicyConfig, small_policy
from agents.adanat.trainer import AdaNATTrainer, train
from agents.adanat.trainings import kept_policy
from agents.named import load_policy
from agents.sb3 import LearnedPolicy
from generators import reveal
from generators.checkpoints import from_pretrained, load_state
from generators.data import load_split
from generators.noise import derive_seed
from generators.rules import DecodeRules
from generators.schedules import PARAMETERS, reference
from natgym.check import check_policy
from natgym.env.single import DecodeEnv
from natgym.env.vector import DecodeVectorEnv
from natgym.rewards import Images
from natgym.rollouts import balanced, rollout
from natgym.runs import read_metrics
from natgym.spaces import EXPONENTIAL, SIGMOID, ActionMap
from natgym.task import Task

CONFIG = dataclasses.replace(TINY.adanat, policy=small_policy())


class Narrow(MultiInputActorCriticPolicy):
    """SB3's own extractor and one narrow layer, with dropout, which evaluation must not have."""

    def __init__(self, *spaces: Any, **options: Any) -> None:
        super().__init__(*spaces, net_arch=[8], **options)
        self.mlp_extractor.policy_net.append(torch.nn.Dropout(0.5))


class Level:
    """Minus the squared distance to a brightness; it remembers what it was given."""

    learns_from = "rollout"

    def __init__(self) -> None:
        self.level, self.seeds, self.given = 0.0, list[int](), list[tuple[Images, Images]]()

    def reset(self, seed: int) -> None:
        self.level = 0.0
        self.seeds.append(seed)

    def __call__(self, images_BCHW: Tensor, condition: Any) -> Tensor:
        return -(images_BCHW.mean((1, 2, 3)) - self.level).square()

    def update(self, real: Images, fake: Images) -> dict[str, float]:
        self.given.append((real, fake))
        self.level += 0.1 * float(torch.rand(())) + 0.1 * float(real.images_BCHW.mean())
        return {"level": self.level}

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.level = state["level"]


def environment(**changed: Any) -> DecodeVectorEnv:
    return DecodeVectorEnv(32, **{"task": "digits", "steps": 2, "reward": "influence", **changed})


def stop_at(last: int) -> Any:
    return lambda trainer, metrics: metrics["update"] < last


def test_an_environment_and_a_config_are_what_the_text_says(tmp_path: Path) -> None:
    """To the bit: objects or recipes make no difference, nor does the environment's autoreset."""
    told = TrainingConfig(adanat=CONFIG).but(steps=2, trajectories=32, reward="adversarial")
    train(told, tmp_path / "text", lambda metrics: None)
    env = environment(reward="adversarial")
    assert AdaNATTrainer(env, CONFIG).fit(tmp_path / "objects") == tmp_path / "objects"
    for file in ("metrics.csv", "policy/model.safetensors", "last/model.safetensors", "training.json"):
        assert (tmp_path / "text" / file).read_bytes() == (tmp_path / "objects" / file).read_bytes(), file
    assert env.state is None, "the caller's environment was not touched"


def test_a_folder_goes_on_with_its_own_training_and_refuses_another(tmp_path: Path) -> None:
    AdaNATTrainer(environment(), CONFIG, callbacks=[stop_at(1)]).fit(tmp_path)
    assert len(read_metrics(tmp_path / "metrics.csv")) == 1 and (tmp_path / "policy").is_dir()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for env, config, said in (
        (environment(steps=3), CONFIG, "env.steps 2, this one has 3"),
        (environment(rules="halton"), CONFIG, "env.rules confidence, this one has halton"),
        (environment(), AdaNATConfig(**{**vars(CONFIG), "seed": 1}), "adanat.seed 0, this one has 1"),
        (environment(reward=Level()), CONFIG, "env.reward influence, this one has Level"),
    ):
        with pytest.raises(ValueError, match=f"holds a training with {said}; give another folder"):
            AdaNATTrainer(env, config).fit(tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    AdaNATTrainer(environment(), CONFIG).fit(tmp_path)
    AdaNATTrainer(environment(), CONFIG).fit(tmp_path / "straight")
    for file in ("metrics.csv", "policy/model.safetensors"):
        assert (tmp_path / file).read_bytes() == (tmp_path / "straight" / file).read_bytes()


def test_every_difference_is_one(tmp_path: Path) -> None:
    """Of options, parts, extractors, maps, conditions: what the folder's own training has not is refused."""
    own = [ActionMap(reference(2), (SIGMOID, *[EXPONENTIAL] * 3), scale=(1, 1, 1, last)) for last in (1, 2)]
    conditions = Task.load("digits").generator.conditions()
    options = [{"adversarial": {"learning_rate": rate, "channels": 2}} for rate in (1e-3, 1e-2)]
    pairs: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        *[
            (
                {"reward": reward, "rewards": options[0]},
                {"reward": reward, "rewards": options[1]},
                "learning_rate",
            )
            for reward in ("adversarial", "adversarial=1,influence=0.5")
        ],
        ({"actions": own[0]}, {"actions": own[1]}, "env.own_map.scale"),
        ({}, {"task": Task.load("digits", reward_extractor="score")}, "env.reward_extractor"),
        ({}, {"conditions": conditions[:3]}, "env.conditions"),
    ]
    for number, (before, after, said) in enumerate(pairs):
        folder = tmp_path / str(number)
        AdaNATTrainer(environment(**before), CONFIG, callbacks=[stop_at(1)]).fit(folder)
        with pytest.raises(
            ValueError, match=f"holds a training with env.*{said.removeprefix('env')}.*give another"
        ):
            AdaNATTrainer(environment(**after), CONFIG).fit(folder)
        AdaNATTrainer(environment(**before), CONFIG, callbacks=[stop_at(2)]).fit(folder)


def test_what_lies_in_a_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text("mine")
    (tmp_path / "metrics.csv").write_text("update\n1\n")
    with pytest.raises(ValueError, match="holds the run of something else; give another folder"):
        AdaNATTrainer(environment(), CONFIG).fit(tmp_path)
    assert (tmp_path / "policy" / "config.json").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"policy", "metrics.csv"}


@dataclasses.dataclass(frozen=True)
class Backwards:
    """Reveal from the last token to the first."""

    def __call__(self, proposal: reveal.Proposal, *rest: Any) -> Tensor:
        B, L = proposal.drawn_BL.shape
        return torch.arange(L, device=proposal.drawn_BL.device).expand(B, L).float()


def test_a_reveal_rule_of_ones_own_is_trained_on_once_it_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = DecodeRules(Backwards())
    with pytest.raises(ValueError, match="have no name, .* register the reveal rule with"):
        AdaNATTrainer(environment(rules=rules), CONFIG)
    for module in (reveal, generators.rules):
        monkeypatch.setattr(module, "REVEAL", dict(reveal.REVEAL))
    monkeypatch.setattr(generators.rules, "REVEAL", reveal.REVEAL)
    reveal.register("backwards", Backwards)
    trainer = AdaNATTrainer(environment(rules="backwards"), CONFIG)
    trainer.fit(tmp_path)
    policy = load_policy(tmp_path, "digits")
    assert policy.rules == rules  # type: ignore[attr-defined]
    revealed_NL = rollout(policy, "digits", num_images=20, seed=0).revealed_at_NL
    assert (revealed_NL.diff(dim=1) <= 0).all() and len(revealed_NL.unique()) > 1
    for name in ("backwards", "a=b"):
        with pytest.raises(ValueError, match="choose another"):
            reveal.register(name, Backwards)


class Wide(AdaNATPolicy):
    """AdaNAT's network, and a distribution of its own."""

    def get_distribution(self, obs: Any) -> Any:
        found = super().get_distribution(obs)
        found.distribution.loc += 0.25  # type: ignore[union-attr]
        return found


def test_a_child_of_the_networks_class_plays_as_itself(tmp_path: Path) -> None:
    trainer = AdaNATTrainer(environment(), CONFIG, policy=Wide)
    trainer.fit(tmp_path)
    loaded: Any = load_policy(tmp_path / "last", "digits", policy_class=Wide)
    assert isinstance(trainer.policy(), LearnedPolicy) and isinstance(loaded, LearnedPolicy)
    drawn = [rollout(one, "digits", num_images=10, seed=1) for one in (loaded, trainer.actor())]
    assert torch.equal(drawn[0].tokens_NL, drawn[1].tokens_NL)
    assert drawn[0].frame["action_mask_ratio"].mean() > 0.1


@pytest.mark.parametrize(
    ("config", "policy", "said"),
    [
        ({}, "MultiInputPolicy", "'MultiInputPolicy' is no actor-critic policy; give a class or an instance"),
        ({"policy": PolicyConfig()}, Narrow, "config.policy has AdaNAT's widths, and the policy is another"),
    ],
)
def test_what_a_policy_would_ignore_is_refused(config: dict[str, Any], policy: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AdaNATTrainer(environment(), AdaNATConfig(**{**vars(CONFIG), **config}), policy=policy)


def test_a_sum_of_rewards_is_measured_by_its_discriminator(tmp_path: Path) -> None:
    env = environment(reward=[("adversarial", 1.0), (lambda images, c: [0.5] * len(images), 1.0)])
    trainer = AdaNATTrainer(env, CONFIG)
    vitals = trainer.monitor.measure(trainer.actor())
    assert 0 <= vitals.told_apart <= 1, "the second part, of a list, changes nothing"
    alone = AdaNATTrainer(environment(reward="adversarial"), CONFIG)
    assert vitals.told_apart == alone.monitor.measure(alone.actor()).told_apart


def test_callbacks_are_functions_or_objects_and_all_are_asked(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    class Watch:
        def on_update(self, trainer: AdaNATTrainer, metrics: dict[str, float]) -> bool:
            assert load_state(tmp_path / "checkpoint.pt")["done"] == trainer.done, "it is saved already"
            seen.append(("object", trainer.done))
            return trainer.done < 2

    def note(trainer: AdaNATTrainer, metrics: dict[str, float]) -> None:
        seen.append(("function", int(metrics["update"])))

    AdaNATTrainer(environment(), CONFIG, callbacks=[Watch(), note]).fit(tmp_path)
    assert seen == [("object", 1), ("function", 1), ("object", 2), ("function", 2)]


def test_a_reward_that_learns_from_the_rollout_is_given_it_and_costs_nothing(tmp_path: Path) -> None:
    reward = Level()
    trainer = AdaNATTrainer(environment(reward=reward), CONFIG)
    rollouts = []
    for _ in range(3):
        trainer.update()
        rollouts.append(trainer.env.images)
    assert len(reward.seeds) == 1 and [fake.num_images for _, fake in reward.given] == [32] * 3
    for (real, fake), images in zip(reward.given, rollouts, strict=True):
        assert images is not None and torch.equal(fake.images_BCHW, images)
        assert real.num_images == 32 and len(real.condition) == 32
    assert trainer.images_spent == 3 * 32 + 3 * 40, "rollouts, and measurements at 0, 2 and 3"


def test_it_resumes_to_the_bit_with_a_reward_of_ones_own(tmp_path: Path) -> None:
    for folder, stop in (("straight", 9), ("halved", 2), ("halved", 9)):
        env = environment(reward=Level())
        AdaNATTrainer(env, CONFIG, callbacks=[stop_at(stop)]).fit(tmp_path / folder)
    for file in ("metrics.csv", "policy/model.safetensors", "last/model.safetensors"):
        assert (tmp_path / "straight" / file).read_bytes() == (tmp_path / "halved" / file).read_bytes()


@pytest.mark.parametrize("instance", [False, True])
def test_a_network_of_ones_own_is_trained_saved_and_loaded(tmp_path: Path, instance: bool) -> None:
    env = environment(observation="pooled", rules="halton", parameters=PARAMETERS[2:], smoothing=0.3)
    policy: Any = Narrow
    if instance:
        torch.manual_seed(0)
        policy = Narrow(env.single_observation_space, env.single_action_space, lambda _: 1e-3)
    trainer = AdaNATTrainer(env, CONFIG, policy=policy)
    before = {name: value.clone() for name, value in trainer.ppo.policy.state_dict().items()}
    trainer.fit(tmp_path)
    moved = [name for name, value in trainer.ppo.policy.state_dict().items() if not value.equal(before[name])]
    assert {"action_net.weight", "value_net.weight", "log_std"} <= set(moved)
    assert json.loads((tmp_path / "policy" / "config.json").read_text())["config"]["class"].endswith(
        ":Narrow"
    )
    loaded: Any = load_policy(tmp_path / "last", "digits", policy_class=Narrow)
    assert isinstance(loaded, LearnedPolicy) and loaded.rules == env.rules
    check_policy(loaded, env.generator)
    drawn = [rollout(one, "digits", num_images=20, seed=1) for one in (loaded, trainer.actor())]
    assert torch.equal(drawn[0].tokens_NL, drawn[1].tokens_NL)
    assert drawn[0].frame["action_mask_ratio"].isna().all(), "it sets the other parameters alone"
    with pytest.raises(ValueError, match=r"class .*:Narrow, which is not natgym's; load it with"):
        load_policy(tmp_path, "digits")
    with pytest.raises(ValueError, match=r"policy .*:Narrow, this one has None"):
        AdaNATTrainer(env, CONFIG).fit(tmp_path)


def test_a_policy_without_a_standard_deviation_is_refused() -> None:
    class Bare(torch.nn.Module):
        def __init__(self, *spaces: Any, **options: Any) -> None:
            super().__init__()

    with pytest.raises(ValueError, match="Bare.*is no actor-critic policy; give a class or an instance"):
        AdaNATTrainer(environment(), CONFIG, policy=Bare)


def test_an_action_map_of_ones_own_is_saved_with_the_policy(tmp_path: Path) -> None:
    own = ActionMap(reference(2), (SIGMOID, EXPONENTIAL, EXPONENTIAL, EXPONENTIAL), scale=(1, 2, 3, 0.5))
    trainer = AdaNATTrainer(environment(actions=own), CONFIG)
    trainer.fit(tmp_path)
    loaded: Any = from_pretrained(tmp_path / "policy")
    actions = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.action_map()(actions, 1).table, own(actions, 1).table)


def test_the_policy_is_the_best_of_the_finalists_on_fresh_noise(tmp_path: Path) -> None:
    changed = {"evaluate_every": 1, "learning_rate": 0.05, "finalists": 3, "final_images": 60}
    config = AdaNATConfig(**{**vars(CONFIG), **changed})
    weights: dict[int, Any] = {}

    def keep(trainer: AdaNATTrainer, metrics: Any) -> None:
        weights[trainer.done] = copy.deepcopy(trainer.ppo.policy.state_dict())

    trainer = AdaNATTrainer(environment(), config, callbacks=[keep])
    weights[0] = copy.deepcopy(trainer.ppo.policy.state_dict())
    trainer.fit(tmp_path)
    rows = read_metrics(tmp_path / "metrics.csv")
    distances = [trainer.monitor.first.distance, *(float(row["distance"]) for row in rows)]
    assert len(set(distances)) == 4
    finalists = sorted(range(4), key=distances.__getitem__)[:3]

    env, scorer = trainer.env, trainer.monitor.scorer
    assert scorer is not None
    again = {}
    for update in finalists:
        policy = learned_policy(trainer.ppo.policy, env, weights[update])
        condition = balanced(env.generator.conditions(), 60)
        seed = derive_seed(config.seed, "finalists")
        drawn = rollout(policy, env.generator, env.tokenizer, condition, seed=seed)
        again[update] = scorer.distance(drawn.images_NCHW)
    best = min(again, key=lambda update: again[update])
    kept = kept_policy(tmp_path)
    assert kept == (best, pytest.approx(again[best]), 3)
    assert int(rows[-1]["images_spent"]) == trainer.images_spent
    measured = 4 * config.evaluation_images + 3 * 60
    assert trainer.images_spent == 3 * env.num_envs + trainer.teacher.images + measured

    observation, _ = env.reset(seed=1)
    for name, update in (("policy", best), ("last", 3)):
        expected = learned_policy(trainer.ppo.policy, env, weights[update])
        saved: Any = from_pretrained(tmp_path / name)
        assert torch.equal(saved(observation, 0).table, expected(observation, 0).table), name


def test_one_finalist_is_the_best_measurement(tmp_path: Path) -> None:
    changed = {"evaluate_every": 1, "learning_rate": 0.05, "finalists": 1}
    trainer = AdaNATTrainer(environment(), AdaNATConfig(**{**vars(CONFIG), **changed}))
    trainer.fit(tmp_path)
    distances = [trainer.monitor.first.distance]
    distances += [float(row["distance"]) for row in read_metrics(tmp_path / "metrics.csv")]
    assert trainer.monitor.best is not None
    assert trainer.monitor.best["distance"] == min(distances)
    assert trainer.monitor.best["update"] == distances.index(min(distances))


def test_without_a_task_only_what_does_not_learn_is_trained_on(tmp_path: Path) -> None:
    task: Any = Task.load("digits")
    live = {"task": None, "generator": task.generator, "tokenizer": task.tokenizer}

    def ink(images: Tensor, condition: Any) -> Tensor:
        return images.mean((1, 2, 3))

    trainer = AdaNATTrainer(environment(**live, reward=ink), CONFIG)
    trainer.fit(tmp_path)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["distance"] for row in rows] == ["nan"] * 3 and trainer.images_spent == 3 * 32
    assert trainer.policy().steps == 2
    with pytest.raises(
        ValueError, match="reward Level learns from real images, and a generator without a task"
    ):
        AdaNATTrainer(environment(**live, reward=Level()), CONFIG)


def test_what_would_be_silent_is_told(tmp_path: Path) -> None:
    class Loud(Level):
        def update(self, real: Images, fake: Images) -> dict[str, float]:
            return {"distance": 0.0}

    class Odd(Level):
        def state_dict(self) -> dict[str, Any]:
            return {"path": tmp_path}

    class Forgetful(Level):
        load_state_dict = property()  # type: ignore[assignment]

    class Mute(Level):
        def update(self, real: Images, fake: Images) -> Any:
            return None

    for kind, said in (
        (Odd, "state_dict of reward Odd holds a PosixPath; give tensors, numbers and texts"),
        (Mute, "update of reward Mute returned None: metrics has to be a finite number"),
    ):
        with pytest.raises(ValueError, match=said):
            AdaNATTrainer(environment(reward=kind()), CONFIG).fit(tmp_path / kind.__name__)
    AdaNATTrainer(environment(reward=Forgetful()), CONFIG, callbacks=[stop_at(1)]).fit(tmp_path / "begun")
    with pytest.raises(ValueError, match="reward Forgetful learns and has no state_dict and load_state_dict"):
        AdaNATTrainer(environment(reward=Forgetful()), CONFIG).fit(tmp_path / "begun")
    with pytest.raises(ValueError, match="callback 3 is no function"):
        AdaNATTrainer(environment(), CONFIG, callbacks=[3])
    with pytest.raises(
        ValueError, match="DecodeEnv is no DecodeVectorEnv; make one, or use gymnasium.make_vec"
    ):
        AdaNATTrainer(DecodeEnv(task="digits"), CONFIG)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="discriminator_batch 16 must divide the environment's 20 rows"):
        AdaNATTrainer(environment(reward="adversarial").like(num_envs=20), CONFIG)
    with pytest.raises(ValueError, match="'distance' is reported twice; let the reward rename its own"):
        AdaNATTrainer(environment(reward=Loud()), CONFIG).fit(tmp_path / "loud")
    trainer = AdaNATTrainer(environment(), CONFIG)
    trainer.fit(tmp_path / "first")
    with pytest.raises(ValueError, match="second is new, and this trainer has taken 3 updates; make another"):
        trainer.fit(tmp_path / "second")
    Level.learns_from, before = "dreams", Level.learns_from
    try:
        with pytest.raises(ValueError, match="learns_from 'dreams' is not one of rollout, fresh"):
            AdaNATTrainer(environment(reward=Level()), CONFIG)
    finally:
        Level.learns_from = before


def test_the_program_that_everything_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Played by hand, so that what a learned policy draws is what its actions mean."""
    trainer = AdaNATTrainer(environment(rules="halton"), CONFIG)
    trainer.fit(tmp_path)
    policy = trainer.policy()
    condition = balanced(trainer.env.generator.conditions(), 10)
    drawn = rollout(policy, "digits", condition=condition, seed=0)
    env = environment(rules="halton", autoreset=False).like(num_envs=10)
    observation, _ = env.reset(seed=0, options={"condition": condition})
    for step in range(2):
        action = policy.decide(observation, step).action_B4
        assert action is not None
        observation, *_, info = env.step(action)
    assert (drawn.tokens_NL.numpy() == info["tokens"]).all()


def test_real_images_are_decoded_only_when_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the train split's tokens, to the bit; `mmd` knows all of the split and looks at none."""
    tokenizer = copy.copy(Task.load("digits").tokenizer)
    decoded: list[int] = []

    def counting(ids_BL: Tensor) -> Tensor:
        decoded.append(len(ids_BL))
        return type(tokenizer).decode(tokenizer, ids_BL)

    tokenizer.decode = counting  # type: ignore[method-assign]
    trainer = AdaNATTrainer(environment(reward="mmd", task=Task.load("digits", tokenizer=tokenizer)), CONFIG)
    real = trainer.teacher.real
    assert not decoded
    train, rows = load_split("digits", "train"), torch.tensor([1100, 3, 3])
    whole_NCHW = Task.load("digits").tokenizer.decode(tokenizer.encode(train.images_NCHW))
    for some, theirs in ((real[rows], rows), (real.take(rows)[torch.tensor([1])], rows[1:2])):
        assert torch.equal(some, whole_NCHW[theirs])
    assert decoded == [3, 1] and len(real) == len(train)
    assert real.take(rows).condition.values.tolist() == train.condition.values[rows].tolist()

    trainer.env.reset(seed=0)
    fake = Images(whole_NCHW[:32], train.condition[:32])
    decoded.clear()
    trainer.teacher.teach(None, 0, fake)
    assert not decoded
    looking = AdaNATTrainer(trainer.env.like(reward=Level()), CONFIG)
    looking.teacher.teach(None, 0, fake)
    assert decoded == [32]
