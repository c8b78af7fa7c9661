"""From a folder with captions to a generator that reads prompts, a search, a policy and their tables."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

import natgym
from generators.checkpoints import from_pretrained
from generators.data import open_split
from generators.encoders import WordEncoder, make_encoder
from generators.shapes.data import sampled
from generators.shapes.scenes import draw
from generators.texts import Captions
from natgym.task import Task

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
TINY = """--tokenizer-updates 4 --extractor-updates 3 --generator-updates 7 --width 16 --depth 2
    --codebook-size 16 --evaluation-images 60 --threads 1""".split()
SEARCH = """--steps 2 --optimizer grid --images-per-evaluation 20 --budget 100 --finalists 2
    --final-images 40 --grid.remask 1 8 --grid.sampling 1 --grid.guidance 0 1 --coarse.remask 4
    --coarse.sampling 1 --coarse.guidance 0 1 --images 60 --evaluation-seeds 0 1 --local""".split()
POLICY = """--updates 2 --trajectories 40 --minibatch 80 --evaluate-every 1 --evaluation-images 60
    --final-images 60 --images 60 --evaluation-seeds 0 1 --search.images-per-evaluation 8 --search.race 2
    --search.coarse.remask 2 8 --search.coarse.sampling 1 --search.coarse.guidance 0 1 --search.finalists 2
    --search.final-images 20 --search.budget 200 --local --threads 1""".split()


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 scenes with a table of captions: every third image has two, one has none."""
    folder = tmp_path_factory.mktemp("captioned") / "scenes"
    scenes, texts = sampled(90, np.random.default_rng(0))
    (folder / "images").mkdir(parents=True)
    rows = []
    for row, (pixels, text) in enumerate(zip(draw(scenes), texts, strict=True)):
        name = f"images/{row}.png"
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / name)
        rows += [(name, text)] if row else [(name, "")]
        rows += [(name, f"a picture of {text}")] if row % 3 == 1 else []
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file_name", "text"), *rows])
    return folder


