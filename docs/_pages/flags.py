"""A page for each script: what it does and every flag, from the parser that reads its command line."""

from __future__ import annotations

import argparse
import html
import importlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import _command
import tyro

CORES = 987_654  # stands for the number of cores of the machine, in defaults


class Flag(NamedTuple):
    """One flag as `--help` says it."""

    names: tuple[str, ...]
    values: str
    text: str
    default: str | None  # None: it has to be given


class Group(NamedTuple):
    """Flags that `--help` draws a box around."""

    title: str
    text: str
    flags: list[Flag]


def parser(script: Path) -> argparse.ArgumentParser:
    """Return the parser of a script's command line."""
    module = importlib.import_module(script.stem)
    options = {"default": module.defaults([])} if hasattr(module, "defaults") else {}
    with warnings.catch_warnings():  # nothing else gives tyro's flags as data
        warnings.simplefilter("ignore", DeprecationWarning)
        return tyro.extras.get_parser(module.Args, description=module.Args.__doc__, **options)


def groups(script: Path) -> Iterator[Group]:
    """Yield the flags of a script in the order of its `--help`, without `--help` itself."""
    with mock.patch("os.cpu_count", return_value=CORES):
        known = parser(script)
    for group in known._action_groups:
        actions = [action for action in group._group_actions if "--help" not in action.option_strings]
        if actions:
            yield Group(group.title or "", group.description or "", [_flag(action) for action in actions])


def _flag(action: argparse.Action) -> Flag:
    words = " ".join((action.help or "").split())
    text, default = re.fullmatch(r"(.*?)(?: ?\((?:default: ?(.*)|required)\))?", words).groups()
    values = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ())
    if default is not None:
        default = default.replace(str(CORES), "the machine's cores") or "none"
    own = f"--{action.dest.replace('_', '-')}"  # before other names of the flag
    names = sorted(action.option_strings, key=lambda name: name != own)
    return Flag(tuple(names), values.removeprefix("{None}|"), text, default)


def page(script: Path) -> str:
    """Return the page of a script."""
    name = script.stem.replace("_", "-")
    known = parser(script)
    parts = [
        f"# {script.stem}",
        f"```bash\npython experiments/{script.name} ...\nnatgym {name} ...  # once it is installed\n```",
        *(_plain(" ".join(part.split())) for part in (known.description or "").split("\n\n")),
    ]
    for group in groups(script):
        heading = group.title.removesuffix(" options")
        heading = {"options": "Flags", "positional arguments": "Arguments"}.get(group.title, heading)
        parts += [f"## {heading}", *([_plain(group.text)] if group.text else [])]
        parts += [_entry(flag) for flag in group.flags]
    return "\n\n".join(parts) + "\n"


def _entry(flag: Flag) -> str:
    anchor = flag.names[0] if flag.names else flag.values.split()[0]
    said = ", ".join(flag.names) + f" {flag.values}" * bool(flag.values)
    usual = "" if flag.default in ("None", "none") else f" default: `{flag.default}`"
    end = " has to be given" if flag.default is None else usual
    return f"[`{said.strip()}`](#{anchor}){{ #{anchor} .flag }}{end}\n\n:   {_plain(flag.text)}"


def _plain(text: str) -> str:
    """Return text in which only `code` means anything to Markdown."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        part if at % 2 else re.sub(r"([\\*_\[\]#~|])", r"\\\1", html.escape(part, quote=False))
        for at, part in enumerate(parts)
    )


def pages() -> dict[str, str]:
    """Return the pages of all scripts, and the list of them."""
    scripts = _command.scripts().values()
    rows = [f"| [{path.stem}]({path.stem}.md) | {_plain(_command.summary(path))} |" for path in scripts]
    words = "Each is a file of `experiments/`; installed, `natgym NAME` calls it, with dashes in its name."
    listing = "\n".join(["# Scripts", "", words, "", "| script | what it does |", "|---|---|", *rows]) + "\n"
    return {"scripts/index.md": listing} | {f"scripts/{path.stem}.md": page(path) for path in scripts}
