"""Frozen splits: exact copies never lie in two, whatever the folder's own splits say."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from generators.data import cut_folder, load_split
from generators.folders import FolderSpec, list_folder
from generators.frozen import changed_since, freeze, read_splits, write_splits


def draw(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), value).save(path)


def frozen(root: Path, file: Path) -> list[dict[str, str]]:
    listing = list_folder(FolderSpec.parse(str(root)))
    rows = freeze(listing, root, lambda labels, own: cut_folder(labels, own, str(root)))
    write_splits(file, rows)
    return rows


def test_copies_lie_in_one_split_and_two_labels_in_none(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for value in range(60):
        draw(root / "ab"[value % 2] / f"{value}.png", value)
    for value in range(0, 40, 4):
        draw(root / "a" / f"copy of {value}.png", value)
    draw(root / "b" / "no b.png", 0)
    rows = frozen(root, tmp_path / "split.csv")
    splits = Counter(row["split"] for row in rows)
    assert splits["two labels"] == 3 and splits["copy"] == 9 and splits["train"] == 49
    by_content = {
        (row["hash"], row["split"]) for row in rows if row["split"] in ("train", "select", "report")
    }
    assert len({name for name, _ in by_content}) == len(by_content) == 59
    spec = FolderSpec.parse(f"{root}#split={tmp_path / 'split.csv'}")
    listing, hashes, known = read_splits(spec)
    assert len(listing.paths) == 59 and len(set(hashes)) == 59 and len(known) == len(rows)


def test_what_lies_in_several_of_the_folders_splits_stays_in_report(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for value in range(40):
        draw(root / "train" / "ab"[value % 2] / f"{value}.png", value)
    for value in range(30, 50):
        draw(root / "test" / "ab"[value % 2] / f"{value}.png", value)
    frozen(root, tmp_path / "split.csv")
    spec = f"{root}#split={tmp_path / 'split.csv'}"
    seen = {
        split: {round(value * 255) for value in load_split(spec, split).images_NCHW[:, 0, 0, 0].tolist()}  # type: ignore[arg-type]
        for split in ("train", "select", "report")
    }
    assert seen["report"] == set(range(30, 50)) and seen["train"] | seen["select"] == set(range(30))
    assert len(seen["train"]) == 27 and not seen["train"] & seen["select"]


def test_what_can_not_be_read_is_told_before_the_splits_are_frozen(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for value in range(20):
        draw(root / "ab"[value % 2] / f"{value}.png", value)
    for name in ("a/4.png", "b/7.png"):
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) - 20])
    with pytest.raises(ValueError, match=r"a/4.png can't be read as an image: .* \(1 more can't be read\)"):
        frozen(root, tmp_path / "split.csv")


def test_names_are_kept_to_the_blank_and_labels_are_not_taken_anew(tmp_path: Path) -> None:
    root = tmp_path / "images, and more #1"
    for value in range(40):
        draw(root / (" hawk", "owl ")[value % 2] / f"{value}.png", value)
    place = tmp_path / "task, #2" / "split.csv"
    place.parent.mkdir()
    frozen(root, place)
    spec = FolderSpec(root, split=place)
    assert FolderSpec.parse(str(spec)) == spec
    listing, _, known = read_splits(spec)
    assert listing.class_names == (" hawk", "owl ") and changed_since(spec, listing, known) is None
    (root / " hawk" / "0.png").rename(root / "owl " / "0.png")
    told = changed_since(spec, listing, known)
    assert told is not None and told.startswith("1 images were added")
    (root / "owl ").rename(root / "train")
    told = changed_since(spec, listing, known)
    assert told is not None and "can't be read as when the task was made" in told and "layout=classes" in told


def test_a_label_that_changes_later_is_told_and_not_taken(tmp_path: Path) -> None:
    root, rows = tmp_path / "images", [f"{value}.png,{'ab'[value % 2]}" for value in range(20)]
    for value in range(20):
        draw(root / f"{value}.png", value)
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    frozen(root, tmp_path / "split.csv")
    (root / "metadata.csv").write_text("\n".join(["file_name,label", "0.png,b", *rows[1:]]))
    spec = FolderSpec(root, split=tmp_path / "split.csv")
    listing, _, known = read_splits(spec)
    told = changed_since(spec, listing, known)
    assert told == "1 images have another label now, which the task does not take"
    assert listing.class_names[listing.labels[listing.paths.index(root / "0.png")]] == "a"


def test_a_frozen_split_is_the_cut_of_its_day(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for value in range(50):
        draw(root / "ab"[value % 2] / f"{value}.png", value)
    rows = frozen(root, tmp_path / "split.csv")
    plain = load_split(str(root), "train").images_NCHW
    spec = f"{root}#split={tmp_path / 'split.csv'}"
    kept = load_split(spec, "train").images_NCHW
    assert sorted(plain.flatten(1)[:, 0].tolist()) == sorted(kept.flatten(1)[:, 0].tolist())
    for value in range(50, 90):
        draw(root / "a" / f"{value}.png", value)
    with pytest.warns(UserWarning, match="40 images were added since the task was made"):
        again = load_split(spec, "train").images_NCHW
    assert again.equal(kept)
    gone = root / next(row["file"] for row in rows if row["split"] == "train")
    gone.unlink()
    with pytest.raises(ValueError, match=f"{gone} is not there any more"), pytest.warns(UserWarning):
        load_split(spec, "train")
    (tmp_path / "split.csv").unlink()
    with pytest.raises(ValueError, match="where the splits of .* are frozen, is not there"):
        load_split(spec, "train")
