"""Captions beside images as people have them: COCO's annotations, and tar shards read in place."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generators.data import open_split
from generators.folders import FolderSpec, list_folder
from generators.frozen import freeze, read_splits, write_splits
from generators.shards import read_bytes
from generators.texts import Captions


def png(number: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(data, "png")
    return data.getvalue()


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two shards of 15 images, captions in texts and in JSON, and members that are neither."""
    (folder := tmp_path / "cc3m").mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as file:
            for row in range(15):
                number = 15 * shard + row
                text = f"grey {number}".encode()
                told = (
                    (".txt", text)
                    if row % 2
                    else (".json", json.dumps({"caption": f"grey {number}"}).encode())
                )
                members = [(".png", png(number)), told] if row else [(".png", png(number))]
                for ending, data in members:
                    info = tarfile.TarInfo(f"{number:09d}{ending}")
                    info.size = len(data)
                    file.addfile(info, io.BytesIO(data))
    return folder


def test_shards_are_read_in_place(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = list_folder(FolderSpec.parse(f"{sharded}#caption=text"))
    assert len(listing.paths) == 28 and listing.captions is not None
    assert listing.left_out == {"keys of shards without caption": 2}
    for path, texts in zip(listing.paths, listing.captions, strict=True):
        number = int(path.stem)
        assert texts == (f"grey {number}",) and read_bytes(path) == png(number)
    pictures = open_split(f"{sharded}#caption=text", "train")
    assert isinstance(pictures.condition, Captions) and len(pictures) == 24
    rows = torch.tensor([5, 0, 20])
    seen = (pictures[rows] * 255).round()[:, 0, 0, 0].int().tolist()
    assert [f"grey {number}" for number in seen] == [pictures.condition.names[row] for row in rows]


def test_members_of_shards_may_lie_in_folders(tmp_path: Path) -> None:
    """As `tar cf x.tar .` writes them, and with folders that have a dot; a key ends in its last part."""
    for name in ("a", "v1.0/a", "v1.0/b", "v1.0/.hidden"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / f"{name}.png").write_bytes(png(ord(name[-1])))
        (tmp_path / "images" / f"{name}.TXT").write_text(f"of {name}")
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        file.add(tmp_path / "images", ".")
        info = tarfile.TarInfo("/etc/c.png")
        info.size = len(png(7))
        file.addfile(info, io.BytesIO(png(7)))
        info = tarfile.TarInfo("/etc/c.txt")
        info.size = 4
        file.addfile(info, io.BytesIO(b"of c"))
    listing = list_folder(FolderSpec.parse(f"{tmp_path}#caption=text"))
    found = dict(zip(listing.paths, listing.captions or (), strict=True))
    shard = tmp_path / "x.tar"
    values = {"a.png": 97, "v1.0/a.png": 97, "v1.0/b.png": 98, "etc/c.png": 7}
    texts = {name: (f"of {'c' if 'etc' in name else name.removesuffix('.png')}",) for name in values}
    assert found == {shard / name: texts[name] for name in values}
    assert listing.left_out == {"keys of shards without image": 1}
    for name, value in values.items():
        assert read_bytes(shard / name) == png(value)


def test_shards_are_frozen_like_files(sharded: Path, tmp_path: Path) -> None:
    spec = FolderSpec.parse(f"{sharded}#caption=text")
    listing = list_folder(spec)
    everything = {"train": np.arange(20), "select": np.arange(20, 24), "report": np.arange(24, 28)}
    rows = freeze(listing, sharded, lambda labels, own: everything)  # type: ignore[arg-type, return-value]
    write_splits(tmp_path / "split.csv", rows)
    frozen = FolderSpec.parse(f"{spec},split={tmp_path / 'split.csv'}")
    found, hashes, _ = read_splits(frozen)
    assert found.captions == listing.captions and len(set(hashes)) == 28
    assert len(open_split(str(frozen), "report")) == 4
    with tarfile.open(sharded / "00001.tar", "w"):
        pass
    with pytest.raises(ValueError, match="00001.tar/.* is not there any more"):
        pictures = open_split(str(frozen), "report")
        pictures[torch.arange(4)]


def test_what_is_no_shard_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(ValueError, match="x.tar is no tar file that can be read in place"):
        list_folder(FolderSpec.parse(f"{tmp_path}#caption=text"))


def test_coco_is_read_with_all_captions_and_its_own_splits(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="the extra `coco` is not installed")
    (tmp_path / "annotations").mkdir()
    for part, numbers in (("train2014", range(12)), ("val2014", range(12, 17))):
        (tmp_path / part).mkdir()
        told: dict[str, list[Any]] = {"images": [], "annotations": []}
        for number in numbers:
            name = f"COCO_{part}_{number:012d}.png"
            (tmp_path / part / name).write_bytes(png(number))
            told["images"].append({"id": number, "file_name": name})
            for text in (f"a grey of {number} ", "grey", "grey"):
                one = {"id": len(told["annotations"]) + 100 * number, "image_id": number, "caption": text}
                told["annotations"].append(one)
        (tmp_path / "annotations" / f"captions_{part}.json").write_text(json.dumps(told))
    report = open_split(f"{tmp_path}#caption=text", "report")
    assert isinstance(report.condition, Captions) and len(report) == 5
    assert report.condition.texts == tuple((f"a grey of {number}", "grey") for number in range(12, 17))
    train = open_split(f"{tmp_path}#caption=text", "train")
    assert len(train) == 11 and {text for texts in train.condition.texts for text in texts} > {"grey"}  # type: ignore[attr-defined]
    told["annotations"] = [one for one in told["annotations"] if one["image_id"] != 14]
    (tmp_path / "annotations" / "captions_val2014.json").write_text(json.dumps(told))
    listing = list_folder(FolderSpec.parse(f"{tmp_path}#caption=text"))
    assert len(listing.paths) == 16 and listing.left_out == {"images without caption": 1}
    assert len(open_split(f"{tmp_path}#caption=text", "report").condition.names) == 4
    (tmp_path / "val2014" / "COCO_val2014_000000000012.png").unlink()
    with pytest.raises(ValueError, match="1 of 17 images are missing, first .*000000000012"):
        open_split(f"{tmp_path}#caption=text", "report")
