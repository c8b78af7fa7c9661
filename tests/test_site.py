"""The site: its pages say what the repository says, and what is built holds together by itself."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLACES = [ROOT / "docs" / "_pages", ROOT / "experiments"]


@pytest.fixture(scope="module")
def made() -> Iterator[Any]:
    """The modules that make pages, by name."""
    before, before_env = list(sys.path), dict(os.environ)
    sys.path[:0] = map(str, PLACES)
    yield {name: importlib.import_module(name) for name in ("api", "cells", "flags", "links")}
    sys.path[:] = before
    os.environ.clear()
    os.environ.update(before_env)


def test_every_flag_of_every_script_has_a_place(made: Any) -> None:
    """As the scripts' own walk over their settings names them, which knows no parser."""
    import _cli

    pages = made["flags"].pages()
    scripts = [path for path in sorted((ROOT / "experiments").glob("*.py")) if path.name[0] != "_"]
    assert {f"scripts/{path.stem}.md" for path in scripts} | {"scripts/index.md"} == set(pages)
    for path in scripts:
        page = pages[f"scripts/{path.stem}.md"]
        wanted = {f"--{name}" for name in _cli.flags_of(importlib.import_module(path.stem).Args)}
        found = set(re.findall(r"\{ #(--\S+) \.flag \}", page))
        positional = re.findall(r"\{ #([A-Z]+) \.flag \}", page)
        assert found <= wanted and len(wanted - found) == len(positional), (path.name, wanted ^ found)
        assert path.stem in pages["scripts/index.md"]


@pytest.mark.parametrize("name", ["adanat_ppo", "convert_checkpoint"])
def test_flags_are_those_of_help(made: Any, name: str) -> None:
    script = ROOT / "experiments" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    said = re.sub(r"[│╭╮╰╯─\s]+", "", done.stdout)
    count = 0
    for group in made["flags"].groups(script):
        for flag in group.flags:
            default = "" if flag.default in (None, "none", "the machine's cores") else flag.default
            for words in (*flag.names, flag.values, flag.text, default):
                assert "".join(words.split()) in said, (flag, words)
            count += 1
    assert count == len(re.findall(r"\((?:default:|required)", " ".join(done.stdout.split())))


def test_a_default_of_the_machine_is_said_as_such(made: Any) -> None:
    groups = made["flags"].groups(ROOT / "experiments" / "adanat_ppo.py")
    (threads,) = [flag for group in groups for flag in group.flags if flag.names == ("--threads",)]
    assert threads.default == "the machine's cores" and threads.values == "INT"


def test_text_of_help_means_nothing_to_markdown(made: Any) -> None:
    assert made["flags"]._plain("a_b *c* <d> `e_f` [g]") == r"a\_b \*c\* &lt;d&gt; `e_f` \[g\]"


def test_every_public_name_is_described_once(made: Any) -> None:
    pages = made["api"].pages()
    described = re.findall(r"^::: (\S+)$", "\n".join(pages.values()), flags=re.MULTILINE)
    assert len(described) == len(set(described)) > 60
    for path in described:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
    for top in ("natgym", "agents", "generators"):
        for init in [ROOT / top / "__init__.py", *sorted((ROOT / top).glob("*/__init__.py"))]:
            package = ".".join(init.parent.relative_to(ROOT).parts)
            for name in getattr(importlib.import_module(package), "__all__", []):
                value = getattr(importlib.import_module(package), name)
                if name == "__version__":
                    continue
                (path,) = re.findall(
                    rf"^\| \[`{name}`\]\[(\S+)\]", pages[f"reference/{package}.md"], re.MULTILINE
                )
                assert path in described
                if inspect.isclass(value) or inspect.isfunction(value):
                    assert path == f"{value.__module__}.{value.__qualname__}"


def test_a_name_is_described_where_it_lives(made: Any) -> None:
    pages = made["api"].pages()
    assert "::: natgym.env.vector.DecodeVectorEnv" in pages["reference/natgym.env.md"]
    assert "::: generators.rules.DecodeRules" in pages["reference/generators.md"]
    assert "[`DecodeRules`][generators.rules.DecodeRules]" in pages["reference/natgym.md"]


def test_links_between_files_become_links_between_pages(made: Any) -> None:
    def turned(text: str, place: str) -> str:
        return made["links"].turned(text, place, {"results.md": "Results"})

    assert turned("[x](docs/results.md#a) ![y](docs/figures/y.png)", "index.md") == (
        "[x](results.md#a) ![y](figures/y.png)"
    )
    assert turned("[docs/results.md](docs/results.md)", "index.md") == "[Results](results.md)"
    assert turned("[mnist](generators/pretrained/mnist/README.md)", "index.md") == "[mnist](tasks/mnist.md)"
    assert turned("[t](../../../docs/autonat.md)", "tasks/mnist.md") == "[t](../autonat.md)"
    assert turned("[t](tutorial/tutorial.py)", "results.md") == "[t](tutorial/index.md)"
    assert turned("[t](tutorial.py)", "tutorial/index.md") == "[t](tutorial.py)"
    assert turned("[code](natgym/task.py) [gone](natgym/gone.py)", "contributing.md") == (
        "code [gone](natgym/gone.py)"
    )
    for same in ("`[x](docs/results.md)`", "```md\n[x](docs/results.md)\n```", "[x](#a) [y](http://y/z.md)"):
        assert turned(same, "index.md") == same


