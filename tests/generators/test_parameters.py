"""The table of decoding parameters: what it holds, who may name its rows, and the documents that show it."""

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from generators.parameters import STANDARD, DecodingParameter, completed, named_columns, register, stacked
from generators.schedules import PARAMETERS, TABLE, DecodeParams

ROOT = Path(__file__).resolve().parents[2]
POSITIONAL = (
    r"(PARAMETERS|TABLE|ACTIONS)\[[-\d:]+\]",
    r".*(table|free|actions|row)(_T4|_B4|_TK|_BK)\[.*, :?-?\d+:?\]",
    r"\(\w+,\) \* 4|column (<|>=) \d",
    r"(torch|np)\.(ones|zeros|full|empty)\(\(?[\w.]*steps, 4\b.*",
)
KNOWS_POSITIONS = {"generators/parameters.py", "generators/decoding.py"}


def test_the_four_stand_in_the_official_order() -> None:
    assert PARAMETERS == STANDARD == tuple(TABLE)
    assert PARAMETERS == ("mask_ratio", "remask_temperature", "sampling_temperature", "guidance_scale")
    assert [p.range for p in TABLE.values()] == ["in [0, 1]", ">= 0", "> 0", ">= 0"]
    assert [p.decides(5) for p in TABLE.values()] == [4, 4, 5, 5]


def test_a_table_in_use_takes_no_more_parameters() -> None:
    with pytest.raises(ValueError, match="before anything else of natgym"):
        register(DecodingParameter(name="late", symbol="x", title="late", neutral=0.0, bound=1.0))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "no name"}, "no identifier"),
        ({"neutral": -1.0}, "neutral value -1.0 must be >= 0"),
        ({"neutral": 0.0, "positive": True}, "must be > 0"),
        ({"bound": 0.0}, "both must be positive"),
    ],
)
def test_a_wrong_description_is_a_value_error(wrong: dict, said: str) -> None:
    fine = {"name": "x", "symbol": "x", "title": "x", "neutral": 0.0, "bound": 1.0}
    with pytest.raises(ValueError, match=said):
        DecodingParameter(**(fine | wrong))


def test_tables_are_laid_out_by_name() -> None:
    two = stacked({"guidance_scale": torch.tensor([3.0]), "mask_ratio": torch.tensor([0.5])})
    assert two.tolist() == [[0.5, 0.0, 1.0, 3.0]], "the others are neutral"
    assert torch.equal(named_columns(two[:, [0, 3]], ["mask_ratio", "guidance_scale"]), two)
    assert completed(two) is two
    with pytest.raises(ValueError, match="in this order"):
        named_columns(two[:, [0, 3]], ["guidance_scale", "mask_ratio"])
    with pytest.raises(ValueError, match="not 3"):
        completed(two[:, :3])


def test_params_are_a_tuple_with_names_that_pickles() -> None:
    params = DecodeParams.from_table(torch.tensor([[0.5, 1.0, 2.0, 3.0]]))
    again = pickle.loads(pickle.dumps(params))
    assert type(again) is DecodeParams and torch.equal(again.table, params.table)
    assert [again.mask_ratio.item(), again.guidance_scale.item()] == [0.5, 3.0]
    with pytest.raises(AttributeError, match="'top_q' is not one of"):
        _ = params.top_q


def test_the_page_on_the_environment_has_ranges_and_bounds() -> None:
    text = (ROOT / "docs" / "environment.md").read_text()
    for p in TABLE.values():
        assert f"| `{p.name}` | {p.range} | ±{p.bound:g} |" in text


@pytest.mark.parametrize("path", ["docs/environment.md", "natgym/env/vector.py"])
def test_the_tables_for_readers_are_the_table(path: str) -> None:
    found = re.findall(r"\| (\d) \| `?(\w+)`?[^|]*\|(.*)\|\n", (ROOT / path).read_text())
    found = [row for row in found if row[1] in TABLE]
    assert [row[1] for row in found] == list(TABLE), path
    for (number, name, rest), at in zip(found, range(len(TABLE)), strict=True):
        assert int(number) == at
        assert TABLE[name].formula in rest and f"+-{TABLE[name].bound:g}" in rest.replace("±", "+-"), name


def positional(tree: ast.AST) -> Iterator[int]:
    """Lines that take columns of parameters by number, or suppose that there are four."""
    for node in ast.walk(tree):
        text = (
            ast.unparse(node) if isinstance(node, ast.Subscript | ast.BinOp | ast.Compare | ast.Call) else ""
        )
        if any(re.fullmatch(pattern, text) for pattern in POSITIONAL):
            yield node.lineno


def test_no_other_file_names_parameters_by_position() -> None:
    sources = [
        path
        for folder in ("generators", "natgym", "agents", "experiments")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    sources = [path for path in sources if str(path.relative_to(ROOT)) not in KNOWS_POSITIONS]
    found = [f"{path}:{line}" for path in sources for line in positional(ast.parse(path.read_text()))]
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "PARAMETERS[:2]",
        "column < 2",
        "(empty,) * 4",
        "torch.ones(steps, 4)",
        "table_T4[-1, :2]",
        "table_B4[:, 0]",
    ],
)
def test_the_scan_sees_what_used_to_be_there(text: str) -> None:
    assert list(positional(ast.parse(text)))
