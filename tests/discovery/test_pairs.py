"""Reading pairs, and what is said of bad ones; the splits into old and new, labelled and unlabelled."""

import os
import re
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from natgym.discovery.pairs import _PHRASES, PairsConfig, described_digits, load_pairs
from natgym.discovery.split import split_pairs

Edit = Callable[..., None]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "discovery.md"
SHARE = os.environ.get("NATGYM_SHARE")  # where the packages lie that the page names, /usr/share in Debian 12


def test_a_folder_is_read_row_by_row(folder: Path) -> None:
    pairs = load_pairs(PairsConfig(data=str(folder), size=16))
    assert len(pairs) == 48 and pairs.class_names == ("blue", "green", "red", "white")
    assert pairs.has_image_N.all() and pairs.has_text_N.all()
    for row in (0, 17, 47):
        color = pairs.class_names[pairs.labels_N[row]]
        assert color in pairs.names[row] and color in pairs.texts[row]
    images = pairs.images(np.array([3, 40]))
    assert images.shape == (2, 3, 16, 16) and 0 <= images.min() and images.max() <= 1
    assert images[0, 0].mean() > 0.7 and images[0, 1].mean() < 0.3, "row 3 is red"


def test_columns_sizes_and_rows_can_be_chosen(folder: Path) -> None:
    config = PairsConfig(
        data=str(folder), label_column="shade", text_column="label", exclude=("label=red",), size=8
    )
    pairs = load_pairs(config)
    assert len(pairs) == 36 and pairs.class_names == ("dark", "light")
    assert set(pairs.texts) == {"green", "blue", "white"}
    assert pairs.images(np.arange(2)).shape == (2, 3, 8, 8)


def test_a_sample_may_lack_image_or_text_or_label(folder: Path, edit: Edit) -> None:
    edit(
        folder,
        lambda rows: (rows[0].update(file_name=""), rows[1].update(text=" "), rows[2].update(label="")),
    )
    pairs = load_pairs(PairsConfig(data=str(folder), size=16))
    assert pairs.has_image_N.tolist() == [False] + [True] * 47
    assert pairs.has_text_N.tolist() == [True, False] + [True] * 46
    assert pairs.labels_N[2] == -1 and (np.delete(pairs.labels_N, 2) >= 0).all()
    whole = load_pairs(PairsConfig(data=str(folder), size=16)).images(np.arange(1, 48))
    assert torch.equal(pairs.images(np.array([1, 47])), whole[[0, 46]]), "rows, not places among the images"


def test_images_and_texts_can_be_hidden(folder: Path, edit: Edit) -> None:
    edit(folder, lambda rows: (rows[0].update(file_name=""), rows[1].update(text="")))
    known = load_pairs(PairsConfig(data=str(folder), size=16))
    pairs = load_pairs(PairsConfig(data=str(folder), size=16, hide_images=0.25, hide_texts=0.5))
    lost_image = np.flatnonzero(known.has_image_N & ~pairs.has_image_N)
    lost_text = np.flatnonzero(known.has_text_N & ~pairs.has_text_N)
    assert len(lost_image) == 12 and len(lost_text) == 24
    assert (pairs.has_image_N | pairs.has_text_N).all()
    assert pairs.names == known.names and (pairs.labels_N == known.labels_N).all()
    kept = np.flatnonzero(pairs.has_image_N)
    assert torch.equal(pairs.images(kept), known.images(kept)), "rows, not places among the images"
    assert pairs.pixels.fingerprint() != known.pixels.fingerprint(), "features are cached by it"
    whole = load_pairs(PairsConfig(data=str(folder), size=16, hide_texts=0.5))
    assert whole.pixels.fingerprint() == known.pixels.fingerprint(), (
        "of all images, whose features are at hand"
    )
    fewer = load_pairs(PairsConfig(data=str(folder), size=16, hide_images=0.125))
    assert not (pairs.has_image_N & ~fewer.has_image_N).any(), "the same, and others"
    with pytest.raises(ValueError, match="46 of 48 samples have both"):
        load_pairs(PairsConfig(data=str(folder), size=16, hide_images=0.5, hide_texts=0.5))
    digits = load_pairs(PairsConfig(hide_images=0.5))
    assert int(digits.has_image_N.sum()) == 1797 - 898 and digits.has_text_N.all()


@pytest.mark.parametrize("shares", [(-0.1, 0), (0.6, 0.5), (float("nan"), 0)])
def test_no_sample_may_lose_both(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="hide_images .* add up to 1 at most"):
        PairsConfig(hide_images=shares[0], hide_texts=shares[1])


def test_small_categories_are_left_out(folder: Path, edit: Edit) -> None:
    edit(folder, lambda rows: [row.update(label="pink") for row in rows[:3]])
    assert "pink" in load_pairs(PairsConfig(data=str(folder), min_members=3)).class_names
    pairs = load_pairs(PairsConfig(data=str(folder), min_members=4))
    assert "pink" not in pairs.class_names and len(pairs) == 45


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda rows: rows[5].update(file_name="images/none.png"),
            "1 of 48 images are missing.*none.png",
        ),
        (lambda rows: rows[5].update(file_name="", text=""), "1 samples have neither image nor text"),
        (lambda rows: [row.update(label="red") for row in rows], "1 categories .*needs two"),
        (lambda rows: [row.update(label="") for row in rows], "0 categories"),
        (lambda rows: [row.pop("text") for row in rows], "no column text; it has file_name, label, shade"),
    ],
)
def test_bad_data_is_told(folder: Path, edit: Edit, change: Callable, words: str) -> None:
    edit(folder, change)
    with pytest.raises(ValueError, match=words):
        load_pairs(PairsConfig(data=str(folder)))


