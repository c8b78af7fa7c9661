"""Labels and texts behave alike behind one surface."""

from typing import Any

import pytest
import torch
from torch import Tensor

from generators.conditions import Condition, ConditionEmbedding, Labels, in_rows
from generators.given import Given
from generators.texts import Text
from rounding import assert_rounded


def labels() -> Labels:
    return Labels(torch.tensor([3, 0, 2, 3]), 4)


def texts() -> Text:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(4, 5, 6, generator=generator)
    embeddings[3] = embeddings[0]
    return Text.of(embeddings, torch.randn(5, 6, generator=generator), ("cat", "dog", "owl", "cat"))


@pytest.fixture(params=[labels, texts])
def condition(request: pytest.FixtureRequest) -> Condition:
    return request.param()


@pytest.mark.parametrize(
    "index",
    [
        slice(1, 3),
        slice(None, None, 2),
        [2, 0, 2],
        torch.tensor([2, 0, 2]),
        torch.tensor([True, False, False, True]),
        torch.tensor([-1]),
        [],
    ],
)
def test_indexing_selects_values_and_names_together(condition: Condition, index: Any) -> None:
    picked = condition[index]
    assert type(picked) is type(condition)
    assert torch.equal(picked.values, condition.values[index])
    assert torch.equal(picked.vectors, condition.vectors[index])
    rows = torch.arange(4)[index].tolist()
    assert picked.names == [condition.names[row] for row in rows] and len(picked) == len(rows)


def test_cat_joins_what_indexing_parts(condition: Condition) -> None:
    joined = type(condition).cat([condition[:1], condition[1:1], condition[1:]])
    assert torch.equal(joined.values, condition.values) and joined.names == condition.names
    twice = type(condition).cat([condition, condition.null()])
    assert len(twice) == 8 and torch.equal(twice[4:].values, condition.null().values)


def test_null_has_the_same_length_and_stays_null(condition: Condition) -> None:
    null = condition.null()
    assert len(null) == 4 and null.values.shape == condition.values.shape
    assert torch.equal(null.null().values, null.values) and null.null().key == null.key
    assert (null.values == null.values[:1]).all() and null.key != condition.key


def test_keys_are_equal_for_equal_conditions_only(condition: Condition) -> None:
    assert condition[[0]].key == condition[[3]].key != condition[[1]].key
    assert condition[[0, 1]].key != condition[[1, 0]].key
    assert len({condition.key, condition[:].key, condition.null().key}) == 2
    assert labels().key != texts().key
    given = Given(condition, torch.tensor([[1, -1], [1, -1], [1, -1], [-1, 1]]))
    for rows in (condition, given):
        assert [rows.keys.index(key) for key in rows.keys] == [0, 1, 2, 0 if rows is condition else 3]
        assert len({*rows.keys} | {*rows.null().keys}) == len({*rows.keys}) + len({*rows.null().keys})


def test_moving_keeps_everything(condition: Condition) -> None:
    moved = condition.to("meta")
    assert moved.values.is_meta and moved.null().values.is_meta and len(moved) == 4
    assert condition.to("cpu").names == condition.names


def test_a_figure_has_ten_rows_or_what_there_are_images_for() -> None:
    pool = labels()
    counts = {most: len(in_rows(pool, most)) for most in (1, 4, 11, 40, 1000)}
    assert counts == {1: 4, 4: 4, 11: 8, 40: 40, 1000: 40}
    assert in_rows(pool, 11).values.tolist() == 2 * pool.values.tolist()


def test_label_vectors_are_one_hot_and_zero_for_null() -> None:
    assert labels().vectors.tolist() == torch.eye(4)[[3, 0, 2, 3]].tolist()
    assert labels().null().values.tolist() == [4] * 4
    assert labels().null().vectors.eq(0).all() and labels().vectors.dtype == torch.float32
    assert Labels.every(4).values.tolist() == [0, 1, 2, 3]


def test_text_vectors_are_means() -> None:
    text = texts()
    torch.testing.assert_close(text.vectors[1], sum(text.values[1]) / 5)
    torch.testing.assert_close(text.null().vectors, text.table.tokens_MSE[0].mean(0).expand(4, -1))


def embed(values: Tensor, **sizes: int | None) -> Tensor:
    torch.manual_seed(0)
    return ConditionEmbedding(**sizes, width=8)(values)


def test_embedding_gives_condition_tokens() -> None:
    """One normalized token per class, the null class included; a projection of each text token."""
    tokens = embed(torch.arange(5), num_classes=4, text_width=None)
    assert tokens.shape == (5, 1, 8)
    assert_rounded(tokens.mean(-1), torch.zeros(5, 1), size=1)
    torch.testing.assert_close(tokens.var(-1, correction=0), torch.ones(5, 1), atol=1e-3, rtol=0)
    values = texts().values
    projected = embed(values, num_classes=None, text_width=6)
    assert projected.shape == (4, 5, 8)
    linear = projected - embed(torch.zeros_like(values), num_classes=None, text_width=6)
    doubled = embed(2 * values, num_classes=None, text_width=6)
    assert_rounded(doubled - projected, linear)


@pytest.mark.parametrize(("num_classes", "text_width"), [(None, None), (4, 6)])
def test_embedding_takes_one_kind(num_classes: int | None, text_width: int | None) -> None:
    with pytest.raises(ValueError, match="give exactly one of the two"):
        ConditionEmbedding(num_classes, text_width, 8)
