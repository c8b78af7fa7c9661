"""Frozen splits: exact copies never lie in two, whatever the folder's own splits say."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generators.data import cut_folder, load_split
from generators.folders import FolderSpec, list_folder
from generators.frozen import freeze, read_splits, write_splits


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


def test_rotations_teach_features_without_classes() -> None:
    """Ramps from left to right: which way they run tells how they are turned."""
    import torch

    from natgym.metrics.classifier import Rotated, RotationNet, RotationNetConfig, fit_rotations

    random = torch.Generator().manual_seed(0)
    ramps = torch.linspace(0, 1, 8).expand(40, 1, 8, 8) * (
        0.5 + torch.rand(40, 1, 1, 1, generator=random) / 2
    )
    turned = Rotated(ramps)
    rows = torch.tensor([0, 5, 10, 159])
    expected = [ramps[row // 4].rot90(row % 4, (-2, -1)) for row in rows.tolist()]
    assert len(turned) == 160 and turned[rows].equal(torch.stack(expected))
    network = fit_rotations(
        RotationNetConfig(image_shape=(1, 8, 8), channels=8, features=6), ramps, updates=200
    )
    features_Bd, logits = network(turned[torch.arange(160)])
    assert logits is None and features_Bd.shape == (160, 6) and isinstance(network, RotationNet)
    told = super(RotationNet, network).forward(turned[torch.arange(160)])[1].argmax(1)
    assert (told == torch.arange(160) % 4).float().mean() > 0.9
    assert np.isclose(features_Bd.var(0).mean().item(), 1, rtol=0.05)
