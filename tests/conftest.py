"""Settings and fixtures shared by all tests."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before anything imports Ray or matplotlib, which read these once.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["MPLBACKEND"] = "Agg"

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
