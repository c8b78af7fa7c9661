"""Settings and fixtures shared by all tests."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before anything imports Ray or matplotlib, which read these once.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # at Ray's 15 the suite's other processes starve its workers
os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"

torch.set_num_threads(1)  # small tensors: more threads only wait for each other


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, torch.Tensor], dict[str, Any]]]:
    """Return `name -> (tensors, meta)` for the recorded reference behaviour; skips where it is absent."""
    folder = Path(os.environ.get("NATGYM_GOLDEN", SHARED / "golden"))

    def load(name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors, meta = folder / f"{name}.safetensors", folder / f"{name}.json"
        for path in (tensors, meta):
            if not path.is_file():
                pytest.skip(f"no golden file {path}; set NATGYM_GOLDEN to the folder that holds it")
        return load_file(tensors), json.loads(meta.read_text())

    return load


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder with the data sets for tests; skips where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder}")
    return folder


@pytest.fixture(scope="session")
def recipe_weight() -> Callable[[dict[str, Any]], torch.Tensor]:
    """Return `entry -> weight`: recorded weights too big to store are drawn again, and checked."""

    def draw(entry: dict[str, Any]) -> torch.Tensor:
        random = np.random.RandomState(entry["seed"])
        drawn = random.randint(-128, 128, size=int(np.prod(entry["shape"]))).astype(np.float32)
        weight = drawn * np.float32(2.0 ** -(7 + entry["shift"]))
        assert hashlib.sha256(weight.tobytes()).hexdigest() == entry["sha256"]
        return torch.from_numpy(weight).reshape(entry["shape"])

    return draw
