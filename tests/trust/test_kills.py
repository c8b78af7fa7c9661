"""Runs that are killed at any moment, some of them again and again, end where quiet ones end."""

import itertools
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from attacks import forms, scaled
from in_process import Call
from killing import Victim, differences
from PIL import Image

from agents.distributed.cluster import quiet as ray_is_quiet

SEARCH = """--search.images-per-evaluation 8 --search.race 2 --search.coarse.remask 2 8
    --search.coarse.sampling 1 --search.coarse.guidance 0 1 --search.finalists 2 --search.final-images 20
    --search.budget 200"""
POLICY = f"""--steps 2 --updates 6 --trajectories 32 --minibatch 32 --evaluate-every 2 --evaluation-images 40
    --finalists 2 --final-images 40 --images 40 --evaluation-seeds 0 1 {SEARCH}"""
SCHEDULES = f"""--steps 2 --optimizer grid cma --images 40 --evaluation-seeds 0 1 --grid.remask 2 8
    --grid.sampling 1 --grid.guidance 0 1 {SEARCH.replace("search.", "")}"""
GENERATOR = """--updates 40 --batch-size 16 --warmup 2 --checkpoint-every 5 --width 16 --heads 2
    --evaluate-every 20 --evaluation-images 40 --evaluation-steps 2"""
LAWS = f"""--updates 4 --rounds 1 --laws.laws 2 --laws.rung 2 --laws.images 40 --steps 2 --images 40
    --evaluation-seeds 0 1 {SEARCH}"""


class Run(NamedTuple):
    """A kind of run.

    Attributes:
        script, flags: what is run.
        places: flags that a resume takes as well.
        alone: whether the driver is killed and Ray's processes are not.
        quiet: name of the kind whose quiet run is this one's.
        equal: whether it ends where a quiet one ends; under ASHA, which trials are stopped is the clock's.
    """

    script: str
    flags: str
    places: str = ""
    alone: bool = False
    quiet: str = ""
    equal: bool = True


LOCAL = "--local --threads 1"
RUNS = {
    "tokenizer": Run(
        "train_tokenizer.py",
        """--kind vq --updates 60 --batch-size 16 --warmup 2 --checkpoint-every 5 --codebook-size 16
        --width 8 --downsampling 2 --blocks 1""",
    ),
    "nat": Run("train_generator.py", GENERATOR),
    "enat": Run("train_generator.py", f"--model enat --depth 1 {GENERATOR}"),
    "discovery": Run(
        "mmgcd_discover.py", "--epochs 4 --simclr.updates 3 --views 2 --threads 1 --checkpoint-every 1"
    ),
    "evaluation": Run(
        "evaluate.py", "--policy reference maskgit halton --steps 2 4 --images 60 --seeds 0 1 --threads 1"
    ),
    "search": Run("autonat_search.py", SCHEDULES, LOCAL),
    "search, driver": Run("autonat_search.py", SCHEDULES, alone=True, quiet="search"),
    "policy": Run("adanat_ppo.py", POLICY, LOCAL),
    "policy, driver": Run("adanat_ppo.py", POLICY, alone=True, quiet="policy"),
    "co-training": Run("adanat_ppo.py", f"{POLICY} --cotraining.updates 1", LOCAL),
    "controls": Run(
        "adaptivity.py", f"{{policy}} --images 40 --evaluation-seeds 0 1 --samples 40 {SEARCH}", LOCAL
    ),
    "laws": Run("autonat_training.py", LAWS, equal=False),
    "task": Run(
        "train_task.py",
        """{images} --tokenizer-updates 30 --extractor-updates 30 --generator-updates 30 --width 16 --depth 2
        --codebook-size 16 --evaluation-images 60 --threads 1""",
    ),
}
Quiet = dict[str, tuple[Path, float]]


@pytest.fixture(scope="module")
def quiet() -> Quiet:
    """Runs that nobody kills, and the seconds that they took; made when first asked for."""
    return {}


