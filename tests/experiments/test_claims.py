"""Claims: the rule of verdicts, the commands of all rows, and that the page says what raw figures give."""

import contextlib
import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from in_process import ended
from PIL import Image
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import _claims  # noqa: E402
import _claims_page  # noqa: E402
from _claim_rows import ROWS  # noqa: E402
from _claim_terms import Command, Row, Statement  # noqa: E402

Call = Callable[..., tuple[int, str, str]]
PAGE = ROOT / "docs" / "claims.md"
MEASURED = ROOT / "docs" / "claims"


def raw(**arms: list[float]) -> pd.DataFrame:
    """The raw table of arms, seeds in another order for each."""
    frames = []
    for number, (arm, values) in enumerate(arms.items()):
        seeds = np.roll(np.arange(len(values)), number)
        distances = np.array(values)[seeds]
        frames.append(
            pd.DataFrame({"arm": arm, "seed": seeds, "distance": distances, "recall": 1 - distances})
        )
    return pd.concat(frames, ignore_index=True)


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    ours, theirs = np.array([0.31, 0.27, 0.35, 0.30]), np.array([0.42, 0.33, 0.39, 0.45])
    table = raw(ours=ours.tolist(), theirs=theirs.tolist())
    pair, allowed = _claims.difference(Statement(ours="ours", theirs="theirs", allowed=0.1), table)
    low, high = stats.ttest_1samp(ours - theirs, 0).confidence_interval(0.95)
    assert (pair.mean - pair.half_width, pair.mean + pair.half_width) == pytest.approx((low, high))
    assert allowed == pytest.approx(0.1 * theirs.mean()) and pair.n == 4
    gain, _ = _claims.difference(
        Statement(ours=("ours", "theirs"), theirs=("theirs", "ours"), metric="recall"), table
    )
    assert gain.each == pytest.approx(2 * (theirs - ours)) and gain.minus == "(theirs - ours)"


@pytest.mark.parametrize(
    ("each", "lower", "allowed", "expected"),
    [
        ((-0.2, -0.21, -0.19), True, 0.0, "holds"),
        ((-0.2, -0.21, -0.19), False, 0.0, "fails"),
        ((0.2, 0.21, 0.19), True, 0.0, "fails"),
        ((0.2, 0.21, 0.19), False, 0.0, "holds"),
        ((-0.2, 0.1, 0.0), True, 0.0, "not shown"),
        ((0.02, 0.021, 0.019), True, 0.05, "holds"),  # worse, and no more than is allowed
        ((0.2, 0.21, 0.19), True, 0.05, "fails"),
        ((-0.2, -0.21, -0.19), True, -0.3, "fails"),  # better, and not by enough
        ((-0.4, -0.41, -0.39), True, -0.3, "holds"),
    ],
)
def test_the_verdict_follows_from_the_interval(
    each: tuple[float, ...], lower: bool, allowed: float, expected: str
) -> None:
    sign = 1 if lower else -1
    table = (
        pd.DataFrame({"seed": range(3), "distance": each}),
        pd.DataFrame({"seed": range(3), "distance": 0}),
    )
    pair = _claims.paired_difference(*table)
    assert _claims.verdict(pair, lower=lower, allowed=allowed) == expected
    tested = {  # the same by p-values of one-sided tests at 2.5 %
        "holds": stats.ttest_1samp(sign * np.array(each), allowed, alternative="less").pvalue < 0.025,
        "fails": stats.ttest_1samp(sign * np.array(each), allowed, alternative="greater").pvalue < 0.025,
    }
    assert [name for name, shown in tested.items() if shown] == [expected] * (expected != "not shown")


def test_two_seeds_are_no_test_and_one_statement_fails_all() -> None:
    with pytest.raises(ValueError, match="2 seeds: a claim is tested by 3 at least"):
        _claims.verdict(
            _claims.difference(Statement(ours="a", theirs="b"), raw(a=[1, 2], b=[2, 4]))[0], lower=True
        )
    assert _claims.together(["holds", "holds"]) == "holds"
    assert _claims.together(["holds", "not shown"]) == "not shown"
    assert _claims.together(["holds", "not shown", "fails"]) == "fails"
    with pytest.raises(ValueError, match="distance of c was not measured; there are a, b"):
        _claims.difference(Statement(ours="c", theirs="b"), raw(a=[1, 2], b=[2, 4]))


