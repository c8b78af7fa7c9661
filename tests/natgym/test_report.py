"""The report: one page that needs nothing else, and that fits a desk and a hand."""

import base64
import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
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


MEASURE = """<script>
addEventListener("load", () => {
  const images = [...document.images], width = document.documentElement.clientWidth;
  const beyond = e => e.getBoundingClientRect().right > width + 1;
  parent.postMessage({width, scroll: document.documentElement.scrollWidth, images: images.length,
    loaded: images.filter(i => i.complete && i.naturalWidth > 0).length,
    wide: [...document.querySelectorAll("body > *")].filter(beyond).length}, "*");
});
</script>"""
# A window is never narrower than about 500 pixels, a frame can be.
AROUND = """<!doctype html><script>
addEventListener("message", event => { document.title = JSON.stringify(event.data); });
</script><iframe src="measured.html" style="border: 0; width: {width}px; height: 900px"></iframe>"""


def measured(page: Path, width: int) -> dict[str, int]:
    """Let Chromium lay out a page in a frame; a script in a copy of it says what came of it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium to render the page with; install Debian's package chromium")
    folder = page.parent
    (folder / "measured.html").write_text(page.read_text().replace("</body>", MEASURE + "</body>"))
    (folder / "around.html").write_text(AROUND.replace("{width}", str(width)))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000", "--dump-dom"]
    flags += ["--virtual-time-budget=5000", f"--user-data-dir={folder / 'profile'}"]
    line = [browser, *flags, f"file://{folder / 'around.html'}"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    said = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert said is not None, done.stdout[-500:] + done.stderr[-500:]
    return json.loads(said[1].replace("&quot;", '"'))


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_all_images_and_nothing_overflows(folder: Path, width: int) -> None:
    page = write_report(folder, "A long title " + "without_a_single_space_" * 8, ["note " * 60])
    told = measured(page, width)
    assert told["images"] == told["loaded"] == 2, told
    assert width - 20 <= told["width"] <= width, "but for a scroll bar"
    assert told["scroll"] == told["width"] and told["wide"] == 0, told


def test_an_overflow_would_be_seen(folder: Path) -> None:
    page = write_report(folder, "x")
    broken = page.read_text().replace("base64,", "base64,broken", 1)
    page.write_text(broken.replace("</h1>", '</h1><p style="width: 999px; max-width: none">wide</p>'))
    told = measured(page, 390)
    assert told["loaded"] == 1 and told["wide"] == 1 and told["scroll"] > told["width"]
