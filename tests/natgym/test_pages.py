"""The panel in a browser: it shows what the films show, moves by slider and keys, and asks for nothing."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser

from agents.named import find_policies
from generators.conditions import balanced
from natgym.env.recorder import film
from natgym.evaluation.report import write_report
from natgym.figures.explorations import Play, examples, explore, write_for_report
from natgym.figures.films import disagreement
from natgym.figures.style import COLORS
from natgym.pages.page import explorer_page
from natgym.rollouts import rollout
from natgym.task import Task

N, STEPS = 12, 4
NAMES = ("adanat", "reference", "maskgit")
HOSTILE = "</script><!--<script><img src=x onerror=\"document.title='run'\"><b>'&quot;"
READY = "document.querySelector('section[data-ready]')"
OVERFLOWS = "document.scrollingElement.scrollWidth > innerWidth"
PIXELS = """[...document.querySelectorAll('figure .image')].map(canvas =>
    [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data])"""


@pytest.fixture(scope="module")
def played() -> dict[str, Play]:
    task = Task.load("digits")
    return {name: Play(find_policies(name, [STEPS], task.generator)[0][1], task) for name in NAMES}


@pytest.fixture(scope="module")
def content(played: dict[str, Play]) -> dict[str, Any]:
    return explore(played, N, "Digits & others")


@pytest.fixture(scope="module")
def page(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path := tmp_path_factory.mktemp("page") / "page.html").write_text(explorer_page(content))
    return path


def choose(browser: Browser, part: str, value: str, event: str = "change") -> None:
    """Set a control as a hand does."""
    browser.eval(
        f"""(() => {{ const it = document.querySelector('[data-is="{part}"]'); it.value = {json.dumps(value)};
        it.dispatchEvent(new Event("{event}")); }})()"""
    )


def text(browser: Browser, part: str) -> str:
    return browser.eval(f"""document.querySelector('[data-is="{part}"]').textContent""")


def shown(browser: Browser) -> list[str]:
    """The images of the gallery in their order, by the pictures of their canvases' buttons."""
    return browser.eval("[...document.querySelectorAll('.gallery button')].map(button => button.title)")


def seed(browser: Browser) -> int:
    """The number of the chosen image, which its row seed is."""
    return int(text(browser, "which").split("row seed ")[1].split(",")[0])


def test_the_sides_have_the_colors_of_figures(page: Path) -> None:
    assert all(f": {color.lower()};" in page.read_text() for color in COLORS[:2])


@pytest.mark.parametrize("width", [1280, 390])
def test_it_loads_asks_for_nothing_and_fits(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width, ready=READY)
    assert browser.complaints == browser.asked_for == []
    assert not browser.eval(OVERFLOWS) and browser.eval("innerWidth") == width
    assert browser.eval("document.title") == "Digits & others"
    assert len(shown(browser)) == N and text(browser, "now") == f"step {STEPS} of {STEPS}"


