"""AdaNAT's training: it moves the policy, resumes exactly, and never looks at the report split."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from tqdm import tqdm

import generators.parts
import natgym.env.vector
import natgym.rollouts
from agents.adanat import folders
from agents.adanat.config import TrainingConfig
from agents.adanat.trainer import AdaNATTrainer, train
from agents.autonat.search import GridConfig, SearchConfig
from generators import data
from generators.checkpoints import from_pretrained, load_state
from generators.data import Split, load_split
from generators.reveal import Halton, halton_order
from generators.rules import DecodeRules
from natgym.rewards import AdversarialReward, Images, make_reward
from natgym.rollouts import balanced, rollout
from natgym.runs import Run, read_metrics
from natgym.task import Task

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


class Killed(Exception):
    pass


def nothing(metrics: dict[str, float]) -> None:
    pass


def until(last: int) -> Any:
    """A report that stops the process after an update."""

    def report(metrics: dict[str, float]) -> None:
        if metrics["update"] == last:
            raise Killed

    return report


def leaves(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(state, dict):
        for key, value in state.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(state, list | tuple):
        for at, value in enumerate(state):
            yield from leaves(value, f"{path}/{at}")
    else:
        yield path, state


def assert_same_run(one: Path, other: Path) -> None:
    """Checkpoint, metrics and policy are the same, bit for bit."""
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    weights = "policy/model.safetensors"
    assert (one / weights).read_bytes() == (other / weights).read_bytes()
    first, second = (dict(leaves(load_state(folder / "checkpoint.pt"))) for folder in (one, other))
    assert first.keys() == second.keys()
    for path, value in first.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, second[path]), path
        else:  # numbers and names; what was not measured is not a number
            assert repr(value) == repr(second[path]), path


@pytest.fixture(scope="module")
def four_updates(tiny: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run that resumed ones are compared with."""
    folder = tmp_path_factory.mktemp("straight")
    train(tiny.but(updates=4), folder, nothing)
    return folder


def test_training_moves_actor_critic_and_discriminator(tiny: TrainingConfig, four_updates: Path) -> None:
    untrained = dict(leaves(AdaNATTrainer.of(tiny).state_dict()))
    trained = dict(leaves(load_state(four_updates / "checkpoint.pt")))
    moved = {
        path
        for path, value in untrained.items()
        if isinstance(value, Tensor) and not torch.equal(value, trained[path])
    }
    for part in (
        "/policy/pi_features_extractor.trunk.depthwise.weight",
        "/policy/vf_features_extractor.trunk.depthwise.weight",
        "/policy/action_net.weight",
        "/policy/value_net.weight",
        "/policy/log_std",
    ):
        assert part in moved
    assert any(path.startswith("/reward/discriminator/trunk") for path in moved)
    actor: Any = from_pretrained(four_updates / "last")
    assert actor.steps == 2 and actor.head.weight.abs().max() > 0


def test_metrics_say_what_happened(tiny: TrainingConfig, four_updates: Path) -> None:
    rows = read_metrics(four_updates / "metrics.csv")
    assert [int(row["update"]) for row in rows] == [1, 2, 3, 4]
    spent = [int(row["images_spent"]) for row in rows]
    assert spent == sorted(spent) and spent[-1] == tiny.but(updates=4).total_images
    stds = [float(row["action_std"]) for row in rows]
    assert stds == pytest.approx([0.3, 0.3 - 0.1 / 3, 0.3 - 0.2 / 3, 0.2])
    assert all(0 < float(row["reward"]) < 1 for row in rows)
    assert float(rows[-1]["distance"]) > 0 and rows[1]["distance"] == rows[2]["distance"]


def test_a_killed_run_ends_as_the_uninterrupted_one(
    tiny: TrainingConfig, four_updates: Path, tmp_path: Path
) -> None:
    config = tiny.but(updates=4)
    with pytest.raises(Killed):
        train(config, tmp_path, until(2))
    assert not (tmp_path / "policy").exists()
    train(config, tmp_path, nothing)
    assert_same_run(tmp_path, four_updates)


