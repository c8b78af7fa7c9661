"""The splits: disjoint, complete, stratified, and the same for ever."""

import csv
import hashlib
from pathlib import Path
from typing import Any, get_args
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageOps
from safetensors.torch import save
from sklearn.datasets import load_digits
from torch import Tensor

from generators.checkpoints import PRETRAINED, from_pretrained
from generators.data import (
    Split,
    SplitName,
    load_split,
    open_split,
    stratified_splits,
    tokens,
)
from generators.images import batches
from generators.noise import derive_seed
from generators.tables import read_table
from generators.tokenizers import PatchKMeans, PatchKMeansConfig

DIGITS = {
    "train": (1197, "1e4ff7309f1d7c84"),
    "select": (200, "aa9fa7f24dc36df6"),
    "report": (400, "ddb509cef0336968"),
}  # sizes and hashes
MNIST = {
    "train": (50_000, "c912f35b6475-a199d9cf5a64"),
    "select": (10_000, "c912f35b6475-4040ad380b48"),
    "report": (10_000, "1b3b7f1bd8d3-1db476ae422a"),
}  # sizes and fingerprints


def digest(split: Split) -> str:
    """Name images and labels of a split, in order."""
    pixels, labels = split.images_NCHW.mul(16).byte(), split.condition.values.byte()
    return hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()[:16]


def test_digits_split_never_drifts() -> None:
    """A library's new shuffle would let training images into the tables."""
    splits = {name: load_split("digits", name) for name in get_args(SplitName)}
    assert {name: (len(split), digest(split)) for name, split in splits.items()} == DIGITS


def test_digits_parts_are_disjoint_and_complete() -> None:
    """Compared by their pixels: no image in two splits, none left out."""
    found = [{image.tobytes() for image in load_split("digits", name).images_NCHW.numpy()} for name in DIGITS]
    everything = {(image / 16).astype("float32").tobytes() for image in load_digits().images}
    assert sum(map(len, found)) == len(everything) == 1797 and set.union(*found) == everything


def test_digits_keep_their_labels_and_shares() -> None:
    data = load_digits()
    truth = {
        image.astype("uint8").tobytes(): label for image, label in zip(data.images, data.target, strict=True)
    }
    shares = np.bincount(data.target) / len(data.target)
    for name, (size, _) in DIGITS.items():
        split = load_split("digits", name)
        labels = split.condition.values
        assert [
            truth[image.tobytes()] for image in split.images_NCHW.mul(16).byte().numpy()
        ] == labels.tolist()
        assert np.abs(labels.bincount(minlength=10).numpy() - size * shares).max() <= 1.5, name


def test_a_cut_is_a_partition_whatever_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [70, 20, 30])
    splits = stratified_splits(labels, train=60, select=24, report=36)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 60, "select": 24, "report": 36}
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(120))
    assert np.bincount(labels[splits["train"]]).tolist() == [35, 10, 15]
    assert np.bincount(labels[splits["select"]]).tolist() == [14, 4, 6]


@pytest.mark.parametrize("name", get_args(SplitName))
def test_pictures_are_in_range_and_conditions_fit(name: SplitName) -> None:
    split = load_split("digits", name)
    assert split.images_NCHW.dtype == torch.float32 and split.images_NCHW.ndim == 4
    assert split.images_NCHW.min() >= 0 and 0.9 < split.images_NCHW.max() <= 1
    assert len(split) == len(split.images_NCHW) == len(split.condition)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="task 'digit' is not one of digits"):
        load_split("digit", "train")
    with pytest.raises(ValueError, match="split 'test' is not one of train, select, report"):
        load_split("digits", "test")  # type: ignore[arg-type]