def test_each_step_shows_what_the_film_shows(browser: Browser, page: Path, played: Any) -> None:
    browser.open(page, 1280, ready=READY)
    drawn = {
        name: rollout(one.policy, one.task, num_images=N, seed=0, trail=True) for name, one in played.items()
    }
    films = {name: film(one, played[name].task.tokenizer, rows=N) for name, one in drawn.items()}
    for sides, image in ((NAMES[:2], 0), (NAMES[1:], 7)):
        for side, name in zip(("left", "right"), sides, strict=True):
            choose(browser, side, str(NAMES.index(name)))
        browser.eval(f"document.querySelectorAll('.gallery button')[{image}].click()")
        for step in range(STEPS + 1):
            choose(browser, "step", str(step), "input")
            assert text(browser, "now") == (f"step {step} of {STEPS}" if step else f"start of {STEPS}")
            for pixels, name in zip(browser.eval(PIXELS), sides, strict=True):
                enlarged = films[name][step][image]
                small = enlarged[:: len(enlarged) // 8, :: len(enlarged) // 8]
                ours = np.array(pixels).reshape(8, 8, 4)
                assert (ours[..., :3] == small).all() and (ours[..., 3] == 255).all()


def test_keys_step_choose_and_play(browser: Browser, page: Path) -> None:
    browser.open(page, 1280, ready=READY)
    browser.press("ArrowLeft")
    assert text(browser, "now") == f"step {STEPS - 1} of {STEPS}" and seed(browser) == 0
    assert text(browser, "which").startswith("class 0 ")
    for key, image in (("k", 0), ("j", 1), ("j", 2), ("k", 1)):
        browser.press(key)
        assert seed(browser) == image
    browser.eval("document.querySelector('[data-is=step]').focus()")
    for step in (4, 4):  # once for each key, also where the slider has the focus
        browser.press("ArrowRight")
        assert text(browser, "now") == f"step {step} of {STEPS}"
    for key, step in (("Home", "start"), ("ArrowRight", "step 1"), ("End", f"step {STEPS}")):
        browser.press(key)
        assert text(browser, "now") == f"{step} of {STEPS}"
    browser.press(" ")
    assert text(browser, "now") == f"start of {STEPS}" and text(browser, "play") == "❚❚"
    browser.press(" ")
    assert text(browser, "play") == "▶"
    browser.eval("document.querySelector('[data-is=play]').focus()")
    browser.press("Home")
    assert text(browser, "now") == f"start of {STEPS}"
    browser.eval("document.querySelector('[data-is=filter]').focus()")
    browser.press("j")
    assert seed(browser) == 1, "a list has its letters to itself"


def test_sorted_by_what_differs_and_by_the_judge(
    browser: Browser, page: Path, played: Any, content: Any
) -> None:
    browser.open(page, 1280, ready=READY)
    frames = [rollout(one.policy, one.task, num_images=N, seed=0).frame for one in played.values()]
    order = "document.querySelector('[data-is=order]')"
    names = browser.eval(f"[...{order}.options].map(option => option.value)")
    assert names[:4] == ["as drawn", "decisions differ", "tokens differ", "order differs"]
    chance = [policy["scores"]["class probability"] for policy in content["policies"]]
    tokens = np.array([policy["tokens"] for policy in content["policies"]])
    keys = {
        "decisions differ": disagreement(frames[0], frames[1]).sum(axis=1).sort_index().to_list(),
        "tokens differ": (tokens[0] != tokens[1]).mean(1).tolist(),
        "class probability, left − right ↓": [a - b for a, b in zip(*chance[:2], strict=True)],
        "class probability, right ↑": [-b for b in chance[1]],
    }
    for name, values in keys.items():
        choose(browser, "order", name)
        found = []
        for _ in range(N):
            found.append(seed(browser))
            browser.press("j")
        assert found == sorted(range(N), key=lambda image: (-round(values[image], 9), image)), name
        browser.eval("document.querySelector('.gallery button').click()")
    choose(browser, "left", "1")
    assert "decisions differ" not in browser.eval(f"[...{order}.options].map(option => option.value)")


def test_of_one_class_alone(browser: Browser, page: Path) -> None:
    browser.open(page, 390, ready=READY)
    choose(browser, "filter", "name 1")
    assert shown(browser) == ["1", "1"] and seed(browser) == 1
    browser.press("j")
    browser.press("j")
    assert seed(browser) == 11


def test_a_swipe_over_the_images_chooses(browser: Browser, page: Path) -> None:
    browser.open(page, 390, ready=READY)
    box = browser.eval("document.querySelector('figure .image').getBoundingClientRect().toJSON()")
    for moved, image in ((-120, 1), (-120, 2), (120, 1), (10, 1)):
        x, y = box["x"] + 125, box["y"] + 60
        for kind, at in (("touchStart", [x]), ("touchMove", [x + moved]), ("touchEnd", [])):
            points = [{"x": left, "y": y} for left in at]
            browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        assert seed(browser) == image


def test_the_charts_have_this_image_among_all(browser: Browser, page: Path, content: Any) -> None:
    """A line with a point for each step that decides, and the value at the step of the slider."""
    browser.open(page, 1280, ready=READY)
    choose(browser, "step", "2", "input")
    charts = browser.eval(
        """[...document.querySelectorAll('.charts > div')].map(chart => [
        chart.querySelector('h3').firstChild.textContent,
        ...[...chart.querySelectorAll('b')].map(value => Number(value.textContent)),
        ...['left', 'right'].map(side => chart.querySelectorAll(`.${side} circle`).length)])"""
    )
    assert [chart[0] for chart in charts] == content["parameters"]
    for parameter, (_, *values, left, right) in enumerate(charts):
        for value, points, policy in zip(values, (left, right), content["policies"], strict=False):
            own = policy["parameters"][parameter][0]
            assert value == pytest.approx(own[1], rel=1e-2)
            assert points == sum(number is not None for number in own)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)


