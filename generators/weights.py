"""Official checkpoints: read without executing anything, recognised by their names, translated into ours."""

from __future__ import annotations

import zipfile
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from generators.checkpoints import bare, load_tensors, refuse_pointer, why_not
from generators.formats import FORMATS, OTHERS, Format, first_words
from generators.skeletons import without_weights

USUAL = ("state_dict", "model", "model_state_dict")  # entries under which weights stand
WRAPPED = "module."  # what DDP and averages put before names
COUNTED = "n_averaged"  # of torch's averages, beside the weights


class Converted(NamedTuple):
    """Weights under our names, and what they are.

    Attributes:
        format: what was recognised.
        config: of `format.module`.
        weights: the very tensors of the file, by our names.
        ignored: official names left out -> why.
    """

    format: Format
    config: Any
    weights: dict[str, Tensor]
    ignored: dict[str, str]

    def build(self) -> nn.Module:
        """Return the module in eval mode, around these tensors rather than a copy of them, in float32."""
        with without_weights():
            module = self.format.module(self.config)
        half = (torch.float16, torch.bfloat16)
        weights = {name: t.float() if t.dtype in half else t for name, t in self.weights.items()}
        module.load_state_dict(weights, assign=True)
        return module.eval().requires_grad_(False)


def read(path: Path | str, entry: str | None = None) -> dict[str, Tensor]:
    """Read the state dict of a .safetensors or torch file: nothing is executed, tensors stay in the file.

    It may stand under one of USUAL, its keys behind the `module.` of DDP and averages, with the
    `_orig_mod.` of torch.compile anywhere. AdaNAT's checkpoints also hold their arguments, an
    `argparse.Namespace`: a plain record, and the only class allowed.

    Args:
        entry: where it stands instead, as `discriminator` in AdaNAT's checkpoints.

    Raises:
        ValueError: there is no such file or entry, it is broken, holds objects that could run code or no
            state dict.
    """
    content = _content(Path(path))
    if entry is not None and (not isinstance(content, dict) or entry not in content):
        entries = _listed(map(str, content), most=8) if isinstance(content, dict) else "no entries"
        raise ValueError(f"{path} has no entry {entry!r}; it has {entries}")
    for name in USUAL if entry is None else (entry,):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not _are_weights(content):
        raise ValueError(f"{path} holds no weights; expected named tensors, flat or under `state_dict`")
    weights = bare(content)
    while (names := weights.keys() - {COUNTED}) and all(name.startswith(WRAPPED) for name in names):
        weights = {key.removeprefix(WRAPPED): tensor for key, tensor in weights.items() if key != COUNTED}
    return weights


def other_entries(path: Path | str) -> dict[str, int]:
    """Return what else than `read` takes by default is weights in a file: {entry: number of tensors}."""
    content = _content(Path(path))
    if not isinstance(content, dict):
        return {}
    taken = [name for name in USUAL if isinstance(content.get(name), dict)][:1]
    return {name: len(found) for name, found in content.items() if name not in taken and _are_weights(found)}


def recognise(keys: Iterable[str], formats: Mapping[str, Format] = FORMATS) -> Format:
    """Return the format that the names speak of: more than half of their first words are its.

    Raises:
        ValueError: they speak of something else, which is named if it is known.
    """
    keys = list(keys)
    if (form := formats.get(_look(keys, formats) or "")) is not None:
        return form
    described = " or ".join(map(_described, formats.values()))
    raise ValueError(f"{_looks(keys, formats)}; expected {described}")


