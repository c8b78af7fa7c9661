"""Folders as people have them: what is a split, a class, no data; and files that are not what they seem."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generators.data import load_split, open_split
from generators.folders import SPLIT_NAMES, FolderSpec, list_folder
from generators.pixels import ImageFiles


def draw(path: Path, value: int = 0, size: tuple[int, int] = (4, 4), mode: str = "RGB") -> Path:
    """Write an image whose pixels all have one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(path)
    return path


def classes(root: Path, *names: str, number: int = 4, first: int = 0) -> Path:
    """Write a folder per class, with images of values that go on from `first`."""
    for index, name in enumerate(names):
        for row in range(number):
            draw(root / name / f"{row}.png", (first + index * number + row) % 256)
    return root


def listed(spec: Any) -> Any:
    return list_folder(FolderSpec.parse(str(spec)))


@pytest.mark.parametrize("name", [name for name in SPLIT_NAMES if SPLIT_NAMES[name] != "train"])
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
def test_split_names_of_any_spelling_are_splits(tmp_path: Path, name: str, spell: Any) -> None:
    classes(tmp_path / spell("train"), "cat", "dog")
    classes(tmp_path / spell(name), "cat", "dog", number=2)
    found = listed(tmp_path)
    assert found.class_names == ("cat", "dog")
    assert found.own_split.tolist() == ["train"] * 8 + ["report"] * 4, "of two, the other one judges"


def test_three_splits_are_kept(tmp_path: Path) -> None:
    for number, split in enumerate(("Training", "val", "TEST")):
        classes(tmp_path / split, "a", "b", number=5, first=40 * number)
    for split, first in (("train", 0), ("select", 40), ("report", 80)):
        values = load_split(str(tmp_path), split).images_NCHW[:, 0, 0, 0] * 255  # type: ignore[arg-type]
        assert sorted(values.round().int().tolist()) == list(range(first, first + 10))


def test_what_may_be_splits_or_classes_is_refused_until_it_is_said(tmp_path: Path) -> None:
    classes(tmp_path, "train", "bus", "car")
    with pytest.raises(ValueError, match="holds train beside bus, car: splits or classes") as caught:
        listed(tmp_path)
    assert "#layout=splits" in str(caught.value) and "#layout=classes" in str(caught.value)
    assert listed(f"{tmp_path}#layout=classes").class_names == ("bus", "car", "train")
    with pytest.raises(ValueError, match="no train folder beside another split"):
        listed(f"{tmp_path}#layout=splits")


def test_two_names_of_one_split_are_refused(tmp_path: Path) -> None:
    for split in ("train", "val", "validation"):
        classes(tmp_path / split, "a", "b")
    with pytest.raises(ValueError, match="val and validation, which are names of one split"):
        listed(tmp_path)


@pytest.mark.parametrize("above", ["data", "train"])
def test_one_folder_too_high_names_the_right_one(tmp_path: Path, above: str) -> None:
    classes(tmp_path / above, "cat", "dog")
    with pytest.raises(ValueError, match=f"{tmp_path / above}"):
        listed(tmp_path)


