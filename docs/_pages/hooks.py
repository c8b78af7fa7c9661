"""Pages that are made when the site is built, so that they say what the repository says.

README.md is the start; tutorial.py, CONTRIBUTING.md, CHANGELOG.md and the cards of tasks are pages, too. The
reference comes from `__all__` and docstrings, the pages of flags from the scripts' own parsers.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PLACES = [str(ROOT), str(ROOT / "experiments")]
sys.path[:0] = PLACES

import api  # noqa: E402
import cells  # noqa: E402
import flags  # noqa: E402
import links  # noqa: E402


def tutorial() -> str:
    """The tutorial with what it printed."""
    return cells.page(cells.cells(cells.TUTORIAL.read_text()), json.loads(cells.PRINTED.read_text()))


def made() -> dict[str, str]:
    """Return the pages of the site that are no file of docs/, by where they lie there."""
    moved = {
        place: (ROOT / path).read_text() for path, place in links.moved().items() if path.endswith(".md")
    }
    return moved | {"tutorial/index.md": tutorial()} | api.pages() | flags.pages()


ALONE = ("index.md", "tutorial/index.md")  # pages of sections that have no other


def on_config(config: MkDocsConfig) -> None:
    """Put the pages that are made where the navigation has their folder."""
    sys.path[:] = [*PLACES, *(place for place in sys.path if place not in PLACES)]  # mkdocs undoes ours
    config.nav = _filled(config.nav, list(made()))


def _filled(entry: Any, pages: list[str]) -> Any:
    if isinstance(entry, list):
        return [_filled(one, pages) for one in entry]
    if isinstance(entry, dict):
        return {title: _filled(below, pages) for title, below in entry.items()}
    return [page for page in pages if page.startswith(entry)] if entry.endswith("/") else entry


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that are made."""
    for place, text in made().items():
        files.append(File.generated(config, place, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    page.meta |= {"hide": ["navigation"]} if page.file.src_uri in ALONE else {}
    titles = {file.src_uri: links.title(file.content_string) for file in files.documentation_pages()}
    return links.turned(markdown, page.file.src_uri, titles)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep flags whole where lines break, which browsers do after any hyphen."""
    parts = re.split(r"(<[^>]*>)", html)  # tags at odd places
    flag = re.compile(r"(?<![\w-])--[\w.-]*\w")
    return "".join(
        part if at % 2 else flag.sub(r'<span class="whole">\g<0></span>', part)
        for at, part in enumerate(parts)
    )