def test_markup_in_names_stays_text(browser: Browser, content: Any, tmp_path: Path) -> None:
    """In a prompt, a label, a title and a note; nothing of it is read as markup, and nothing is run."""
    names = [HOSTILE, *content["names"][1:]]
    policies = [policy | {"label": HOSTILE} for policy in content["policies"]]
    bad = content | {"names": names, "title": HOSTILE, "note": HOSTILE, "policies": policies}
    bad |= {"kinds": names, "parameters": [HOSTILE] * 4}
    (path := tmp_path / "bad.html").write_text(explorer_page(bad))
    assert sorted(Tags(path.read_text()).tags) == sorted(Tags(explorer_page(content)).tags)
    browser.open(path, 1280, ready=READY)
    assert browser.complaints == browser.asked_for == [] and browser.eval("document.title") == HOSTILE
    assert not browser.eval("document.querySelector('img, section b b, section .which b')")
    assert shown(browser)[0] == HOSTILE and HOSTILE in text(browser, "which")


def test_what_is_planted_in_a_page_is_neither_run_nor_fetched(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    """Were texts not escaped, the page's policy would still be there."""
    image = '<img src="http://127.0.0.1:9/x.png" onerror="document.title = 1">'
    planted = f'<script>document.title = "run"</script>{image}'
    (path := tmp_path / "planted.html").write_text(page.read_text().replace("<main", planted + "<main"))
    browser.open(path, 1280, ready=READY)
    assert browser.eval("document.title") == "Digits & others"
    assert any("127.0.0.1" in complaint and "img-src" in complaint for complaint in browser.complaints)
    assert any("script-src" in complaint for complaint in browser.complaints)
    statuses = [told for method, told in browser.events if method == "Network.loadingFailed"]
    assert all(told["blockedReason"] == "csp" for told in statuses)


def test_puzzles_and_prompts(browser: Browser, tmp_path: Path) -> None:
    asked = {"sudoku-4": examples, "shapes": lambda task, n: balanced(task.named(["a red disc"]), n)}
    for name, ask in asked.items():
        task = Task.load(name)
        rules = ["threshold:theta=.5", "linear:sampling=.1"]
        found = {rule: Play(find_policies(rule, [3], task.generator)[0][1], task) for rule in rules}
        content = explore(found, 4, name, ask=ask)
        (path := tmp_path / "page.html").write_text(explorer_page(content))
        given = sum(at < 0 for at in content["policies"][0]["revealed_at"][0])
        for width in (1280, 390):
            browser.open(path, width, ready=READY)
            browser.press("Home")
            assert browser.complaints == [] and not browser.eval(OVERFLOWS)
            caption = browser.eval("document.querySelector('figcaption').textContent")
            assert f"{given} of {task.generator.num_tokens} revealed" in caption
        assert text(browser, "which").startswith("image 0 ")  # where all are of one name


CONFLICTS = """(() => {
  const { policies } = JSON.parse(document.querySelector("section script").textContent);
  return policies.map(policy => policy.tokens.map((row, image) => row.map((_, token) => [1, 2, 3].map(
    step => conflicts(policy, image, token, step)))));
})()"""


def test_symbols_that_contradict_each_other_are_marked_once_they_are_there(
    browser: Browser, tmp_path: Path
) -> None:
    task = Task.load("sudoku-4")
    rules = ("linear:sampling=3", "random-order")
    found = {rule: Play(find_policies(rule, [3], task.generator)[0][1], task) for rule in rules}
    content = explore(found, 6, "x")
    (path := tmp_path / "page.html").write_text(explorer_page(content))
    browser.open(path, 1280, ready=READY)
    marked = np.array(browser.eval(CONFLICTS))
    for policy, marked_NLT in zip(content["policies"], marked, strict=True):
        for tokens, at, marked_LT in zip(policy["tokens"], policy["revealed_at"], marked_NLT, strict=True):
            for step in (1, 2, 3):
                there = np.array(at) < step
                grid = np.where(there, tokens, -1 - np.arange(16)).reshape(4, 4)
                for cell in np.flatnonzero(there):
                    row, column = divmod(int(cell), 4)
                    r, c = row - row % 2, column - column % 2
                    units = (grid[row], grid[:, column], grid[r : r + 2, c : c + 2])
                    twice = any((unit == grid[row, column]).sum() > 1 for unit in units)
                    assert marked_LT[cell, step - 1] == twice
    assert 0 < marked.mean() < 1


@pytest.mark.parametrize("width", [1280, 390])
def test_a_report_has_the_panel(browser: Browser, played: Any, tmp_path: Path, width: int) -> None:
    """Which hears keys where it has the focus alone."""
    write_for_report(tmp_path, played)
    browser.open(write_report(tmp_path, "A run"), width, ready=READY)
    assert browser.complaints == browser.asked_for == [] and not browser.eval(OVERFLOWS)
    browser.press("ArrowLeft")
    assert text(browser, "now") == f"step {STEPS} of {STEPS}"
    browser.eval("document.querySelector('.gallery button').focus()")
    browser.press("ArrowLeft")
    assert text(browser, "now") == f"step {STEPS - 1} of {STEPS}"
