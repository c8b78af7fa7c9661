"""From a folder of images to a policy: two commands and nothing else, whatever is killed on the way."""

import importlib
import json
import shlex
import shutil
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from killing import kill
from PIL import Image, ImageDraw
from safetensors.torch import save_file

import natgym
from generators.tables import read_table
from natgym.task import Task

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = {"snowy owl": 90, "café #1": 70, "Tag & $acht": 40}
TINY = """--tokenizer-updates 4 --extractor-updates 3 --generator-updates 7 --width 16 --depth 2
    --codebook-size 16 --evaluation-images 60 --threads 1 --source zoo,CC0""".split()
POLICY = """--updates 2 --trajectories 40 --minibatch 80 --evaluate-every 1 --evaluation-images 60
    --final-images 60 --images 60 --evaluation-seeds 0 1 --search.images-per-evaluation 8 --search.race 2
    --search.coarse.remask 2 8 --search.coarse.sampling 1 --search.coarse.guidance 1 --search.finalists 2
    --search.final-images 20 --search.budget 200 --local --threads 1""".split()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 color images of mixed sizes in three classes with odd names: a disc, a square, a line."""
    root, rng = tmp_path_factory.mktemp("own") / "my photos", np.random.default_rng(0)
    for index, (name, number) in enumerate(NAMES.items()):
        (root / name).mkdir(parents=True)
        for row in range(number):
            width, height = (int(side) for side in rng.integers(16, 40, 2))
            image = Image.new(
                "RGB", (width, height), tuple(int(value) for value in rng.integers(150, 256, 3))
            )
            pen = ImageDraw.Draw(image)
            box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
            color = tuple(200 if channel == index else 0 for channel in range(3))
            (pen.ellipse, pen.rectangle, pen.line)[index](box, fill=color)
            image.save(root / name / f"IMG {row}.{'png' if row % 2 else 'jpg'}")
    return root


@pytest.fixture(scope="module")
def task(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The task, made by a training that was killed twice."""
    folder = tmp_path_factory.mktemp("tasks")
    kill(folder, "train_task.py", 2, photos, "--output", "photos", *TINY)
    assert not (folder / "photos" / "tokenizer" / "model.safetensors").exists()
    kill(folder, "train_task.py", 5, "--resume", "photos")
    assert not (folder / "photos" / "nat").exists()
    yield folder / "photos"


def weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("model.safetensors")}


def test_the_page_leads_from_a_folder_to_a_policy(
    call: Any, photos: Path, task: Path, tmp_path: Path
) -> None:
    """The commands of docs/own-data.md, as they are written there, with tiny budgets."""
    code, out, err = call("train_task.py", "--resume", task)
    assert code == 0, err
    for name in ("real, n=60", "reconstructions, n=60", "tokens shuffled, n=60", "maskgit", "random-order"):
        assert f"\n{name}" in out
    block = (DOCS / "own-data.md").read_text().split("```bash\n")[1].split("```")[0]
    said = {}
    for line in block.splitlines():
        line = line.replace("PHOTOS", shlex.quote(str(photos))).replace("runs/adanat_ppo-TIME", "learned")
        _, path, *words = shlex.split(line, comments=True)
        script = Path(path).name
        tiny = {"train_task.py": TINY, "adanat_ppo.py": [*POLICY, "--output", "learned"]}.get(script, ())
        code, out, err = call(script, *words, *tiny)
        assert code == 0, (line, err)
        said[script] = said.get(script, "") + out
    assert list(said) == ["train_task.py", "adanat_ppo.py", "analyze_policies.py", "generate.py"]
    assert "200 images in 3 classes" in said["train_task.py"]
    assert "160 train, 20 select, 20 report" in said["train_task.py"]
    assert "classes are drawn as often as the data have them" in said["train_task.py"]
    made = tmp_path / "tasks" / "birds"
    assert {"nat/model.safetensors", "extractors/reward/model.safetensors"} < weights(made).keys()
    assert weights(task) == weights(made), "whatever was killed on the way"
    for figure in ("contact-sheet", "overview"):
        assert (made / "figures" / f"{figure}.png").is_file()
    assert "Source and licence: zoo,CC0." in (made / "README.md").read_text()
    results = json.loads((tmp_path / "learned" / "results.json").read_text())
    assert results["protocol"]["conditions"] == "data" and results["protocol"]["task"] == "birds"
    assert {row["policy"] for row in results["rows"]} >= {"reference", "static-search", "step-only", "adanat"}
    assert (tmp_path / "learned" / "report.html").is_file() and (tmp_path / "owls.png").is_file()


