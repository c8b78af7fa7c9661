"""Real images and their splits: a data set has three fixed splits that never mix.

*train* fits tokenizer, generator, classifier and discriminator; *select* serves search, early stopping and
choosing among runs; nothing but the tables touches *report*. A data set is `digits`, `mnist`, `cifar10` or an
image folder (`generators.folders`); data sets are looked for in $NATGYM_DATA, by default `data`.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from generators import former
from generators.caches import cached
from generators.checkpoints import weights_hash
from generators.conditions import Condition, Labels
from generators.config import SplitName as SplitName
from generators.folders import FolderSpec, list_folder
from generators.frozen import changed_since, read_splits
from generators.images import ArrayPixels, ImageRows, Pictures, Pixels, RandomCrops, Split
from generators.pixels import ImageFiles
from generators.puzzles.data import PUZZLES, PuzzlePixels, answers
from generators.shapes.data import ScenePixels, scenes_of
from generators.texts import Captions
from generators.tokenizers import Tokenizer

LARGER = 9 / 8  # side of what is cropped, in sides of the crops


def open_split(task: str, split: SplitName) -> Pictures:
    """Return one split of a task, whose images are read when asked for.

    Args:
        task: one of DATA_SETS, or an image folder: PATH, or PATH#COLUMN,size=N (`generators.folders`).
        split: train, select or report.

    Raises:
        ValueError: the name is not known, or the data is not there.
    """
    if split not in get_args(SplitName):
        raise ValueError(f"split {split!r} is not one of {', '.join(get_args(SplitName))}")
    if task in DATA_SETS:
        return DATA_SETS[task](split)
    spec = FolderSpec.parse(task)
    if spec.split is None and not spec.path.is_dir():
        raise ValueError(f"task {task!r} is not one of {', '.join(DATA_SETS)} and no image folder either")
    return _folder(spec, split)


def load_split(task: str, split: SplitName) -> Split:
    """Return one split of a task with all its images as floats; see `open_split`."""
    return open_split(task, split).load()


def tokens(
    task: str,
    split: SplitName,
    tokenizer: Tokenizer,
    cache_folder: Path | str,
    *,
    mirror: bool = False,
    crops: int = 0,
    batch_size: int = 256,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[Tensor, Condition]:
    """Return the token ids (N, L), uint16, of a split and their conditions, from the cache if they are there.

    Ranks that train together call it together: each encodes a share of the batches, and all get the whole.

    Args:
        task, split: as for `open_split`.
        tokenizer: a module; it encodes on the device it is on.
        cache_folder: where the ids' file is, or will be; one that is damaged or made of other images is
            replaced.
        mirror: append the images flipped from left to right, in the same order: 2N rows.
        crops: take so many random squares of each image, which is read an eighth larger, in place of its
            center; of image folders alone. N is crops times as many.
        batch_size: images encoded at once.
        progress: called with the images encoded and to encode, after each batch.

    Raises:
        ValueError: as of `encodable`.
    """
    pictures, seen = encodable(task, split, tokenizer, crops)
    assert isinstance(tokenizer, nn.Module)
    weights = weights_hash(tokenizer)
    flips = (False, True) if mirror else (False,)
    place = re.sub(r"\W+", "_", FolderSpec.parse(task).path.name)
    if task not in DATA_SETS:  # folders of one name, and their options
        place += f"-{hashlib.sha256(task.encode()).hexdigest()[:8]}"
    cut = [f"crops{crops}"] if crops else []
    name = "-".join([place, split, weights, *cut, *(["mirror"] if mirror else [])])
    path = Path(cache_folder) / f"{name}.safetensors"
    made_of = " ".join([task, split, weights, str(mirror), pictures.fingerprint(), *cut])
    encode = partial(_encode, seen, tokenizer, flips, batch_size, progress)
    ids_NL = cached(path, "ids", made_of, encode, together=True)
    return ids_NL, type(pictures.condition).cat([pictures.condition] * (max(1, crops) * len(flips)))


def encodable(
    task: str, split: SplitName, tokenizer: Tokenizer, crops: int = 0
) -> tuple[Pictures, ImageRows]:
    """Return a split and what `tokens` encodes of it: its images, or crops of them.

    Raises:
        ValueError: the images have another shape than the tokenizer's or can't be cropped, or ids don't fit
            into 16 bits.
    """
    pictures = open_split(task, split)
    if pictures.image_shape != tuple(tokenizer.image_shape):
        raise ValueError(
            f"images of {task} are {pictures.image_shape}, the tokenizer's {tuple(tokenizer.image_shape)}; "
            "use the tokenizer of this task"
        )
    if tokenizer.codebook_size > 2**16:
        raise ValueError(f"codebook_size {tokenizer.codebook_size}: token sets hold at most {2**16} codes")
    return pictures, _cropped(task, split, pictures, crops) if crops else pictures


def _cropped(task: str, split: SplitName, pictures: Pictures, crops: int) -> RandomCrops:
    """Return random crops of a folder's images, in the size that they have as `pictures`."""
    _, height, width = pictures.image_shape
    spec = FolderSpec.parse(task)
    if task in DATA_SETS or spec.size is None:
        raise ValueError(
            f"crops {crops}: images of {task} have one size, and nothing around it to crop; crops are of "
            f"image folders that are resized, PATH#size={min(height, width)}"
        )
    larger = replace(spec, size=math.ceil(spec.size * LARGER))
    return RandomCrops(open_split(str(larger), split), spec.size, crops)


