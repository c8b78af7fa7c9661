"""Saved modules that somebody changed: cut, garbled, or with values of another type."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import Attack, cuts, forms, garbled, same_type, with_odd_value

Modules = dict[str, tuple[Path, Callable[[Path], Any]]]


@pytest.mark.parametrize("count", forms(8, 60))
def test_a_config_of_odd_values_is_refused_by_its_name(
    count: int, modules: Modules, copied: Callable[[Path], Path]
) -> None:
    rng = np.random.default_rng(0)
    with Attack("values of a module's config.json") as attack:
        for name, (folder, load) in modules.items():
            copy = copied(folder)
            path = copy / "config.json"
            whole = json.loads(path.read_text())
            for _ in range(count):
                content, place, before, after = with_odd_value(whole, rng)
                path.write_text(json.dumps(content))
                case = f"{name} {'.'.join(map(str, place))} {before!r:.60} -> {after!r:.30}"
                if attack.load(case, partial(load, copy), path, copy):
                    told = place[0] in ("metadata", "format") or same_type(before, after)
                    attack.check(case, told, "taken for a value of its type")
            shutil.rmtree(copy)


@pytest.mark.parametrize("count", forms(1, 10))
def test_cut_files_are_refused_by_their_names(
    count: int, modules: Modules, copied: Callable[[Path], Path]
) -> None:
    with Attack("cut files of modules") as attack:  # a text without its last byte, a line's end, is whole
        for name, (folder, load) in modules.items():
            copy = copied(folder)
            for file in ("config.json", "model.safetensors"):
                path = copy / file
                data = path.read_bytes()
                for share, left in cuts(data, count):
                    path.write_bytes(left)
                    case = f"{name}/{file} cut at {share} %"
                    if attack.load(case, partial(load, copy), path, copy):
                        attack.check(case, file == "config.json" and share == 99, "loaded")
                path.write_bytes(data)
            shutil.rmtree(copy)


@pytest.mark.parametrize("count", forms(2, 20))
def test_garbled_headers_are_refused_by_their_names(
    count: int, modules: Modules, copied: Callable[[Path], Path]
) -> None:
    """Of config.json and of the header of the weights; a bit of the weights themselves is a weight."""
    rng = np.random.default_rng(1)
    with Attack("garbled files of modules") as attack:
        for name, (folder, load) in modules.items():
            copy = copied(folder)
            for file in ("config.json", "model.safetensors"):
                path = copy / file
                data = path.read_bytes()
                head = len(data) if file == "config.json" else 8 + int.from_bytes(data[:8], "little")
                for number in range(count):
                    path.write_bytes(garbled(data[:head], rng) + data[head:])
                    attack.load(f"{name}/{file} {number}", partial(load, copy), path, copy)
                path.write_bytes(data)
            shutil.rmtree(copy)
