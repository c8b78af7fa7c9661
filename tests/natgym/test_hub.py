"""To the Hub and back, on a stub of its API that keeps repositories in a folder."""

import fnmatch
import hashlib
import inspect
import json
import pickle
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import natgym
from agents import load_policy
from agents.named import find_policies
from generators.checkpoints import PRETRAINED, save_pretrained, weights_hash
from generators.files import write_atomic
from generators.schedules import family
from natgym.evaluation.tables import format_table
from natgym.hub.exchange import portable

ROW = {"policy": "reference", "steps": 4, "distance": 0.5}


class Hub:
    """Repositories as folders, a commit each upload, named by what it holds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private = dict[str, bool | None]()

    def create_repo(self, name: str, *, private: bool | None, exist_ok: bool) -> None:
        assert exist_ok
        self.private.setdefault(name, private)
        (self.root / name).mkdir(parents=True, exist_ok=True)

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, commit_message: str, allow_patterns: list[str]
    ) -> str:
        assert commit_message
        files = [path for path in sorted(folder_path.rglob("*")) if path.is_file()]
        commit = hashlib.sha1(b"".join(path.read_bytes() for path in files)).hexdigest()
        for path in files:
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                place = self.root / repo_id / commit / path.relative_to(folder_path)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place)
        (self.root / repo_id / "main").write_text(commit)
        return f"https://hub/{repo_id}/commit/{commit}"

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert set(allow_patterns) == {"*.json", "*.safetensors", "*.md"}
        if not (self.root / repo_id).is_dir():
            raise OSError(f"404: no repository {repo_id}\nand more of it")
        commit = revision if revision not in (None, "main") else (self.root / repo_id / "main").read_text()
        if not (self.root / repo_id / str(commit)).is_dir():
            raise ValueError(f"no revision {commit}")
        return str(self.root / repo_id / str(commit))


def checked(real: Any, stub: Any) -> Any:
    """Return a stub that takes what the library's own would."""

    def call(*args: Any, **options: Any) -> Any:
        inspect.signature(real).bind(*args, **options)
        return stub(*args, **options)

    return call


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    real = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub (extra `hub`)")
    found, its = Hub(tmp_path / "hub"), real.HfApi()
    names = ("create_repo", "upload_folder")
    calls = {name: checked(getattr(its, name), getattr(found, name)) for name in names}
    library = SimpleNamespace(
        HfApi=lambda: SimpleNamespace(**calls),
        snapshot_download=checked(real.snapshot_download, found.snapshot_download),
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)  # type: ignore[arg-type]
    return found


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def commit(address: str) -> str:
    return address.rpartition("/")[2]


@pytest.mark.parametrize("member", ["nat", "tokenizer", "extractors/score"])
def test_a_network_comes_back_live_or_from_its_folder(hub: Hub, member: str) -> None:
    folder = PRETRAINED / "digits" / member
    network: Any = natgym.from_pretrained(folder)
    for thing in (network, folder):
        address = natgym.push_to_hub(thing, "me/network", private=True)
        again: Any = natgym.from_pretrained("me/network", revision=commit(address))
        assert type(again) is type(network) and weights_hash(again) == weights_hash(network)
        assert again.config == network.config
    assert hub.private == {"me/network": True}
    assert files(hub.root / "me/network" / commit(address)) == {
        "config.json",
        "model.safetensors",
        "README.md",
    }


def test_a_schedule_comes_back(hub: Hub, tmp_path: Path) -> None:
    schedule = family("maskgit", 4)
    schedule.save(tmp_path / "mine.json")
    for thing in (schedule, tmp_path / "mine.json"):
        natgym.push_to_hub(thing, "me/schedule")
        found: Any = natgym.from_pretrained("hf://me/schedule")
        policy: Any = load_policy("hf://me/schedule")
        for again in (found, policy.schedule):
            assert again.name == "maskgit" and torch.equal(again.table_T4, schedule.table_T4)