def kill_and_compare(name: str, count: int, call: Call, folder: Path, quiet: Quiet) -> None:
    """Kill runs `count` times in all, each up to three times before it may end."""
    kind, rng = RUNS[name], np.random.default_rng(list(name.encode()))
    reference = kind.quiet or name
    places = {
        "images": images(folder) if name == "task" else "",
        "policy": folder.parent / "quiet-policy" / "run",
    }
    if "{policy}" in kind.flags and "policy" not in quiet:
        kill_and_compare("policy", 0, call, folder, quiet)
    flags = kind.flags.format(**places).split()
    if reference not in quiet:
        own, began = RUNS[reference], time.monotonic()
        output = folder.parent / f"quiet-{reference}" / "run"
        finish(call, folder, own, *flags, *own.places.split(), "--output", output)
        quiet[reference] = output, time.monotonic() - began
    whole, seconds = quiet[reference]
    kills = resumed = 0
    for number in itertools.count():
        if kills >= count:
            break
        output = folder / str(number) / "run"  # one name, which figures show
        for _ in range(int(rng.integers(1, 4))):
            victim = Victim(folder, kind.script, *words(output, flags), *kind.places.split())
            after = rng.uniform(0, seconds * (3 if kind.alone else 0.8))
            was_running = victim.killed(lambda output=output: output.exists(), after, alone=kind.alone)
            kills += was_running
            if not was_running:
                assert victim.process.returncode == 0, (folder / "said.txt").read_text()
                break
        if was_running:
            finish(call, folder, kind, *words(output, flags), *RUNS[reference].places.split())
            resumed += 1
        assert not (kind.equal and (wrong := differences(whole, output))), (number, wrong)
        assert not [*output.rglob("*.part"), *output.rglob(".tmp*")]
    print(f"attack: kills of {name}: {{'kills': {kills}, 'runs': {number}, 'resumed in the end': {resumed}}}")


def finish(call: Call, folder: Path, kind: Run, *flags: Any) -> None:
    """Run it to its end: in this process, or in one of its own if it takes Ray."""
    if not kind.equal:
        assert Victim(folder, kind.script, *flags).ended() == 0, (folder / "said.txt").read_text()
        return
    code, _, error = call(kind.script, *flags)
    assert code == 0, error


def images(folder: Path) -> Path:
    """Draw 120 images in two classes; return their folder."""
    rng = np.random.default_rng(0)
    for row in range(120):
        (place := folder.parent / "images" / "ab"[row % 2]).mkdir(parents=True, exist_ok=True)
        values = rng.integers(100, size=(8, 8)) + 100 * (row % 2)
        Image.fromarray(values.astype(np.uint8)).save(place / f"{row}.png")
    return folder.parent / "images"


def words(output: Path, flags: list[str]) -> list[Any]:
    """Return what begins a run, or goes on with it once it has settings of its own."""
    if any((output / name).is_file() for name in ("config.json", "training.json")):
        return ["--resume", output]
    shutil.rmtree(output, ignore_errors=True)
    return [*flags, "--output", output]


@pytest.mark.parametrize("count", forms(1, 10))
def test_a_tokenizer(count: int, call: Call, tmp_path: Path, quiet: Quiet) -> None:
    kill_and_compare("tokenizer", count, call, tmp_path, quiet)


# Kills of each run; under Ray the driver is killed alone.
LONG = {
    **dict.fromkeys(("search", "policy"), 15),
    **dict.fromkeys(
        ("nat", "enat", "evaluation", "discovery", "task", "co-training", "controls", "laws"), 10
    ),
    **dict.fromkeys(("search, driver", "policy, driver"), 7),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.ray] if "driver" in name else []) for name in LONG]
)
def test_another_run(name: str, call: Call, tmp_path: Path, quiet: Quiet) -> None:
    kill_and_compare(name, scaled(LONG[name]), call, tmp_path, quiet)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("name", ["search", "policy"])
def test_nodes_of_ray(name: str, call: Call, tmp_path: Path, quiet: Quiet) -> None:
    """A node is killed at any moment; the run ends by itself, where a quiet one ends."""
    count = scaled(3)
    kill_and_compare(name, 0, call, tmp_path, quiet)  # the quiet run
    ray_is_quiet()
    from ray.cluster_utils import Cluster

    kind, rng, (whole, seconds) = RUNS[name], np.random.default_rng(0), quiet[name]
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for number in range(count):
            lost = nodes.add_node(num_cpus=1)
            output = tmp_path / str(number) / "run"
            begin = [*kind.flags.split(), "--address", nodes.address, "--output", output]
            victim = Victim(tmp_path, kind.script, *begin)
            while not (output / "config.json").exists():
                assert victim.process.poll() is None, (tmp_path / "said.txt").read_text()
                time.sleep(0.1)
            time.sleep(rng.uniform(0, 3 * seconds))
            nodes.remove_node(lost, allow_graceful=False)
            assert victim.ended() == 0, (tmp_path / "said.txt").read_text()
            assert not (wrong := differences(whole, output)), (number, wrong)
    finally:
        nodes.shutdown()
    print(f"attack: nodes lost by {name}: {{'kills': {count}}}")
