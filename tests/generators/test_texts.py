"""Texts as conditions: tables of distinct texts, and what reads them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from generators.checkpoints import from_pretrained, save_pretrained
from generators.conditions import balanced
from generators.encoders import WordEncoder, encode, make_encoder
from generators.texts import Captions, Text, TextTable, group

TEXTS = ["a red disc", "a blue square left of a red disc", "", "two discs", "a red disc"]


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder.of([*TEXTS, "A Cross, in green!"])


def test_words_stand_where_they_stand(encoder: WordEncoder) -> None:
    words, length = encoder.config.words, encoder.config.length
    assert length == 8 and words == tuple(sorted(words)) and "cross" in words and "Cross" not in words
    tokens, pooled = encoder(TEXTS)
    V = len(words)
    assert tokens.shape == (5, 8, 5 * V + 8) and pooled.shape == (5, 8 * V)
    for row, text in enumerate(TEXTS):
        said = text.split()
        for place in range(8):
            expected = torch.zeros(5 * V + 8)
            if place < len(said):
                expected[5 * V + place] = 1
                for near, other in enumerate(range(place - 2, place + 3)):
                    if 0 <= other < len(said):
                        expected[near * V + words.index(said[other])] = 1
            assert torch.equal(tokens[row, place].float(), expected)
            assert torch.equal(pooled[row].view(8, -1)[place].float(), expected[2 * V : 3 * V])


def test_of_an_unknown_word_its_place_is_left_and_long_texts_are_cut(encoder: WordEncoder) -> None:
    known, odd = encoder(["a red disc", "a purple disc"])[0].float()
    V = len(encoder.config.words)
    lost = known - odd
    assert odd[1, 2 * V : 3 * V].sum() == 0 and lost[1].sum() == 1, "the word is gone, its place is not"
    assert lost[0].sum() == lost[2].sum() == 1, "and its neighbors don't see it"
    long = "a red disc " * 5
    assert torch.equal(encoder([long])[0], encoder([" ".join(long.split()[:8])])[0])


def test_a_large_vocabulary_has_codes_of_fixed_width() -> None:
    """A word's code is its own whatever others there are, and no two are near each other."""
    words = [f"w{number}" for number in range(500)]
    encoder = WordEncoder.of([" ".join(words[row : row + 10]) for row in range(0, 500, 10)])
    tokens, pooled = encoder(["w3 w4 w5", "w4"])
    assert tokens.shape == (2, 10, 5 * 64 + 10) and pooled.shape == (2, 640)
    middle = tokens[:, :, 128:192].float()
    assert torch.equal(middle[0, 1], middle[1, 0]) and middle[1, 1:].abs().max() == 0
    codes = torch.from_numpy(encoder.codes[:-1]).float()
    cosines = codes @ codes.T - torch.eye(500)
    assert cosines.abs().max() < 0.7 and codes.norm(dim=1).sub(1).abs().max() < 0.01
    other = WordEncoder.of([" ".join(words[3:203])])
    assert torch.equal(other(["w4"])[0][0, 0, 128:192].float(), middle[1, 0])


def test_each_text_is_read_as_alone(encoder: WordEncoder) -> None:
    together = encode(TEXTS, encoder)
    for row, text in enumerate(TEXTS):
        alone = encode([text], encoder)
        assert torch.equal(together[[row]].values, alone.values)
        assert torch.equal(together[[row]].vectors, alone.vectors) and alone.names == [text]
    assert len(together.table) == 4, "each distinct text once, the empty one among them"
    assert torch.equal(together.null().values, together[[2, 2, 2, 2, 2]].values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a purple disc", "'purple' is no word that is known here; these are: a, "),
        ("a red disc " * 3, "has 9 words; at most 8 are read"),
        ("красный круг", "'красный' is no word"),
        ("?!", "has no words"),
    ],
)
def test_what_can_not_be_read_is_told(encoder: WordEncoder, text: str, said: str) -> None:
    assert said in (encoder.complaint(text) or "")
    assert all(encoder.complaint(fine) is None for fine in TEXTS)


def test_an_encoder_is_saved_and_known_by_what_it_knows(encoder: WordEncoder, tmp_path: Path) -> None:
    save_pretrained(encoder, tmp_path / "words")
    again: Any = from_pretrained(tmp_path / "words")
    assert again.name == encoder.name != WordEncoder.of(TEXTS).name
    assert torch.equal(encode(TEXTS, again).values, encode(TEXTS, encoder).values)
    captions = Captions((("a red disc", "a disc in green"),))
    assert make_encoder(str(tmp_path / "words"), captions).name == encoder.name
    made: Any = make_encoder("words", captions)
    assert "green" in made.config.words, "all wordings of an image are known"
    with pytest.raises(ValueError, match="'clap:x' is not words"):
        make_encoder("clap:x", captions)
    with pytest.raises(ValueError, match="no word in the captions"):
        WordEncoder.of(["", " "])


def test_tables_are_shared_cut_and_joined(encoder: WordEncoder) -> None:
    text = encode(TEXTS, encoder)
    part = text[[4, 1]]
    assert part.table is text.table and part.names == [TEXTS[4], TEXTS[1]]
    moved = part.to("meta")
    assert len(moved.table) == 3, "the null and what is there"
    other = encode(["two discs", "a blue disc"], encoder)
    joined = Text.cat([text, other, text[:1]])
    assert joined.names == [*TEXTS, "two discs", "a blue disc", TEXTS[0]]
    assert torch.equal(joined.values, torch.cat([text.values, other.values, text[:1].values]))
    assert torch.equal(joined.null().values[0], text.null().values[0])
    assert text.key != other.key and text[[0]].key == text[[4]].key
    assert balanced(text, 7).names[5:] == TEXTS[:2]
    foreign = TextTable(text.table.tokens_MSE, text.table.pooled_MP, text.table.texts, "another")
    with pytest.raises(ValueError, match="were encoded by another and words-"):
        Text.cat([text, Text(foreign, text.rows_B)])


def test_where_texts_are_they_stay(encoder: WordEncoder) -> None:
    """Also by a device's shorter name, on a GPU that is not there."""
    text = encode(TEXTS, encoder)
    assert text.to("cpu") is text
    with FakeTensorMode(allow_non_fake_inputs=True):
        table = TextTable(
            torch.zeros(3, 2, 2, device="cuda"), torch.zeros(3, 2, device="cuda"), ("", "a", "b")
        )
        there = Text(table, torch.tensor([1, 2], device="cuda"))
        assert there.device == torch.device("cuda:0")
        assert there.to("cuda") is there and there.to("cuda:0") is there


def test_kinds_and_fingerprints(encoder: WordEncoder) -> None:
    text = encode(["a red disc", "a blue square", "two discs", "a red disc left of a blue square"], encoder)
    assert text.groups == ["1 thing", "1 thing", "0-4 words", "2 things"]
    kinds = text.kinds_B.tolist()
    assert kinds[0] == kinds[1] and len(set(kinds)) == 3
    assert group("one two three four five six") == "5-9 words"
    assert text.fingerprint == encode(text.names, encoder).fingerprint != text[[1, 0, 2, 3]].fingerprint


def test_captions_wait_for_an_encoder() -> None:
    captions = Captions((("a cat", "one cat"), ("a dog",)))
    assert captions.names == ["a cat", "a dog"] and len(captions) == 2
    assert captions[torch.tensor([1])].names == ["a dog"]
    assert Captions.cat([captions, captions]).names == ["a cat", "a dog"] * 2
    assert captions.null().names == ["", ""]
    with pytest.raises(ValueError, match="read by an encoder first"):
        captions.values  # noqa: B018