def test_a_kill_between_log_and_checkpoint_is_no_exception(
    tiny: TrainingConfig, four_updates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logged update is taken again and its line, with the half one after it, written anew."""
    config = tiny.but(updates=4)

    def dying_save(path: Path, state: dict[str, Any]) -> None:
        if state["done"] == 3:
            raise Killed
        save_state(path, state)

    save_state = folders.save_state
    with monkeypatch.context() as patch:
        patch.setattr(folders, "save_state", dying_save)
        with pytest.raises(Killed):
            train(config, tmp_path, nothing)
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("4,32")
    assert len(read_metrics(tmp_path / "metrics.csv")) == 3
    train(config, tmp_path, nothing)
    assert_same_run(tmp_path, four_updates)


def test_a_finished_run_trains_no_more(
    tiny: TrainingConfig, four_updates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("metrics.csv", "checkpoint.pt", "training.json"):
        (tmp_path / name).write_bytes((four_updates / name).read_bytes())
    monkeypatch.setattr(AdaNATTrainer, "update", lambda trainer: pytest.fail("another update"))
    train(tiny.but(updates=4), tmp_path, nothing)
    assert_same_run(tmp_path, four_updates)


def test_another_seed_is_another_run(tiny: TrainingConfig, four_updates: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tiny.but(updates=4, seed=1), tmp_path, until(1))
    found, reference = (read_metrics(folder / "metrics.csv")[0] for folder in (tmp_path, four_updates))
    for name in ("reward", "value_loss", "discriminator_loss"):
        assert found[name] != reference[name]
    assert found["images_spent"] == reference["images_spent"]


def test_the_images_spent_are_those_drawn(
    tiny: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def counting_start(generator: Any, condition: Any, **rest: Any) -> Any:
        drawn.append(len(condition))
        return start(generator, condition, **rest)

    start = generators.parts.start
    for module in (generators.parts, natgym.rollouts):
        monkeypatch.setattr(module, "start", counting_start)
    reported: list[float] = []
    config = tiny.but(warmup=2, updates=3)
    train(config, tmp_path, lambda metrics: reported.append(metrics["images_spent"]))
    assert sum(drawn) == reported[-1] == config.total_images


@pytest.mark.parametrize("reward", ["influence", "classifier"])
def test_a_reward_that_does_not_learn_costs_no_fresh_pictures(
    tiny: TrainingConfig, reward: str, tmp_path: Path
) -> None:
    config = tiny.but(reward=reward)
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    for folder in (straight, stopped):
        folder.mkdir()
    train(config, straight, nothing)
    rows = read_metrics(straight / "metrics.csv")
    assert int(rows[-1]["images_spent"]) == config.total_images == 3 * 32 + 3 * 40
    assert "discriminator_loss" not in rows[0]
    with pytest.raises(Killed):
        train(config, stopped, until(2))
    train(config, stopped, nothing)
    assert_same_run(stopped, straight)


def test_a_blind_policy_decides_by_the_step_alone(tiny: TrainingConfig, tmp_path: Path) -> None:
    config = tiny.but({"policy.blind": True}, learning_rate=0.1)
    train(config, tmp_path, nothing)
    actor: Any = from_pretrained(tmp_path / "last")
    features = torch.randn(5, 16, 64, generator=torch.Generator().manual_seed(0))
    params = [actor({"features": features, "step": torch.full((5, 1), float(step))}, step) for step in (0, 1)]
    for decided in params:
        assert all((values == values[0]).all() for values in decided)
    moved = params[0].sampling_temperature[0] - actor.action_map().schedule.table_T4[0, 2]
    assert moved.abs() > 1e-4, "it has learned"


def test_the_warm_up_explores_as_the_first_update_does(
    tiny: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actions that its images come from have the first standard deviation, around zero."""
    played: list[Tensor] = []

    def spying_step(env: Any, actions: Any) -> Any:
        played.append(torch.as_tensor(actions))
        return step(env, actions)

    step = natgym.env.vector.DecodeVectorEnv.step
    monkeypatch.setattr(natgym.env.vector.DecodeVectorEnv, "step", spying_step)
    AdaNATTrainer.of(tiny.but(trajectories=256, warmup=2, action_std=(0.3, 0.1))).warm_up()
    actions = torch.cat(played)
    assert actions.shape == (2 * 2 * 256, 4) and actions.std().item() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("real", ["tokens", "raw"])
def test_the_discriminator_sees_only_real_pictures_of_the_train_part(
    tiny: TrainingConfig, real: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own class, as it is or as its tokens show it."""
    seen: list[tuple[bytes, int]] = []

    def spying_update(reward: Any, real: Images, fake: Images) -> Any:
        seen.extend(pairs(real.images_BCHW, real.condition.values))
        return update(reward, real, fake)

    def pairs(images: Tensor, labels: Tensor) -> list[tuple[bytes, int]]:
        rows = zip(images, labels, strict=True)
        return [(image.numpy().tobytes(), int(label)) for image, label in rows]

    update = AdversarialReward.update
    monkeypatch.setattr(AdversarialReward, "update", spying_update)
    config = tiny.but(updates=1, real=real)
    with pytest.raises(Killed):
        train(config, tmp_path, until(1))
    part, images = load_split("digits", "train"), load_split("digits", "train").images_NCHW
    if real == "tokens":
        tokenizer = Task.load("digits").tokenizer
        images = tokenizer.decode(tokenizer.encode(images))
    assert len(seen) == (config.adanat.warmup + 1) * config.env.trajectories
    assert set(seen) <= set(pairs(images, part.condition.values))
    assert len(set(seen)) > len(seen) / 2, "not the same few again and again"


def test_neither_search_nor_training_touches_the_report_part(
    tiny: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def guarded(part: Any) -> Split:
        asked.append(part)
        if part == "report":
            raise PermissionError("the report split is for the tables")
        return digits(part)

    digits = data.DATA_SETS["digits"]
    monkeypatch.setitem(data.DATA_SETS, "digits", guarded)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr(sys, "argv", ["adanat_ppo.py"])
    script, work = (importlib.import_module(name) for name in ("adanat_ppo", "_adanat_ppo"))
    grid = GridConfig(remask=(1.0, 8.0), sampling=(1.0,), guidance=(1.0,))
    search = SearchConfig(images_per_evaluation=40, budget=300, final_images=40, coarse=grid)
    args = script.Args(train=tiny.but(updates=1), search=search, images=40, local=True, threads=1)
    scorer, run = work.load(args), Run.create("adanat_ppo", tmp_path / "run", args)
    with tqdm(disable=True) as bar:
        trained = work.learn(args, run, bar)
        static = work.search_schedule(args, run, scorer, bar)
        contestants = work.contest(args, scorer, static, trained)
        assert set(asked) == {"train", "select"} and {"static-search", "adanat"} <= set(contestants)
        with pytest.raises(PermissionError):
            work.compare(args, run, contestants, trained, bar)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"updates": 0}, "updates"),
        ({"trajectories": 0}, "trajectories"),
        ({"epochs": 0}, "epochs"),
        ({"minibatch": -1}, "minibatch"),
        ({"discriminator_batch": 0}, "discriminator_batch"),
        ({"trajectories": 100, "discriminator_batch": 64, "reward": "adversarial"}, "discriminator_batch"),
        ({"finalists": 0}, "finalists"),
        ({"final_images": 0}, "final_images"),
        ({"group": 3}, "group 3: it must divide trajectories 1024"),
        ({"baseline": "rloo"}, "baseline rloo compares the rows of a group"),
        ({"action_std": (0.3, 0.0)}, "action_std"),
        ({"learning_rate": -1e-3}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"evaluation_images": 0}, "evaluation_images"),
        ({"warmup": -1}, "warmup"),
        ({"reward": "influense"}, "influense"),
    ],
)
def test_a_bad_value_is_named_before_anything_starts(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        TrainingConfig.of(**values)
    assert "\n" not in str(caught.value)


def test_a_task_is_called_by_its_name_and_no_machines_path(tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    assert TrainingConfig.of(task="mnist/enat").env.task_name == "mnist/enat"
    assert TrainingConfig.of(task=str(tmp_path / "birds")).env.task_name == "birds"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"task": "faces"}, "faces"),
        ({"generator": "no/such/folder"}, "no/such/folder"),
        ({"schedule": "no-such.json"}, "no-such.json"),
        ({"actions": "papr"}, "papr"),
    ],
)
def test_what_cannot_be_found_is_a_value_error(
    tiny: TrainingConfig, values: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        AdaNATTrainer.of(tiny.but(**values))


class Brightness:
    """A learning reward of nobody's: minus the squared distance to a mean brightness, which it learns."""

    def __init__(self) -> None:
        self.level, self.updates = torch.zeros(()), 0

    def __call__(self, images_BCHW: Tensor, condition: Any) -> Tensor:
        return -(images_BCHW.mean((1, 2, 3)) - self.level).square()

    def update(self, real: Images, fake: Images) -> dict[str, float]:
        assert real.num_images == len(real.condition) == fake.num_images == len(fake.condition) == 16
        self.level = (
            0.9 * self.level + 0.1 * real.images_BCHW.mean() + 1e-3 * torch.rand(())
        )  # also at random
        self.updates += 1
        return {"level": float(self.level)}

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.level, self.updates = state["level"], state["updates"]


@pytest.mark.parametrize("summed", [False, True])
def test_a_learning_reward_of_ones_own_learns_and_resumes(
    tiny: TrainingConfig, tmp_path: Path, summed: bool
) -> None:
    """Alone and as a part of a sum; killed after two updates it ends where the uninterrupted run does."""

    def made() -> tuple[Brightness, Any]:
        own = Brightness()
        return own, make_reward([(own, 2.0), ("classifier", 0.1)], "digits") if summed else own

    folders = [tmp_path / name for name in ("straight", "killed")]
    for folder in folders:
        folder.mkdir()
    own, reward = made()
    train(tiny, folders[0], nothing, reward=reward)
    assert own.updates == (1 + 3) * 2, "one warm-up and three updates, of 2 batches"
    rows = read_metrics(folders[0] / "metrics.csv")
    assert len({row["level"] for row in rows}) == 3
    with pytest.raises(Killed):
        train(tiny, folders[1], until(2), reward=made()[1])
    train(tiny, folders[1], nothing, reward=made()[1])
    assert_same_run(*folders)


def test_a_policy_is_trained_on_any_order_and_keeps_it(tiny: TrainingConfig, tmp_path: Path) -> None:
    """Training, measurement and the saved actor reveal along the Halton sequence."""
    train(tiny.but(rules="halton,min_reveal=0"), tmp_path, nothing)
    actor: Any = from_pretrained(tmp_path / "policy")
    assert actor.rules == DecodeRules(Halton((4, 4)), min_reveal=0)
    task = Task.load("digits")
    nets = task.generator, task.tokenizer
    revealed_NL = rollout(actor, *nets, balanced(task.generator.conditions(), 20), seed=0).revealed_at_NL
    in_order_NL = revealed_NL[:, halton_order((4, 4))]
    assert (in_order_NL.diff(dim=1) >= 0).all() and len(revealed_NL.unique()) > 1


def test_a_sum_with_a_discriminator_learns_and_resumes(tiny: TrainingConfig, tmp_path: Path) -> None:
    config = tiny.but(reward="adversarial=1,influence=0.5")
    assert config.total_images == tiny.total_images
    folders = [tmp_path / name for name in ("straight", "killed")]
    for folder in folders:
        folder.mkdir()
    train(config, folders[0], nothing)
    with pytest.raises(Killed):
        train(config, folders[1], until(1))
    train(config, folders[1], nothing)
    assert_same_run(*folders)
    assert len({row["discriminator_loss"] for row in read_metrics(folders[0] / "metrics.csv")}) == 3
    with pytest.raises(ValueError, match="reward 'luck' is not one of adversarial, caption, classifier"):
        tiny.but(reward="adversarial=1,luck=2")