def test_more_of_what_is_better_is_better() -> None:
    better = {"distance": True, "recall": False, "valid": False, "all": False, "new": False, "gflop": True}
    better |= {"off": True, "nfe": True}
    assert {metric: _claims.lower_is_better(metric) for metric in better} == better


def test_a_number_of_categories_is_off_by_a_share_of_the_true_one(tmp_path: Path) -> None:
    jobs = [
        {
            "split": split,
            "num_categories": number,
            "cpu_seconds": 1.0,
            "rows": {"k": dict.fromkeys(("all", "old", "new"), 0.5)},
        }
        for split, number in enumerate((6, 8, 9))
    ]
    results = {"protocol": {"categories": list("abcdefgh")}, "jobs": jobs}
    (tmp_path / "counted-0").mkdir()
    (tmp_path / "counted-0" / "results.json").write_text(json.dumps(results))
    counted = Command(name="counted", line="mmgcd_discover.py --splits {seeds}", toy="")
    row = dataclasses.replace(ROWS["mmgcd-number"], commands=(counted,))
    found = _claims.measured(row, (0, 1, 2), tmp_path)
    assert found["arm"].tolist() == ["counted: k"] * 3
    assert found["off"].tolist() == [2 / 8, 0, 1 / 8]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_statement_is_of_a_command(row: Row) -> None:
    names = [command.name for command in row.commands]
    assert len(row.seeds) >= 3 and len(set(names)) == len(names) and row.statements
    for statement in row.statements:
        for arms in (statement.ours, statement.theirs):
            for arm in [arms] if isinstance(arms, str) else arms:
                assert arm.partition(": ")[0] in names, arm


COMMANDS = {command.name: command for row in ROWS.values() for command in row.commands}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_can_be_parsed(command: Command) -> None:
    for toy in (False, True):
        words = _claims.words_of(command, 2, (0, 1, 2), Path("runs"), toy)
        assert _claims.check(words).output == Path("runs") / f"{command.name}-2"


def test_a_command_is_the_same_in_all_rows() -> None:
    lines: dict[str, set[str]] = {}
    for row in ROWS.values():
        for command in row.commands:
            lines.setdefault(command.name, set()).add(command.line)
    assert all(len(found) == 1 for found in lines.values()), lines
    assert len(lines) < sum(len(row.commands) for row in ROWS.values()), "some are shared"


def test_a_mistake_in_a_command_ends_all_before_anything_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _claims.check(["evaluate.py", "--stpes", "4"])
    assert "evaluate.py: error: " in capsys.readouterr().err and sys.argv[0] != "evaluate.py"


def test_the_page_says_what_the_raw_figures_give() -> None:
    """Printed by `claims.py --table`, and put there by hand."""
    text, tables = PAGE.read_text(), _claims_page.tables(MEASURED)
    for table in tables.split("\n\n"):
        assert table in text, "print the tables anew: claims.py --table"
    assert {path.stem for path in MEASURED.glob("*.csv")} <= set(ROWS)


def test_what_was_not_measured_has_no_verdict(tmp_path: Path) -> None:
    told = _claims_page.tables(tmp_path)
    assert told.count("| not measured here |") == len(ROWS) and "at this scale" not in told
    with pytest.raises(ValueError, match="none is no folder"):
        _claims_page.tables(tmp_path / "none")


