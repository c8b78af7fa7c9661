"""A small image folder with metadata.csv: colored squares with texts, cheap to encode."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from natgym.discovery.modality import FrozenViews

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210), "white": (250, 250, 250)}
Row = dict[str, str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of 4 colors with 12 images each, and a column `shade` of two values."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    rows = []
    for color, rgb in COLORS.items():
        for number in range(12):
            noise = rng.integers(-25, 26, (16, 16, 3))
            name = f"images/{color}-{number}.png"
            Image.fromarray((np.array(rgb) + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / name)
            text = f"a {color} square, number {number}, {'dark' if number % 2 else 'light'}"
            shade = "dark" if number % 2 else "light"
            rows.append({"file_name": name, "text": text, "label": color, "shade": shade})
    write_rows(tmp_path, rows)
    return tmp_path


def write_rows(folder: Path, rows: list[Row]) -> None:
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def edit() -> Callable[[Path, Callable[[list[Row]], object]], None]:
    """Return a function that changes the rows of a folder's metadata.csv in place."""

    def change(folder: Path, work: Callable[[list[Row]], object]) -> None:
        with open(folder / "metadata.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        work(rows)
        write_rows(folder, rows)

    return change


Blobs = tuple[dict[str, FrozenViews], np.ndarray]


@pytest.fixture(scope="session")
def blobs() -> Callable[..., Blobs]:
    """Return a function that makes two modalities in which K categories are blobs, and their labels."""

    def make(K: int = 6, each: int = 30, spread: float = 0.25, views: int = 4, seed: int = 0) -> Blobs:
        rng = torch.Generator().manual_seed(seed)
        labels = torch.arange(K).repeat_interleave(each)
        found = {}
        for name, width in (("image", 12), ("text", 9)):
            centres = torch.nn.functional.normalize(torch.randn(K, width, generator=rng), dim=-1)
            clean = centres[labels] + spread * torch.randn(len(labels), width, generator=rng)
            noise = 0.3 * spread * torch.randn(len(labels), views, width, generator=rng)
            seen = torch.cat([clean[:, None], clean[:, None] + noise], 1)
            found[name] = FrozenViews(
                torch.nn.functional.normalize(seen, dim=-1), torch.ones(len(labels), dtype=torch.bool)
            )
        return found, labels.numpy()

    return make
