"""A task is what its folder says: networks, images and splits, each loaded when it is asked for."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import natgym.task
from agents.adanat.config import TrainingConfig
from generators.checkpoints import PRETRAINED, from_pretrained, save_pretrained, weights_hash
from generators.data import load_split
from generators.enat import ENAT
from generators.encoders import WordEncoder
from generators.nat import NAT
from generators.puzzles.data import PUZZLES
from natgym.env.vector import DecodeVectorEnv
from natgym.rewards import AdversarialConfig, RewardOptions, make_reward, register_reward
from natgym.rewards.named import NAMED
from natgym.task import Task, read_task, shipped

KINDS = ("generator", "tokenizer", "score_extractor", "reward_extractor")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The digits under another name, outside of what is shipped."""
    shutil.copytree(PRETRAINED / "digits", tmp_path / "numerals")
    return tmp_path / "numerals"


def play(env: DecodeVectorEnv) -> Any:
    env.reset(seed=3)
    for _ in range(env.steps):
        *_, info = env.step(torch.zeros(env.action_space.shape))
    return info["tokens"]


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_what_judges_is_never_what_rewards_look_through(name: str) -> None:
    task: Any = Task.load(name)
    assert weights_hash(task.score_extractor) != weights_hash(task.reward_extractor)
    assert task.score_extractor.num_features == task.reward_extractor.num_features
    part = load_split(task.data, "select") if name == "digits" else None
    if part is not None:
        right = task.reward_extractor(part.images_NCHW)[1].argmax(-1) == part.condition.values
        assert right.float().mean() > 0.97


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_task_says_what_its_images_are(name: str) -> None:
    task = Task.load(name)
    assert task.description is not None and task.description.recipe == name
    puzzle = name in PUZZLES
    assert len(task.description.class_names) == (1 if puzzle else 0 if name == "shapes" else 10)
    assert task.given == (f"#given={'unique' if name == 'chain' else 'few'}" if puzzle else "")
    if name == "digits":
        images = task.images("select")
        assert images.image_shape == (1, *(task.description.image_size or ()))
        assert images.class_names == task.description.class_names
        assert torch.equal(task.split("select").images_NCHW, load_split("digits", "select").images_NCHW)


def test_nothing_is_loaded_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natgym.task, "from_pretrained", lambda *_: pytest.fail("a network was loaded"))
    monkeypatch.setattr(natgym.task, "open_split", lambda *_: pytest.fail("images were loaded"))
    task = Task.load("digits")
    assert all(task.has(kind) for kind in KINDS) and "digits" in str(task)
    assert not Task.load("cifar10").has("tokenizer")


def test_a_task_of_ones_own_plays_like_the_shipped_one(copied: Path, monkeypatch: Any) -> None:
    """By path, relative or not, and by the path of one of its generators; nothing asks for its name."""
    expected = play(DecodeVectorEnv(4, task="digits", steps=2))
    monkeypatch.chdir(copied.parent)
    for spec in (copied, "numerals", "numerals/nat"):
        env = DecodeVectorEnv(4, task=spec, steps=2, reward="influence")
        assert env.task.name == "numerals" and (play(env) == expected).all()
        assert Task.load(env.task.spec).folder == copied, "wherever it is loaded again"
    assert Task.load("digits").folder == PRETRAINED / "digits"


def test_a_folder_at_hand_comes_before_what_is_shipped(copied: Path, monkeypatch: Any) -> None:
    copied.rename(copied.parent / "digits")
    monkeypatch.chdir(copied.parent)
    assert Task.load("digits").folder == Path("digits")


def test_images_lie_where_the_file_says_from_its_own_folder(copied: Path) -> None:
    content = json.loads((copied / "task.json").read_text())
    (copied / "pixels").mkdir()
    (copied / "task.json").write_text(json.dumps(content | {"data": "pixels#size=8"}))
    assert read_task(copied).data == f"{copied / 'pixels'}#size=8"
    (copied / "task.json").write_text(json.dumps(content | {"date": "now"}))
    with pytest.raises(ValueError, match=r"task.json does not fit a task: Description has no date"):
        Task.load(copied)


def test_a_task_and_its_member_have_one_name() -> None:
    assert isinstance(Task.load("mnist").generator, NAT)
    task = Task.load("mnist/enat")
    assert isinstance(task.generator, ENAT) and (task.name, task.spec) == ("mnist", "mnist/enat")


def test_live_networks_and_folders_take_the_place_of_its_own(tmp_path: Path) -> None:
    own = Task.load("digits")
    assert own.generator is not None and own.score_extractor is not None  # what is loaded is shared
    live: Any = from_pretrained(PRETRAINED / "digits" / "extractors" / "score")
    save_pretrained(live, tmp_path / "judge")
    task = Task.load("digits", score_extractor=live, reward_extractor=tmp_path / "judge", tokenizer="digits")
    assert task.score_extractor is live
    assert weights_hash(task.reward_extractor) == weights_hash(live)  # type: ignore[arg-type]
    assert weights_hash(task.tokenizer) == weights_hash(own.tokenizer)  # type: ignore[arg-type]
    changed = own.like(reward_extractor="score")
    assert changed.reward_extractor is changed.score_extractor is own.score_extractor
    assert changed.generator is own.generator and own.reward_extractor is not changed.reward_extractor
    again = changed.like(score_extractor=live)
    assert again.reward_extractor is again.score_extractor is live, "the score's own, whichever that is"


