"""The scripts at the papers' sizes: random weights of NAT-L, ENAT-L and the f16 VQGAN, few images, two steps.

Each run is killed for good once it has left something to go on with, and resumed to its end. Nothing of Ray
is at hand. Of ImageNet's 1,000 classes there are two, so that the splits are small.
"""

import importlib.util
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from killing import command
from PIL import Image
from torch.nn import functional as F

from generators.checkpoints import save_pretrained
from generators.enat import ENAT, enat_l
from generators.nat import NAT, nat_l
from generators.vqgan import VQGAN, vqgan_f16
from natgym.metrics.classifier import RotationNet, RotationNetConfig
from natgym.names.tasks import Description, write_task
from natgym.rewards.projected import ProjectedConfig, ProjectedDiscriminator
from natgym.runs import read_metrics

CLASSES = ("cat", "dog")
ROWS = 4  # drawn and learned from at once
JUDGED = 6  # images of each measurement, as few as have five neighbors
AT_ONCE = 8  # runs side by side on a GPU

SEARCH = f"""--optimizer grid --search.grid.remask 4 --search.grid.sampling 1 --search.grid.guidance 1
    --search.race 1 --search.finalists 1 --search.images-per-evaluation {JUDGED} --search.budget {2 * JUDGED}
    --search.final-images {JUDGED} --images {JUDGED} --evaluation-seeds 0 --steps 2"""
PAPER = f"""--preset adanat_paper --updates 1 --trajectories {ROWS} --discriminator-batch {ROWS}
    --discriminator-steps 1 --evaluate-every 1 --evaluation-images {JUDGED}"""
LOCAL = "--local --threads 1"
# Script -> its flags, those that say where it is resumed, what it leaves to go on with, and its log.
SCRIPTS = {
    "train_generator": (
        f"--size l --updates 2 --batch-size {ROWS} --checkpoint-every 1 --evaluate-every 0",
        "--device {device}",
        "checkpoint.pt",
        "metrics.csv",
    ),
    "autonat_search": (
        f"{SEARCH} {LOCAL}".replace("search.", ""),
        LOCAL,
        "searches/grid-0.csv",
        "searches/grid-0.csv",
    ),
    "adanat_ppo": (f"{PAPER} {SEARCH} {LOCAL}", LOCAL, "checkpoint.pt", "metrics.csv"),
    "evaluate": (
        f"--policy reference maskgit --images {JUDGED} --seeds 0 --steps 2 --threads 1",
        "--device {device} --threads 1",
        "results.json",
        "results.json",
    ),
}


@dataclass(frozen=True)
class Run:
    """A script on one of the generators in a precision."""

    script: str
    model: Literal["nat", "enat"]
    precision: str

    def __str__(self) -> str:
        return f"{self.script}-{self.model}-{self.precision}"


