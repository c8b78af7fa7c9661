"""What train_task.py plans: a folder as it was read, the sizes that fit it, and the time that they take."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from _progress import progress

from generators.conditions import Condition, Labels
from generators.config import ConditionLaw, VQTrainingConfig, recipe
from generators.data import cut_folder
from generators.encoders import encode, make_encoder
from generators.folders import FolderSpec, Listing, list_folder
from generators.frozen import CAPTIONS, LEFT_OUT, freeze
from generators.noise import seeded
from generators.pixels import Header, ImageFiles
from generators.recipes import build
from generators.texts import Captions
from generators.tokenizers import ConvVQ, ConvVQConfig
from generators.training import Trainer
from generators.vq import VQTrainer
from natgym.evaluation.evaluator import FAR
from natgym.figures.policies import samples_figure
from natgym.metrics.classifier import Classifier, ClassifierConfig, fit_classifier
from natgym.metrics.manifold import NEIGHBORS
from natgym.metrics.perceptual import PerceptualDistance
from natgym.metrics.score import total_variation
from natgym.names.tasks import Description
from natgym.task import Task

if TYPE_CHECKING:
    from train_task import Args

LARGEST = 32  # side in pixels, unless another is asked for: what networks of minutes can draw
GRID = 8  # tokens along a side, at most
SHOWN = 8  # rows of images
RARE = 10  # images of a class in train, below which it is told
TOKENIZER_WIDTH = 32  # channels of its convolutions


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was read, and what is made of it.

    Attributes:
        spec: of the folder, with size and color mode.
        listing, headers: of its files.
        rows: of the frozen splits.
        conditions: how classes are drawn.
        downsampling: side of a token in pixels.
        features: width of the extractors.
    """

    spec: FolderSpec
    listing: Listing
    headers: Sequence[Header]
    rows: list[dict[str, str]]
    conditions: ConditionLaw
    downsampling: int
    features: int

    @classmethod
    def of(cls, args: Args) -> Plan:
        """Read a folder and choose sizes; ValueError for what can't be a task."""
        assert args.images is not None
        spec = FolderSpec.parse(args.images)
        if args.condition == "text" and spec.caption is None:
            spec = dataclasses.replace(spec, caption="text")
        if spec.caption is not None and args.conditions == "balanced":
            raise ValueError("conditions balanced: texts are drawn as the data have them; leave it out")
        if not spec.path.is_dir():
            raise ValueError(f"{spec.path} is no folder; give a folder of images")
        spec = dataclasses.replace(spec, path=spec.path.resolve())
        assert args.output is not None
        if args.output.resolve().is_relative_to(spec.path):
            raise ValueError(f"{args.output} lies in the folder of images; give an --output elsewhere")
        listing = list_folder(spec)
        asked = args.size or spec.size
        files = ImageFiles(listing.paths, asked, spec.mode)
        size = asked or _side(files.headers)
        spec = dataclasses.replace(spec, size=size, mode=files.mode)

        def cut(labels: Any, own: Any) -> Any:
            return cut_folder(labels, own, str(spec.path))

        with progress(total=len(listing.paths), unit="file", desc="reading") as bar:
            rows = freeze(listing, spec.path, cut, bar.update)
        few = min(Counter(row["split"] for row in rows)[split] for split in ("select", "report"))
        if few <= NEIGHBORS:
            raise ValueError(
                f"{spec.path} leaves {few} images in a split that judges, which needs {NEIGHBORS + 1} at "
                f"least; give {10 * (NEIGHBORS + 1)} images or more, or splits of your own"
            )
        features = args.features or 2 ** max(3, min(6, few.bit_length() - 1))
        if args.evaluation_images < features:
            raise ValueError(
                f"evaluation_images {args.evaluation_images}: give at least {features}, as features"
            )
        return cls(
            spec=spec,
            listing=listing,
            headers=files.headers,
            rows=rows,
            conditions=args.conditions or ("data" if _unevenness(rows) > FAR else "balanced"),
            downsampling=args.downsampling or _downsampling(size),
            features=features,
        )

    @property
    def counts(self) -> Counter[str]:
        """Images of each class in the splits."""
        return Counter(row["label"] for row in self.rows if row["split"] not in LEFT_OUT)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Of the classes that have an image in a split."""
        return tuple(name for name in self.listing.class_names if self.counts[name])

    @cached_property
    def train(self) -> list[dict[str, str]]:
        """The rows of the train split."""
        return [row for row in self.rows if row["split"] == "train"]

    @cached_property
    def captions(self) -> Captions | None:
        """The texts of the train split, if images are drawn from texts."""
        if self.spec.caption is None:
            return None
        return Captions(tuple(tuple(json.loads(row[CAPTIONS])) for row in self.train))

    @cached_property
    def pixels(self) -> ImageFiles:
        """The images of the train split."""
        paths = [self.spec.path / row["file"] for row in self.train]
        return ImageFiles(paths, self.spec.size, self.spec.mode)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images."""
        assert self.spec.size is not None
        return 1 if self.spec.mode == "L" else 3, self.spec.size, self.spec.size

    def tokenizer(self, args: Args) -> ConvVQConfig:
        """Return the geometry of the tokenizer that is trained."""
        return ConvVQConfig(
            image_shape=self.shape,
            codebook_size=args.codebook_size,
            downsampling=self.downsampling,
            width=TOKENIZER_WIDTH,
        )

    def description(self, args: Args) -> Description:
        """Return what task.json says."""
        assert self.spec.size is not None
        return Description(
            data=str(self.spec),
            image_size=(self.spec.size, self.spec.size),
            color_mode=self.spec.mode,
            class_names=self.class_names if self.captions is None else (),
            frozen=True,
            conditions=self.conditions if self.captions is None else "data",
            recipe="small",
            source=args.source,
        )

    def said(self) -> Iterator[str]:
        """Say line by line what was read."""
        splits = Counter(row["split"] for row in self.rows)
        counts = self.counts
        yield f"{self.spec.path}: {sum(counts.values()):,} images in {len(counts)} classes"
        shown = [f"{name} {counts[name]:,}" for name in self.class_names[:20]]
        yield "classes: " + ", ".join(shown) + (", ..." if len(counts) > 20 else "")
        learned = Counter(row["label"] for row in self.train)
        if rare := [f"{name} {learned[name]}" for name in self.class_names if learned[name] < RARE]:
            yield "hardly enough to learn from, in train: " + ", ".join(rare[:20])
        if self.captions is not None:
            texts = [text for texts in self.captions.texts for text in texts]
            yield f"captions: {len(texts):,} in train, {len(set(texts)):,} different ones, as {texts[0]!r}"
        elif len(counts) == 1:
            yield "one class: there is nothing to guide by, and extractors learn to tell rotations"
        sizes = sorted({(header.width, header.height) for header in self.headers})
        between = f"{sizes[0][0]} x {sizes[0][1]}" + (
            f" to {sizes[-1][0]} x {sizes[-1][1]}" if len(sizes) > 1 else ""
        )
        modes = Counter(header.mode for header in self.headers)
        modes_said = ", ".join(f"{mode} {number:,}" for mode, number in modes.most_common())
        color = {"L": "grey", "RGB": "color"}[self.spec.mode or "RGB"]
        yield f"pixels: {between} ({modes_said}), read as {self.spec.size} x {self.spec.size} {color}"
        own = "the folder's own" if self.listing.own_split is not None else "cut by class"
        yield f"splits, {own}: " + ", ".join(
            f"{splits[name]:,} {name}" for name in ("train", "select", "report")
        )
        left_out = self.listing.left_out + Counter({why: splits[why] for why in LEFT_OUT if splits[why]})
        left_out += Counter(
            {f"class {name}, all copies": 1 for name in self.listing.class_names if not counts[name]}
        )
        if left_out:
            yield "left out: " + ", ".join(f"{number:,} {why}" for why, number in left_out.items())
        how = "evenly" if self.conditions == "balanced" else "as often as the data have them"
        yield f"classes are drawn {how}" if self.captions is None else "texts are drawn as the data have them"


