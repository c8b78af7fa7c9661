"""The trainer's doors: environments, policies, rewards, callbacks of one's own; folders that are claimed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from torch import Tensor

from agents.adanat.config import AdaNATConfig, TrainingConfig
from agents.adanat.trainer import AdaNATTrainer, train
from agents.named import load_policy
from agents.sb3 import LearnedPolicy
from generators.checkpoints import from_pretrained, load_state
from generators.schedules import PARAMETERS, reference
from natgym.check import check_policy
from natgym.env.vector import DecodeVectorEnv
from natgym.rewards import Images
from natgym.rollouts import balanced, rollout
from natgym.runs import read_metrics
from natgym.spaces import EXPONENTIAL, SIGMOID, ActionMap
from natgym.task import Task

CONFIG = AdaNATConfig(
    updates=3,
    epochs=1,
    minibatch=32,
    discriminator_batch=16,
    warmup=1,
    evaluate_every=2,
    evaluation_images=40,
)


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
    for file in ("metrics.csv", "policy/model.safetensors", "best/model.safetensors", "training.json"):
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
    for file in ("metrics.csv", "policy/model.safetensors", "best/model.safetensors"):
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
    loaded: Any = load_policy(tmp_path, "digits", policy_class=Narrow)
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

    with pytest.raises(ValueError, match="Bare has no log_std; give a class or an instance"):
        AdaNATTrainer(environment(), CONFIG, policy=Bare)


def test_an_action_map_of_ones_own_is_saved_with_the_policy(tmp_path: Path) -> None:
    own = ActionMap(reference(2), (SIGMOID, EXPONENTIAL, EXPONENTIAL, EXPONENTIAL), scale=(1, 2, 3, 0.5))
    trainer = AdaNATTrainer(environment(actions=own), CONFIG)
    trainer.fit(tmp_path)
    loaded: Any = from_pretrained(tmp_path / "policy")
    actions = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.action_map()(actions, 1).table, own(actions, 1).table)


def test_the_policy_is_the_one_that_measured_best(tmp_path: Path) -> None:
    config = AdaNATConfig(**{**vars(CONFIG), "evaluate_every": 1, "learning_rate": 0.05})
    trainer = AdaNATTrainer(environment(), config)
    trainer.fit(tmp_path)
    assert trainer.monitor.best is not None
    distances = [trainer.monitor.first.distance]
    distances += [float(row["distance"]) for row in read_metrics(tmp_path / "metrics.csv")]
    best = min(range(4), key=distances.__getitem__)
    assert trainer.monitor.best["update"] == best and len(set(distances)) == 4
    measured = [trainer.monitor.measure(policy).distance for policy in (trainer.policy(), trainer.actor())]
    assert measured == pytest.approx([distances[best], distances[-1]])
    saved = [from_pretrained(tmp_path / name) for name in ("best", "policy")]
    again = [trainer.monitor.measure(policy).distance for policy in saved]  # type: ignore[arg-type]
    assert again == pytest.approx(measured)


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