def test_a_searched_strategy_keeps_its_rules(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    family("maskgit", 4).save(tmp_path / "run" / "strategy.json")
    write_atomic(tmp_path / "run" / "config.json", json.dumps({"rules": "halton", "output": "/a/b"}))
    natgym.push_to_hub(tmp_path / "run", "me/strategy")
    policy = load_policy("me/strategy", "digits", revision="main")
    assert policy.rules.text.startswith("halton")  # type: ignore[union-attr]


def test_a_policy_is_played_by_its_name_on_the_hub(hub: Hub) -> None:
    task = natgym.Task.load("digits")
    natgym.push_to_hub(PRETRAINED / "digits/nat/policies/adanat-T2", "me/decider")
    ((label, policy),) = find_policies("hf://me/decider", [2, 4], task.generator)
    assert label == "decider"
    shipped = find_policies("adanat", [2], task.generator)[0][1]
    drawn = [natgym.rollout(one, task, num_images=20, seed=0).images_NCHW for one in (policy, shipped)]
    assert torch.equal(*drawn)


def test_a_task_comes_back_whole_and_without_what_could_run(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "numerals"
    shutil.copytree(PRETRAINED / "digits", folder)
    for name in ("checkpoint.pt", "nat/weights.pth", "setup.py", "split.csv", "figures.png"):
        (folder / name).write_bytes(b"no")
    (folder / "README.md").write_text("# Mine\n![x](figures/overview.png)\nText.\n")
    write_atomic(folder / "results.json", json.dumps({"protocol": {"images": 7}, "rows": [ROW]}))
    address = natgym.push_to_hub(natgym.Task.load(folder), "me/digits-again")
    up = files(hub.root / "me/digits-again" / commit(address))
    assert up == {name for name in files(folder) if Path(name).suffix in (".json", ".safetensors", ".md")}
    card = (hub.root / "me/digits-again" / commit(address) / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: natgym\n") and "---\n\n# Mine\nText.\n\n```\npolicy  " in card
    assert card.endswith('depend on:\n\n```json\n{\n  "images": 7\n}\n```\n')
    task: Any = natgym.from_pretrained("hf://me/digits-again")
    ours = natgym.Task.load(folder)
    assert task.name == "digits-again" and task.description == ours.description
    for one in (task, natgym.Task.load("hf://me/digits-again/nat"), pickle.loads(pickle.dumps(task))):
        assert (
            one.name == "digits-again"
            and one.home == one.spec
            and one.spec.startswith(f"hf://me/digits-again@{commit(address)}")
        )
        for kind in ("generator", "tokenizer", "score_extractor", "reward_extractor"):
            assert weights_hash(getattr(one, kind)) == weights_hash(getattr(ours, kind)), kind
    assert natgym.Task.load("hf://me/digits-again#given=right").name == "digits-again#given=right"


def test_a_revision_stays_what_it_was(hub: Hub) -> None:
    addresses = [natgym.push_to_hub(family("maskgit", T), "me/schedule") for T in (2, 4)]
    assert natgym.from_pretrained("me/schedule", revision="main").steps == 4  # type: ignore[union-attr]
    for address, steps in zip(addresses, (2, 4), strict=True):
        found: Any = natgym.from_pretrained(f"hf://me/schedule@{commit(address)}")
        assert found.steps == steps


def test_the_table_of_a_card_is_made_again_from_its_protocol(hub: Hub) -> None:
    """Of the policy that comes down with it, by what the card says alone."""
    folder, name = PRETRAINED / "digits/nat/policies/adanat-T2", "me/decider"
    policies: dict[str, Any] = {"reference": "reference", "adanat": load_policy(folder)}
    table = natgym.evaluate(policies, "digits", steps=2, images=60, seeds=(3, 4))
    address = natgym.push_to_hub(folder, name, results=table)
    card = (hub.root / name / commit(address) / "README.md").read_text()
    blocks = dict(re.findall(r"^```(\w*)\n(.*?)^```$", card, flags=re.MULTILINE | re.DOTALL))
    shown, protocol = blocks[""], json.loads(blocks["json"])
    policies["adanat"] = load_policy(f"hf://{name}")
    options = {key: protocol[key] for key in ("images", "seeds", "split")}
    again = natgym.evaluate(policies, protocol["task"], steps=2, **options)
    assert again.protocol == protocol

    def timeless(text: str) -> list[list[str]]:
        speed = text.splitlines()[0].split().index("images/s")
        lines = [line.split() for line in text.splitlines() if not line.startswith("-")]
        return [line[:speed] + line[speed + 1 :] for line in lines]

    words = timeless(format_table(again.rows).replace("images spent", "images-spent"))
    assert timeless(shown.replace("images spent", "images-spent")) == words and len(words) == 3
    assert f'load_policy("hf://{name}")' in card


def test_no_path_of_this_machine_goes_up(hub: Hub, tmp_path: Path) -> None:
    network: Any = natgym.from_pretrained(PRETRAINED / "digits/nat")
    save_pretrained(network, tmp_path / "run" / "policy", task=str(tmp_path / "birds"))
    write_atomic(tmp_path / "run" / "results.json", json.dumps({"protocol": {"task": "/a/b"}, "rows": []}))
    address = natgym.push_to_hub(tmp_path / "run", "me/policy")
    for path in (hub.root / "me/policy" / commit(address)).iterdir():
        assert str(tmp_path).encode() not in path.read_bytes() and b"/a/b" not in path.read_bytes()
    assert portable({"a": ["/x/y", "/", "1/2", 3]}) == {"a": ["y", "/", "1/2", 3]}


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: natgym.Task.load("hf://me/none"),
            "hf://me/none did not come from the Hub: OSError: 404: no",
        ),
        (lambda: natgym.from_pretrained("me/none", revision="v1"), "me/none did not come from the Hub"),
        (lambda: natgym.from_pretrained("me/none"), "no folder me/none; what is on the Hub is said as hf://"),
        (lambda: load_policy("hf://me"), "'hf://me' is no hf://user/name"),
        (lambda: load_policy("hf://me/x@v1", revision="v2"), "its revision said once"),
        (
            lambda: natgym.push_to_hub(natgym.Task.load("digits", tokenizer="digits"), "me/x"),
            "can't be uploaded",
        ),
        (lambda: natgym.push_to_hub(3, "me/x"), "3 can't be uploaded; save it, and give the folder"),
        (lambda: natgym.push_to_hub("/tmp", "me/x"), "/tmp holds no task, strategy, policy or saved network"),
    ],
)
def test_mistakes_are_told_in_one_line(hub: Hub, act: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert not hub.root.exists() or not list(hub.root.iterdir())


def test_without_the_library_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"pip install natgym\[hub\]"):
        natgym.Task.load("hf://me/digits")
