"""One self-contained page per run: what was run, table, figures, protocol, and images being revealed.

It is made of what lies in the run folder, so that it can be made again at any time.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from generators import former
from generators.files import read_json, write_atomic
from generators.schedules import CONVENTION
from natgym.evaluation.protocol import against
from natgym.evaluation.tables import COLUMNS, FULL_COLUMNS, cell
from natgym.metrics.named import NAMED
from natgym.pages.page import EXPLORATION, document, explorer


def write_report(folder: Path, title: str, notes: Sequence[str] = ()) -> Path:
    """Write report.html into a run folder, from its config.json, results.json, explore.json and images.

    Args:
        folder: of a run; what is missing is left out.
        title: what was run, in a few words.
        notes: paragraphs that a reader needs before the table.

    Returns:
        The page's path.
    """
    parts = (_results, _exploration, _figures, _settings)
    body = "\n".join([*_head(folder, title, notes), *(line for part in parts for line in part(folder))])
    page = document(title, body, explorer=(folder / EXPLORATION).is_file())
    write_atomic(path := folder / "report.html", page)
    return path


def _head(folder: Path, title: str, notes: Sequence[str]) -> Iterator[str]:
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="quiet">Run folder {escape(folder.name)}. Guidance: {escape(CONVENTION)}.</p>'
    yield from (f"<p>{escape(note)}</p>" for note in notes)


def _results(folder: Path) -> Iterator[str]:
    content = _json(folder / "results.json")
    rows = content.get("rows", [])
    if not rows:
        return
    yield "<h2>Table</h2>"
    yield '<div class="wide">' + _table(rows) + "</div>"
    yield '<p class="quiet">std: over the evaluation seeds. Bold: the smallest distance of a policy.</p>'
    if pairs := list(_differences(content)):
        yield "<h2>Paired differences in distance, with 95 % t-intervals</h2>"
        yield '<div class="wide">' + _table(pairs) + "</div>"
    protocol = former.manifest(content.get("protocol", {}))
    if protocol.get("distance"):
        yield f'<p class="quiet">{escape(_in_words(protocol))}</p>'


def _differences(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the differences that have an interval, which those over a single seed have not."""
    of_distance = (
        pair for pair in content.get("differences", []) if pair.get("metric", "distance") == "distance"
    )
    pairs = {f"{pair['policy']} - {pair['minus']}": pair for pair in of_distance}
    # Folders of before have one dictionary, whose key names the policy.
    pairs |= {
        f"{key.removesuffix('_minus').replace('_', ' ')} - {name}": pair
        for key, others in content.items()
        if key.endswith("adanat_minus")
        for name, pair in others.items()
    }
    for name, pair in pairs.items():
        if pair["mean"] is not None and pair["half_width"] is not None:
            yield {"policy": name, "difference": pair}


def _in_words(protocol: Mapping[str, Any]) -> str:
    """Return the protocol in words."""
    real, images = protocol.get("reference_images"), protocol.get("images")
    reference = "not said" if real is None else against(real)
    seeds = ", ".join(map(str, protocol.get("seeds", [])))
    return (
        f"Distance: {protocol['distance']}. Reference: {reference} "
        f"({protocol.get('task')}, {protocol.get('split')} split); {images} generated for each of the "
        f"evaluation seeds {seeds}; conditions {protocol.get('conditions')}; quantisation "
        f"{protocol.get('quantisation')}. Numbers of another protocol don't compare."
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = {**FULL_COLUMNS, **COLUMNS}
    shown = {name: column for name, column in columns.items() if any(name in row for row in rows)}
    ranked = [row["distance"] for row in rows if "steps" in row and row.get("distance") is not None]
    lines = ["".join(f"<th>{escape(header)}</th>" for header, _ in shown.values())]
    for row in rows:
        cells = ((row.get(name), form) for name, (_, form) in shown.items())
        texts = ["–" if _hollow(value) else cell(value, form) for value, form in cells]
        lines.append("".join(f"<td>{escape(cell)}</td>" for cell in texts))
    best = NAMED["distance"].best(ranked) if ranked else None
    of_best = (best is not None and "steps" in row and row.get("distance") == best for row in rows)
    classes = ["", *(' class="best"' if one else "" for one in of_best)]
    body = (f"<tr{kind}>{line}</tr>" for kind, line in zip(classes, lines, strict=True))
    return "<table>\n" + "\n".join(body) + "\n</table>"


def _hollow(value: Any) -> bool:
    """Tell whether there is no value, or a difference without interval, as over a single seed."""
    return value is None or (isinstance(value, Mapping) and value.get("half_width") is None)


def _exploration(folder: Path) -> Iterator[str]:
    if content := _json(folder / EXPLORATION):
        yield "<h2>Images being revealed</h2>"
        yield f'<p class="quiet">{escape(content["note"])}</p>'
        yield explorer(content)


def _figures(folder: Path) -> Iterator[str]:
    paths = sorted((folder / "figures").glob("*.png")) + sorted((folder / "figures").glob("*.gif"))
    grids = [path for path in paths if path.stem.startswith("samples-")]
    if figures := [path for path in paths if path not in grids]:
        yield "<h2>Figures</h2>"
        yield from (f'<div class="wide">{_figure(path)}</div>' for path in figures)
    if grids:
        yield '<h2>Samples</h2>\n<div class="grids">'
        yield from map(_figure, grids)
        yield "</div>"


def _figure(path: Path) -> str:
    kind = path.suffix.removeprefix(".")
    data = base64.b64encode(path.read_bytes()).decode()
    name = escape(path.stem.replace("-", " ").replace("_", " "))
    image = f'<img alt="{name}" src="data:image/{kind};base64,{data}">'
    return f"<figure>{image}<figcaption>{name}</figcaption></figure>"


def _settings(folder: Path) -> Iterator[str]:
    content = _json(folder / "results.json")
    sections = {"Protocol": content.get("protocol"), "Settings": _json(folder / "config.json")}
    for name, value in sections.items():
        if value:
            text = escape(json.dumps(value, indent=1))
            yield f"<details><summary>{name}</summary><pre>{text}</pre></details>"


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
