"""One file of HTML that asks for nothing and runs nothing but natgym's own script.

Each page says so itself, in its Content-Security-Policy: a browser that opens it fetches nothing, and runs of
all scripts the one whose hash stands there. What looks like markup in a label, a prompt or a file from
elsewhere stays text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from generators.files import write_atomic

EXPLORATION = "explore.json"  # in a run folder: what its report lets one look at, image by image


def document(title: str, body: str, *, explorer: bool = False) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        body: markup, in which texts are escaped.
        explorer: there is a panel of `explorer` in it.
    """
    style = _asset("page.css") + (_asset("explore.css") if explorer else "")
    script = _asset("draw.js") + _asset("explore.js") if explorer else ""
    sources = {"img-src": "data:", "style-src": _hash(style)} | (
        {"script-src": _hash(script)} if script else {}
    )
    policy = "; ".join(["default-src 'none'", "base-uri 'none'", "form-action 'none'"])
    policy += "".join(f"; {kind} {source}" for kind, source in sources.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n"
        f"{f'<script>{script}</script>' if script else ''}\n</body>\n</html>\n"
    )


def explorer(content: Mapping[str, Any]) -> str:
    """Return the panel that shows images being revealed, as a part of a page.

    Args:
        content: of `natgym.figures.explorations.explore`.
    """
    return _asset("explore.html").replace("DATA", _inert(content), 1)


def explorer_page(content: Mapping[str, Any]) -> str:
    """Return a page of the panel alone, which has the keys of the whole page."""
    head = f'<h1>{escape(content["title"])}</h1>\n<p class="quiet">{escape(content["note"])}</p>\n'
    body = f'<main class="alone">\n{head}{explorer(content)}</main>'
    return document(content["title"], body, explorer=True)


def write_exploration(folder: Path, content: Mapping[str, Any]) -> None:
    """Write what a run's report will show into its folder."""
    write_atomic(folder / EXPLORATION, json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n")


def _inert(content: Mapping[str, Any]) -> str:
    """Return JSON that ends no element and begins no comment, wherever it came from."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", r"\u003c")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
