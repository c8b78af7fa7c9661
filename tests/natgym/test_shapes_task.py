"""The shipped task with captions: readers that don't err, a generator that draws what it is asked."""

from typing import Any

import numpy as np
import pytest
import torch

import natgym
from agents.named import find_policy
from generators.checkpoints import weights_hash
from generators.data import open_split
from generators.files import PRETRAINED
from generators.shapes.captions import Asked
from generators.shapes.data import sampled
from generators.shapes.scenes import draw
from natgym.evaluation.captions import CHOICES, by_kind, nearest, retrieval, variety
from natgym.metrics.scenes import any_scenes, contents, log_probability, read
from natgym.task import Task


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.load("shapes")


def images_of(scenes: Any) -> torch.Tensor:
    return torch.from_numpy(draw(scenes)).float() / 255


def test_what_is_shipped_is_small_and_belongs_together(task: Task) -> None:
    files = list((PRETRAINED / "shapes").rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) < 10e6
    assert task.generator.config.text_encoder == task.encoder.name  # type: ignore[attr-defined]
    words = {
        word
        for text in open_split("shapes", "train").condition.names
        for word in text.replace(",", "").split()
    }
    assert set(task.encoder.config.words) == words  # type: ignore[attr-defined]


def test_both_readers_err_in_less_than_one_scene_of_200(task: Task) -> None:
    """On fresh scenes, of what is held out as well."""
    scenes = any_scenes(3000, np.random.default_rng(7))
    networks: list[Any] = [task.score_extractor, task.reward_extractor]
    assert weights_hash(networks[0]) != weights_hash(networks[1])
    for reader in networks:
        logits = torch.cat([reader(part)[1] for part in images_of(scenes).split(500)])
        assert (contents(logits) != scenes.contents_NC).any(1).mean() < 0.005


def test_it_draws_what_it_is_asked_for(task: Task) -> None:
    """Of seen captions: one thing in nine of ten images; of two in relation, things and the relation."""
    _, texts = sampled(1600, np.random.default_rng(11))
    kinds = {kind: [t for t in texts if Asked.parse(t).kind == kind] for kind in ("one", "relation")}  # type: ignore[union-attr]
    policy = find_policy("autonat", 8, task.generator)
    found = {}
    for kind, asked in kinds.items():
        asked = asked[:200]
        drawn = natgym.rollout(policy, task, condition=asked, seed=0)
        found[kind] = read(asked, task.score_extractor(drawn.images_NCHW)[1])  # type: ignore[arg-type]
    assert found["one"][:, 4].mean() > 0.85
    assert found["relation"][:, 1].mean() > 0.6
    share = found["relation"][:, 3].mean()
    assert share - 2 * np.sqrt(share * (1 - share) / 200) > 0.25, "above chance by its interval"


def test_the_environment_rewards_what_is_asked_for(task: Task) -> None:
    """By default with the log-probability of the caption, as the reader of rewards says it."""
    env = natgym.DecodeVectorEnv(4, task=task, steps=2)
    prompts = ["a red disc", "", "a red disc left of a blue disc", "three white crosses"]
    with pytest.raises(ValueError, match="'' is no caption"):
        env.reset(seed=0, options={"prompt": prompts})
        for _ in range(2):
            env.step(np.zeros((4, 4), dtype=np.float32))
    prompts[1] = "a green square"
    env.reset(seed=0, options={"prompt": prompts})
    env.step(np.zeros((4, 4), dtype=np.float32))
    _, rewards, *_ = env.step(np.zeros((4, 4), dtype=np.float32))
    expected = log_probability(prompts, task.reward_extractor(env.images)[1])  # type: ignore[arg-type]
    assert rewards == pytest.approx(expected.numpy(), rel=1e-5)


def test_a_prompt_is_drawn_alike_alone_and_beside_others(task: Task) -> None:
    policy = find_policy("reference", 3, task.generator)
    prompts = ["a red disc", "a blue square, a red cross and a white triangle", ""]
    together = natgym.rollout(policy, task, condition=prompts, seed=5)
    for row, prompt in enumerate(prompts):
        alone = natgym.rollout(policy, task, condition=[prompt], seed=5 + row)
        assert torch.equal(alone.tokens_NL[0], together.tokens_NL[row])
    grouped = natgym.rollout(policy, task, condition=prompts, seed=5, group=3)
    for row, prompt in enumerate(prompts):
        alone = natgym.rollout(policy, task, condition=[prompt], seed=5)
        assert torch.equal(alone.tokens_NL[0], grouped.tokens_NL[row])


def test_real_images_agree_with_their_captions(task: Task) -> None:
    reader: Any = task.score_extractor
    scenes, texts = sampled(150, np.random.default_rng(1))
    logits = reader(images_of(scenes))[1]
    frame = by_kind(texts, logits)
    assert set(frame["kind"]) == {"one", "several", "pair", "relation", "three", "all"}
    every = frame.set_index("kind").loc["all"]
    assert every["n"] == 150 and every["caption"] > 0.99
    assert frame["n"].sum() == 300
    assert retrieval(texts, logits) > 0.95
    order = np.random.default_rng(2).permutation(150)
    assert retrieval([texts[row] for row in order], logits) < 3 / CHOICES
    images = images_of(scenes)
    twice = images.repeat_interleave(2, 0)
    assert variety(twice, 2, reader) == pytest.approx(0, abs=1e-3)
    assert variety(images, 2, reader) > 1
    assert nearest(images[[5, 3]], images, reader).tolist() == [5, 3]
