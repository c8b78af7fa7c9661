"""Files of all kinds that natgym reads: cut, garbled and poisoned."""

import dataclasses
import io
import json
import os
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from attacks import PAYLOADS, Attack, cuts, forms, garbled, poisoned
from PIL import Image

from agents.adanat.config import AdaNATConfig, TrainingConfig
from agents.adanat.folders import claim, take
from agents.autonat.class_table import ClassTable
from agents.autonat.search import Search, SearchConfig
from generators import weights
from generators.caches import cached
from generators.checkpoints import restore, save_state
from generators.pixels import ImageFiles
from generators.schedules import Schedule, reference
from generators.shards import read_shards
from generators.tables import read_table
from generators.tokenizers import ConvVQ, ConvVQConfig
from generators.vq import VQTrainer, VQTrainingConfig
from natgym.env.episodes import Episodes, record
from natgym.evaluation.comparison import compare_results
from natgym.metrics.classifier import Classifier, ClassifierConfig
from natgym.metrics.reference import Reference
from natgym.metrics.weights import read_weights
from natgym.names.tasks import read_task
from natgym.policies import FixedPolicy
from natgym.runs import MetricsLog, read_config, write_config

EXTRACTOR = Classifier(ClassifierConfig(image_shape=(1, 8, 8), num_classes=10, channels=4, features=8))
SEARCH = SearchConfig(images_per_evaluation=20, budget=300, finalists=2, final_images=40, warm="none")


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        make: writes one.
        load: reads it.
        whole: whether a part of it is refused, all but its last byte perhaps left out; texts of rows can't
            tell.
    """

    make: Callable[[Path], Any]
    load: Callable[[Path], Any]
    whole: bool = True


def tokenizer_trainer() -> VQTrainer:
    config = ConvVQConfig(
        image_shape=(1, 8, 8), codebook_size=4, code_width=2, width=8, downsampling=4, blocks=1
    )
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return VQTrainer(ConvVQ(config), images, VQTrainingConfig(updates=3, batch_size=4))  # type: ignore[arg-type]


def checkpoint(path: Path) -> None:
    trainer = tokenizer_trainer()
    next(iter(trainer))
    save_state(path, trainer.state_dict())


def statistics(path: Path) -> None:
    np.savez(path, mu=np.zeros(8), sigma=np.eye(8))


def image(path: Path) -> None:
    values = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


def pixels(path: Path) -> torch.Tensor:
    return ImageFiles([path], None)[torch.tensor([0])]


def shard(path: Path) -> None:
    with tarfile.open(path, "w") as file:
        for row in range(6):
            data = io.BytesIO()
            Image.new("RGB", (8, 8), (row, 0, 0)).save(data, "png")
            for name, content in ((f"{row}.png", data.getvalue()), (f"{row}.txt", b"a disc")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
        end = file.offset
    os.truncate(path, end + 512)  # a mark of zeros, without tar's padding


def rows(path: Path) -> None:
    log = MetricsLog(path, "update", 1)
    for update in range(1, 9):
        log.append({"update": update, "loss": update / 3})


def search_log(path: Path) -> None:
    search = Search("coordinate", SEARCH, 2, 0, path)
    from agents.autonat.scorer import Measurement

    for evaluation in search.open():
        search.finish(evaluation, Measurement(1.0 + evaluation.number, 0.1))


def results(path: Path) -> None:
    row = {"policy": "a", "steps": 2, "distance": 1.0, "std": 0.1, "seeds": 1}
    path.write_text(json.dumps({"protocol": {"task": "digits"}, "rows": [row]}))


TOLD = {"env": {"steps": 2}, "adanat": dataclasses.asdict(AdaNATConfig()), "policy": None}


def strategy(path: Path) -> None:
    reference(4).save(path)


KINDS = {
    "checkpoint.pt": Kind(checkpoint, lambda path: restore(tokenizer_trainer(), path)),
    "weights.pth": Kind(lambda path: torch.save(EXTRACTOR.state_dict(), path), weights.read),
    "extractor.pth": Kind(
        lambda path: torch.save(EXTRACTOR.state_dict(), path),
        lambda path: read_weights(Classifier(EXTRACTOR.config), path, "classifier"),
    ),
    "statistics.npz": Kind(statistics, lambda path: Reference.load(path, EXTRACTOR)),
    "schedule.json": Kind(strategy, Schedule.load),
    "strategy.yaml": Kind(strategy, Schedule.load),
    "task.json": Kind(
        lambda path: path.write_text('{"data": "digits", "image_size": [8, 8], "color_mode": "L"}'),
        lambda path: read_task(path.parent),
    ),
    "class-table.json": Kind(
        lambda path: ClassTable((reference(2), reference(2, remask=2.0)), (0, 1, 0)).save(path),
        ClassTable.load,
    ),
    "episodes.parquet": Kind(
        lambda path: record(FixedPolicy(reference(2)), "digits", num_images=3, seed=0).save(path),
        Episodes.load,
    ),
    "results.json": Kind(results, lambda path: compare_results(path, path)),
    "training.json": Kind(lambda path: take(path.parent, TOLD), lambda path: claim(path.parent, TOLD)),
    "config.json": Kind(
        lambda path: write_config(path, TrainingConfig()), lambda path: read_config(path, TrainingConfig)
    ),
    "metrics.csv": Kind(rows, lambda path: MetricsLog(path, "update", 9, whole=True)),
    "search.csv": Kind(search_log, partial(Search, "coordinate", SEARCH, 2, 0), whole=False),
    "metadata.csv": Kind(
        lambda path: path.write_text("file_name,label\n" + 20 * "a.png,disc\n"),
        lambda path: read_table(path, "file_name", "label"),
        whole=False,
    ),
    "metadata.jsonl": Kind(
        lambda path: path.write_text(20 * '{"file_name": "a.png", "label": "disc"}\n'),
        lambda path: read_table(path, "file_name", "label"),
        whole=False,
    ),
    "image.png": Kind(image, pixels),
    "image.jpg": Kind(image, pixels),
    "images.tar": Kind(shard, lambda path: read_shards(path.parent, (".png",))),
}


@pytest.mark.parametrize("count", forms(3, 10))
def test_cut_files_are_refused_by_their_names(count: int, tmp_path: Path) -> None:
    with Attack("cut files") as attack:
        for name, kind in KINDS.items():
            kind.make(path := tmp_path / name)
            data = path.read_bytes()
            for share, left in cuts(data, count):
                path.write_bytes(left)
                case = f"{name} cut at {share} %"
                if attack.load(case, partial(kind.load, path), path) and share < 99:
                    attack.check(case, not kind.whole, "loaded")
            path.unlink()


@pytest.mark.parametrize("count", forms(3, 60))
def test_garbled_files_are_refused_or_still_make_sense(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    with Attack("garbled files") as attack:
        for name, kind in KINDS.items():
            kind.make(path := tmp_path / name)
            data = path.read_bytes()
            for number in range(count):
                path.write_bytes(garbled(data, rng))
                attack.load(f"{name} {number}", partial(kind.load, path), path)
            path.unlink()


@pytest.mark.parametrize("count", forms(2, 12))
def test_a_cut_or_garbled_cache_is_made_anew(count: int, tmp_path: Path) -> None:
    rng, made = np.random.default_rng(3), torch.arange(100)
    make = partial(cached, tmp_path / "tokens.safetensors", "tokens", "digits", lambda: made.clone())
    make()
    whole = (tmp_path / "tokens.safetensors").read_bytes()
    with Attack("caches") as attack:
        changes = [*cuts(whole, count), *((number, garbled(whole, rng)) for number in range(count))]
        for case, left in changes:
            (tmp_path / "tokens.safetensors").write_bytes(left)
            found: list[torch.Tensor] = []
            attack.load(case, lambda found=found: found.append(make()))
            attack.check(case, bool(found) and torch.equal(found[0], made), "other tokens")


@pytest.mark.parametrize(
    "protocols", [pytest.param((2,), id="short"), pytest.param(range(6), id="long", marks=pytest.mark.slow)]
)
def test_poisoned_files_execute_nothing(protocols: Any, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    loaders = {
        "checkpoint.pt": lambda path: restore(tokenizer_trainer(), path),
        "weights.pth": weights.read,
        "weights.ckpt": weights.read,
        "extractor.pth": KINDS["extractor.pth"].load,
        "statistics.npz": KINDS["statistics.npz"].load,
        "schedule.json": Schedule.load,
        "config.json": lambda path: read_config(path, TrainingConfig),
        "model.safetensors": weights.load_tensors,
    }
    with Attack("poisoned files") as attack:
        for protocol in protocols:
            for name, load in loaders.items():
                path = tmp_path / name
                for case, data in [*poisoned(mark, protocol), *saved_by_torch(mark, protocol), *arrays(mark)]:
                    path.write_bytes(data)
                    case = f"{name} {case} protocol {protocol}"
                    accepted = attack.load(case, partial(load, path), path)
                    attack.check(case, not accepted and not mark.exists(), "loaded or executed")
        for tag in ("python/object/apply:os.system", "python/name:os.system", "python/module:os"):
            (path := tmp_path / "strategy.yaml").write_text(f"ratios: !!{tag} ['touch {mark}']\n")
            attack.load(tag, partial(Schedule.load, path), path)
            attack.check(tag, not mark.exists(), "executed")


def saved_by_torch(mark: Path, protocol: int) -> list[tuple[str, bytes]]:
    found = []
    for payload in PAYLOADS:
        for archive in (False, True):
            torch.save(
                {"done": 0, "x": payload(mark)},
                file := io.BytesIO(),
                pickle_protocol=max(2, protocol),
                _use_new_zipfile_serialization=archive,
            )
            found.append((f"torch {payload.__name__} {archive}", file.getvalue()))
    return found


def arrays(mark: Path) -> list[tuple[str, bytes]]:
    found = []
    for payload in PAYLOADS:
        np.savez(file := io.BytesIO(), mu=np.array([payload(mark)], dtype=object), sigma=np.eye(8))
        found.append((f"array {payload.__name__}", file.getvalue()))
    return found