def test_an_unreadable_image_is_named(folder: Path) -> None:
    (folder / "images" / "red-3.png").write_bytes(b"not an image")
    pairs = load_pairs(PairsConfig(data=str(folder), size=16))
    with pytest.raises(
        ValueError, match="red-3.png can't be read as an image: its format is not known; mend or remove it"
    ):
        pairs.images(np.arange(48))


def test_a_short_row_and_no_folder_are_told(folder: Path, tmp_path: Path) -> None:
    with open(folder / "metadata.csv", "a") as file:
        file.write("images/red-1.png,only\n")
    with pytest.raises(ValueError, match="row 50"):
        load_pairs(PairsConfig(data=str(folder)))
    with pytest.raises(ValueError, match="neither digits nor a folder"):
        load_pairs(PairsConfig(data=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("bad", [{"min_members": 1}, {"size": 4}, {"exclude": ("red",)}])
def test_a_bad_config_is_told(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        PairsConfig(**bad)


def test_the_digits_are_the_real_ones_and_their_texts_are_true() -> None:
    pairs, digits = described_digits(), load_digits()
    assert (pairs.labels_N == digits.target).all() and not pairs.mirrored
    assert torch.equal(pairs.images(np.array([7]))[0, 0], torch.from_numpy(digits.images[7] / 16).float())
    for text, label in zip(pairs.texts, pairs.labels_N, strict=True):
        said = text.split(", ")
        assert len(said) == 2 and all(str(label) in _PHRASES[phrase] for phrase in said)
    assert pairs.texts == described_digits().texts
    told = Counter(zip(pairs.texts, pairs.labels_N.tolist(), strict=True))
    assert len({text for text, _ in told}) < len(told), "some texts fit more than one digit"


def test_a_split_labels_half_of_half(folder: Path) -> None:
    pairs = load_pairs(PairsConfig(data=str(folder)))
    split = split_pairs(pairs, seed=3)
    assert len(split.old) == 2 and (split.targets_N >= 0).sum() == 12
    for index, category in enumerate(split.old):
        assert (pairs.labels_N[split.targets_N == index] == category).all()
        assert (split.targets_N == index).sum() == 6
    assert (split.judged_N == (split.targets_N < 0)).all()
    assert (split.of_old_N == np.isin(pairs.labels_N, split.old)).all()
    again, other = split_pairs(pairs, seed=3), split_pairs(pairs, seed=4)
    assert (split.targets_N == again.targets_N).all() and (split.targets_N != other.targets_N).any()


@pytest.mark.parametrize(("known", "old"), [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_something_is_always_old_and_something_new(folder: Path, known: float, old: int) -> None:
    pairs = load_pairs(PairsConfig(data=str(folder)))
    assert len(split_pairs(pairs, known=known).old) == old


def test_old_categories_can_be_named(folder: Path) -> None:
    pairs = load_pairs(PairsConfig(data=str(folder)))
    split = split_pairs(pairs, known_names=("white", "green"), labelled=0.1)
    assert [pairs.class_names[c] for c in split.old] == ["green", "white"]
    assert (split.targets_N >= 0).sum() == 2, "at least one of each"
    with pytest.raises(ValueError, match="pink: the categories are blue, green"):
        split_pairs(pairs, known_names=("pink", "red"))
    with pytest.raises(ValueError, match="none to discover"):
        split_pairs(pairs, known_names=pairs.class_names)


def test_where_labels_are_missing_all_that_are_there_are_used(folder: Path, edit: Edit) -> None:
    edit(folder, lambda rows: [row.update(label="") for row in rows[10:]])
    edit(folder, lambda rows: [row.update(label="green") for row in rows[12:15]])
    pairs = load_pairs(PairsConfig(data=str(folder)))
    split = split_pairs(pairs, seed=1)
    assert (split.targets_N == pairs.labels_N).all() and not split.judged_N.any()
    with pytest.raises(ValueError, match="known_names with labels missing"):
        split_pairs(pairs, known_names=("red",))


def test_the_emoji_are_1394_pairs_of_8_groups_and_1100_of_51_subgroups(
    shared_data: Path, tmp_path: Path
) -> None:
    ZipFile(shared_data / "emoji_imagefolder.zip").extractall(tmp_path)
    common = dict(data=str(tmp_path), exclude=("subgroup=country-flag",), min_members=12)
    groups, subgroups = (load_pairs(PairsConfig(label_column=c, **common)) for c in ("group", "subgroup"))
    assert (len(groups), len(groups.class_names)) == (1394, 8)
    assert (len(subgroups), len(subgroups.class_names)) == (1100, 51)
    assert groups.images(np.arange(3)).shape == (3, 3, 32, 32)


@pytest.mark.skipif(not SHARE, reason="NATGYM_SHARE names no folder with the three packages of Debian 12")
def test_the_program_of_the_page_makes_the_emoji(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(program.replace("/usr/share", str(SHARE)), {})
    with ZipFile(shared_data / "emoji_imagefolder.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    made = {str(path.relative_to("emoji")): path for path in Path("emoji").rglob("*.*")}
    assert made.keys() == files.keys() and made["metadata.csv"].read_bytes() == files["metadata.csv"]
    for name in files.keys() - {"metadata.csv"}:
        with Image.open(made[name]) as ours, Image.open(BytesIO(files[name])) as theirs:
            assert ours.tobytes() == theirs.tobytes(), name