def test_what_the_tutorial_printed_is_of_the_cells_as_they_are(made: Any) -> None:
    """Else run `python docs/_pages/cells.py "MACHINE"`, which takes minutes."""
    cells = made["cells"]
    found = cells.cells(cells.TUTORIAL.read_text())
    recorded = cells.json.loads(cells.PRINTED.read_text())
    assert [cell.code for cell in found] == [False, True] * (len(found) // 2) and len(found) > 10
    assert list(recorded["cells"]) == cells.keys(found), "a cell has changed since it was run"
    page = cells.page(found, recorded)
    assert page.startswith("# From images") and page.count("```python\n") == len(found) // 2
    for shown in recorded["cells"].values():
        assert shown["text"].rstrip() in page
        assert all((cells.FIGURES / f"{name}.png").is_file() and name in page for name in shown["figures"])


def test_a_changed_cell_loses_what_it_printed(made: Any) -> None:
    cells = made["cells"]
    words, more = "# %% [markdown]\n# # T\n#\n# Words.\n\n", "# %% [markdown]\n# B\n\n"
    before = cells.cells(f"{words}# %%\na = 1\n\n{more}# %%\nb\n")
    assert [cell.text for cell in before] == ["# T\n\nWords.", "a = 1", "B", "b"]
    shown = {key: {"text": f"said {at}\n", "figures": ["f"]} for at, key in enumerate(cells.keys(before))}
    recorded = {"machine": "an abacus", "seconds": 90, "cells": shown}
    page = cells.page(before, recorded)
    assert "said 0" in page and "said 1" in page and "![f](../figures/f.png)" in page
    assert "1.5 minutes on an abacus" in page
    after = [*before[:3], before[3]._replace(text="c")]
    assert "said 0" in cells.page(after, recorded) and "said 1" not in cells.page(after, recorded)
    later = [before[0], before[1]._replace(text="a = 2"), *before[2:]]
    assert "said" not in cells.page(later, recorded)
    same = [before[0], before[1]._replace(text="import os\n\na = 1  # one"), *before[2:]]
    assert "said 0" in cells.page(same, recorded) and "said 1" in cells.page(same, recorded)


class Html(HTMLParser):
    """What a page has: ids, links to follow, what a browser loads by itself, and tags in its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids, self.links, self.loaded = set[str](), list[str](), list[str]()
        self.tags = dict[str, int]()
        self.depth = 0  # of <article>, where the page's own text is
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link":
            self.loaded.append(values.get("href", ""))
        self.loaded += [values[name] for name in ("src", "srcset", "poster", "data") if name in values]
        if tag == "article":
            self.depth += 1
        if self.depth:
            self.tags[tag] = self.tags.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it strictly, which ends at the first warning."""
    pytest.importorskip("mkdocs", reason="the site is built with mkdocs (extra `docs`)")
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not re.search("warning|error", done.stdout + done.stderr, flags=re.IGNORECASE), done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    return {path: Html(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


@pytest.mark.slow
def test_every_link_and_anchor_leads_somewhere(site: Path, pages: dict[Path, Html]) -> None:
    followed = 0
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            target, anchor = urldefrag(link)
            if re.match(r"\w+:", target):
                continue
            there = Path(os.path.normpath(path.parent / unquote(target))) if target else path
            there = there / "index.html" if there.is_dir() else there
            assert there.is_relative_to(site) and there.is_file(), f"{path}: {link}"
            if anchor and there in pages:
                assert unquote(anchor) in pages[there].ids | {"__skip"}, f"{path}: {link}"
            followed += 1
    assert len(pages) > 50 and followed > 5000


@pytest.mark.slow
def test_no_page_asks_for_anything_elsewhere(site: Path, pages: dict[Path, Html]) -> None:
    for path, page in pages.items():
        foreign = [link for link in page.loaded if re.match(r"(\w+:)?//", link)]
        assert not foreign, f"{path}: {foreign}"
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", path.read_text()), path


@pytest.mark.slow
def test_pages_look_as_markdown_means_them(pages: dict[Path, Html], site: Path) -> None:
    """Another reader of Markdown, that of GitHub's flavor, finds as many of each part in a file of docs/."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table"])
    for source in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        name = {"README": ".", "CONTRIBUTING": "contributing"}.get(source.stem, source.stem)
        tags = pages[Path(os.path.normpath(site / name)) / "index.html"].tags
        tokens = markdown.parse(source.read_text())
        kinds = [token.tag for token in tokens if token.nesting == 1]
        kinds += ["pre" for token in tokens if token.type in ("fence", "code_block")]
        inline = [child for token in tokens for child in token.children or []]
        kinds += [child.tag for child in inline if child.nesting == 1 or child.tag == "img"]
        for tag in ("h1", "h2", "h3", "ul", "ol", "li", "table", "tr", "td", "pre", "img", "strong", "em"):
            assert tags.get(tag, 0) == kinds.count(tag), (source.name, tag)


@pytest.mark.slow
def test_the_site_has_what_a_reader_looks_for(site: Path) -> None:
    search = (site / "search" / "search_index.json").read_text()
    for words in ("three passes of a learned policy", "gpus-per-trial", "DecodeVectorEnv", "imagenet256-adm"):
        assert words in search
    reference = (site / "reference" / "natgym.env" / "index.html").read_text()
    assert 'id="natgym.env.vector.DecodeVectorEnv.step"' in reference
    assert [path.name for path in site.rglob("*.py")] == ["tutorial.py"]
