"""The shipped digits modules, loaded once."""

from typing import Any, NamedTuple

import pytest

from natgym.loading import load_companion, load_generator


class Task(NamedTuple):
    """Generator, tokenizer and classifier of one task."""

    generator: Any
    tokenizer: Any
    classifier: Any


@pytest.fixture(scope="session")
def digits() -> Task:
    generator, task = load_generator("digits")
    return Task(generator, *(load_companion(None, kind, task) for kind in ("tokenizer", "classifier")))