def convert(
    state_dict: Mapping[str, Tensor],
    *,
    expected: Format | None = None,
    formats: Mapping[str, Format] = FORMATS,
    **given: Any,
) -> Converted:
    """Translate official weights and infer what module they belong to.

    Args:
        state_dict: official name -> tensor (meta tensors will do).
        expected: refuse any other format.
        formats: those that are known, by name; policies and discriminators have theirs elsewhere.
        given: what shapes don't tell: `grid` (rows, columns; default square, for a VQGAN 16 x 16), `heads`
            and `decoder_depth` (default those of the official checkpoints); None is not given.

    Raises:
        ValueError: not a known format, a name is unknown or missing, shapes don't fit together, or something
            has to be given.
    """
    form = recognise(state_dict, formats)
    looks = _looks(state_dict, formats)
    if expected not in (None, form):
        raise ValueError(f"{looks}; expected {_described(expected)}")
    given = {name: value for name, value in given.items() if value is not None}
    if foreign := [name for name in given if name not in form.options]:
        raise ValueError(
            f"{', '.join(foreign)} can't be given for {_a(form.name)}; only {_listed(form.options)} can"
        )
    ignored = {key: why for key in state_dict if (why := form.why_ignored(key))}
    names = {key: form.ours(key) for key in state_dict if key not in ignored}
    weights = {name: state_dict[key] for key, name in names.items() if name is not None}
    try:
        config = form.config_from({name: tensor.shape for name, tensor in weights.items()}, given)
    except KeyError as error:  # not even the geometry can be told
        _check(form, looks, names, weights, dict(weights) | {error.args[0]: torch.empty(0)})
    with without_weights():
        _check(form, looks, names, weights, form.module(config).state_dict())
    return Converted(form, config, weights, ignored)


def _check(
    form: Format,
    looks: str,
    names: Mapping[str, str | None],
    weights: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
) -> None:
    """Raise ValueError unless the weights found are exactly the expected ones."""
    # A name that does not come back would hide behind the official one.
    unknown = [
        key
        for key, ours in names.items()
        if ours is None or ours not in expected or form.official(ours) != key
    ]
    missing = [form.official(name) for name in expected if name not in weights]
    if unknown or missing:
        wrong = f"unknown: {_listed(unknown)}; missing: {_listed(missing)}"
        raise ValueError(f"{looks}, but does not fit one: {wrong}")
    for name, tensor in expected.items():
        if (shape := tuple(weights[name].shape)) != (fitting := tuple(tensor.shape)):
            key = form.official(name)
            raise ValueError(f"{looks}, but does not fit one: {key} is {shape}, not {fitting}")


def _look(keys: Iterable[str], formats: Mapping[str, Format]) -> str | None:
    """Return the name of what more than half of the first words belong to, if anything."""
    words = set(first_words(keys))
    # A file also has the names that its table leaves out.
    known = OTHERS | {name: [*form.roots, *OTHERS.get(name, [])] for name, form in formats.items()}
    return next((name for name, roots in known.items() if 2 * len(words & set(roots)) > len(words)), None)


def _looks(keys: Iterable[str], formats: Mapping[str, Format]) -> str:
    keys = list(keys)
    name = _look(keys, formats)
    like = f"looks like {_a(name)}" if name else "looks like nothing known"
    return f"{like}: {len(keys)} keys under {_listed(first_words(keys), most=8)}"


def _described(form: Format) -> str:
    return f"{_a(form.name)}: {_listed(form.roots, most=8)}"


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEI' else 'a'} {name}"


def _listed(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def _content(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"{path} is a folder, not a file" if path.is_dir() else f"there is no file {path}")
    if path.suffix == ".safetensors":
        return load_tensors(path)
    refuse_pointer(path)
    try:
        return _unpickled(path)
    except Exception as error:  # a broken pickle can raise anything
        raise ValueError(f"{path} is not loaded: it {why_not(error)}; expected a state dict") from None


def _unpickled(path: Path) -> Any:
    with torch.serialization.safe_globals([Namespace]):
        # Files of torch before 1.6 are no archives and can't be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _are_weights(content: Any) -> bool:
    """Whether it is a dict of named tensors, and not empty."""
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    return named and bool(content) and all(isinstance(tensor, Tensor) for tensor in content.values())
