"""evaluate.py, generate.py and analyze_policies.py with tiny budgets, each in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps, ImageSequence
from torch import nn

import natgym.evaluation.protocol
import natgym.metrics.extractors
from agents.adanat.config import TrainingConfig
from agents.adanat.critic import load_discriminator
from agents.adanat.network import PolicyConfig
from agents.adanat.trainer import train
from agents.named import NAMES, load_policy
from generators.conditions import balanced
from generators.schedules import maskgit, reference
from natgym.evaluation.cost import gflop_per_image
from natgym.evaluation.statistics import paired_difference
from natgym.policies import FixedPolicy
from natgym.rollouts import rollout
from natgym.runs import write_config
from natgym.task import Task

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
Call = Callable[..., tuple[int, str, str]]
SMALL = ["--images", "40", "--seeds", "0", "1", "--threads", "1"]


def last_line(said: str) -> str:
    return [line for line in said.splitlines() if line.strip()][-1]


def results(folder: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((folder / "results.json").read_text(), parse_constant=refuse)


def test_every_named_policy_stands_in_one_table(call: Call, tmp_path: Path) -> None:
    names = [name for name in NAMES if name != "autonat"]
    code, out, err = call("evaluate.py", "--policy", *names, "--steps", 2, *SMALL, "--output", "table")
    assert code == 0, err
    rows = results(tmp_path / "table")["rows"]
    policies, real = rows[:-1], rows[-1]
    assert {row["policy"] for row in policies} == set(names) and real["policy"] == "real, n=40"
    assert [row["nfe"] for row in policies] == sorted(row["nfe"] for row in policies)
    by_name = {row["policy"]: row for row in policies}
    assert by_name["cosine"]["per_seed"] == by_name["reference"]["per_seed"], "one schedule, two names"
    assert by_name["linear"]["distance"] != by_name["reference"]["distance"]
    assert by_name["threshold"]["steps"] == 16 and by_name["threshold"]["nfe"] > by_name["reference"]["nfe"]
    digits = Task.load("digits")
    drawn = gflop_per_image(FixedPolicy(maskgit(2)), digits.generator, condition=balanced(digits.every, 40))
    assert by_name["maskgit"]["gflop"] == drawn, "no image is counted that is not judged"
    base = pd.DataFrame(by_name["reference"]["per_seed"])
    for row in policies:
        assert row["protocol"]["images"] == 40 and "guidance" in row["sampler"] and row["gflop"] > 0
        if row["policy"] != "reference":
            expected = paired_difference(pd.DataFrame(row["per_seed"]), base)
            assert row["difference"]["mean"] == pytest.approx(expected.mean)
            assert row["difference"]["half_width"] == pytest.approx(expected.half_width)
    for word in ("difference", "NFE", "GFLOP", "density", "score", "95 % t-interval", "8 bits"):
        assert word in out + (tmp_path / "table" / "report.html").read_text()
    assert len(list((tmp_path / "table" / "figures").iterdir())) == len(names) + 1


def test_a_stopped_evaluation_goes_on_to_the_same_table(call: Call, tmp_path: Path) -> None:
    asked = ["--policy", "reference", "maskgit", "--steps", 2, 3, *SMALL]
    assert call("evaluate.py", *asked, "--output", "whole")[0] == 0
    whole = results(tmp_path / "whole")
    path = tmp_path / "whole" / "results.json"
    left = [row for row in whole["rows"] if "steps" in row][:2]
    path.write_text(json.dumps({"protocol": whole["protocol"], "rows": left}))
    code, _, err = call("evaluate.py", "--resume", "whole")
    assert code == 0, err
    again = results(tmp_path / "whole")["rows"]
    timing = {"images_per_second"}
    for row, expected in zip(again, whole["rows"], strict=True):
        assert {k: v for k, v in row.items() if k not in timing} == {
            k: v for k, v in expected.items() if k not in timing
        }
    code, _, err = call("evaluate.py", "--resume", "whole", "--images", 50)
    assert code == 1 and "--resume" in last_line(err) and "--images" in last_line(err)


def test_an_evaluation_of_one_seed_goes_on_too(call: Call, tmp_path: Path) -> None:
    """One seed has no spread, which JSON has as null; and settings of another type are named."""
    code, _, err = call("evaluate.py", "--steps", 2, "--images", 40, "--seeds", 0, "--output", "one")
    assert code == 0, err
    code, out, err = call("evaluate.py", "--resume", "one")
    assert code == 0 and "nan" not in err, err
    settings = json.loads((tmp_path / "one" / "config.json").read_text())
    (tmp_path / "one" / "config.json").write_text(json.dumps(settings | {"conditions": "zzz"}))
    code, _, err = call("evaluate.py", "--resume", "one")
    assert code == 1 and "conditions 'zzz' is not " in last_line(err)
    (tmp_path / "one" / "config.json").write_text(json.dumps(settings | {"seeds": [1]}))
    code, _, err = call("evaluate.py", "--resume", "one")
    assert code == 1 and "one holds rows of another protocol, seeds: 0 against 1" in last_line(err)


def test_two_results_are_ranked_or_explained(call: Call) -> None:
    for output, more in (("a", []), ("b", ["--policy", "maskgit"]), ("c", ["--no-quantise"])):
        assert call("evaluate.py", "--steps", 2, *SMALL, *more, "--output", output)[0] == 0
    code, out, _ = call("evaluate.py", "--compare", "a", "b/results.json")
    assert code == 0 and "A - B, maskgit, T = 2: +0.000 ± 0.000" in out and "A reference" in out
    code, out, _ = call("evaluate.py", "--compare", "a", "c")
    assert code == 1 and "quantisation: 8 bits against none" in out and "can't be ranked" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--images 31", "images 31: the extractor has 32 features"),
        ("--policy nowhere", "policy 'nowhere' is not a file"),
        ("--policy linear:k=2", "'k' in 'linear:k=2'"),
        ("--policy autonat --steps 3", "no autonat of 3 steps is shipped for this NAT"),
        ("--against linear", "against 'linear' is not one of"),
        ("--steps 0", "steps 0"),
        (
            "--rules haltom",
            "rule 'haltom' in 'haltom' is not one of confidence, margin, entropy, random, halton",
        ),
        ("--compare a", "compare takes two results"),
        ("--compare a b", "a/results.json"),
        ("--task nowhere", "nowhere"),
        ("--extractor inception", "inception needs its --weights"),
        ("--extractor vgg", "extractor 'vgg'"),
        ("--protocol imagenet256-adm", "--extractor inception, --weights of the FID Inception network"),
        ("--classifier nowhere", "nowhere"),
        ("--resume nowhere", "nowhere"),
        ("--polcy reference", "polcy"),
    ],
)
def test_evaluate_refuses_in_one_line(call: Call, tmp_path: Path, arguments: str, said: str) -> None:
    code, _, err = call("evaluate.py", "--output", "refused", *arguments.split())
    if "--resume" in arguments:
        code, _, err = call("evaluate.py", *arguments.split())
    if "--compare a b" in arguments:
        assert "a is no" in err.replace("/results.json", "")
    assert code in (1, 2) and said.replace("a/results.json", "results.json") in last_line(err)
    assert not (tmp_path / "refused").exists()


class Eight(nn.Module):
    """Stands for Inception: the means of eight rows of an image."""

    num_features, meaning = 8, "a distance of rows"

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images_BCHW: Any) -> Any:
        return images_BCHW.mean((1, 3)), images_BCHW.mean((1, 3))


def test_a_named_convention_sets_images_extractor_and_reference(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(natgym.metrics.extractors, "load_extractor", lambda *_: Eight())
    convention = natgym.evaluation.protocol.CONVENTIONS["imagenet256-adm"]._replace(images=50)
    monkeypatch.setitem(natgym.evaluation.protocol.CONVENTIONS, "imagenet256-adm", convention)
    np.savez(tmp_path / "adm.npz", mu=np.full(8, 0.3), sigma=0.02 * np.eye(8))
    needs = ["--protocol", "imagenet256-adm", "--extractor", "inception", "--weights", "w.pth"]
    needs += ["--reference", "adm.npz", "--conditions", "random", "--steps", 2, "--seeds", 0, 1]
    code, out, err = call("evaluate.py", *needs, "--output", "adm")
    assert code == 0, err
    content = results(tmp_path / "adm")
    told = content["protocol"]
    assert (told["name"], told["images"], told["split"]) == ("imagenet256-adm", 50, "-")
    assert (told["conditions"], told["distance"]) == ("random", "a distance of rows")
    assert all("kernel_distance" not in row and row["distance"] > 0 for row in content["rows"])
    assert "statistics from a file" in out and "accuracy" in out
    code, _, err = call("evaluate.py", *needs, "--images", 40)
    assert code == 2 and "leave --images" in last_line(err)


def test_generate_draws_a_grid_and_a_film(call: Call, tmp_path: Path) -> None:
    asked = ["--policy", "halton", "--steps", 3, "--label", 3, 7, "--n", 6, "--film", "--enlarge", 2]
    code, out, err = call("generate.py", *asked, "--output", "deep/threes.png")
    assert code == 0, err
    assert "deep/threes.png, deep/threes.gif: 6 images, halton, T = 3, 5.0 passes each" in out
    with Image.open(tmp_path / "deep" / "threes.png") as picture:
        assert picture.size == (2 * 16 + 4, 3 * 16 + 2 * 4), "two labels in turn, three rows"
    with Image.open(tmp_path / "deep" / "threes.gif") as film:
        frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
    assert len(frames) == 4 and len(np.unique(frames[0].reshape(-1, 3), axis=0)) <= 3, "all masked at first"
    assert all((a != b).any() for a, b in zip(frames, frames[1:], strict=False))
    code, _, err = call("generate.py", *asked, "--output", "deep/threes.png")
    assert code == 2 and "deep/threes.png exists and is not overwritten" in last_line(err)


def test_generate_plays_a_file_at_its_own_steps(call: Call, tmp_path: Path) -> None:
    reference(20, name="long").save(tmp_path / "long.json")
    code, out, err = call("generate.py", "--policy", "long.json", "--n", 2)
    assert code == 0 and "T = 20" in out, err
    code, _, err = call("generate.py", "--policy", "long.json", "--n", 2, "--steps", 4, "--output", "b.png")
    assert code == 1 and "has 20 steps" in last_line(err)


def test_generate_with_nothing_said_draws_every_class(call: Call, tmp_path: Path) -> None:
    assert call("generate.py", "--n", 12)[0] == 0
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size == (10 * 64 + 9 * 4, 2 * 64 + 4)


def test_generate_goes_on_from_images(call: Call, tmp_path: Path) -> None:
    """Files, of any size, under a mask; the pixels outside of it are put back as they were."""
    rng = np.random.default_rng(0)
    original = rng.integers(256, size=(8, 8), dtype=np.uint8)
    for name, side in (("small.png", 8), ("large.png", 80)):
        Image.fromarray(original).resize((side, side), Image.Resampling.NEAREST).save(tmp_path / name)
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[0, 5] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    asked = ["--given", "small.png", "large.png", "--mask", "mask.png", "--paste", "--n", 3, "--enlarge", 1]
    code, out, err = call("generate.py", *asked, "--label", 7, "--output", "on.png")
    assert code == 0 and "6 images, maskgit, T = 8" in out, err
    with Image.open(tmp_path / "on.png") as picture:
        pixels = np.array(picture.convert("L")).astype(int)
    side, gap = 96, 4  # small images are shown with whole pixels
    assert pixels.shape == (2 * side + gap, 4 * side + 3 * gap)
    for column in range(1, 4):
        drawn = pixels[:side, column * (side + gap) :][:, :side][6::12, 6::12]
        same = drawn == original
        assert same[2:].all() and same[:, :4].all() and same[:, 6:].all(), "all but one token of 2 x 2 pixels"
    code, out, err = call("generate.py", "--given", "select", "--region", "left", "--n", 2)
    assert code == 0 and "16 images" in out, err


def test_generate_goes_on_from_files_that_are_not_square(call: Call, tmp_path: Path) -> None:
    """Resized and cropped to a strip of 16 x 96 pixels, of which the right half stays as it was."""
    pixels = np.random.default_rng(0).integers(256, size=(20, 60), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    fitted = np.array(ImageOps.fit(Image.fromarray(pixels), (96, 16), Image.Resampling.BICUBIC))
    asked = ["--task", "chain", "--given", "wide.png", "--region", "left", "--paste", "--n", 1]
    code, _, err = call("generate.py", *asked, "--enlarge", 1)
    assert code == 0, err
    with Image.open(tmp_path / "samples.png") as picture:
        gap = 4
        factor, drawn = (picture.width - gap) // 2 // 96, np.array(picture.convert("L"))
    drawn = drawn[::factor, 96 * factor + gap :: factor]
    assert (drawn[:, 48:] == fitted[:, 48:]).all() and (drawn[:, :48] != fitted[:, :48]).any()


def test_generate_opens_no_images_for_a_prompt(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose captions would all be read, to count them."""

    def opened(*where: Any) -> Any:
        raise AssertionError(f"{where} is opened")

    monkeypatch.setattr("natgym.task.open_split", opened)
    asked = ["--task", "shapes", "--prompt", "a red disc", "--n", 2, "--steps", 2, "--film"]
    code, _, err = call("generate.py", *asked)
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--region left", "name some with --given"),
        ("--given select --film", "begin with nothing"),
        ("--given nowhere.png", "nowhere.png is no file; give the path of an image"),
        ("--given select --mask nowhere.png", "nowhere.png is no file"),
        ("--given select --region middle", "'middle' is not one of top, bottom"),
        ("--label x", "label 'x' is not one of 0, 1, 2"),
        ("--n 0", "n 0: it must be at least 1"),
        ("--given select --mask m.png --region left", "region left and mask are both given"),
        ("--given select --columns 2", "columns 2: prompts, policies and given images have a row each"),
        ("--task shapes --prompt red --columns 2", "columns 2: prompts, policies"),
        ("--policy maskgit reference --enlarge 2", "enlarge 2: a sheet has its own size"),
        ("--output grid.jpg", "does not end in .png"),
        ("--policy nowhere", "policy 'nowhere'"),
        ("--generator nowhere", "'nowhere'"),
    ],
)
def test_generate_refuses_in_one_line(call: Call, tmp_path: Path, arguments: str, said: str) -> None:
    code, _, err = call("generate.py", *arguments.split())
    assert code in (1, 2) and said in last_line(err) and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of AdaNAT, as adanat_ppo.py leaves it."""
    config = TrainingConfig.of(
        steps=3,
        updates=1,
        trajectories=16,
        discriminator_batch=16,
        warmup=0,
        minibatch=48,
        evaluation_images=40,
        finalists=1,
        reward="adversarial",
        learning_rate=0.05,
        policy=PolicyConfig(width=16, channels=8, hidden=(16, 16), frequencies=8),
    )
    folder = tmp_path_factory.mktemp("runs") / "learned"
    folder.mkdir()
    write_config(folder / "config.json", config)
    train(config, folder, lambda metrics: None)
    return folder


def test_analyze_policies_writes_frames_figures_and_a_report(
    call: Call, tmp_path: Path, learned: Path
) -> None:
    schedule = reference(2, remask=4, name="searched")
    schedule.save(tmp_path / "searched.json")
    asked = [learned, "searched.json", "maskgit", "--samples", 30, "--films", 2, "--steps", 3]
    code, out, err = call("analyze_policies.py", *asked, "--output", "seen")
    assert code == 0, err
    folder = tmp_path / "seen"
    frame = pd.read_csv(folder / "frame.csv")
    labels = ["learned", "searched", "maskgit", "reference, T = 2", "reference, T = 3"]
    assert list(frame["policy"].unique()) == labels
    assert frame.groupby("policy").size().to_dict() == {
        label: 30 * (2 if label in ("searched", "reference, T = 2") else 3) for label in labels
    }
    own = frame[frame["policy"] == "learned"]
    assert own["value"].notna().all() and own["action_mask_ratio"].notna().all()
    assert (own.loc[own["step"] == 2, "reward"].between(0, 1)).all()
    figures = {path.stem for path in (folder / "figures").iterdir()}
    per_policy = {f"{name}-{label}" for name in ("by-class", "film", "disagreement") for label in labels[:3]}
    assert figures == per_policy | {"parameters", "revealed", "value-learned"}
    shares = pd.read_csv(folder / "adaptivity.csv")
    static = shares[shares["policy"] == "maskgit"]
    assert (static["spread"] < 1e-12).all() and static["step"].dropna().to_list() == pytest.approx([1] * 3)
    assert (shares.loc[shares["policy"] == "learned", "spread"] > 1e-4).any()
    report = (folder / "report.html").read_text()
    policies = len(shares["policy"].unique())  # whose images are in the panel
    assert report.count("data:image/png") == len(figures) + policies
    assert "standard deviation within a step" in report
    assert "learned" in out and "spread" in out


def test_a_run_is_explored_beside_its_start_and_judged_by_its_own_reward(
    call: Call, tmp_path: Path, learned: Path
) -> None:
    code, _, err = call("explore.py", learned, "--images", 5)
    assert code == 0, err
    page = (tmp_path / "explore.html").read_text()
    told = json.loads(page.partition('<script type="application/json">')[2].partition("</script>")[0])
    assert [policy["label"] for policy in told["policies"]] == ["learned", "start"]
    assert told["scores"] == ["reward", "class probability"]
    task = Task.load("digits")
    reward = load_discriminator(learned, task)
    for policy, played in zip(
        told["policies"], (load_policy(learned), FixedPolicy(reference(3))), strict=True
    ):
        frame = rollout(played, task, num_images=5, seed=0, reward=reward, rules="adanat").frame
        expected = frame[frame["step"] == 2]["reward"].to_list()
        assert policy["scores"]["reward"] == pytest.approx(expected, rel=1e-3)
        assert policy["parameters"][2][0] == pytest.approx(
            frame.loc[frame["sample"] == 0, "sampling_temperature"].to_list(), rel=1e-3
        )


def test_frames_may_be_parquet(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    small = ["--steps", 2, "--samples", 4, "--films", 1]
    assert call("analyze_policies.py", "maskgit", *small, "--format", "parquet", "--output", "seen")[0] == 0
    frame = pd.read_parquet(tmp_path / "seen" / "frame.parquet")
    assert frame.groupby("policy").size().to_dict() == {"maskgit": 8, "reference, T = 2": 8}
    assert frame["confidence"].notna().any() and frame["value"].isna().all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "polic"),
        ("nowhere", "policy 'nowhere'"),
        ("maskgit --samples 0", "samples 0"),
        ("maskgit --samples 2 --films 3", "films 3 are more than samples 2"),
        ("maskgit --against nowhere", "policy 'nowhere'"),
        ("maskgit --against threshold", "against 'threshold' has t = 16, not 4"),
    ],
)
def test_analyze_policies_refuses_in_one_line(call: Call, tmp_path: Path, arguments: str, said: str) -> None:
    code, _, err = call("analyze_policies.py", *arguments.split())
    assert code in (1, 2) and said in last_line(err).lower() and not list(tmp_path.iterdir())