@pytest.fixture
def mnist(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATGYM_DATA", str(shared_data))


@pytest.mark.usefixtures("mnist")
def test_mnist_split_never_drifts() -> None:
    splits = {name: open_split("mnist", name) for name in get_args(SplitName)}
    found = {name: (len(split), split.fingerprint()) for name, split in splits.items()}
    assert found == MNIST
    rows = torch.cat([splits["train"].rows_N, splits["select"].rows_N])
    assert torch.equal(rows.sort().values, torch.arange(60_000)), "disjoint and complete"
    split = load_split("mnist", "report")
    assert split.condition.values[:5].tolist() == [7, 2, 1, 0, 4], "the official test set, in order"
    assert split.images_NCHW.shape == (10_000, 1, 28, 28) and split.images_NCHW.max() == 1


def test_cifar10_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With images of 2x2 pixels in the place of torchvision's."""

    class Few:
        classes = list("abcdefghij")

        def __init__(self, root: str, train: bool, download: bool) -> None:
            number = 50_000 if train else 10_000
            assert root == "data" and not download
            self.targets = [row % 10 for row in range(number)]
            self.data = np.zeros((number, 2, 2, 3), np.uint8)
            self.data[..., 2] = np.arange(number)[:, None, None] % 10  # blue is the class

    monkeypatch.delenv("NATGYM_DATA", raising=False)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Few)
    for name, size in (("train", 45_000), ("select", 5_000), ("report", 10_000)):
        split = load_split("cifar10", name)  # type: ignore[arg-type]
        assert split.images_NCHW.shape == (size, 3, 2, 2) and split.class_names == tuple("abcdefghij")
        assert torch.equal(split.images_NCHW[:, 2, 0, 0].mul(255).round().long(), split.condition.values)
        assert split.images_NCHW[:, :2].max() == 0
        assert split.condition.values.bincount().tolist() == [size // 10] * 10


@pytest.mark.parametrize(("task", "files"), [("mnist", "MNIST/raw"), ("cifar10", "cifar-10-batches-py")])
def test_absent_data_without_a_network_is_one_line(
    task: str, files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unplugged(self: Any) -> None:
        raise URLError("no network")

    for dataset in (torchvision.datasets.MNIST, torchvision.datasets.CIFAR10):
        monkeypatch.setattr(dataset, "download", unplugged)
    monkeypatch.setenv("NATGYM_DATA", str(tmp_path))
    with pytest.raises(
        ValueError, match=f"no data in {tmp_path}/{files} .*no network.* set NATGYM_DATA"
    ) as caught:
        load_split(task, "train")
    assert "\n" not in str(caught.value)


def draw(path: Path, value: int, size: tuple[int, int] = (4, 4), mode: str = "RGB") -> None:
    """Write an image whose pixels all have one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(path)


def values(split: Split) -> list[int]:
    """The one value of each image."""
    return split.images_NCHW[:, 0, 0, 0].mul(255).round().int().tolist()


def every_part(task: str) -> dict[str, Split]:
    return {name: load_split(task, name) for name in get_args(SplitName)}


def test_a_folder_of_classes_is_cut_in_three(tmp_path: Path) -> None:
    for value in range(100):
        draw(tmp_path / ("many" if value < 60 else "some") / f"{value:03}.png", value)
    splits = every_part(str(tmp_path))
    assert {name: len(split) for name, split in splits.items()} == {"train": 80, "select": 10, "report": 10}
    assert sorted(value for split in splits.values() for value in values(split)) == list(range(100))
    for name, few in (("train", 32), ("select", 4), ("report", 4)):
        split = splits[name]
        assert split.class_names == ("many", "some") and split.images_NCHW.shape[1:] == (3, 4, 4)
        assert split.condition.values.tolist() == [int(value >= 60) for value in values(split)]
        assert split.condition.values.sum() == few, "stratified"
    again = every_part(str(tmp_path))
    assert all(values(again[name]) == values(splits[name]) for name in splits)


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_folder_with_a_test_part_keeps_it(tmp_path: Path, test: str) -> None:
    for value in range(60):
        draw(tmp_path / (test if value < 20 else "train") / "ab"[value % 2] / f"{value}.png", value)
    splits = every_part(str(tmp_path))
    assert sorted(values(splits["report"])) == list(range(20))
    assert (len(splits["train"]), len(splits["select"])) == (36, 4)
    assert sorted(values(splits["train"]) + values(splits["select"])) == list(range(20, 60))
    (tmp_path / test / "c").mkdir()
    draw(tmp_path / test / "c" / "1.png", 1)
    with pytest.raises(ValueError, match="differ in the classes c"):
        load_split(str(tmp_path), "train")


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """60 images with a metadata.csv; the file of row i has value 3 i."""
    rows = [f"images/{row}.png,image {row},{'xy'[row % 2]},{row % 12}" for row in range(60)]
    for row in range(60):
        draw(tmp_path / "images" / f"{row}.png", 3 * row)
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,text,group,subgroup", *rows]) + "\n")
    return tmp_path


def test_a_column_of_metadata_labels_the_pictures(annotated: Path) -> None:
    splits = every_part(str(annotated))
    assert sorted(value for split in splits.values() for value in values(split)) == list(range(0, 180, 3))
    for split in splits.values():
        assert split.class_names == ("x", "y"), "group, the first of label, class and group that is there"
        assert split.condition.values.tolist() == [value // 3 % 2 for value in values(split)]
    split = load_split(f"{annotated}#subgroup", "train")
    assert len(split) == 48, "12 classes of 5 images can't be stratified and need not be"
    assert [split.class_names[label] for label in split.condition.values] == [
        str(value // 3 % 12) for value in values(split)
    ]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{}#color", "no column 'color'; name one of file_name, text, group, subgroup"),
        ("{}#size=0", "'size=0' is neither a column nor grey, rgb, size=N"),
        ("{}#group,width=3", "'width=3' is neither"),
        ("{}/images/x", "x' is not one of digits, mnist, .* and no image folder either"),
        ("{}/images#group", "no metadata.csv, so 'group' can't be its column"),
        (
            "{}/nowhere",
            "nowhere' is not one of digits, mnist, .* and no image folder either",
        ),
    ],
)
def test_a_folder_that_cannot_be_read_says_why(annotated: Path, task: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_split(task.format(annotated), "train")


def test_metadata_without_a_usual_column_needs_a_name(annotated: Path) -> None:
    text = (annotated / "metadata.csv").read_text().replace("group", "kind")
    (annotated / "metadata.csv").write_text(text)
    with pytest.raises(ValueError, match="none of the columns label, class, group; name one of .*subkind"):
        load_split(str(annotated), "train")
    assert load_split(f"{annotated}#kind", "train").class_names == ("x", "y")


@pytest.mark.parametrize(("row", "words"), [("images/0.png,a,x", "row 62"), ("a,b,c,d,e", "row 62")])
def test_a_row_of_metadata_with_another_number_of_fields_is_named(
    annotated: Path, row: str, words: str
) -> None:
    with open(annotated / "metadata.csv", "a") as file:
        file.write(f"{row}\n")
    with pytest.raises(ValueError, match=f"{words}: it has not 4 fields"):
        load_split(str(annotated), "train")


def test_metadata_may_begin_with_a_byte_order_mark_and_hold_long_texts(tmp_path: Path) -> None:
    rows = [{"file_name": "a.png", "text": "word " * 40_000 + "end"}, {"file_name": "b.png", "text": "é, ü"}]
    with open(tmp_path / "metadata.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["file_name", "text"])
        writer.writeheader()
        writer.writerows(rows)
    limit = csv.field_size_limit()
    assert read_table(tmp_path / "metadata.csv", "text") == (rows, ["file_name", "text"])
    assert csv.field_size_limit() == limit, "other readers keep theirs"
    with pytest.raises(ValueError, match="no column label, group; it has file_name, text"):
        read_table(tmp_path / "metadata.csv", "label", "text", "group")
    (tmp_path / "metadata.csv").write_bytes("file_name,text\na.png,caf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match="metadata.csv is no text in UTF-8 .*; save it in that encoding"):
        read_table(tmp_path / "metadata.csv")


def test_images_come_in_batches_with_their_rows() -> None:
    images = torch.rand(7, 1, 2, 2)
    rows, some = zip(*batches(images, 3), strict=True)
    assert [len(part) for part in rows] == [3, 3, 1]
    assert torch.equal(torch.cat(rows), torch.arange(7)) and torch.equal(torch.cat(some), images)
    digits = open_split("digits", "select")
    assert torch.equal(torch.cat([seen for _, seen in batches(digits, 64)]), digits.load().images_NCHW)


def test_pictures_of_several_sizes_need_one(tmp_path: Path) -> None:
    """The middle is kept: both sides of a wide image are black and cut off."""
    for number in range(10):
        wide = Image.new("L", (24, 8))
        wide.paste(200, (8, 0, 16, 8))
        (tmp_path / "a").mkdir(exist_ok=True)
        (wide if number else Image.new("L", (4, 4), 200)).save(tmp_path / "a" / f"{number}.png")
    for spec in (str(tmp_path), f"{tmp_path}#grey"):
        with pytest.raises(ValueError, match=r"24 x 8 pixels, 0.png 4 x 4: name one size, as in PATH#size=4"):
            open_split(spec, "train")
    images = load_split(f"{tmp_path}#size=8", "train").images_NCHW
    assert images.shape == (8, 1, 8, 8) and torch.equal(images, torch.full_like(images, 200 / 255))


def test_modes_are_made_one_and_transparency_white(tmp_path: Path) -> None:
    for number in range(9):
        draw(tmp_path / "a" / f"{number}.png", 0, mode="RGB" if number % 2 == 0 else "L")
    draw(tmp_path / "a" / "9.png", 0, mode="RGBA")
    colors = [color for split in every_part(str(tmp_path)).values() for color in values(split)]
    assert sorted(colors) == [0] * 9 + [255]
    assert load_split(str(tmp_path), "train").images_NCHW.shape[1] == 3


def test_few_pictures_cannot_be_cut(tmp_path: Path) -> None:
    for number in range(9):
        draw(tmp_path / "a" / f"{number}.png", 0)
    with pytest.raises(ValueError, match="9 images; three splits need at least 10"):
        load_split(str(tmp_path), "train")


class Counting(PatchKMeans):
    """A tokenizer that counts what it encodes."""

    calls: list[int]

    def encode(self, images_BCHW: Tensor) -> Tensor:
        self.calls.append(len(images_BCHW))
        return super().encode(images_BCHW)


@pytest.fixture
def counting() -> Counting:
    tokenizer: Any = from_pretrained(PRETRAINED / "digits" / "tokenizer")
    tokenizer.__class__, tokenizer.calls = Counting, []
    return tokenizer


@pytest.mark.parametrize("mirror", [False, True])
def test_tokens_are_those_of_the_pictures(counting: Counting, tmp_path: Path, mirror: bool) -> None:
    split, told = load_split("digits", "select"), []
    ids_NL, condition = tokens(
        *("digits", "select", counting, tmp_path),
        mirror=mirror,
        batch_size=64,
        progress=lambda done, total: told.append((done, total)),
    )
    images = torch.cat([split.images_NCHW, split.images_NCHW.flip(-1)]) if mirror else split.images_NCHW
    assert ids_NL.dtype == torch.uint16 and torch.equal(ids_NL.long(), counting.encode(images))
    assert condition.values.tolist() == split.condition.values.tolist() * (2 if mirror else 1)
    assert told == [(64, 200), (128, 200), (192, 200), (200, 200)]


@pytest.mark.parametrize("mirror", [False, True])
def test_tokens_of_random_crops(counting: Counting, tmp_path: Path, mirror: bool) -> None:
    """Each crop, cut from Pillow's own enlargement where the seed says, is encoded alone."""
    rng = np.random.default_rng(0)
    for number in range(20):
        (tmp_path / "photos" / "a").mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(20, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / "a" / f"{number:02}.png")
    task = f"{tmp_path / 'photos'}#size=8"
    ids_NL, condition = tokens(task, "train", counting, tmp_path / "cache", mirror=mirror, crops=3)
    files = open_split(task, "train")
    expected = []
    for crop in range(3):
        for row, at in enumerate(files.rows_N.tolist()):
            whole = ImageOps.fit(Image.open(files.pixels.paths[at]), (9, 9), Image.Resampling.BICUBIC)  # type: ignore[attr-defined]
            top, left = np.random.default_rng(derive_seed("crop", crop * 16 + row)).integers(2, size=2)
            square = torch.from_numpy(np.array(whole))[None, top : top + 8, left : left + 8] / 255
            expected.append(square)
    seen = torch.stack(expected)
    seen = torch.cat([seen, seen.flip(-1)]) if mirror else seen
    assert torch.equal(ids_NL.long(), counting.encode(seen)) and len(condition) == len(ids_NL) == len(seen)
    assert len(seen[:48].flatten(1).unique(dim=0)) > 30, "of 16 images: places differ"
    again, _ = tokens(task, "train", counting, tmp_path / "cache", mirror=mirror, crops=3)
    center, _ = tokens(task, "train", counting, tmp_path / "cache", mirror=mirror)
    assert torch.equal(again, ids_NL) and len(center) == 16 * (1 + mirror)


def test_crops_need_something_around_them(counting: Counting, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crops 2: images of digits have one size, and nothing around it"):
        tokens("digits", "select", counting, tmp_path, crops=2)


def test_tokens_are_encoded_once(counting: Counting, tmp_path: Path) -> None:
    first, _ = tokens("digits", "select", counting, tmp_path / "cache")
    number = len(counting.calls)
    again, condition = tokens("digits", "select", counting, tmp_path / "cache")
    assert torch.equal(again, first) and len(counting.calls) == number and len(condition) == 200
    tokens("digits", "select", counting, tmp_path / "cache", mirror=True)
    tokens("digits", "report", counting, tmp_path / "cache")
    counting.centers[0] += 1
    tokens("digits", "select", counting, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 4, "each has its own file, and nothing else is left"


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "other tensors"])
def test_a_damaged_file_is_replaced(counting: Counting, tmp_path: Path, damage: str) -> None:
    right, _ = tokens("digits", "select", counting, tmp_path)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "flipped": data[:-1] + bytes([data[-1] ^ 1]),
            "foreign": b"no tensors",
            "other tensors": save({"ids": right.flip(0)}, {"made_of": "something else"}),
        }[damage]
    )
    assert torch.equal(tokens("digits", "select", counting, tmp_path)[0], right)
    number = len(counting.calls)
    assert torch.equal(tokens("digits", "select", counting, tmp_path)[0], right)
    assert len(counting.calls) == number, "the new file is whole"


def test_changed_pictures_are_encoded_again(annotated: Path, tmp_path: Path) -> None:
    tokenizer = PatchKMeans(PatchKMeansConfig(codebook_size=2, patch=2, image_shape=(3, 4, 4)))
    tokenizer.centers[1] = 1
    before, _ = tokens(str(annotated), "train", tokenizer, tmp_path / "cache")
    for file in (annotated / "images").iterdir():
        draw(file, 255)
    after, _ = tokens(str(annotated), "train", tokenizer, tmp_path / "cache")
    assert before.long().float().mean() < 1 == after.long().float().mean()


def test_a_tokenizer_of_another_task_is_refused(annotated: Path, counting: Counting, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(3, 4, 4\), the tokenizer's \(1, 8, 8\)"):
        tokens(str(annotated), "train", counting, tmp_path / "cache")
