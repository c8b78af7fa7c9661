"""A task: networks, real images and their splits, in one folder; what everything else is given.

    task.json                     what the images are, where they lie, how networks for them are trained
    tokenizer/
    extractors/score/             judges tables, searches and checkpoints
    extractors/reward/            is looked through by rewards; never the same network
    encoder/                      reads texts, where images are drawn from texts
    nat/ enat/                    generators, each with strategies/ and policies/ of its own

Each network is loaded when it is first asked for. An extractor with logits is a classifier, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from generators.checkpoints import from_pretrained
from generators.conditions import Condition, at_shares, balanced, named, shuffled
from generators.config import ConditionLaw, SplitName
from generators.contract import Generator
from generators.data import Split, open_split, tokens
from generators.encoders import TextEncoder, encode, encode_captions
from generators.files import PRETRAINED, cache_folder, saved
from generators.given import GIVEN, Given, give, hidden_tokens
from generators.hub import on_hub
from generators.images import Pictures
from generators.pixels import ImageFiles
from generators.precision import Precision, in_precision
from generators.texts import Captions
from generators.tokenizers import Tokenizer
from natgym.metrics import classifier, puzzles, scenes  # noqa: F401  (the classes register themselves)
from natgym.metrics.extractors import Extractor
from natgym.names.tasks import PLACES, Description, Location, at_hand, find, network_folder, shipped
from natgym.names.tasks import read_task as read_task

Device = torch.device | str
_EXTRACTORS = dict.fromkeys(("score_extractor", "reward_extractor"), "num_features")
# What a network of each kind has, and no other.
_SIGNS = {"generator": "mask_id", "tokenizer": "decode", "encoder": "reads_texts"} | _EXTRACTORS
_MAKERS = {
    "generator": "natgym train-generator",
    "tokenizer": "natgym train-tokenizer",
    "score_extractor": "natgym train-classifier",
    "reward_extractor": "natgym train-classifier --seed 1",
    "encoder": "natgym train-task --condition text",
}


class Task:
    """Networks, real images and their splits; each is loaded when it is first asked for.

    `Task.load` finds a task by name or folder; the constructor makes one of live objects, of which only those
    that are asked for have to be there.

    Args:
        name: for titles and protocols; None for live objects that belong to no task.
        description: of the images; None if there are none.
        folder: where the networks lie that are not given.
        device: where networks are loaded to; live ones stay where they are.
        networks: `generator`, `tokenizer`, `score_extractor`, `reward_extractor`, `encoder`: each live, or
            the folder of a saved one, or the name of a task that has one; "score" as reward extractor is the
            score's own, as in trainings of before there were two.

    Attributes:
        spec: what `Task.load` finds it by again, in any process; None if only its objects can make it.
        given: "#given=REGION" where that region of real images is drawn, which give the rest, or the form of
            puzzles; else empty.
    """

    def __init__(
        self,
        name: str | None = None,
        description: Description | None = None,
        *,
        folder: Path | None = None,
        device: Device = "cpu",
        **networks: Any,
    ) -> None:
        if unknown := set(networks) - set(_SIGNS):
            raise TypeError(f"Task has no {', '.join(sorted(unknown))}; it has {', '.join(_SIGNS)}")
        self.name = name
        self.description = description
        self.folder = folder
        self.device = torch.device(device)
        self.networks = {kind: at_hand(network) for kind, network in _present(networks).items()}
        self.spec: str | None = None
        self.given = ""
        self._pictures: dict[SplitName, Pictures] = {}  # a folder is not walked for each of its splits' uses

    @classmethod
    def load(
        cls, spec: Any, *, device: Device = "cpu", precision: Precision = "float32", **networks: Any
    ) -> Task:
        """Return the task that a name, a folder or a saved generator stands for; a `Task` as it is.

        Args:
            spec: a shipped task ("digits"), the folder of a task, either with one of its generators
                ("mnist/enat"), a data set or image folder without networks, or the folder of a saved
                generator, which says its task. Of a live `Task` with networks to change, a copy is returned.
                SPEC#given=REGION draws a region of the real images and is given the rest. Any folder may be
                one of the Hub, hf://user/name[@revision].
            device: as for the constructor; a live `Task` stays on its device.
            precision: in which the generator computes; see `generators.precision`.
            networks: as for the constructor; they take the place of the task's own.

        Raises:
            ValueError: there is no such task.
        """
        if isinstance(spec, Task):
            task = spec.like(**networks) if _present(networks) else spec
        else:
            location = find(str(spec), _of_images)
            networks = dict(location.networks) | _present(networks)
            task = cls(location.name, location.description, folder=location.folder, device=device, **networks)
            task.spec, task.given = location.spec, location.given
        return task if precision == "float32" else task.in_precision(precision)

    def like(self, **networks: Any) -> Task:
        """Return a copy with other networks, which shares the loaded networks and images that stay."""
        changes = _present(networks)
        networks = self.networks | changes
        task = Task(self.name, self.description, folder=self.folder, device=self.device, **networks)
        task.spec, task.given = self.spec, self.given
        # Another encoder reads other texts, and the generator has to belong to it.
        anew = set(changes) | ({"generator", "_pictures"} if "encoder" in changes else set())
        if networks.get("reward_extractor") == "score" and "score_extractor" in changes:
            anew.add("reward_extractor")
        for name in (vars(self).keys() & {*_SIGNS, "_pictures"}) - anew:
            vars(task)[name] = vars(self)[name]
        return task

    def in_precision(self, precision: Precision) -> Task:
        """Return a copy whose generator computes in a precision; see `generators.precision`."""
        return self.like(generator=in_precision(self.generator, precision))

    @cached_property
    def generator(self) -> Generator:
        """The generator that draws; ValueError if it learned from texts that another encoder has read."""
        generator = self._network("generator")
        learned = getattr(getattr(generator, "config", None), "text_encoder", "")
        if learned and self.has("encoder") and self.encoder.name != learned:
            raise ValueError(
                f"{self}: the generator learned from texts read by {learned}, the encoder is "
                f"{self.encoder.name}; give the one or the other that belongs to it"
            )
        return generator

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of generator and images."""
        return self._network("tokenizer")

    @cached_property
    def score_extractor(self) -> Extractor:
        """What judges: tables, searches, checkpoints."""
        return self._network("score_extractor")

    @cached_property
    def reward_extractor(self) -> Extractor:
        """What rewards look through."""
        if self.networks.get("reward_extractor") == "score":
            return self.score_extractor
        return self._network("reward_extractor")

    @cached_property
    def encoder(self) -> TextEncoder:
        """What reads the texts that images are drawn from."""
        return self._network("encoder")

    def has(self, kind: str) -> bool:
        """Tell whether a network is given or lies in the folder, without loading it."""
        return kind in self.networks or (self.folder is not None and saved(self.folder / self._place(kind)))

    @property
    def recipe(self) -> str | None:
        """Of `generators.recipes`, by which the task's networks are trained; None for the papers' own."""
        return None if self.description is None else self.description.recipe

    @property
    def law(self) -> ConditionLaw:
        """How classes are drawn in trainings, searches and tables, unless something else is asked for."""
        return "balanced" if self.description is None else self.description.conditions

    @property
    def every(self) -> Condition:
        """Each of the generator's classes once, in order; of texts and of begun images those of train."""
        return self.pool if self.has("encoder") or self.given else self.generator.conditions()

    @cached_property
    def pool(self) -> Condition:
        """What conditions are taken from in turn: each of the generator's once; or, by the data's shares,
        those of the train split, in a fixed order."""
        if self.law == "balanced" and not self.has("encoder") and not self.given:
            return self.every
        real = self.begun("train") if self.given else self._opened("train").condition  # images may be away
        return shuffled(real).to(self.place)

    def begun(self, split: SplitName) -> Given:
        """Return the conditions of a split's real images, with all tokens but those of the region."""
        ids_NL, _ = tokens(self.data, split, self.tokenizer, cache_folder())
        condition = self.images(split).condition.to(self.place)
        form = self.given.removeprefix(GIVEN)
        return give(condition, ids_NL, hidden_tokens(self.data, split, form, self.tokenizer.grid))

    @property
    def place(self) -> torch.device:
        """Where the generator reads conditions."""
        if self.has("encoder") or not self.has("generator"):  # one that learns from begun images is yet to be
            return self.device
        return self.generator.conditions().device

    def examples(self, number: int) -> Condition:
        """Return at most `number` conditions to show: the first classes; of select, texts or begun images."""
        if self.given:
            return self.begun("select")[:number]
        every = self._opened("select").condition.to(self.place) if self.has("encoder") else self.every
        return every[:number]

    def read(self, condition: Condition) -> Condition:
        """Return conditions as a generator takes them: captions encoded, of each image the first."""
        if not isinstance(condition, Captions):
            return condition
        return encode_captions(condition, self.encoder, self)

    def named(self, names: Sequence[str]) -> Condition:
        """Return the conditions of some names: of classes, or texts to draw.

        Raises:
            ValueError: a name is no class's, or a text can't be read.
        """
        if self.has("encoder"):
            if told := next(filter(None, map(self.encoder.complaint, names)), None):
                raise ValueError(told)
            return encode(names, self.encoder).to(self.place)
        return named(self.every, names)

    def asked(self, number: int, split: SplitName = "train") -> Condition:
        """Return `number` conditions by the task's law, the same each time; what is given is of a split."""
        pool, in_turn = self.pool_of(split), self.law == "balanced" or self.given
        return balanced(pool, number) if in_turn else at_shares(pool, number)

    def pool_of(self, split: SplitName) -> Condition:
        """Return `pool`; what is given in it is of a split."""
        return shuffled(self.begun(split)) if self.given and split != "train" else self.pool

    def images(self, split: SplitName) -> Pictures:
        """Return the real images of a split, read when asked for and then on the task's device.

        Raises:
            ValueError: the task has no images, they are not where it says, or of other classes.
        """
        pictures = self._opened(split)
        if isinstance(pictures.pixels, ImageFiles):
            pictures.pixels.refuse_absent()
        names = () if self.description is None else self.description.class_names
        if names and pictures.class_names not in ((), names):
            raise ValueError(f"{self} has the classes {names}, its images {pictures.class_names}")
        return pictures.to(self.device)

    def _opened(self, split: SplitName) -> Pictures:
        if split not in self._pictures:
            pictures = open_split(self.data, split)
            if self.has("encoder"):
                pictures = replace(pictures, condition=self.read(pictures.condition))
            self._pictures[split] = pictures
        return self._pictures[split]

    def split(self, split: SplitName) -> Split:
        """Return all real images of a small split as floats, on the task's device; see `images`."""
        return self.images(split).load()

    @property
    def data(self) -> str:
        """Where the real images are, as `generators.data` reads it; ValueError if there are none."""
        if self.description is None:
            raise ValueError(f"{self} has no real images; give a task, as task='digits' or a task's folder")
        return self.description.data

    @property
    def home(self) -> str | None:
        """What `Task.load` finds the task itself by, whatever generator plays; None of live objects alone."""
        if self.folder is None:
            return None if self.description is None else self.description.data
        if self.folder.parent == PRETRAINED:
            return self.name
        return self.spec if on_hub(self.spec) else f"{self.folder.resolve()}{self.given}"

    def __str__(self) -> str:
        return f"task {self.name!r}" if self.name else "a generator without a task"

    def __repr__(self) -> str:
        return f"Task({self.spec or self.name!r}, device={str(self.device)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross to other processes by name or path, with the networks that were given."""
        if self.spec is None:
            rest = {"folder": self.folder, "device": str(self.device)} | self.networks
            return _rebuilt, (None, (self.name, self.description), rest)
        return _rebuilt, (self.spec, (), {"device": str(self.device)} | self.networks)

    def _place(self, kind: str) -> str:
        if kind == "generator":
            return "nat" if self.description is None else self.description.generator
        return PLACES[kind]

    def _network(self, kind: str) -> Any:
        network = self.networks.get(kind)
        if isinstance(network, str | Path):
            return _load(network_folder(network, kind), kind, self.device)
        if network is not None:
            return network
        if self.folder is not None and self.has(kind):
            return _load(self.folder / self._place(kind), kind, self.device)
        where = f" or train {self.folder / self._place(kind)}" if self.folder else ", or train one"
        what = f"live or the folder of a saved one{where} with {_MAKERS[kind]}"
        raise ValueError(f"{self} has no {kind}: give `{kind}=`, {what}")


def _of_images(spec: str) -> Location:
    """Return a task of real images alone, once they are seen to be there."""
    try:
        open_split(spec, "train")
    except ValueError as error:
        raise ValueError(
            f"{spec!r} is neither a folder of a task or of a saved generator nor a shipped task "
            f"({', '.join(shipped())}), and no images either: {error}"
        ) from None
    here = at_hand(spec, images=True)
    return Location(here, spec, Description(data=here))


def _present(networks: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: network for kind, network in networks.items() if network is not None}


def _load(folder: Path, kind: str, device: torch.device) -> Any:
    module = from_pretrained(folder, device)
    if not hasattr(module, _SIGNS[kind]):
        raise ValueError(f"{folder} holds a {type(module).__name__}, which is not a {kind}")
    return module


def _rebuilt(spec: str | None, named: tuple[Any, ...], rest: dict[str, Any]) -> Task:
    return Task(*named, **rest) if spec is None else Task.load(spec, **rest)
