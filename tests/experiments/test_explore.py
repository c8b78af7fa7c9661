"""explore.py with tiny budgets: what it plays, what it refuses, and the panel in reports."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from in_process import Call

from generators.schedules import reference

SMALL = ["--images", 4, "--steps", 2]


def content(page: Path) -> dict[str, Any]:
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(data)


def labels(page: Path) -> list[str]:
    return [policy["label"] for policy in content(page)["policies"]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("maskgit", ["maskgit", "reference"]),
        ("adanat", ["adanat", "start"]),
        ("adanat halton file.json", ["adanat", "halton", "own"]),
        ("maskgit halton --against linear", ["maskgit", "halton", "linear"]),
    ],
)
def test_a_page_of_the_policies_asked_for(
    call: Call, tmp_path: Path, arguments: str, expected: list[str]
) -> None:
    reference(3, name="own").save(tmp_path / "file.json")
    code, out, err = call("explore.py", *arguments.split(), *SMALL, "--seeds", 3, "--output", "pages/a.html")
    assert code == 0, err
    told = content(tmp_path / "pages" / "a.html")
    assert (
        labels(tmp_path / "pages" / "a.html") == expected
        and told["title"] == f"digits: {', '.join(expected)}"
    )
    assert told["names"] == ["0", "1", "2", "3"] and told["seed"] == 3
    assert [policy["steps"] for policy in told["policies"]] == [
        3 if name == "own" else 2 for name in expected
    ]
    assert f"pages/a.html: 4 images under {', '.join(expected)}; 0." in out


def test_classes_and_prompts_are_chosen(call: Call, tmp_path: Path) -> None:
    assert call("explore.py", "halton", *SMALL, "--label", 3, 7, "--output", "classes.html")[0] == 0
    assert content(tmp_path / "classes.html")["names"] == ["3", "7", "3", "7"]
    asked = ["--task", "shapes", "--prompt", "a red disc", "a blue cross", "--rules", "random"]
    code, _, err = call("explore.py", "maskgit", *asked, *SMALL, "--output", "texts.html")
    assert code == 0, err
    assert content(tmp_path / "texts.html")["names"] == ["a red disc", "a blue cross"] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "no policy is given"),
        ("reference", "reference alone is nothing to compare; name another policy, or --against"),
        ("nowhere", "policy 'nowhere' is not a file"),
        ("maskgit --images 0", "images 0"),
        ("maskgit --megabytes 0", "megabytes 0"),
        (
            "maskgit --megabytes .001",
            "4 images under 2 policies take at least 0.0 MB, more than 0.001; draw fewer",
        ),
        ("maskgit --label eleven", "label 'eleven' is not one of 0, 1, 2"),
        ("maskgit --label 1 --prompt one", "label and prompt are both given"),
        ("maskgit --rules haltom", "rule 'haltom'"),
        ("maskgit --output here.html", "here.html exists and is not overwritten"),
    ],
)
def test_refused_in_one_line(call: Call, tmp_path: Path, arguments: str, said: str) -> None:
    (tmp_path / "here.html").touch()
    code, _, err = call("explore.py", *SMALL, *arguments.split())
    assert code in (1, 2) and said in err.strip().splitlines()[-1], err
    assert not (tmp_path / "explore.html").exists() and not (tmp_path / "here.html").read_text()


def test_reports_show_the_policies_of_the_table(call: Call, tmp_path: Path) -> None:
    small = ["--images", 40, "--seeds", 0, 1, "--threads", 1, "--steps", 2, 3]
    assert call("evaluate.py", "--policy", "reference", "halton", *small, "--output", "table")[0] == 0
    told = content(tmp_path / "table" / "report.html")
    assert told == json.loads((tmp_path / "table" / "explore.json").read_text())
    rows = json.loads((tmp_path / "table" / "results.json").read_text())["rows"]
    in_table = {f"{row['policy']}, T = {row['steps']}" for row in rows if "steps" in row}
    assert {policy["label"] for policy in told["policies"]} == in_table and len(in_table) == 4