def test_helpers_are_no_data_and_the_rest_is_counted(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b")
    for name in (".thumbnails", "__MACOSX", "@eaDir", "lost+found", "a/.ipynb_checkpoints"):
        draw(tmp_path / name / "x.png")
    for name in (
        "a/._0.png",
        "a/Thumbs.db",
        "a/notes.txt",
        "b/raw.heic",
        "b/Raw.HEIC",
        "README",
        "c/list.xml",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    draw(tmp_path / "loose.png")
    found = listed(tmp_path)
    assert found.class_names == ("a", "b") and len(found.paths) == 8
    assert found.left_out == {
        ".txt": 1,
        ".heic": 2,
        ".xml": 1,
        "README beside the others": 1,
        ".png beside the others": 1,
        "folder c without an image": 1,
    }


def test_images_without_folders_are_of_one_class(tmp_path: Path) -> None:
    for row in range(3):
        draw(tmp_path / f"{row}.png", row)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "raw").mkdir()
    found = listed(tmp_path)
    assert found.class_names == ("all",) and len(found.paths) == 3 and found.left_out == {".txt": 1}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has neither images .* nor metadata.csv nor folders with images"):
        listed(tmp_path / "empty")


def test_splits_may_hold_images_without_classes(tmp_path: Path) -> None:
    for split, number in (("train", 3), ("test", 2)):
        for row in range(number):
            draw(tmp_path / split / f"{row}.png", row)
    found = listed(tmp_path)
    assert found.class_names == ("all",) and found.own_split.tolist() == ["train"] * 3 + ["report"] * 2


def test_a_table_at_the_top_keeps_the_folders_splits(tmp_path: Path) -> None:
    names = [f"{split}/{row}.png" for split in ("train", "valid", "test") for row in range(2)]
    for name in names:
        draw(tmp_path / name)
    draw(tmp_path / "train" / "unnamed.png")
    rows = [f"./{name},{'ab'[row % 2]}" for row, name in enumerate(names)]
    (tmp_path / "metadata.csv").write_text("\r\n".join(["file_name,label", *rows]))
    found = listed(tmp_path)
    assert found.own_split.tolist() == ["train"] * 2 + ["select"] * 2 + ["report"] * 2
    assert found.left_out == {"images that the table does not name": 1}
    assert listed(f"{tmp_path}#layout=classes").own_split is None


def test_a_column_of_splits_is_kept(tmp_path: Path) -> None:
    rows = [f"{row}.png,{'ab'[row % 2]},{'train' if row < 2 else 'Validation'}" for row in range(4)]
    found = listed(table(tmp_path, "\n".join(["file_name,label,split", *rows])))
    assert found.own_split.tolist() == ["train", "train", "report", "report"]


@pytest.mark.parametrize("odd", ["", "extra"])
def test_an_image_of_no_split_among_those_of_splits_is_named(tmp_path: Path, odd: str) -> None:
    """Else the tables' images would be trained on."""
    rows = [f"{row}.png,{'ab'[row % 2]},{split}" for row, split in enumerate(("train", "test", odd, "train"))]
    with pytest.raises(ValueError, match=f"metadata.csv: 2.png is in split {odd!r}, others in train, val or"):
        listed(table(tmp_path, "\n".join(["file_name,label,split", *rows])))
    rows = [f"{row}.png,{'ab'[row % 2]},{split}" for row, split in enumerate(("val", "test", "val", "test"))]
    with pytest.raises(ValueError, match=r"metadata.csv has no train images beside another split's"):
        listed(table(tmp_path, "\n".join(["file_name,label,split", *rows])))


def test_a_column_split_of_something_else_is_none_of_splits(tmp_path: Path) -> None:
    """As of folds."""
    names = [f"{split}/{row}.png" for split in ("train", "test") for row in range(2)]
    for name in names:
        draw(tmp_path / name)
    rows = [f"{name},{'ab'[row % 2]},{row}" for row, name in enumerate(names)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label,split", *rows]))
    assert listed(tmp_path).own_split.tolist() == ["train"] * 2 + ["report"] * 2
    assert listed(f"{tmp_path}#layout=classes").own_split is None


def test_an_option_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        classes(tmp_path / "apart" / split, "cat", "dog")
    with pytest.raises(ValueError, match="train has no metadata.csv, so 'breed' can't be its column"):
        listed(f"{tmp_path}/apart#breed")
    classes(tmp_path / "together", "cat", "dog")
    table(tmp_path / "labelled", "file_name,label\n0.png,a\n1.png,b\n")
    for folder in ("together", "labelled"):
        with pytest.raises(ValueError, match="has no train (folder|images) beside another split"):
            listed(f"{tmp_path / folder}#layout=splits")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "x.tar").touch()
    with pytest.raises(ValueError, match="shards has no metadata.csv, so 'breed' can't be its column"):
        listed(f"{tmp_path}/shards#breed,caption=text")


def test_one_class_may_have_folders_below_if_that_is_said(tmp_path: Path) -> None:
    for row in range(4):
        draw(tmp_path / "cats" / "xy"[row % 2] / f"{row}.png")
    assert listed(f"{tmp_path}#layout=classes").class_names == ("cats",)


def test_names_that_are_no_text_are_told(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "x.png").rename(tmp_path / "a" / "\udce9.png")
    with pytest.raises(ValueError, match="has a name that is not in UTF-8; rename it"):
        listed(tmp_path)


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    classes(tmp_path / "elsewhere", "x")
    classes(tmp_path / "data", "a", "b")
    (tmp_path / "data" / "a" / "more").symlink_to(tmp_path / "elsewhere" / "x")
    (tmp_path / "data" / "b" / "around").symlink_to(tmp_path / "data" / "b")
    found = listed(tmp_path / "data")
    assert [found.class_names[label] for label in found.labels] == ["a"] * 8 + ["b"] * 4


def test_classes_that_are_numbers_are_sorted_as_such(tmp_path: Path) -> None:
    classes(tmp_path, *(str(number) for number in range(12)), number=1)
    assert listed(tmp_path).class_names == tuple(str(number) for number in range(12))
    split = load_split(str(tmp_path), "train")
    assert split.condition.names == [split.class_names[label] for label in split.condition.values]


def table(folder: Path, text: str, name: str = "metadata.csv", encoding: str = "utf-8") -> Path:
    for row in range(4):
        draw(folder / f"{row}.png", row)
    (folder / name).write_text(text, encoding=encoding)
    return folder


ROWS = [("0.png", "ä"), ("1.png", "b"), ("2.png", "ä"), ("3.png", "b")]


@pytest.mark.parametrize(
    ("delimiter", "encoding"), list(itertools.product(",;\t", ("utf-8", "utf-8-sig", "utf-16")))
)
def test_tables_of_any_spreadsheet_are_read(tmp_path: Path, delimiter: str, encoding: str) -> None:
    lines = ["file_name" + delimiter + "label", *(delimiter.join(row) for row in ROWS), ""]
    found = listed(table(tmp_path, "\n".join(lines), encoding=encoding))
    assert found.class_names == ("b", "ä") and found.labels.tolist() == [1, 0, 1, 0]


def test_lines_of_json_are_a_table(tmp_path: Path) -> None:
    lines = [
        '{"file_name": "0.png", "label": 3, "more": {"x": 1}}',
        "",
        '{"file_name": "1.png", "label": 12}',
    ]
    found = listed(table(tmp_path, "\n".join([*lines, '{"file_name": "2.png"}']), "metadata.jsonl"))
    assert found.class_names == ("3", "12") and found.left_out == {
        "rows without label": 1,
        "images that the table does not name": 1,
    }
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a\u2028b"}\n{"file_name": ')
    with pytest.raises(ValueError, match=r"metadata.jsonl, line 2: it is no JSON"):
        listed(tmp_path)


def test_rows_of_one_file_are_one_image(tmp_path: Path) -> None:
    twice = [f"{name},{label},{text}" for name, label in ROWS for text in ("first", "second")]
    found = listed(table(tmp_path, "\n".join(["file_name,label,text", *twice])))
    assert [path.name for path in found.paths] == [name for name, _ in ROWS]
    assert found.left_out == {"further rows of one file": 4}
    table(tmp_path, "\n".join(["file_name,label,text", *twice, "0.png,b,x"]))
    with pytest.raises(ValueError, match="row 10: 0.png is 'b' here and 'ä' before"):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file_name,label\n../x.png,a\n", "names ../x.png, which is outside of"),
        ("file_name,label\n/etc/x.png,a\n", "names /etc/x.png, which is outside of"),
        ("file_name,label\n0.png,a\n9.png,b\n", "1 of 2 images are missing, first .*9.png|9.png"),
        ("file_name,label\n0.png,\n", "no row with file_name and label"),
        ("file_name,label,label\n0.png,a,b\n", "has the column 'label' twice"),
        ("file_name,label\n0.png\n", "row 2: it has not 2 fields"),
        ('file_name,label\n"0.png,a\n', "no table of separated values"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        listed(table(tmp_path, text))


def test_rows_without_label_are_left_out_with_a_word(tmp_path: Path) -> None:
    for row in range(20):
        draw(tmp_path / f"{row}.png", row)
    rows = [f"{row}.png,{'ab'[row % 2] if row < 15 else ''}" for row in range(20)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    with pytest.warns(UserWarning, match="5 rows without label are left out"):
        assert open_split(str(tmp_path), "train").class_names == ("a", "b")


def values_of(path: Path, **options: Any) -> torch.Tensor:
    return ImageFiles([path], None, **options)[torch.tensor([0])][0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("x.png", "<u2"), ("x.tif", "<u2"), ("x.tif", ">u2"), ("x.tif", "<f4"), ("x.tif", "<i4")],
)
def test_values_of_more_bits_are_scaled_by_their_meaning(tmp_path: Path, name: str, kind: str) -> None:
    ramp = np.linspace(0, 1, 256).reshape(16, 16)
    Image.fromarray((ramp * (1 if "f" in kind else 65_535)).astype(kind)).save(tmp_path / name)
    seen = values_of(tmp_path / name)
    assert seen.shape == (1, 16, 16) and (seen[0].numpy() - 255 * ramp).__abs__().max() <= 0.51
    assert seen.unique().numel() == 256


@pytest.mark.parametrize("values", [[-0.1, 1.0], [0.0, 200.0], [0.0, np.nan]])
def test_floats_without_a_known_white_are_refused_by_name(tmp_path: Path, values: list[float]) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(np.array([values], np.float32)).save(path)
    with pytest.raises(ValueError, match="x.tif can't be read as an image: its values go from"):
        values_of(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_seen_upright(tmp_path: Path, orientation: int) -> None:
    """Turned by Pillow's own reader of the tag, on pixels that were never tagged."""
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:2], upright[:, :3] = 255, 120
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the tag asks to undo
    image = Image.fromarray(upright)
    if orientation > 1:
        image = image.transpose(Image.Transpose(turn[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.png", exif=exif)
    files = ImageFiles([tmp_path / "x.png"], None)
    assert files.image_shape == (3, 8, 16)
    assert torch.equal(files[torch.tensor([0])][0], torch.from_numpy(upright).permute(2, 0, 1))


def test_one_colored_file_makes_all_colored_unless_it_is_said(tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{row}.png", 40 * row, mode="L" if row != 3 else "RGB") for row in range(5)]
    assert ImageFiles(paths[:3], None).image_shape == (1, 4, 4)
    files = ImageFiles(paths, None)
    assert files.image_shape == (3, 4, 4) and files[torch.arange(5)][:, 0, 0, 0].tolist() == [
        0,
        40,
        80,
        120,
        160,
    ]
    assert ImageFiles(paths, None, "L").image_shape == (1, 4, 4)
    for row in range(12):
        draw(tmp_path / "all" / "a" / f"{row}.png", row)
    assert open_split(f"{tmp_path / 'all'}#grey", "train").image_shape == (1, 4, 4)


def test_palettes_inks_and_transparency_are_colors(tmp_path: Path) -> None:
    red = Image.new("RGB", (4, 4), (250, 10, 10))
    red.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    red.convert("CMYK").save(tmp_path / "c.tif")
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("LA", (4, 4), (0, 0)).save(tmp_path / "grey.png")
    seen = [
        values_of(tmp_path / name)[:, 0, 0].tolist() for name in ("p.png", "c.tif", "clear.png", "grey.png")
    ]
    assert seen[2:] == [[255] * 3, [255]]
    assert all(
        abs(value - right) <= 3
        for color in seen[:2]
        for value, right in zip(color, (250, 10, 10), strict=True)
    )


@pytest.mark.parametrize(("name", "format"), [("x.gif", "GIF"), ("x.png", "PNG"), ("x.tif", "TIFF")])
def test_animations_are_refused_by_name(tmp_path: Path, name: str, format: str) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (0, 200)]
    frames[0].save(tmp_path / name, format, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=f"{name} can't be read as an image: it has 2 frames"):
        values_of(tmp_path / name)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "bmp", "gif", "tif"])
def test_damaged_files_are_named(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"x.{extension}"
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    for rest in (len(whole) * 2 // 3, 0):
        path.write_bytes(whole[:rest])
        with pytest.raises(
            ValueError, match=f"x.{extension} can't be read as an image: .*; mend or remove it"
        ):
            values_of(path)


def test_huge_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    draw(tmp_path / "x.png", 0, size=(8, 8))
    with pytest.raises(ValueError, match="x.png is too large"):
        values_of(tmp_path / "x.png")


@pytest.mark.parametrize(
    "text", ["photos", "photos#kind", "photos#size=8", "photos#kind,grey,size=8,layout=classes,split=s.csv"]
)
def test_a_spec_is_its_own_text(text: str) -> None:
    assert str(FolderSpec.parse(text)) == text


def test_an_unknown_option_is_named() -> None:
    for option in ("size=x", "layout=both", "width=3", "split="):
        with pytest.raises(ValueError, match=f"'{option}' is neither a column nor"):
            FolderSpec.parse(f"photos#{option}")


@pytest.mark.parametrize(
    "options", ["size=8,size=9", "grey,rgb", "label,kind", "layout=splits,layout=splits"]
)
def test_an_option_that_comes_twice_is_refused(options: str) -> None:
    with pytest.raises(ValueError, match=f"{options.split(',')[1]!r} comes after another"):
        FolderSpec.parse(f"photos#{options}")