@torch.no_grad()
def _encode(
    pictures: ImageRows,
    tokenizer: Any,
    flips: tuple[bool, ...],
    batch_size: int,
    progress: Callable[[int, int], object],
) -> Tensor:
    device = next(iter(tokenizer.state_dict().values())).device
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    # Whole batches, so that ids don't depend on the number of ranks; int32, as ranks can't sum uint16.
    ids_FNL = torch.zeros(len(flips), len(pictures), math.prod(tokenizer.grid), dtype=torch.int32)
    for rows in torch.arange(len(pictures)).split(batch_size)[rank::ranks]:
        images_BCHW = pictures[rows].to(device)
        for ids_NL, flip in zip(ids_FNL, flips, strict=True):
            ids_NL[rows] = tokenizer.encode(images_BCHW.flip(-1) if flip else images_BCHW).cpu().int()
        progress(int(rows[-1]) + 1, len(pictures))
    if ranks > 1:
        dist.all_reduce(ids_FNL := ids_FNL.to(device))
    return ids_FNL.flatten(0, 1).cpu().to(torch.uint16)


def _digits(split: SplitName) -> Pictures:
    """scikit-learn's 1,797 real digits of 8x8 pixels, cut by class: 1,197 train, 200 select, 400 report."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = ArrayPixels(torch.from_numpy(digits.images).byte()[:, None])
    rows = stratified_splits(digits.target, train=1197, select=200, report=400)[split]
    return _pictures(pixels, digits.target, rows, tuple("0123456789"), white=16)


def _mnist(split: SplitName) -> Pictures:
    """MNIST, 28x28 grey: 50,000 train, 10,000 select, and the 10,000 official test images as report."""
    from torchvision.datasets import MNIST

    mnist = _torchvision(MNIST, "MNIST/raw", train=split != "report")
    rows = _official(mnist.targets.numpy(), split, train=50_000)
    return _pictures(ArrayPixels(mnist.data[:, None]), mnist.targets.numpy(), rows, tuple("0123456789"))


def _cifar10(split: SplitName) -> Pictures:
    """CIFAR-10, 32x32 RGB: 45,000 train, 5,000 select, and the 10,000 official test images as report."""
    from torchvision.datasets import CIFAR10

    cifar10 = _torchvision(CIFAR10, "cifar-10-batches-py", train=split != "report")
    pixels = ArrayPixels(torch.from_numpy(cifar10.data).permute(0, 3, 1, 2).contiguous())
    labels = np.array(cifar10.targets)
    return _pictures(pixels, labels, _official(labels, split, train=45_000), tuple(cifar10.classes))


def _shapes(split: SplitName) -> Pictures:
    """Scenes of forms with captions, 24x24 RGB: 40,000 train, 5,000 select, 10,000 report, without end."""
    scenes, captions = scenes_of(split)
    condition = Captions(tuple((caption,) for caption in captions))
    return Pictures(ScenePixels(scenes), torch.arange(len(scenes)), condition)


def _puzzle(name: str, split: SplitName) -> Pictures:
    """Answers of a puzzle as images of digits: 20,000 train, 2,000 select, 4,000 report, without end."""
    symbols_NL = answers(name, split)
    labels_N = torch.zeros(len(symbols_NL), dtype=torch.long)
    pixels = PuzzlePixels(PUZZLES[name], symbols_NL)
    return Pictures(pixels, torch.arange(len(symbols_NL)), Labels(labels_N, 1, (name,)), (name,))


def _torchvision(dataset: Callable[..., Any], files: str, train: bool) -> Any:
    """Read a data set as torchvision lays it out, or fetch it; CIFAR-10's pickles only if md5 knows them."""
    root = os.environ.get("NATGYM_DATA", "data")
    try:
        return dataset(root, train=train, download=False)
    except RuntimeError:  # torchvision's way to say that it is not there
        pass
    try:
        return dataset(root, train=train, download=True)
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"no data in {Path(root, files)} and none could be downloaded ({error}); "
            f"set NATGYM_DATA to the folder that holds {files}"
        ) from None


