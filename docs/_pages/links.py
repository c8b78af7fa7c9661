"""Links between files of the repository as links between pages of the site."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"(^ *```.*?^ *```|(?<!`)`+(?!`)[^`]+`+)", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:)([^)#\s]+)((?:#[^)\s]*)?)\)")


def moved() -> dict[str, str]:
    """Return where files of the repository lie on the site that are not in docs/ or are no page there."""
    cards = sorted((ROOT / "generators" / "pretrained").glob("*/README.md"))
    return {
        "README.md": "index.md",
        "CONTRIBUTING.md": "contributing.md",
        "CHANGELOG.md": "changelog.md",
        "docs/tutorial/tutorial.py": "tutorial/index.md",
    } | {path.relative_to(ROOT).as_posix(): f"tasks/{path.parent.name}.md" for path in cards}


def title(text: str) -> str:
    """Return the first heading of a page, or an empty text."""
    found = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
    return found[1] if found else ""


def turned(text: str, place: str, titles: Mapping[str, str]) -> str:
    """Return the text of a page with its links turned to the pages of the site.

    A link whose text is the file's name gets the page's title; a file of the repository that is no page stays
    as text; what is not there stays as it is, and the build says so.

    Args:
        place: where the page lies on the site.
        titles: place -> title of every page.
    """
    places = moved()
    origin = {there: path for path, there in places.items()}.get(place, f"docs/{place}")

    def turn(match: re.Match[str]) -> str:
        image, words, target, anchor = match.groups()
        path = normpath(join(dirname(origin), target))
        there = places.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if there == place and not anchor:  # what a page is made of, to be downloaded
            return match[0]
        if there is None:
            return words if os.path.exists(ROOT / path) else match[0]
        if re.fullmatch(r"[\w./-]+\.(md|py)", words):
            words = titles.get(there) or words
        return f"{image}[{words}]({relpath(there, dirname(place) or '.')}{anchor})"

    parts = CODE.split(text)  # code at odd places
    return "".join(part if at % 2 else LINK.sub(turn, part) for at, part in enumerate(parts))