# Of processors that don't know bfloat16 torch emulates its products, which takes too long.
KNOWN = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
HALF = "bfloat16" if KNOWN else "float32"
ON_CPU = [
    Run("train_generator", "nat", "float32"),
    Run("autonat_search", "nat", HALF),
    Run("adanat_ppo", "nat", HALF),
    Run("evaluate", "nat", "float32"),
    Run("generate", "enat", "float32"),
]
JUDGING = ("adanat_ppo", "autonat_search", "evaluate")
ON_GPU = [
    *(Run(script, "enat", "bfloat16") for script in JUDGING),
    *(Run("train_generator", "nat", precision) for precision in ("float32", "bfloat16")),
    *(
        Run(script, "nat", precision)
        for script, precision in itertools.product(JUDGING, ("float32", "tf32", "bfloat16"))
    ),
    *(Run("generate", model, "float32") for model in ("nat", "enat")),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A task of the papers' geometry, what the reward looks through, and a Ray that can't be imported."""
    home = tmp_path_factory.mktemp("full")
    torch.manual_seed(0)
    for split, label in itertools.product(("train", "val", "test"), CLASSES):
        folder = home / "images" / split / label
        folder.mkdir(parents=True)
        for number in range(4):
            smooth = F.interpolate(torch.rand(1, 3, 8, 8), (256, 256), mode="bilinear")[0]
            Image.fromarray((255 * smooth).byte().permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    names: dict[str, Any] = {"class_names": CLASSES}
    write_task(home, Description(data="images", image_size=(256, 256), color_mode="RGB", **names))
    for kind in ("score", "reward"):  # no classifiers: in noise there are no classes to tell
        judge = RotationNet(RotationNetConfig(image_shape=(3, 256, 256), channels=8, features=2))
        save_pretrained(judge, home / "extractors" / kind)
    names |= {"num_classes": len(CLASSES)}
    save_pretrained(VQGAN(vqgan_f16()), home / "tokenizer")
    save_pretrained(NAT(nat_l(**names)), home / "nat")
    save_pretrained(ENAT(enat_l(**names)), home / "enat")
    if importlib.util.find_spec("timm"):
        discriminator = ProjectedDiscriminator(ProjectedConfig(condition_width=len(CLASSES)))
        save_pretrained(discriminator, home / "discriminator")
    (home / "absent" / "ray").mkdir(parents=True)
    (home / "absent" / "ray" / "__init__.py").write_text("raise ImportError('Ray is not here')\n")
    yield home
    shutil.rmtree(home)


def flags(run: Run, home: Path, device: str) -> list[str]:
    """Return the command line of a run."""
    generator = str(home / run.model)
    if run.script == "generate":
        return [*f"--steps 2 --n {ROWS} --film --device {device}".split(), "--generator", generator]
    given = [*SCRIPTS[run.script][0].split(), "--device", device, "--precision", run.precision]
    if run.script == "train_generator":
        return [*given, "--data", str(home), "--model", run.model, "--cache", str(home / "cache")]
    if run.script == "adanat_ppo":
        backbone = home / "discriminator"
        given += ["--adversarial.backbone", str(backbone) if backbone.is_dir() else "small"]
        given += ["--no-step-only"] if device == "cpu" else []
    named = "--generators" if run.script == "evaluate" else "--generator"
    return [*given, "--task", str(home), named, generator]


def start(run: Run, home: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(home / "absent"), os.environ.get("PYTHONPATH")]))
    line = [sys.executable, *command(f"{run.script}.py", arguments)]
    both: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(line, cwd=folder, env=os.environ | {"PYTHONPATH": path}, text=True, **both)


def finish(process: subprocess.Popen[str]) -> None:
    said = process.communicate()[0]
    assert process.returncode == 0, said


def kill_after(file: Path, process: subprocess.Popen[str]) -> None:
    """Kill a run for good once a file is there, a log with a line."""
    while not (file.is_file() and (file.suffix != ".csv" or read_metrics(file))):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def lines(log: Path) -> list[dict[str, Any]]:
    """Return the rows of a log or a table."""
    return json.loads(log.read_text())["rows"] if log.suffix == ".json" else read_metrics(log)


def complete(run: Run, home: Path, folder: Path, device: str) -> None:
    """Kill a run, resume it, and look at what it leaves."""
    folder.mkdir()
    if run.script == "generate":
        finish(start(run, home, folder, *flags(run, home, device)))
        with Image.open(folder / "samples.png") as picture, Image.open(folder / "samples.gif") as film:
            assert min(picture.size) >= 256 and getattr(film, "n_frames", 1) > 1
        return
    _, places, file, log = SCRIPTS[run.script]
    own = folder / "run"
    kill_after(own / file, start(run, home, folder, *flags(run, home, device), "--output", "run"))
    first, last = lines(own / log)[0], "generator" if run.script == "train_generator" else "report.html"
    assert not (own / last).exists(), "it was killed too late"
    finish(start(run, home, folder, "--resume", "run", *places.format(device=device).split()))
    assert lines(own / log)[0] == first, "what was done is done again"
    assert (own / last).exists() and any((own / "figures").iterdir())
    if run.script == "train_generator":
        losses = [float(row["loss"]) for row in lines(own / log)]
        assert len(losses) == 2 and all(map(math.isfinite, losses))
        assert (own / "generator" / "model.safetensors").is_file()
        return
    results = json.loads((own / "results.json").read_text())
    protocol, rows = results["protocol"], {row["policy"]: row for row in results["rows"]}
    assert (protocol.get("precision", "float32"), protocol["images"]) == (run.precision, JUDGED)
    found = {"autonat_search": "grid", "adanat_ppo": "adanat", "evaluate": "maskgit"}[run.script]
    assert all(rows[name]["distance"] >= 0 for name in ("reference", found))


@pytest.mark.slow
@pytest.mark.parametrize("run", ON_CPU, ids=str)
def test_a_run_on_a_cpu(run: Run, home: Path, tmp_path: Path) -> None:
    complete(run, home, tmp_path / "run", "cpu")
    shutil.rmtree(tmp_path / "run")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_runs_on_a_gpu(home: Path, tmp_path: Path) -> None:
    """Side by side, since most of the time goes into beginning."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = {run: pool.submit(complete, run, home, tmp_path / str(run), "cuda") for run in ON_GPU}
    shutil.rmtree(tmp_path)
    failed = [f"{run}: {error}" for run, one in done.items() if (error := one.exception())]
    assert not failed, "\n\n".join(failed)