@pytest.mark.parametrize("path", sorted(MEASURED.glob("*.csv")), ids=lambda path: path.stem)
def test_a_measured_row_has_all_that_belongs_to_it(path: Path) -> None:
    row, found = ROWS[path.stem], pd.read_csv(path)
    assert json.loads(path.with_suffix(".json").read_text())["seeds"] == list(row.seeds)
    assert Image.open(path.with_suffix(".png")).size[0] > 300
    for statement in row.statements:
        pair, _ = _claims.difference(statement, found)
        values = {
            arm: found[found["arm"] == arm].set_index("seed")[statement.metric]
            for arm in (statement.ours, statement.theirs)
            if isinstance(arm, str)
        }
        if len(values) == 2:
            each = values[str(statement.ours)] - values[str(statement.theirs)]
            assert sorted(pair.each) == pytest.approx(sorted(each)) and pair.n == len(row.seeds)
    assert path.stat().st_size < 50_000


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts in this process, where others would start their own."""
    start = subprocess.run

    def run(words: list[str], **options: Any) -> Any:
        if words[0] != sys.executable:
            return start(words, **options)
        sys.modules.pop(f"_{Path(words[1]).stem}", None)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = ended(words[1:])
        return subprocess.CompletedProcess(words, code, said.getvalue().encode())

    monkeypatch.setattr(subprocess, "run", run)


def test_a_row_runs_at_toy_size_goes_on_and_says_no_verdict(call: Call, here: None, tmp_path: Path) -> None:
    code, said, error = call("claims.py", "--quick", "--row", "enat-compute", "--output", "toy")
    assert code == 0, error
    toy = tmp_path / "toy"
    found = pd.read_csv(toy / "enat-compute.csv")
    assert list(found["arm"]) == ["nat-T8: maskgit", "enat-T8: maskgit"] and (found["distance"] > 0).all()
    assert json.loads((toy / "enat-compute.json").read_text())["seeds"] == [0]
    assert Image.open(toy / "figures" / "enat-compute.png").size[0] > 300
    assert not any(verdict in said for verdict in ("holds", "fails", "not shown"))
    (row,) = (
        row for row in json.loads((toy / "nat-T8-0" / "results.json").read_text())["rows"] if "steps" in row
    )
    assert found["distance"][0] == pytest.approx(np.mean(row["per_seed"]["distance"]), rel=1e-5)
    (toy / "enat-T8-0.txt").unlink()  # as if it had been stopped there
    before = (toy / "nat-T8-0" / "results.json").stat().st_mtime_ns
    code, _, error = call("claims.py", "--resume", "toy")
    assert code == 0, error
    assert error.count("--resume") == 1 and "distance" in (toy / "enat-T8-0.txt").read_text()
    assert (toy / "nat-T8-0" / "results.json").stat().st_mtime_ns == before
    assert pd.read_csv(toy / "enat-compute.csv").equals(found)
    told = toy / "nat-T8-0.txt"
    assert told.read_text().startswith("evaluate.py --task digits --generators train-nat-0/generator ")
    told.write_text(told.read_text().replace("--steps 8", "--steps 4"))  # a row that was changed
    code, _, error = call("claims.py", "--resume", "toy")
    assert code == 1 and "has another command now; begin anew" in error


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_every_row_runs_at_toy_size(call: Call, here: None, tmp_path: Path, name: str) -> None:
    code, said, error = call("claims.py", "--quick", "--row", name, "--output", "toy")
    assert code == 0, error
    assert not any(verdict in said for verdict in ("holds", "fails", "not shown"))
    figures = {path.stem for path in (tmp_path / "toy" / "figures").iterdir()}
    assert figures == {name} | {f"{name}-{shown}" for shown, _ in ROWS[name].shows}
    found = pd.read_csv(tmp_path / "toy" / f"{name}.csv")
    assert all(_claims.difference(one, found)[0].n >= 1 for one in ROWS[name].statements)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], "nothing is asked for"), (["--row", "fid"], "row fid: there are autonat-generation-T4")],
)
def test_mistakes_are_one_line(call: Call, arguments: list[str], expected: str) -> None:
    code, said, error = call("claims.py", *arguments)
    assert code == 2 and expected in error and not said and error.count("\n") == 1


def test_the_list_has_every_command(call: Call) -> None:
    code, said, _ = call("claims.py", "--list")
    assert code == 0 and all(f"{row.name}: " in said and row.budget in said for row in ROWS.values())
    assert all(command.line in said for row in ROWS.values() for command in row.commands)