@pytest.fixture(scope="module")
def task(captioned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "task"
    words = [EXPERIMENTS / "train_task.py", captioned, "--condition", "text", "--output", folder, *TINY]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    train = open_split(Task.load(str(folder)).data, "train").condition
    assert isinstance(train, Captions)
    assert f"captions: {sum(map(len, train.texts))} in train" in done.stdout
    assert "texts are drawn as the data have them" in done.stdout
    assert "left out: 1 rows without caption" in done.stdout
    return folder


def test_a_folder_with_captions_becomes_a_task(
    captioned: Path, task: Path, call: Any, tmp_path: Path
) -> None:
    """Trained, drawn from by prompts, searched, learned on and judged, with tiny budgets."""
    found = Task.load(str(task))
    texts = {text for texts in open_split(found.data, "train").condition.texts for text in texts}  # type: ignore[attr-defined]
    assert found.generator.config.text_encoder == found.encoder.name  # type: ignore[attr-defined]
    assert any(text.startswith("a picture of") for text in texts), "an image's texts are in one split"
    assert json.loads((task / "task.json").read_text())["conditions"] == "data"

    prompt = sorted(texts)[0]
    asked = ["--prompt", prompt, "", "--images", 3, "--steps", 2]
    code, out, err = call("generate.py", "--task", task, *asked, "--film", "--output", "drawn.png")
    assert code == 0 and "6 images of 2 prompts, maskgit, T = 2" in out, err
    with Image.open("drawn.gif") as film:
        assert len(list(ImageSequence.Iterator(film))) == 3
    code, out, err = call(
        "generate.py", "--task", task, *asked, "--policy", "maskgit", "reference", "--output", "sheet.png"
    )
    assert code == 0 and out.count("6 images of 2 prompts") == 2, err
    code, _, err = call("generate.py", "--task", task, "--prompt", "a submarine", "--output", "no.png")
    assert code == 1 and "'submarine' is no word that is known here" in err
    assert not Path("no.png").exists() and len(err.strip().splitlines()) == 1

    code, _, err = call("autonat_search.py", "--task", task, *SEARCH, "--output", "searched")
    assert code == 0, err
    code, _, err = call("autonat_search.py", "--task", task, *SEARCH, "--table.candidates", 2)
    assert code == 1 and "a schedule per class is for classes" in err
    code, out, err = call("adanat_ppo.py", "--task", task, *POLICY, "--output", "learned")
    assert code == 0 and "accuracy" not in out, err
    results = json.loads(Path("learned/results.json").read_text())
    assert results["protocol"]["encoder"] == found.encoder.name
    assert results["protocol"]["conditions"] == "data"
    code, out, err = call("analyze_policies.py", "learned", "--output", "analysis", "--samples", 20)
    assert code == 0, err
    code, _, err = call("audit_categories.py", "--task", task, "--generator", task)
    assert code != 0 and len(err.strip().splitlines()) == 1


def test_an_environment_draws_what_it_is_asked_for(task: Path) -> None:
    found = Task.load(str(task))
    prompt = open_split(found.data, "train").condition.names[0]
    env = natgym.DecodeVectorEnv(3, task=str(task), steps=2, reward="mmd")
    env.reset(seed=0, options={"prompt": [prompt, "", prompt]})
    rewards: Any = None
    for _ in range(2):
        _, rewards, *_ = env.step(np.zeros((3, 4), dtype=np.float32))
    assert env.finished is not None and env.finished.condition.names == [prompt, "", prompt]
    assert np.isfinite(rewards).all()
    with pytest.raises(ValueError, match="give one of them"):
        env.reset(options={"prompt": [prompt] * 3, "condition": [prompt] * 3})
    with pytest.raises(ValueError, match="2 conditions for 3 rows"):
        env.reset(options={"prompt": [prompt] * 2})
    with pytest.raises(ValueError, match="reads no texts; take mmd"):
        natgym.DecodeVectorEnv(3, task=str(task), steps=2)


def test_another_encoder_is_refused(task: Path) -> None:
    foreign = WordEncoder.of(["some other words"])
    with pytest.raises(ValueError, match="the generator learned from texts read by words-.*, the encoder is"):
        Task.load(str(task), encoder=foreign).generator  # noqa: B018


def test_a_training_makes_its_encoder_once(
    captioned: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a large model; the watcher, who judges beside the training, is given it."""
    made = []

    def counted(*what: Any) -> Any:
        made.append(what[0])
        return make_encoder(*what)

    monkeypatch.setattr("generators.encoders.make_encoder", counted)
    data = ["--data", f"{captioned}#caption=text", "--tokenizer", "shapes", "--output", "drawn"]
    budget = "--updates 1 --batch-size 4 --width 16 --depth 2 --heads 2 --evaluate-every 1".split()
    code, _, err = call("train_generator.py", *data, *budget, "--evaluation-images", 2)
    assert code == 0 and made == ["words"], err
    encoder = from_pretrained("drawn/encoder")
    assert from_pretrained("drawn/generator").config.text_encoder == encoder.name  # type: ignore[attr-defined,union-attr]


def test_tables_of_captions(captioned: Path) -> None:
    """Several texts of a file, a column of another name, and what is refused."""
    condition = open_split(f"{captioned}#caption=text", "train").condition
    assert isinstance(condition, Captions) and max(map(len, condition.texts)) == 2
    with pytest.raises(ValueError, match="no column 'words'; name one of file_name, text"):
        open_split(f"{captioned}#caption=words", "train")
    with pytest.raises(ValueError, match=r"none of the columns label.*#caption=COLUMN where it is a text"):
        open_split(str(captioned), "train")
    with pytest.raises(ValueError, match="has no metadata.csv, so 'text' can't be its column"):
        open_split(f"{captioned}/images#caption=text", "train")


@pytest.mark.slow
def test_shapes_is_searched_learned_on_and_judged_by_its_captions(call: Any, tmp_path: Path) -> None:
    """The shipped task through every script that its page names, with tiny budgets."""

    def run(line: str, *more: Any) -> str:
        code, out, err = call(*line.split(), *more)
        assert code == 0, (line, err)
        return out

    search = "autonat_search.py --task shapes --objective caption --output searched"
    assert "caption" in run(search, *SEARCH, "--images", 100)
    ppo = "adanat_ppo.py --task shapes --updates 2 --reward mmd=1,caption=1 --output learned"
    run(ppo, *POLICY[2:], "--images", 100, "--final-images", 100)
    rows = {row["policy"]: row for row in json.loads(Path("learned/results.json").read_text())["rows"]}
    assert {"caption", "colors", "relations"} < set(rows["adanat"]) and "accuracy" not in rows["adanat"]
    before = Path("learned/results.json").read_bytes()
    Path("learned/results.json").unlink()  # as if it had been stopped before its end
    run("adanat_ppo.py --resume learned --local --threads 1")
    assert json.loads(Path("learned/results.json").read_bytes())["rows"][-1] == json.loads(before)["rows"][-1]
    study = "adaptivity.py learned --no-equal --local --threads 1 --images 100 --samples 60 --output adapts"
    run(study, "--evaluation-seeds", 0, 1)
    run("analyze_policies.py learned --samples 40 --output analysis")
    judge = "evaluate.py --task shapes --policy maskgit --steps 2 --images 100 --seeds 0 --output judged"
    assert {"caption", "relations", "colors"} < set(run(judge).split())
    judge = "evaluate_captions.py --policy maskgit searched --steps 2 --images 100 --output captions"
    out = run(judge, "--evaluation-seeds", 0)
    for said in ("seen combinations", "held-out things", "held-out relations", "held-out wordings", "R@1"):
        assert said in out
    rows = json.loads(Path("captions/results.json").read_text())["rows"]
    real = [row for row in rows if row["policy"] == "real" and row["kind"] == "all"]
    assert len(real) == 4 and all(row["caption"] > 0.97 for row in real)
    assert Path("captions/figures/nearest.png").is_file()
    code, _, err = call("evaluate_captions.py", "--task", "digits", "--policy", "maskgit", "--output", "no")
    assert code == 1 and "reads no scenes" in err and not Path("no").exists()