def _side(headers: Sequence[Header]) -> int:
    """Return a side of squares, divisible by 4, at most LARGEST: one image in ten may be enlarged for it."""
    small = sorted(min(header.width, header.height) for header in headers)[len(headers) // 10]
    return max(8, min(LARGEST, small // 4 * 4))


def _downsampling(size: int) -> int:
    """Return the smallest power of 2, from 2, that leaves at most GRID tokens along a side."""
    factor = 2
    while size // factor > GRID:
        factor *= 2
    if size % factor or size % 4:
        raise ValueError(
            f"size {size}: tokens of {max(4, factor)} pixels have to divide it; choose another --size"
        )
    return factor


def _unevenness(rows: list[dict[str, str]]) -> float:
    """Return the total variation between the classes of the train split and even ones."""
    counts = torch.tensor(list(Counter(row["label"] for row in rows if row["split"] == "train").values()))
    return total_variation(counts, torch.ones_like(counts))


def contact_sheet(plan: Plan) -> Any:
    """Draw the first images of each class of the train split as they are read."""
    learned = {row["label"] for row in plan.train}
    names = [name for name in plan.class_names if name in learned][:10]
    chosen = []
    for name in names:
        its = [at for at, row in enumerate(plan.train) if row["label"] == name]
        chosen.append([its[at % len(its)] for at in range(SHOWN)])
    order = torch.tensor(chosen).T.flatten()  # row by row over the classes
    title = f"{plan.spec.path.name}, as it is read"
    note = f"the first {SHOWN} images of {len(names)} classes of the train split"
    return samples_figure({title: plan.pixels[order].float() / 255}, names, note)


def estimate(args: Args, plan: Plan) -> pd.DataFrame:
    """Return the stages and their minutes, by the time that a few updates of each take."""
    torch.set_num_threads(args.threads)
    count = min(len(plan.train), 256)
    images_NCHW = plan.pixels[torch.arange(count)].float() / 255
    classes = max(2, len(plan.counts))
    labels_N = torch.arange(count) % classes
    condition: Condition = Labels(labels_N, classes)
    if plan.captions is not None:
        encoder = make_encoder(args.encoder or "words", plan.captions)
        condition = encode(plan.captions.names[:count], encoder)
    seconds: dict[str, float] = {}
    with seeded(0):
        tokenizer: Any = ConvVQ(plan.tokenizer(args)).to(args.device)
        if args.tokenizer is not None:
            tokenizer = Task.load(args.tokenizer).tokenizer
        ids_NL = torch.randint(tokenizer.codebook_size, (count, tokenizer.grid[0] * tokenizer.grid[1]))
        generator = build(
            "nat", "small", tokenizer, condition.geometry, width=args.width, depth=args.depth
        ).to(args.device)
        settings = recipe("small", "nat")
        trainer = Trainer(generator, ids_NL.to(args.device), condition.to(args.device), settings)
        seconds["generator"] = _pace(iter(trainer))
        seconds["tokenizer"] = 0.0
        if args.tokenizer is None:
            look = perceptual(args, plan).to(args.device) if args.perceptual else None
            seconds["tokenizer"] = _pace(iter(VQTrainer(tokenizer, images_NCHW, VQTrainingConfig(), look)))
    ends: list[float] = []
    fit_classifier(
        ClassifierConfig(image_shape=tokenizer.image_shape, num_classes=classes, features=plan.features),
        images_NCHW,
        labels_N,
        updates=4,
        device=args.device,
        progress=lambda loss: ends.append(time.perf_counter()),
    )
    seconds["extractors"] = (ends[-1] - ends[0]) / (len(ends) - 1)
    own = 2 if args.extractor is None else 1
    rows = [
        ("extractors", f"{own} of {plan.features} features", own * args.extractor_updates),
        (
            "tokenizer",
            f"{args.codebook_size} codes of {plan.downsampling} x {plan.downsampling} pixels",
            args.tokenizer_updates,
        ),
        (
            "generator",
            f"NAT, {tokenizer.grid[0]} x {tokenizer.grid[1]} tokens, width {args.width}",
            args.generator_updates,
        ),
    ]
    if args.tokenizer is not None:
        rows[1] = ("tokenizer", f"of {args.tokenizer}", 0)
    minutes = [seconds[name] * updates / 60 for name, _, updates in rows]
    lines = [(*row, f"{one:.1f}") for row, one in zip(rows, minutes, strict=True)]
    all_of_it = ("all", "", "", f"{sum(minutes):.0f}")
    return pd.DataFrame([*lines, all_of_it], columns=["stage", "what", "updates", "minutes"])


def perceptual(args: Args, plan: Plan) -> PerceptualDistance:
    """Return what will look at reconstructions: VGG16, or, for its time, a classifier that is not trained."""
    if args.perceptual_weights is not None:
        return PerceptualDistance.of_vgg(args.perceptual_weights)
    network = Classifier(ClassifierConfig(image_shape=plan.shape, num_classes=2, features=plan.features))
    return PerceptualDistance.of_trunk(network.trunk)


def _pace(updates: Iterator[Any], number: int = 3) -> float:
    """Return the seconds of an update, after a first one."""
    next(updates)
    start = time.perf_counter()
    for _ in range(number):
        next(updates)
    return (time.perf_counter() - start) / number
