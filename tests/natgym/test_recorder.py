"""The recorder: every frame is what the environment rendered, the finished images included."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import natgym  # noqa: F401  (registers the environment)
from generators.given import give
from generators.schedules import maskgit
from natgym.env.recorder import Recorder, VectorRecorder, film, save_film, strip
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout

N, T = 3, 4


def make(**arguments: Any) -> Any:
    return gymnasium.make_vec("natgym/Decode-v1", num_envs=N, steps=T, render_mode="rgb_array", **arguments)


def shots(path: Path) -> list[np.ndarray]:
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def actions(seed: int, rows: int = N) -> Any:
    return np.random.default_rng(seed).normal(size=(T, rows, 4)).astype(np.float32)


def test_two_episodes_of_the_vector_env_across_the_autoreset(tmp_path: Path) -> None:
    env, plain = VectorRecorder(make(), tmp_path / "films", rows=2), make()
    env.reset(seed=5), plain.reset(seed=5)
    blank = plain.render()
    for episode in range(2):
        expected = [blank]
        for step in range(T):
            env.step(actions(episode)[step]), plain.step(actions(episode)[step])
            expected.append(plain.render())
        found = shots(tmp_path / f"films/episode-{episode:04d}.gif")
        assert len(found) == T + 1
        for shot, pictures in zip(found, expected, strict=True):
            for row in range(2):
                part = shot[:, 100 * row : 100 * row + 96].astype(int)
                assert np.abs(part - pictures[row]).max() <= 8, "but for the palette of a GIF"
        whole = np.asarray(Image.open(tmp_path / f"films/episode-{episode:04d}.png"))
        assert whole.shape == (196, 496, 3)
        for step, pictures in enumerate(expected):
            for row in range(2):
                part = whole[100 * row : 100 * row + 96, 100 * step : 100 * step + 96]
                assert (part == pictures[row]).all()
    assert len(list((tmp_path / "films").iterdir())) == 4


def test_the_one_image_env(tmp_path: Path) -> None:
    env = Recorder(gymnasium.make("natgym/Decode-v1", steps=T, render_mode="rgb_array"), tmp_path)
    for seed in (0, 1):
        env.reset(seed=seed)
        env.step(actions(9, 1)[0, 0])
        env.reset(seed=seed)  # the unfinished one is dropped
        for action in actions(seed, 1)[:, 0]:
            env.step(action)
        last = env.render()
        whole = np.asarray(Image.open(tmp_path / f"episode-{seed:04d}.png"))
        assert whole.shape == (96, 496, 3) and (whole[:, 400:] == last).all()
    assert len(list(tmp_path.iterdir())) == 4


def test_the_trail_of_a_rollout(tmp_path: Path, digits: Any) -> None:
    condition = balanced(digits.generator.conditions(), 12)
    drawn = rollout(
        FixedPolicy(maskgit(T)), digits.generator, digits.tokenizer, condition, seed=0, trail=True
    )
    frames = film(drawn, digits.tokenizer, rows=3)
    assert len(frames) == T + 1 and all(len(frame) == 3 for frame in frames)
    hidden = frames[0][0][0, 0]
    for step, frame in enumerate(frames[1:]):
        for row, picture in enumerate(frame):
            for token, at in enumerate(drawn.revealed_at_NL[row].tolist()):
                i, j = divmod(token, 4)
                patch = picture[24 * i : 24 * i + 24, 24 * j : 24 * j + 24]
                assert (patch == hidden).all() == (at > step)
    save_film(tmp_path / "a.png", frames)
    assert (np.asarray(Image.open(tmp_path / "a.png")) == strip(frames)).all()
    with pytest.raises(ValueError, match="trail=True"):
        film(
            rollout(FixedPolicy(maskgit(1)), *(digits.generator, digits.tokenizer), condition, seed=0),
            digits.tokenizer,
        )


def test_what_is_refused_in_one_line(tmp_path: Path) -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    save_film(tmp_path / "episode-0000.png", [[picture]])
    for act, said in (
        (lambda: save_film(tmp_path / "episode-0000.png", [[picture]]), "exists"),
        (lambda: save_film(tmp_path / "film.mp4", [[picture]]), "ending in .gif or .png"),
        (lambda: save_film(tmp_path / "film.gif", []), "0 frames"),
        (lambda: VectorRecorder(make(), tmp_path), "holds episodes already"),
        (lambda: VectorRecorder(gymnasium.make_vec("natgym/Decode-v1"), tmp_path / "new"), "rgb_array"),
    ):
        with pytest.raises(ValueError, match=said):
            act()


def test_each_film_begins_with_what_was_given_to_it(tmp_path: Path, digits: Any) -> None:
    ids_NL = torch.arange(2 * N * 16).reshape(2 * N, 16) % 128
    given = give(balanced(digits.every, 2 * N), ids_NL, torch.arange(16) < 8)
    env = VectorRecorder(make(task=digits, conditions=given), tmp_path, rows=2)
    plain = make(task=digits, conditions=given, autoreset=False)
    env.reset(seed=5)
    begun = []
    for episode in range(2):
        plain.reset(seed=5 if episode == 0 else None)
        begun.append(plain.render())
        for action in actions(episode):
            env.step(action), plain.step(action)
        whole = np.asarray(Image.open(tmp_path / f"episode-{episode:04d}.png"))
        for row in range(2):
            assert (whole[100 * row : 100 * row + 96, :96] == begun[-1][row]).all()
    assert (begun[0][0] != begun[1][0]).any()
