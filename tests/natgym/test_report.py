"""The report: one page that needs nothing else, and that fits a desk and a hand."""

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from matplotlib.figure import Figure

from generators.schedules import CONVENTION
from natgym.evaluation.report import write_report
from natgym.runs import Run

ROWS: list[dict[str, Any]] = [
    {"policy": "reference", "steps": 4, "distance": 0.5, "distance_std": 0.1, "nfe": 7.0, "images_spent": 0},
    {"policy": "<b>mine</b>", "steps": 8, "distance": 0.25, "distance_std": float("nan"), "nfe": 15.0}
    | {"difference": {"mean": -0.25, "half_width": 0.125}, "per_seed": {"seed": [0]}},
    {"policy": "real, n=9", "comparable": False, "distance": 0.1},
]
PROTOCOL = {"distance": "a distance", "images": 9, "seeds": [0, 1], "split": "report"}


@dataclasses.dataclass(frozen=True)
class Config:
    words: str = "<script>alert(1)</script>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = Run.create("script", tmp_path / "run", Config())
    differences = {
        "reference": {"mean": -0.25, "half_width": 0.5},
        "one-seed": {"mean": 1.0, "half_width": None},
    }
    more = [{"policy": "es", "minus": "grid", "mean": 0.5, "half_width": 0.25}]
    run.write_results(PROTOCOL, ROWS, adanat_minus=differences, differences=more)
    for name, width in (("parameters", 11), ("samples-mine, T = 8", 3)):
        figure = Figure(figsize=(width, 3))
        figure.subplots().plot([0, 1], [1, 0])
        run.write_figure(name, figure)
    return run.folder


class Reader(HTMLParser):
    """Collects rows of cells, image sources and the tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.images: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            assert dict(attributes)["alt"]
            self.images.append(dict(attributes)["src"])

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("td", "th") and self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data


def test_the_page_holds_all_of_the_run_and_asks_for_nothing(folder: Path) -> None:
    path = write_report(folder, "A title & more", ["First note.", "Second <note>."])
    text = path.read_text()
    assert path == folder / "report.html" and CONVENTION in text
    found = Reader(text)
    assert not {"script", "link", "iframe"} & set(found.tags), "nothing runs, nothing is fetched"
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", text))
    assert "A title &amp; more" in text and "Second &lt;note&gt;." in text
    figures = sorted((folder / "figures").glob("*.png"))
    data = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in found.images]
    assert sorted(data) == sorted(figure.read_bytes() for figure in figures) and len(data) == 2
    assert json.dumps(PROTOCOL["distance"]) in text.replace("&quot;", '"')


def test_the_table_has_every_number_and_marks_the_best_policy(folder: Path) -> None:
    text = write_report(folder, "x").read_text()
    rows = Reader(text).rows
    header = rows[0]
    assert header[:2] == ["policy", "T"] and "difference" in header and "images spent" in header
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in rows[1:4]}
    assert by_name["reference"]["distance"] == "0.500" and by_name["reference"]["std"] == "0.100"
    mine = by_name["<b>mine</b>"]
    assert (mine["NFE"], mine["std"], mine["difference"]) == ("15.0", "–", "-0.250 ± 0.125")
    assert by_name["real, n=9"]["T"] == "–" and by_name["real, n=9"]["distance"] == "0.100"
    best = re.findall(r'<tr class="best">(.*?)</tr>', text)
    assert len(best) == 1 and "mine" in best[0], "real images are no policy"
    assert ["es - grid", "+0.500 ± 0.250"] in rows
    assert ["adanat - reference", "-0.250 ± 0.500"] in rows and not any("one-seed" in row[0] for row in rows)


def test_differences_of_a_cotraining_are_shown(tmp_path: Path) -> None:
    """As they are written, and as folders of before have them."""
    new, old = (
        Run.create("script", tmp_path / "new", Config()),
        Run.create("script", tmp_path / "old", Config()),
    )
    pair = {"mean": -0.25, "half_width": 0.5}
    written = [{"policy": "co-trained adanat", "minus": "frozen adanat", **pair}]
    new.write_results(PROTOCOL, ROWS, differences=written)
    old.write_results(PROTOCOL, ROWS, co_trained_adanat_minus={"frozen adanat": pair})
    for run, label in ((new, "co-trained adanat"), (old, "co trained adanat")):
        rows = Reader(write_report(run.folder, "x").read_text()).rows
        assert [f"{label} - frozen adanat", "-0.250 ± 0.500"] in rows


def test_a_bare_folder_makes_a_page_too(tmp_path: Path) -> None:
    found = Reader(write_report(tmp_path, "empty").read_text())
    assert not found.rows and not found.images


MEASURE = """(() => {
  const images = [...document.images], width = document.documentElement.clientWidth;
  const beyond = e => e.getBoundingClientRect().right > width + 1;
  return {width, scroll: document.documentElement.scrollWidth, images: images.length,
    loaded: images.filter(i => i.complete && i.naturalWidth > 0).length,
    wide: [...document.querySelectorAll("body > *")].filter(beyond).length};
})()"""


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_all_images_and_nothing_overflows(browser: Browser, folder: Path, width: int) -> None:
    browser.open(write_report(folder, "A long title " + "without_a_single_space_" * 8, ["note " * 60]), width)
    told = browser.eval(MEASURE)
    assert told["images"] == told["loaded"] == 2 and told["width"] == width, told
    assert told["scroll"] == told["width"] and told["wide"] == 0, told


def test_an_overflow_would_be_seen(browser: Browser, folder: Path) -> None:
    page = write_report(folder, "x")
    broken = page.read_text().replace("base64,", "base64,broken", 1)
    page.write_text(broken.replace("</h1>", f"</h1><table><tr><td>{'wide ' * 99}</table>"))
    browser.open(page, 390)
    told = browser.eval(MEASURE)
    assert told["loaded"] == 1 and told["wide"] == 1 and told["scroll"] > told["width"]


@pytest.mark.parametrize(("real", "said"), [(1197, "1,197 real images"), (0, "statistics from a file")])
def test_a_page_says_what_is_compared_with(tmp_path: Path, real: int, said: str) -> None:
    run = Run.create("script", tmp_path / "run", Config())
    run.write_results(PROTOCOL | {"reference_images": real, "task": "digits"}, ROWS)
    assert f"Reference: {said} (digits, report split); 9 gen" in write_report(run.folder, "x").read_text()