def _official(labels_N: np.ndarray, split: SplitName, train: int) -> np.ndarray:
    """Return the rows of a split in the official train files, or in the test files for report."""
    if split == "report":
        return np.arange(len(labels_N))
    fit, chosen = _stratified_pair(labels_N, train, len(labels_N) - train)
    return fit if split == "train" else chosen


def _folder(spec: FolderSpec, split: SplitName) -> Pictures:
    """An image folder, by its frozen splits, or cut by `cut_folder`."""
    hashes = None
    if spec.split is None:
        listing = list_folder(spec)
        if missing := listing.left_out["rows without label"]:
            warnings.warn(f"{spec.path}: {missing} rows without label are left out", stacklevel=3)
        rows = cut_folder(listing.labels, listing.own_split, str(spec.path))[split]
    else:
        listing, hashes, known = read_splits(spec)
        assert listing.own_split is not None
        if told := changed_since(spec, listing, known):
            warnings.warn(f"{spec.path}: {told}", stacklevel=3)
        rows = np.flatnonzero(listing.own_split == split)
    pixels = ImageFiles(listing.paths, spec.size, spec.mode, hashes)
    if spec.split is None:
        pixels.refuse_sizes()  # frozen ones have a size, and may be away
    pictures = _pictures(pixels, listing.labels, rows, listing.class_names)
    if listing.captions is None:
        return pictures
    texts = tuple(listing.captions[row] for row in rows)
    return replace(pictures, condition=Captions(texts), class_names=())


def cut_folder(labels_N: np.ndarray, own_N: np.ndarray | None, name: str) -> dict[SplitName, np.ndarray]:
    """Return the rows of each split of N images: 80 % train, 10 % select, 10 % report, by class.

    Args:
        labels_N: their classes.
        own_N: the split that each has in its folder, which is kept; what lacks is cut from train.
        name: of the folder, for errors.

    Raises:
        ValueError: there are fewer than 10.
    """
    if (number := len(labels_N)) < 10:
        raise ValueError(f"{name} holds {number} images; three splits need at least 10")
    if own_N is None:
        tenth = number // 10
        return stratified_splits(_strata(labels_N), train=number - 2 * tenth, select=tenth, report=tenth)  # type: ignore[return-value]
    rows = {split: np.flatnonzero(own_N == split) for split in get_args(SplitName)}
    if not len(rows["select"]):
        known = rows["train"]
        if len(known) < 10:
            raise ValueError(f"{name} has {len(known)} train images; a select split is cut from at least 10")
        fit, chosen = _stratified_pair(
            _strata(labels_N[known]), len(known) - len(known) // 10, len(known) // 10
        )
        rows |= {"train": known[fit], "select": known[chosen]}
    return rows


def _pictures(
    pixels: Pixels, labels_N: np.ndarray, rows: np.ndarray, class_names: tuple[str, ...], white: int = 255
) -> Pictures:
    condition = Labels(torch.from_numpy(labels_N[rows]).long(), len(class_names), class_names)
    return Pictures(pixels, torch.from_numpy(rows), condition, class_names, white)


def stratified_splits(labels_N: np.ndarray, train: int, select: int, report: int) -> dict[str, np.ndarray]:
    """Cut indices into disjoint splits of given sizes, each with the classes' shares; the cut is fixed."""
    fit, held_out = _stratified_pair(labels_N, train, select + report)
    chosen, judged = _stratified_pair(labels_N[held_out], select, report)
    return {"train": fit, "select": held_out[chosen], "report": held_out[judged]}


def _stratified_pair(labels_N: np.ndarray, first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    everything = np.arange(len(labels_N))
    one, other = train_test_split(
        everything, train_size=first, test_size=second, stratify=labels_N, random_state=0
    )
    return one, other


def _strata(labels_N: np.ndarray, enough: int = 20) -> np.ndarray:
    """Return labels fit for stratified cuts: the classes with fewer than `enough` images become one."""
    counts = np.bincount(labels_N)
    small_N = counts[labels_N] < enough
    if small_N.sum() < enough:  # too few even together: they join the largest class
        return np.where(small_N, counts.argmax(), labels_N)
    return np.where(small_N, len(counts), labels_N)


__getattr__ = former.renamed(
    __name__,
    {
        "PartName": "SplitName",
        "Part": "Split",
        "load_part": "load_split",
        "open_part": "open_split",
        "TASKS": "DATA_SETS",
    },
)
DATA_SETS: dict[str, Callable[[SplitName], Pictures]] = {
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "shapes": _shapes,
    **{name: partial(_puzzle, name) for name in PUZZLES},
}