def test_a_copy_opens_no_images_again_and_asks_again_what_belongs_to_whom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, opened, real = Task.load("shapes"), list[str](), natgym.task.open_split

    def counted(data: str, split: Any) -> Any:
        opened.append(split)
        return real("digits", split)  # no captions, which take seconds to read

    monkeypatch.setattr("natgym.task.open_split", counted)
    assert own.generator is not None and len(own.images("select")) and len(opened) == 1
    copy = own.like(reward_extractor="score")
    assert len(copy.images("select")) and len(copy.images("report")) and len(own.images("report"))
    assert len(opened) == 2, "what either opens, both have"
    config: Any = own.encoder.config  # type: ignore[attr-defined]
    other = own.like(encoder=WordEncoder(replace(config, words=config.words[::-1])))
    with pytest.raises(ValueError, match="learned from texts read by .*, the encoder is"):
        _ = other.generator
    assert len(other.images("select")) and len(opened) == 3, "its texts are read by another"


def test_the_folder_of_a_saved_generator_says_its_task(tmp_path: Path) -> None:
    generator: Any = Task.load("digits").generator
    save_pretrained(generator, tmp_path / "saved", task="digits")
    task = Task.load(tmp_path / "saved")
    assert task.name == "digits" and task.folder == PRETRAINED / "digits"
    assert weights_hash(task.generator) == weights_hash(generator)  # type: ignore[arg-type]
    save_pretrained(generator, tmp_path / "foreign")
    foreign = Task.load(tmp_path / "foreign")
    with pytest.raises(ValueError, match="has no tokenizer: give `tokenizer=`"):
        _ = foreign.tokenizer


