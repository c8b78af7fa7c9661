"""The splits: disjoint, complete, stratified, and the same for ever."""

import hashlib
from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from generators.data import TASKS, Part, PartName, load_part, pretrained_folder, stratified_parts

DIGITS = {
    "train": (1197, "1e4ff7309f1d7c84"),
    "select": (200, "aa9fa7f24dc36df6"),
    "report": (400, "ddb509cef0336968"),
}  # sizes and hashes


def digest(part: Part) -> str:
    """Name pictures and labels of a part, in order."""
    pixels, labels = part.images_NCHW.mul(16).byte(), part.condition.values.byte()
    return hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()[:16]


def test_digits_split_never_drifts() -> None:
    """A library's new shuffle would let training pictures into the tables."""
    parts = {name: load_part("digits", name) for name in get_args(PartName)}
    assert {name: (len(part), digest(part)) for name, part in parts.items()} == DIGITS


def test_digits_parts_are_disjoint_and_complete() -> None:
    """Compared by their pixels: no picture in two parts, none left out."""
    found = [{image.tobytes() for image in load_part("digits", name).images_NCHW.numpy()} for name in DIGITS]
    everything = {(image / 16).astype("float32").tobytes() for image in load_digits().images}
    assert sum(map(len, found)) == len(everything) == 1797 and set.union(*found) == everything


def test_digits_keep_their_labels_and_shares() -> None:
    data = load_digits()
    truth = {
        image.astype("uint8").tobytes(): label for image, label in zip(data.images, data.target, strict=True)
    }
    shares = np.bincount(data.target) / len(data.target)
    for name, (size, _) in DIGITS.items():
        part = load_part("digits", name)
        labels = part.condition.values
        assert [
            truth[image.tobytes()] for image in part.images_NCHW.mul(16).byte().numpy()
        ] == labels.tolist()
        assert np.abs(labels.bincount(minlength=10).numpy() - size * shares).max() <= 1.5, name


def test_a_cut_is_a_partition_whatever_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [70, 20, 30])
    parts = stratified_parts(labels, train=60, select=24, report=36)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 60, "select": 24, "report": 36}
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(120))
    assert np.bincount(labels[parts["train"]]).tolist() == [35, 10, 15]
    assert np.bincount(labels[parts["select"]]).tolist() == [14, 4, 6]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", get_args(PartName))
def test_pictures_are_in_range_and_conditions_fit(task: str, name: PartName) -> None:
    part = load_part(task, name)
    assert part.images_NCHW.dtype == torch.float32 and part.images_NCHW.ndim == 4
    assert part.images_NCHW.min() >= 0 and 0.9 < part.images_NCHW.max() <= 1
    assert len(part) == len(part.images_NCHW) == len(part.condition)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="task 'digit' is not one of digits"):
        load_part("digit", "train")
    with pytest.raises(ValueError, match="part 'test' is not one of train, select, report"):
        load_part("digits", "test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no generator is shipped for task 'nothing'"):
        pretrained_folder("nothing", "generator")
