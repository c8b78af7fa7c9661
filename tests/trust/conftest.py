"""What is attacked: one saved module of each kind, and scripts in this process."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import call as call

from agents.named import load_policy
from generators.checkpoints import from_pretrained, save_pretrained
from generators.files import PRETRAINED
from generators.others.halton import HaltonMaskGIT, halton_large
from generators.others.words import Words, WordsConfig
from generators.planted import plant
from generators.vqgan import VQGAN, VQGANConfig
from natgym.metrics.classifier import RotationNet, RotationNetConfig

SHIPPED = {
    "nat": "digits/nat",
    "enat": "shapes/enat",
    "kmeans": "digits/tokenizer",
    "vq": "mnist/tokenizer",
    "glyphs": "sudoku-4/tokenizer",
    "classifier": "digits/extractors/score",
    "puzzle-reader": "sudoku-4/extractors/score",
    "scene-reader": "shapes/extractors/score",
    "words": "shapes/encoder",
    "actor": "digits/nat/policies/adanat-T2",
    "token-policy": "sudoku-4/nat/policies/adanat-T8",
}


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Callable[[Path], Any]]]:
    """Folders of saved modules of all kinds, to be changed by nobody, and what loads each."""
    root = tmp_path_factory.mktemp("modules")
    folders = {name: PRETRAINED / place for name, place in SHIPPED.items()}
    halton = dict(codebook_size=8, grid=(2, 2), num_classes=3, width=8, depth=1, heads=2, mlp_width=16)
    made: dict[str, Any] = {
        "halton": HaltonMaskGIT(halton_large(**halton)),
        "tokens": Words(WordsConfig(codebook_size=300, grid=(1, 4), vocabulary="{}")),
        "planted": plant(from_pretrained(PRETRAINED / "digits/nat"), 1.0, 2.0),  # type: ignore[arg-type]
        "vqgan": VQGAN(VQGANConfig(codebook_size=8, code_width=4, image_shape=(3, 16, 16), width=32)),
        "rotation": RotationNet(RotationNetConfig(image_shape=(1, 8, 8), channels=4, features=8)),
    }
    for name, module in made.items():
        save_pretrained(module, folders.setdefault(name, root / name))
    load = dict.fromkeys(("actor", "token-policy"), load_policy)
    return {name: (folder, load.get(name, from_pretrained)) for name, folder in folders.items()}


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Return a copy of a folder of a saved module, to be changed."""

    def copy(folder: Path) -> Path:
        others = shutil.ignore_patterns("policies", "strategies")
        return Path(shutil.copytree(folder, tmp_path / "copy", ignore=others))

    return copy
