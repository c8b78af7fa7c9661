"""Which task a text names, and what its task.json says; no network is loaded and no image read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from generators.config import DATA_SET_NAMES, GIVEN, RECIPES, ConditionLaw
from generators.files import (
    PRETRAINED,
    config_from_dict,
    place_and_options,
    read_description,
    read_json,
    reading,
    saved,
    write_atomic,
)
from generators.hub import download, on_hub

TASK_FILE = "task.json"
PLACES = {
    "tokenizer": "tokenizer",
    "score_extractor": "extractors/score",
    "reward_extractor": "extractors/reward",
    "encoder": "encoder",
}
SPLIT_FILE = "split.csv"  # beside it, where the splits of a folder of images are frozen


@dataclass(frozen=True, kw_only=True)
class Description:
    """What task.json says.

    Attributes:
        data: a data set of `generators.data`, or an image folder, PATH#COLUMN,size=N, from the task's folder.
        kind: of task; "images" alone, so far.
        image_size: height and width in pixels.
        color_mode: Pillow's name of it, "L" or "RGB".
        class_names: of the conditions.
        conditions: how classes are drawn in trainings, searches and tables: "balanced", or "data", as often
            as the train split has each.
        generator: folder of the generator that the task's bare name stands for.
        frozen: whether the splits of an image folder are those of SPLIT_FILE.
        source: where the images are from, and under which licence, for cards.
        given: which tokens of real images are drawn, unless a spec says another: the form of puzzles.
        recipe: of `generators.recipes`, by which its networks are trained unless flags say otherwise.
    """

    data: str
    kind: str = "images"
    image_size: tuple[int, int] | None = None
    color_mode: str | None = None
    class_names: tuple[str, ...] = ()
    conditions: ConditionLaw = "balanced"
    generator: str = "nat"
    given: str = ""
    recipe: str | None = None
    frozen: bool = False
    source: str = ""


def write_task(folder: Path, description: Description) -> None:
    """Write a folder's task.json; what stands at its default is left out."""
    usual = Description(data="")
    told = {name: value for name, value in asdict(description).items() if value != getattr(usual, name)}
    write_atomic(folder / TASK_FILE, json.dumps({"kind": description.kind, **told}, indent=2) + "\n")


def read_task(folder: Path) -> Description:
    """Return what a folder's task.json says; ValueError if it is none."""
    path = folder / TASK_FILE
    with reading(path, "a task"):
        description: Description = config_from_dict(Description, read_json(path))
    if description.kind != "images":
        raise ValueError(f"{path}: kind {description.kind!r} is not one of images")
    if description.conditions not in ("balanced", "data"):
        raise ValueError(f"{path}: conditions {description.conditions!r} is not one of balanced, data")
    if description.recipe is not None and description.recipe not in RECIPES:
        raise ValueError(f"{path}: recipe {description.recipe!r} is not one of {', '.join(RECIPES)}")
    place, options = place_and_options(description.data)
    near = folder / place
    if description.data in DATA_SET_NAMES or not (near.is_dir() or description.frozen):
        return description
    if description.frozen:
        split = quote(str((folder / SPLIT_FILE).resolve()))
        options = ",".join(filter(None, [options, f"split={split}"]))
    return replace(description, data=str(near.resolve()) + (f"#{options}" if options else ""))


def at_hand(spec: Any, *, images: bool = False) -> Any:
    """Return a path as it can be read from anywhere: absolute, if it is a file, a saved network or a task.

    Any other folder is one only where `images` may be meant; what is live or has a name stays as it is.
    """
    if not isinstance(spec, str | Path):
        return spec
    place, options = place_and_options(str(spec))
    path = Path(place)
    named = (PRETRAINED / path).exists() or place in DATA_SET_NAMES
    folder = images and path.is_dir() and not named
    if path.is_file() or saved(path) or (path / TASK_FILE).is_file() or folder:
        return str(path.resolve()) + (f"#{options}" if options else "")
    return str(spec)


def shipped() -> list[str]:
    """Return the names of the shipped tasks."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{TASK_FILE}"))


@dataclass(frozen=True)
class Location:
    """Where a task is: all that is known before anything is loaded."""

    spec: str
    name: str
    description: Description | None
    folder: Path | None = None
    networks: Mapping[str, Any] = field(default_factory=dict)
    given: str = ""


def find(spec: str, of_images: Callable[[str], Location]) -> Location:
    """Return the task that a text names, from the folder at hand, then from what is shipped.

    Args:
        spec: also with #given=FORM behind it, which tokens of real images are drawn.
        of_images: makes something of a text that is no folder of a task or generator, or raises ValueError.
    """
    place, said, form = spec.partition(GIVEN)
    found = _find(place, of_images)
    usual = GIVEN + found.description.given if found.description and found.description.given else ""
    given = said + form or found.given or usual
    return replace(found, spec=found.spec + said + form, name=found.name + said + form, given=given)


def _find(spec: str, of_images: Callable[[str], Location]) -> Location:
    """Return the task that a text without more behind it names."""
    if on_hub(spec):
        came = download(spec)
        found = _find(str(came.path), of_images)
        called = {came.root.name: came.repository, str(came.path): came.name}  # the cache has its own names
        return replace(found, spec=came.spec, name=called.get(found.name, found.name))
    for root, stands_for in ((Path(), lambda path: str(path.resolve())), (PRETRAINED, lambda path: spec)):
        path = root / spec
        if (path / TASK_FILE).is_file():
            return Location(stands_for(path), path.resolve().name, read_task(path), path)
        if saved(path) and (path.parent / TASK_FILE).is_file():
            description = replace(read_task(path.parent), generator=path.resolve().name)
            return Location(stands_for(path), path.resolve().parent.name, description, path.parent)
        if saved(path):  # a generator of a run, which says its task
            return _of_generator(path, stands_for(path), of_images)
    return of_images(spec)


def network_folder(network: str | Path, kind: str) -> Path:
    """Return the folder of a saved network: the one given, or that of the task given."""
    if on_hub(network):
        network = download(str(network)).path
    for root in (Path(), PRETRAINED):
        folder = root / network
        if saved(folder):  # a run folder may have a task's name, too
            return folder
        if (folder / TASK_FILE).is_file():
            place = read_task(folder).generator if kind == "generator" else PLACES[kind]
            if saved(folder / place):
                return folder / place
    raise ValueError(
        f"{str(network)!r} is neither a folder with a saved {kind} nor a task with one; shipped are "
        + ", ".join(shipped())
    )


def _of_generator(folder: Path, spec: str, of_images: Callable[[str], Location]) -> Location:
    task = read_description(folder).get("metadata", {}).get("task")
    try:
        location = find(task, of_images) if task else Location(spec, str(folder), None)
    except ValueError as error:
        raise ValueError(
            f"the generator in {folder} was made for the task {task!r}, which is not here; give the task, "
            f"and the generator beside it ({error})"
        ) from None
    networks = {"generator": folder}
    if saved(encoder := folder.parent / "encoder"):  # of a run that learned to draw from texts
        networks["encoder"] = encoder
    return replace(location, spec=spec, networks=networks)


def described(spec: str) -> Description | None:
    """Return what is said of a task; None where nothing is, or it is not there, which is said later."""

    def images_alone(spec: str) -> Location:
        return Location(spec, spec, None)

    try:
        return find(spec, images_alone).description
    except ValueError:
        return None


def recipe_of(spec: str) -> str | None:
    """Return the recipe of a task; None where it names none."""
    description = described(spec)
    return None if description is None else description.recipe
