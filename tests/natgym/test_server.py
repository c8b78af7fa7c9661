"""A reward that a local server says: in order, in whatever order it comes; what is not right is told."""

import copy
import dataclasses
import json
import pickle
import socket
import threading
import time
from typing import Any

import pytest
import torch
from reward_server import Answer, all_right, ink, serving

import natgym
from agents.adanat.config import EnvConfig, TrainingConfig
from generators.conditions import Labels
from natgym.rewards import AdversarialReward, HTTPConfig, HTTPReward, LearningSum, RewardOptions, make_reward


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def batch(rows: int = 10, channels: int = 1) -> tuple[torch.Tensor, Labels]:
    """Images that 8 bits hold exactly."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (rows, channels, 4, 5), generator=random) / 255
    return images, Labels(torch.arange(rows) % 3, 3)


def asking(url: str, **options: Any) -> HTTPReward:
    return HTTPReward(HTTPConfig(url=url, **{"pause": 0.0, "timeout": 10.0} | options))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "parallel"), [(32, 1), (3, 1), (1, 4)])
def test_rewards_are_those_of_each_image(channels: int, size: int, parallel: int) -> None:
    """However the images are cut into requests, and in whatever order these and what is in them come back."""
    images, condition = batch(channels=channels)
    sizes = []

    def late(asked: dict[str, Any], number: int) -> Any:
        sizes.append(len(asked["images"]))
        if parallel > 1:
            time.sleep(0.03 * (number % 2 == 0))  # the first of two comes last
        return {"rewards": all_right(asked)["rewards"][::-1]}

    with serving(late) as url:
        reward = asking(url, batch=size, parallel=parallel)
        said, again = reward(images, condition), reward(images, condition)
    expected = [float(image.mean()) + 100 * (row % 3) for row, image in enumerate(images)]
    assert said.dtype == torch.float64 and said.tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(said, again) and reward.sent == 2 * len(images)
    assert sizes == 2 * ([size] * (10 // size) + [10 % size] * (10 % size > 0))


def no(change: Any) -> Answer:
    """Answer as it should be, but for one change of the first request's list."""

    def answer(asked: dict[str, Any], number: int) -> Any:
        told = all_right(asked)["rewards"]
        return {"rewards": change(told)}

    return answer


def with_reward(value: Any) -> Answer:
    return no(lambda told: [told[0] | {"reward": value}, *told[1:]])