def test_choices_of_a_photographer(call: Any, photos: Path, tmp_path: Path) -> None:
    """Crops, mirrors, rare classes, what a network sees, and a foreign judge: each leaves its trace."""
    timm = pytest.importorskip("timm")
    vit = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0)
    save_file(vit.state_dict(), tmp_path / "dino.safetensors")
    chosen = ["--crops", 2, "--mirror", "--class-power", 0.5, "--perceptual", 0.1, "--size", 8]
    judge = ["--extractor", "dinov2-small", "--extractor-weights", "dino.safetensors"]
    code, _, err = call("train_task.py", photos, "--output", "task", *TINY, *judge)
    assert code == 1 and "images 60: the extractor has 384 features" in err, "before anything is trained"
    assert not (tmp_path / "task").exists()
    code, _, err = call("train_task.py", photos, "--output", "task", *TINY, *chosen)
    assert code == 0, err
    settings = json.loads((tmp_path / "task" / "training" / "config.json").read_text())
    assert settings["mirror"] and settings["crops"] == 2 and settings["train"]["class_power"] == 0.5
    seen = pd.read_csv(tmp_path / "task" / "tokenizer" / "metrics.csv")["perceptual"]
    assert (seen > 0).all() and len(seen) == 4
    code, _, err = call("train_task.py", photos, "--output", "other", "--class-power", 2)
    assert code == 2 and "class_power 2.0: it is a share between 0 and 1" in err
    code, _, err = call("train_task.py", photos, "--output", "other", "--extractor", "inception")
    assert code == 2 and "--extractor and --extractor-weights" in err


def test_a_foreign_judge_is_taken_into_the_task(call: Any, photos: Path, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    vit = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0)
    args = Namespace(extractor="dinov2-small", extractor_weights=str(tmp_path / "dino.safetensors"))
    save_file(vit.state_dict(), args.extractor_weights)
    _train_task = importlib.import_module("_train_task")
    _train_task.take_extractor(args, tmp_path / "task")
    (tmp_path / "dino.safetensors").unlink()
    (tmp_path / "task" / "task.json").write_text(
        json.dumps({"kind": "images", "data": f"{photos}#rgb,size=8"})
    )
    task = Task.load(str(tmp_path / "task"))
    assert task.score_extractor.num_features == 384 and "FD-DINOv2" in task.score_extractor.meaning


@pytest.mark.slow
def test_photographs_without_classes(call: Any, tmp_path: Path) -> None:
    """One class: rotations teach the extractors, nothing is guided, and asking for it is refused."""
    rng = np.random.default_rng(1)
    (tmp_path / "plain").mkdir()
    for row in range(80):
        pixels = rng.integers(256, size=(8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "plain" / f"{row}.png")
    code, out, err = call("train_task.py", "plain", "--output", "task", *TINY)
    assert code == 0 and "one class: there is nothing to guide by" in out, err
    rows = json.loads((tmp_path / "task" / "results.json").read_text())["rows"]
    passes = {row["policy"]: row["nfe"] for row in rows if "nfe" in row}
    assert passes == {"maskgit": 8, "random-order": 8}
    env = natgym.DecodeVectorEnv(6, task="task", steps=2, reward="mmd")
    assert env.action_map.parameters == ("mask_ratio", "remask_temperature", "sampling_temperature")
    with pytest.raises(ValueError, match="guidance_scale has nothing to guide by where there is one class"):
        natgym.DecodeVectorEnv(6, task="task", steps=2, reward="mmd", parameters=["guidance_scale"])
    code, out, err = call("adanat_ppo.py", "--task", "task", *POLICY, "--output", "learned")
    assert code == 0 and "accuracy" not in out, err
    code, out, err = call("analyze_policies.py", "learned", "--output", "analysis", "--samples", 20)
    assert code == 0, err


def test_the_splits_are_frozen_and_what_is_added_is_told(
    photos: Path, task: Path, tmp_path: Path, call: Any
) -> None:
    code, _, err = call("train_task.py", "--resume", task)
    assert code == 0, err
    rows, _ = read_table(task / "split.csv")
    assert [row["split"] for row in rows].count("train") == 160 and len(rows) == 200
    moved = tmp_path / "photos"
    shutil.copytree(photos, moved)
    shutil.copytree(task, tmp_path / "task")
    described = json.loads((tmp_path / "task" / "task.json").read_text())
    described["data"] = "../photos#rgb,size=16"
    (tmp_path / "task" / "task.json").write_text(json.dumps(described))
    before = Task.load(str(tmp_path / "task")).split("report")
    assert sorted(set(before.condition.names)) == sorted(NAMES)
    first = moved / "café #1" / "IMG 1.png"
    Image.open(first).rotate(90).save(moved / "café #1" / "a new one.png")
    with pytest.warns(UserWarning, match="1 images were added since the task was made"):
        after = Task.load(str(tmp_path / "task")).split("report")
    assert after.images_NCHW.equal(before.images_NCHW)
    (moved / "café #1" / "a new one.png").rename(first)
    with pytest.raises(ValueError, match="IMG 1.png has changed since the task was made"):
        for split in ("train", "select", "report"):
            Task.load(str(tmp_path / "task")).split(split)  # type: ignore[arg-type]


def test_without_the_photographs_all_works_that_needs_none(task: Path, tmp_path: Path, call: Any) -> None:
    code, _, err = call("train_task.py", "--resume", task)
    assert code == 0, err
    shutil.copytree(task, tmp_path / "task")
    described = json.loads((tmp_path / "task" / "task.json").read_text())
    described["data"] = described["data"].replace("my photos", "nowhere")
    (tmp_path / "task" / "task.json").write_text(json.dumps(described))
    image = tmp_path / "owls.png"
    code, _, err = call(
        "generate.py", "--generator", "task", "--label", "snowy owl", "--n", 4, "--output", image
    )
    assert code == 0 and image.is_file(), err
    code, _, err = call("adanat_ppo.py", "--task", "task", *POLICY, "--output", "learned")
    assert code == 1 and "images are gone, first" in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "learned").exists()
    env = natgym.DecodeVectorEnv(6, task=str(tmp_path / "task"), steps=1, reward="classifier")
    env.reset(seed=0)
    _, reward, *_ = env.step(env.action_space.sample() * 0)
    assert reward.shape == (6,) and np.isfinite(reward).all()