def test_it_crosses_to_other_processes_by_name_with_what_was_changed(copied: Path) -> None:
    for spec in ("digits", copied):
        task = Task.load(spec)
        _ = task.generator
        sent = pickle.dumps(task)
        again = pickle.loads(sent)
        assert len(sent) < 1000 and again.folder == task.folder and again.spec == task.spec
    live = Task.load("digits").tokenizer
    again = pickle.loads(pickle.dumps(Task.load("digits", tokenizer=live, reward_extractor="score")))
    assert weights_hash(again.tokenizer) == weights_hash(live)  # type: ignore[arg-type]
    assert again.reward_extractor is again.score_extractor
    alone = pickle.loads(pickle.dumps(Task(tokenizer=live)))
    assert alone.name is None and weights_hash(alone.tokenizer) == weights_hash(live)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            "digitz",
            r"'digitz' is neither .* nor a shipped task \(chain, cifar10, .*, shapes, sudoku-4, .*\)",
        ),
        ("mnist/foo", "'mnist/foo' is neither"),
        ("digits/tokenizer", "holds a PatchKMeans, which is not a generator"),
    ],
)
def test_what_is_no_task_is_told_in_one_line(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        _ = Task.load(spec).generator
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_told_with_what_makes_it(copied: Path) -> None:
    shutil.rmtree(copied / "extractors" / "reward")
    with pytest.raises(
        ValueError, match="'numerals' has no reward_extractor.*natgym train-classifier --seed 1"
    ):
        make_reward("influence", Task.load(copied))
    with pytest.raises(ValueError, match="a generator without a task has no real images; give a task"):
        _ = Task(generator=Task.load("digits").generator).data
    with pytest.raises(TypeError, match="Task has no classifier; it has generator, tokenizer"):
        Task.load("digits", classifier=1)
    with pytest.raises(ValueError, match="'nowhere' is neither a folder with a saved tokenizer nor a task"):
        _ = Task.load("digits", tokenizer="nowhere").tokenizer


def test_a_sibling_shares_every_object_and_plays_alike() -> None:
    env = DecodeVectorEnv(
        4, task="digits", steps=2, reward="influence", rules="halton", observation="pooled", smoothing=0.3
    )
    sibling = env.like(num_envs=3, autoreset=False)
    for name in ("task", "generator", "tokenizer", "reward", "action_map", "rules", "reward_name"):
        assert getattr(env, name) is getattr(sibling, name), name
    assert sibling.num_envs == 3 and sibling.observer == env.observer
    assert (play(env.like()) == play(env)).all() and (play(sibling) == play(env)[:3]).all()
    random = DecodeVectorEnv(4, steps=2, conditions="random")
    assert (play(random.like()) == play(random)).all()


def test_options_of_named_rewards_reach_them_and_unknown_ones_are_told() -> None:
    options = {"adversarial": {"channels": 2}, "feature-distance": {"real_images": 30}}
    env = DecodeVectorEnv(4, steps=1, reward="adversarial=1,feature-distance=1", rewards=options)
    discriminator, nearest = (reward for reward, _ in env.reward.parts)  # type: ignore[attr-defined]
    assert discriminator.config.channels == 2 and len(nearest.real_Nd) == 30
    assert RewardOptions().of(list(NAMED)) == {}
    assert RewardOptions(adversarial=AdversarialConfig(channels=2)).of(["adversarial"]) == {
        "adversarial": {"channels": 2}
    }
    for options, said in (
        ({"adversarial": {"color": 1}}, "reward 'adversarial' has no option 'color'"),
        ({"adversrial": {}}, "options of reward 'adversrial', which is not one of adversarial"),
    ):
        with pytest.raises(ValueError, match=said):
            make_reward("adversarial", "digits", options=options)
    with pytest.raises(ValueError, match="reward 'feature-distance' has no option 'real'; it has real_i"):
        make_reward("feature-distance", "digits", options={"feature-distance": {"real": 1}})
    for reward in ("classifier", lambda images, condition: images.mean((1, 2, 3))):
        with pytest.raises(ValueError, match="options of 'adversarial', but the reward is (classifier|live)"):
            DecodeVectorEnv(4, steps=1, reward=reward, rewards={"adversarial": {}})


def test_a_reward_of_ones_own_may_have_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natgym.rewards.named.NAMED", dict(NAMED))

    def ink(task: Task, weight: float = 1.0) -> Any:
        assert task.name == "digits"
        return lambda images, condition: weight * images.mean((1, 2, 3))

    register_reward("ink", ink)
    images = torch.rand(4, 1, 8, 8)
    found = make_reward("ink=2", "digits", options={"ink": {"weight": 3.0}})(images, None)  # type: ignore[arg-type]
    torch.testing.assert_close(found, 6 * images.mean((1, 2, 3)))
    for name in ("ink", "a=b", "a,b"):
        with pytest.raises(ValueError, match="choose another"):
            register_reward(name, ink)


def test_paths_mean_what_they_meant_wherever_they_are_read(copied: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(copied.parent)
    task = Task.load("digits", generator="numerals/nat", reward_extractor=Path("numerals/extractors/score"))
    config = TrainingConfig.of(
        task="numerals", generator="numerals/nat", extractor="numerals/extractors/score"
    )
    sent = pickle.dumps(task)
    monkeypatch.chdir("/")
    for one in (task, pickle.loads(sent), config.env.load_task()):
        assert one.generator is not None and one.reward_extractor is not None
    assert TrainingConfig.of(task="mnist/enat", schedule="maskgit").env.task == "mnist/enat"
    monkeypatch.chdir(copied.parent)
    for name in ("reference", "reward", "digits"):  # run folders, perhaps, of these names
        Path(name).mkdir()
    env = TrainingConfig.of(task="digits", schedule="reference", extractor="reward").env
    assert (env.task, env.schedule, env.extractor) == ("digits", "reference", "reward")
    monkeypatch.chdir(copied)
    assert Task.load(".").name == Task.load("nat").name == "numerals"


def test_what_a_task_makes_knows_where_its_task_is(copied: Path, tmp_path: Path, monkeypatch: Any) -> None:
    assert Task.load("mnist/enat").home == "mnist" and Task.load(copied).home == str(copied)
    generator: Any = Task.load(copied).generator
    save_pretrained(generator, tmp_path / "made", task=Task.load(copied / "nat").home)
    monkeypatch.chdir("/")
    assert Task.load(tmp_path / "made").folder == copied
    copied.rename(tmp_path / "moved")
    with pytest.raises(
        ValueError, match="made was made for the task '.*numerals', which is not here; give the"
    ):
        Task.load(tmp_path / "made")
    assert Task.load(tmp_path / "moved", generator=tmp_path / "made").generator is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "texts"}, "kind 'texts' is not one of images"),
        ({"recipe": "digts"}, "recipe 'digts' is not one of digits, mnist, small, shapes, sudoku-4"),
        ({"class_names": ["a"]}, r"has the classes \('a',\), its images \('0'"),
    ],
)
def test_what_a_file_says_has_to_be_so(copied: Path, change: dict[str, Any], said: str) -> None:
    content = json.loads((copied / "task.json").read_text())
    (copied / "task.json").write_text(json.dumps(content | change))
    with pytest.raises(ValueError, match=said):
        Task.load(copied).images("train")


def test_what_live_objects_decide_is_not_said_again() -> None:
    env = DecodeVectorEnv(4, task="digits", steps=2)
    for changed, said in (
        ({"schedule": "maskgit"}, "a live action map has its own schedule"),
        ({"rewards": {"adversarial": {}}}, "options of 'adversarial', but the reward is live"),
        ({"device": "meta"}, "device 'meta': what is live is on cpu"),
    ):
        with pytest.raises(ValueError, match=said):
            env.like(**changed)