WRONG: dict[str, tuple[Answer, str]] = {
    "too few": (no(lambda told: told[:-1]), "says nothing of image 9, of 1 of 10 images"),
    "none": (no(lambda told: []), "says nothing of image 0, of 10 of 10 images"),
    "twice": (no(lambda told: [*told, told[0]]), "answers for image 0 of 0 to 9; each of these once"),
    "another": (no(lambda told: [told[0] | {"id": 10}, *told[1:]]), "answers for image 10 of 0 to 9"),
    "id as text": (no(lambda told: [told[0] | {"id": "0"}, *told[1:]]), "answers for image '0' of"),
    "id as truth": (no(lambda told: [told[0] | {"id": False}, *told[1:]]), "answers for image False of"),
    "nan": (with_reward(float("nan")), "says nan of image 0; a reward is a finite number"),
    "infinity": (with_reward(float("-inf")), "says -inf of image 0"),
    "beyond": (lambda *_: b'{"rewards": [{"id": 0, "reward": 1e999}]}', "says inf of image 0"),
    "whole beyond": (with_reward(10**400), r"says 1000\d* of image 0"),
    "text": (with_reward("0.5"), "says '0.5' of image 0"),
    "truth": (with_reward(True), "says True of image 0"),
    "nothing": (with_reward(None), "says None of image 0"),
    "no json": (lambda *_: b"<html>busy</html>", r"answers '<html>busy</html>'; say \{\"rewards\""),
    "no utf-8": (lambda *_: b"\xff\xfe\xfd", "; say "),
    "deep": (lambda *_: b"[" * 5000, "; say "),
    "a list": (lambda *_: [1, 2], "; say "),
    "plain numbers": (lambda *_: {"rewards": [0.5] * 10}, "; say "),
    "a number": (lambda *_: {"rewards": 3}, "; say "),
    "huge": (lambda *_: b" " * 100_000 + b"{}", "answers more than 6656 bytes"),
    "refused": (lambda *_: 403, "answers 403 Forbidden: no$"),
    "sent on": (lambda *_: 302, "answers 302 Found: no$"),
    "sent on for good": (lambda *_: 308, "answers 308 Permanent Redirect: no$"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_told_and_not_asked_for_again(name: str) -> None:
    answer, said = WRONG[name]
    times = []

    def counted(asked: dict[str, Any], number: int) -> Any:
        times.append(number)
        return answer(asked, number)

    with serving(counted) as url, pytest.raises(ValueError, match=said) as raised:
        asking(url)(*batch())
    assert url in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 300
    assert times == [0]


def cut_off(asked: dict[str, Any], number: int) -> Any:
    return None


@pytest.mark.parametrize("trouble", [500, 503, 429, None])
def test_what_may_be_over_is_asked_for_again(trouble: int | None) -> None:
    images, condition = batch()

    def answer(asked: dict[str, Any], number: int) -> Any:
        return trouble if number < 2 else all_right(asked)

    with serving(answer) as url:
        assert asking(url, retries=2)(images, condition).tolist() == pytest.approx(
            [float(image.mean()) + 100 * (row % 3) for row, image in enumerate(images)], abs=1e-6
        )
    with serving(answer) as url, pytest.raises(OSError, match="was asked 2 times: "):
        asking(url, retries=1)(images, condition)


def test_pixels_that_no_file_holds_are_told() -> None:
    images, condition = batch()
    images[3, 0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="pixels that are not finite"):
        asking("http://127.0.0.1:1/")(images, condition)


def test_pauses_double(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    with serving(lambda *_: 503) as url:
        monkeypatch.setattr("natgym.rewards.server.time.sleep", waited.append)
        with pytest.raises(OSError, match="was asked 4 times: .*503"):
            asking(url, pause=0.5)(*batch())
    assert waited == [0.5, 1.0, 2.0]


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(OSError, match="was asked once: .*refused"):
            asking(url, retries=0)(*batch())


@pytest.mark.parametrize("kind", ["silent", "dribbling", "broken off"])
def test_an_answer_that_does_not_come_is_given_up(kind: str) -> None:
    """Silence, an answer in pieces without an end, and one that ends before its time."""
    over = threading.Event()
    whole = json.dumps(all_right({"images": []})).encode()

    def answer(connection: socket.socket) -> None:
        asked = b""
        while not asked.endswith(b"]}"):  # all of it: what is not read resets the connection
            asked += connection.recv(1 << 16)
        if kind != "silent":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + whole)
        while kind == "dribbling" and not over.wait(0.01):
            try:
                connection.sendall(b" ")
            except OSError:
                return
        if kind == "silent":
            over.wait(10)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: answer(server.accept()[0]), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        said = {
            "silent": "timed out",
            "dribbling": "no whole answer in 0.1 seconds",
            "broken off": "broke off",
        }
        with pytest.raises(OSError, match=f"was asked once: .*{said[kind]}"):
            asking(url, timeout=0.1 if kind != "broken off" else 10.0, retries=0)(*batch())
        over.set()
        thread.join()


def test_headers_are_sent_and_a_copy_asks_alike() -> None:
    tokens = []

    def answer(asked: dict[str, Any], number: int) -> Any:
        tokens.append(asked["headers"].get("Authorization"))
        return all_right(asked)

    with serving(answer) as url:
        reward = HTTPReward(HTTPConfig(url=url), {"Authorization": "Bearer secret"})
        said = [
            each(*batch()) for each in (reward, copy.deepcopy(reward), pickle.loads(pickle.dumps(reward)))
        ]
    assert tokens == ["Bearer secret"] * 3 and torch.equal(said[0], said[1]) and torch.equal(said[0], said[2])


def test_it_keeps_the_contract_and_mixes_with_the_adversary() -> None:
    images, condition = batch()
    with serving(all_right) as url:
        natgym.check_reward(asking(url), (1, 4, 5), condition)
        options = {"http": {"url": url}, "adversarial": {"channels": 2}}
        env = natgym.DecodeVectorEnv(
            8, task="digits", steps=1, reward="adversarial=2,http=0.5", rewards=options
        )
        assert isinstance(env.reward, LearningSum)
        adversary, server = (part for part, _ in env.reward.parts)
        assert isinstance(adversary, AdversarialReward) and isinstance(server, HTTPReward)
        env.reset(seed=0)
        _, rewards, _, _, infos = env.step(env.action_space.sample() / 10)
        images, condition = torch.from_numpy(infos["images"]), Labels(torch.arange(8), 10)
        expected = 2 * adversary(images, condition) + 0.5 * server(images, condition)
        assert rewards == pytest.approx(expected.numpy())


def test_the_command_line_says_where_it_is() -> None:
    with serving(all_right) as url:
        env = EnvConfig(
            reward="http", rewards=RewardOptions(http=HTTPConfig(url=url, batch=4)), trajectories=8
        )
        config = TrainingConfig(env=env)
        built = config.env.build()
        assert built.reward.config == HTTPConfig(url=url, batch=4)
        built.reset(seed=0)
        for _ in range(built.steps):
            rewards = built.step(built.action_space.sample() * 0)[1]
        assert [round(reward) // 100 for reward in rewards] == [*range(8)]
    with pytest.raises(ValueError, match="needs the url of its server: --rewards.http.url"):
        dataclasses.replace(env, rewards=RewardOptions()).build()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "file:///etc/passwd"}, "give the address of a server"),
        ({"url": "127.0.0.1:80"}, "give the address of a server"),
        ({"url": "http://"}, "give the address of a server"),
        ({"url": "http://me:secret@host/"}, "would stand in files; leave it out"),
        ({"url": "http://host/", "batch": 0}, "batch 0: it must be at least 1"),
        ({"url": "http://host/", "timeout": 0.0}, "timeout 0.0: it must be a positive number"),
        ({"url": "http://host/", "retries": -1}, "retries -1: it must be at least 0"),
        ({"url": "http://host/", "size": 3}, "has no option 'size'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        make_reward("http", "digits", options={"http": options})
    assert "secret" not in str(raised.value)


def test_the_truth_of_the_tests() -> None:
    """What the server measures is what the images are."""
    assert ink({"png": _PIXEL, "condition": "2"}) == 201


# A white pixel, as another program writes it.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAG7buVgAAAABJRU5ErkJggg=="