def test_a_dry_run_trains_nothing_and_leaves_room(call: Any, photos: Path, tmp_path: Path) -> None:
    code, out, err = call("train_task.py", photos, "--output", "task", "--dry-run", *TINY)
    assert code == 0, err
    assert "generator NAT, 8 x 8 tokens" in out or "8 x 8" in out
    assert [path.name for path in (tmp_path / "task").iterdir()] == ["figures"]
    code, _, err = call("train_task.py", photos, "--output", "task", "--tokenizer", "digits")
    assert code == 1 and "tokenizer digits is for images (1, 8, 8), these are (3, 16, 16)" in err


@pytest.mark.slow
def test_what_a_kill_leaves_is_no_hindrance(call: Any, task: Path, photos: Path, tmp_path: Path) -> None:
    """Folders that were made and not filled, and splits without the task that they are of."""
    code, _, err = call("train_task.py", "--resume", task)
    assert code == 0, err
    shutil.copytree(task, tmp_path / "task")
    place = tmp_path / "task" / "extractors" / "reward"
    (place / "config.json").unlink()
    shutil.rmtree(tmp_path / "task" / "nat")
    (tmp_path / "task" / "nat.part").mkdir()
    (tmp_path / "task" / "README.md").write_text("mine")
    code, _, err = call("train_task.py", "--resume", tmp_path / "task")
    assert code == 0, err
    assert weights(tmp_path / "task") == weights(task)
    assert (tmp_path / "task" / "README.md").read_text() == "mine"
    (tmp_path / "task" / "split.csv").unlink()
    with pytest.raises(ValueError, match="where the splits of .* are frozen, is not there"):
        Task.load(str(tmp_path / "task")).split("report")
    (tmp_path / "early").mkdir()
    for name in ("split.csv", "config.json"):
        shutil.copy(task / name, tmp_path / "early" / name)
    code, _, err = call("train_task.py", photos, "--output", "early", *TINY, "--dry-run")
    assert code == 0, err


def test_an_output_among_the_images_is_refused(call: Any, photos: Path) -> None:
    code, _, err = call("train_task.py", photos, "--output", photos / "task", "--dry-run")
    assert code == 1 and "lies in the folder of images" in err and not (photos / "task").exists()


def test_too_few_images_to_judge_by_are_refused_before_anything(call: Any, tmp_path: Path) -> None:
    for row in range(50):
        for name in ("a", "b"):
            (tmp_path / "few" / name).mkdir(parents=True, exist_ok=True)
            image = Image.new("L", (8, 8), 2 * row + (name == "a"))
            image.save(tmp_path / "few" / name / f"{row}.png")
    code, out, err = call("train_task.py", "few", "--output", "task", "--dry-run", *TINY)
    assert code == 0 and "8 x 8 grey" in out, err
    for row in range(25, 50):
        for name in ("a", "b"):
            (tmp_path / "few" / name / f"{row}.png").unlink()
    code, _, err = call("train_task.py", "few", "--output", "other")
    assert code == 1 and "leaves 5 images in a split that judges" in err and "give 60 images" in err
    assert not (tmp_path / "other").exists()


def test_networks_that_can_not_be_made_are_refused_before_there_is_a_folder(call: Any, photos: Path) -> None:
    for flag, value, said in (
        ("--depth", 3, "depth 3 is odd"),
        ("--width", 30, "width 30 is not divisible by heads 4"),
        ("--downsampling", 3, "downsampling 3 is not a power of 2"),
    ):
        code, _, err = call("train_task.py", photos, "--output", "task", "--threads", 1, flag, value)
        assert code == 1 and said in err.strip().splitlines()[-1]
        assert not Path("task").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either a folder of images or --resume"),
        (["photos"], "name the task's folder with --output"),
        (["nowhere", "--output", "task"], "nowhere is no folder"),
        (["photos#width=3", "--output", "task"], "'width=3' is neither a column nor"),
        (["--resume", "nowhere"], "nowhere has no task.json"),
        (["x", "--output", "task", "--size", "2"], "size 2: it must be at least 4"),
    ],
)
def test_what_can_not_be_a_task_is_told_in_one_line(call: Any, arguments: list[str], said: str) -> None:
    code, _, err = call("train_task.py", *arguments)
    assert code and said in err and len(err.strip().splitlines()) == 1
    assert not Path("task").exists()
